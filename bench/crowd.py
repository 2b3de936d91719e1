"""`crowd.py ENDPOINT KIND COUNT`: bring up this many user endpoints of one manager, one value each; they stay up."""

from __future__ import annotations

import sys
import time

from muster import Executor

ENDPOINT, KIND, COUNT = sys.argv[1], sys.argv[2], int(sys.argv[3])
AT_ONCE = 10


def nothing():
    return None


def main() -> None:
    begun = time.perf_counter()
    with Executor(endpoint_id=ENDPOINT) as executor:
        for start in range(0, COUNT, AT_ONCE):
            futures = []
            for number in range(start, min(start + AT_ONCE, COUNT)):
                executor.user_endpoint_config = {"kind": KIND, "tag": f"crowd {number}"}
                futures.append(executor.submit(nothing))
            for future in futures:
                future.result(120)
    print(time.perf_counter() - begun, flush=True)


if __name__ == "__main__":
    main()
