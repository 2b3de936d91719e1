"""A researcher's script, run on "the laptop": the seed's two examples, and whose account made each result."""

from __future__ import annotations

import concurrent.futures
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from muster import Executor


def hello_from_node(name: str) -> str:
    import os

    return f"Hello, {name}; I ran on {os.uname().nodename}"


def jitter_double(task_num: int) -> tuple[int, float]:
    import random

    return task_num, task_num * (1.5 + random.random())  # noqa: S311 - the seed's own example


def with_uid(function: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    import os

    return function(*arguments), os.getuid()


def tell(call: str, result: Any, uid: int) -> None:
    print(json.dumps({"call": call, "result": result, "uid": uid}), flush=True)


def main() -> None:
    endpoint_id, name = sys.argv[1:3]
    with Executor(endpoint_id=endpoint_id) as executor:
        begun = time.monotonic()
        greeting, uid = executor.submit(with_uid, hello_from_node, name).result(60)
        tell(
            f"hello_from_node({name!r}) after {time.monotonic() - begun:.2f} s, user endpoint started for it",
            greeting,
            uid,
        )
        begun = time.monotonic()
        futures = [executor.submit(with_uid, jitter_double, number) for number in range(100)]
        results = [future.result(60) for future in concurrent.futures.as_completed(futures)]
        uids = {uid for _, uid in results}
        shown = ", ".join(f"{number}→{value:.2f}" for (number, value), _ in sorted(results)[:4])
        for uid in uids:
            tell(f"jitter_double over 100 tasks in {time.monotonic() - begun:.2f} s", f"{shown}, …", uid)


if __name__ == "__main__":
    main()
