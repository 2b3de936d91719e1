"""`serve`: composes store, broker, identity and service on one event loop, and serves them on one origin."""

from __future__ import annotations

import click

from muster.cli.refusals import told


@click.command()
@click.option("--listen", default="127.0.0.1:5000", metavar="HOST:PORT", show_default=True, help="API and identity.")
@click.option("--data", default=None, metavar="DIR", envvar="MUSTER_DATA", help="Where everything is kept.")
@click.option(
    "--amqp-listen", default="127.0.0.1:5672", metavar="HOST:PORT", show_default=True, help="The embedded broker."
)
@click.option("--database", default=None, metavar="URL", envvar="MUSTER_DATABASE", help="Instead of SQLite in --data.")
@click.option("--amqp", default=None, metavar="URL", envvar="MUSTER_AMQP", help="A RabbitMQ, as its administrator.")
@click.option("--public-url", default=None, metavar="URL", help="Under which clients reach the API.")
@click.option("--amqp-public", default=None, metavar="URL", help="Under which clients reach the broker.")
@click.option("--amqp-management", default=None, metavar="URL", help="RabbitMQ's management API, to close connections.")
@told
def serve(
    listen: str,
    data: str | None,
    amqp_listen: str,
    database: str | None,
    amqp: str | None,
    public_url: str | None,
    amqp_public: str | None,
    amqp_management: str | None,
) -> None:
    """Run the service: API, identity, store and broker."""
    from muster.cli.hosting import Hosting  # the service's imports are for those who serve
    from muster.cli.plan import Plan

    plan = Plan.of(
        listen=listen,
        data=data,
        amqp_listen=amqp_listen,
        database=database,
        amqp=amqp,
        public_url=public_url,
        amqp_public=amqp_public,
        amqp_management=amqp_management,
    )
    raise SystemExit(Hosting(plan).run())
