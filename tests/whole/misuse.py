"""A researcher who gets things wrong: `python misuse.py CASE ENDPOINT [CONFIG_JSON]` prints the error and its delay."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from uuid import uuid4

from muster import Client, Executor


def nothing():
    return None


def submit(endpoint, config):
    with Executor(endpoint_id=endpoint, user_endpoint_config=config) as ex:
        return ex.submit(nothing).exception(30)


def unknown_endpoint(endpoint, config):
    return submit(str(uuid4()), config)


def unknown_function(endpoint, config):
    with Executor(endpoint_id=endpoint, user_endpoint_config=config) as ex:
        return ex.submit_to_registered_function(str(uuid4())).exception(30)


def large_payload(endpoint, config):
    """20 MB: that future fails, and the calls around it still work."""
    with Executor(endpoint_id=endpoint, user_endpoint_config=config) as ex:
        before = ex.submit(len, "ab")
        error = ex.submit(len, "x" * 20_000_000).exception(30)
        assert ex.submit(len, "abc").result(30) == 3
        assert before.result(30) == 2
        return error


def task_of_another(endpoint, config):
    return Client().get_task(str(uuid4()))


def blocked_broker(endpoint, config):
    """The result comes all the same, by way of the service: nothing is lost."""
    with Executor(endpoint_id=endpoint, user_endpoint_config=config, amqp_port=int(os.environ["CLOSED_PORT"])) as ex:
        begun = time.monotonic()
        assert ex.submit(len, "abc").result(60) == 3
        return RuntimeError(f"the result came after {time.monotonic() - begun:.1f} s")


def main():
    case, endpoint = sys.argv[1:3]
    config = json.loads(sys.argv[3]) if len(sys.argv) > 3 else None
    begun = time.monotonic()
    try:
        error = globals()[case](endpoint, config)
    except Exception as why:  # noqa: BLE001 - whatever it is, it is shown
        error = why
    seconds = time.monotonic() - begun
    shown = "".join(traceback.format_exception(error))
    told = {"type": type(error).__name__, "text": str(error), "code": getattr(error, "code", None)}
    print(json.dumps(told | {"seconds": seconds, "shown": shown}), flush=True)


if __name__ == "__main__":
    main()
