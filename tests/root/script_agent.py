"""Stands where the agent stands, and does what the test wrote down: talks to root over the real socket.

Reads scenario.json in its directory; writes what it heard to transcript.json there. A step is one of
{"start": {"order", "seal", "payload"}}, {"raw": "..."} (Latin-1), {"die": true}, {"print": "..."}, {"flood": 100} (so
many starts with a bad seal); `await` says for which event to wait.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any

DEADLINE_S = 20


def payload_file(text: str, *, sealed: bool) -> int:
    fd = os.memfd_create("payload", os.MFD_ALLOW_SEALING)
    os.pwrite(fd, text.encode(), 0)
    if sealed:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


def hear(link: socket.socket, wanted: str | None, deadline_s: float) -> list[dict[str, Any]]:
    """What comes until the wanted answer or event; all of it is kept."""
    heard: list[dict[str, Any]] = []
    while time.monotonic() < deadline_s:
        if not select.select([link], [], [], deadline_s - time.monotonic())[0]:
            break
        body = link.recv(1 << 20)
        if not body:
            return [*heard, {"event": "end of line"}]
        heard.append(json.loads(body))
        if wanted is None or wanted in (heard[-1].get("event"), "answer" if "answer" in heard[-1] else None):
            return heard
    return [*heard, {"event": "nothing came"}]


def flood(link: socket.socket, count: int) -> list[dict[str, Any]]:
    """As fast as they are answered."""
    answered = 0
    payload, (_, log) = payload_file("x", sealed=True), os.pipe()
    message = b"start 7\n" + b"s" * 32 + b"o" * 1000
    for _ in range(count):
        socket.send_fds(link, [message], [payload, log])
        while select.select([link], [], [], 0)[0]:
            answered += bool(link.recv(1 << 20))
    while answered < count and select.select([link], [], [], DEADLINE_S)[0]:
        answered += bool(link.recv(1 << 20))
    return [{"answered": answered}]


def act(link: socket.socket, number: int, step: dict[str, Any]) -> dict[str, Any]:
    early, log = os.pipe()
    if order := step.get("start"):
        payload = payload_file(order["payload"], sealed=order.get("sealed", True))
        message = f"start {number}\n".encode() + base64.b64decode(order["seal"]) + base64.b64decode(order["order"])
        fds = [payload, log][: order.get("descriptors", 2)]
        socket.send_fds(link, [message], fds)
        os.close(payload)
    elif "raw" in step:
        link.send(step["raw"].encode("latin-1"))
    elif "flood" in step:
        return {"heard": flood(link, step["flood"]), "early": ""}
    elif "print" in step:
        print(step["print"], file=sys.stderr, flush=True)
    elif "die" in step:
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(log)
    heard = [said for wanted in step.get("await", ()) for said in hear(link, wanted, time.monotonic() + DEADLINE_S)]
    early_log = b""
    if order and select.select([early], [], [], order.get("early_s", 0.2))[0]:
        while part := os.read(early, 1 << 16):
            early_log += part
    return {"heard": heard, "early": early_log.decode()}


def keep(name: str, content: Any) -> None:
    with open(name + ".new", "w") as file:
        json.dump(content, file)
    os.rename(name + ".new", name)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--link-fd", type=int)
    link = socket.socket(fileno=options.parse_args().link_fd)
    hello, fds, _, _ = socket.recv_fds(link, 1 << 20, 8)
    os.fchdir(fds[0])
    with open("scenario.json") as file:
        steps = json.load(file)
    try:
        with open("transcript.json") as file:
            done = json.load(file)
    except FileNotFoundError:
        done = []
    done.append({"hello": json.loads(hello), "uid": os.getuid(), "groups": os.getgroups(), "given": len(fds)})
    for number, step in enumerate(steps):
        if any(one.get("step") == number for one in done):
            continue
        done.append({"step": number})
        keep("transcript.json", done)
        done[-1].update(act(link, number, step))
        keep("transcript.json", done)
    keep("finished.json", True)
    print("the scenario is over", file=sys.stderr, flush=True)
    hear(link, "stopping", time.monotonic() + 60)
    hear(link, "exited", time.monotonic() + 0.5)  # of those that ran until the end


if __name__ == "__main__":
    main()
