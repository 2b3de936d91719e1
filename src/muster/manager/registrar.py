"""The registrar: started by the monitor before the agent, on the terminal, as the agent's account.

It logs in when that is needed, registers when root has no seal key yet, and hands root the endpoint's id, the key and
its owner's identities. It must end before anything listens to the network: the agent never sees the key.
"""

from __future__ import annotations

import argparse
import socket
import sys

from muster.errors import ConfigInvalid, LoginNeeded, MusterError, NotPermitted, Outage, Refusal, Unauthenticated
from muster.manager.readiness import checked
from muster.manager.registration import known, register
from muster.manager.rootlink import Hello, Site, keep_private, receive_hello
from muster.rest import Rest
from muster.transport.probe import warning

# The numbers of sysexits.h, as the official endpoint uses them.
_EXIT = ((Unauthenticated, 77), (NotPermitted, 77), (ConfigInvalid, 78), (Outage, 75), (Refusal, 69), (MusterError, 70))


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--link-fd", type=int, required=True)
    link = socket.socket(fileno=options.parse_args().link_fd)
    keep_private()  # before the tokens and the seal key are in our memory
    hello, site = receive_hello(link)
    try:
        answer = _introduce(hello, site)
    except MusterError as why:
        said = why.message().replace("`muster login`", f"`muster-endpoint login {hello.name}`")
        print(f"Error: {said}", file=sys.stderr, flush=True)  # noqa: T201 -- the terminal is its job
        sys.exit(next(code for kind, code in _EXIT if isinstance(why, kind)))
    link.send(answer.encode())
    id_ = answer[:36]
    print(f"    >>> Multi-User Endpoint ID: {id_} <<<", flush=True)  # noqa: T201 -- the seed's banner


def _introduce(hello: Hello, site: Site) -> str:
    for ignored in checked(site).warnings:
        _warn(ignored)
    rest = Rest()
    try:
        owners = _owners(rest)
        new_key = hello.need_key or not known(rest, hello.endpoint_id)
    except Outage as why:
        if hello.need_key or not hello.owners:
            raise
        _warn(f"{why.message()} The endpoint starts, and waits for it.")
        return f"{hello.endpoint_id}  {hello.owners}"  # all is known from last time: the agent waits for the service
    registered = register(rest, hello, site, new_seal_key=new_key)
    if registered.command_queue_info and (trouble := warning(registered.command_queue_info.connection_url)):
        _warn(trouble)
    if not new_key:
        return f"{hello.endpoint_id}  {owners}"
    key = registered.seal_key
    if key is None:
        raise Refusal.told("The service gave no seal key: it is too old, or not Muster's.")
    return f"{registered.endpoint_id} {key.hex()} {owners}"


def _warn(sentence: str) -> None:
    print(f"Warning: {sentence}", file=sys.stderr, flush=True)  # noqa: T201 -- the terminal is its job


def _owners(rest: Rest) -> str:
    """Who we are to the service; asks for a login when it does not know us and somebody sits at the terminal."""
    try:
        person = rest.call("GET", "/v2/oauth2/userinfo")
    except (LoginNeeded, Unauthenticated):
        from muster.rest.login import Login, can_ask

        if not can_ask():
            raise
        print("> Endpoint Manager initialization", file=sys.stderr, flush=True)  # noqa: T201 -- the seed's line
        Login(rest.url).with_code()
        person = Rest().call("GET", "/v2/oauth2/userinfo")
    ids = [person["sub"], *(one["sub"] for one in person.get("identity_set", []))]
    return " ".join(dict.fromkeys(ids))


if __name__ == "__main__":
    main()
