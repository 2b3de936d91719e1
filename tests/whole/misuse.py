"""A researcher who gets things wrong: `python misuse.py CASE ENDPOINT [CONFIG_JSON]` prints the error and its delay."""

from __future__ import annotations

import json
import sys
import time
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
    """20 MB: that future fails, and the next call still works."""
    with Executor(endpoint_id=endpoint, user_endpoint_config=config) as ex:
        try:
            future = ex.submit(len, "x" * 20_000_000)
        except Exception as why:  # noqa: BLE001 - whatever it is, it is shown
            error = why
        else:
            error = future.exception(30)
        assert ex.submit(len, "abc").result(30) == 3
        return error


def task_of_another(endpoint, config):
    try:
        return Client().get_task(str(uuid4()))
    except Exception as why:  # noqa: BLE001 - whatever it is, it is shown
        return why


def main():
    case, endpoint = sys.argv[1:3]
    config = json.loads(sys.argv[3]) if len(sys.argv) > 3 else None
    begun = time.monotonic()
    error = globals()[case](endpoint, config)
    seconds = time.monotonic() - begun
    told = {"type": type(error).__name__, "text": str(error), "code": getattr(error, "code", None), "seconds": seconds}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
