"""`serve`: composes store, broker, identity and service on one event loop, and serves them on one origin."""

from __future__ import annotations

import click

from muster.cli.refusals import told

_SECONDS = click.FloatRange(min=0)


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
@click.option(
    "--offline-grace",
    default=60.0,
    type=_SECONDS,
    metavar="SECONDS",
    show_default=True,
    help="How long a manager may be away before tasks for its user endpoints end.",
)
@click.option(
    "--single-offline-grace",
    default=3600.0,
    type=_SECONDS,
    metavar="SECONDS",
    show_default=True,
    help="The same for single-user endpoints.",
)
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
    offline_grace: float,
    single_offline_grace: float,
) -> None:
    """Run the service: API, identity, store and broker."""
    from muster.cli.hosting import Hosting  # the service's imports are for those who serve
    from muster.cli.plan import Plan
    from muster.service import Settings

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
    settings = Settings(offline_grace_s=offline_grace, single_offline_grace_s=single_offline_grace)
    raise SystemExit(Hosting(plan, settings).run())
