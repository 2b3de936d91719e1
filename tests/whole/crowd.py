"""A researcher's script for the fault tests: `python crowd.py ENDPOINT COUNT SECONDS`; many tasks, how each ended."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter

from muster import Executor


def work(number, seconds):
    import time

    time.sleep(seconds)
    return number


def main():
    endpoint, count, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    ended: Counter[str] = Counter()
    twice = []
    lock = threading.Lock()
    with Executor(endpoint_id=endpoint) as ex:
        futures = [ex.submit(work, n, seconds) for n in range(count)]
        print("all submitted", flush=True)
        seen: set[int] = set()

        def note(future, number):
            with lock:
                if number in seen:
                    twice.append(number)
                seen.add(number)
                if len(seen) in (20, count // 2):
                    print(f"{len(seen)} ended", flush=True)

        for number, future in enumerate(futures):
            future.add_done_callback(lambda f, n=number: note(f, n))
        for number, future in enumerate(futures):
            why = future.exception(300)
            if why is None:
                ended["result" if future.result() == number else "wrong"] += 1
            else:
                ended[getattr(why, "code", None) or type(why).__name__] += 1
    print("told " + json.dumps({"ended": ended, "twice": twice}), flush=True)


if __name__ == "__main__":
    main()
