"""Parsl's interchange, tied to the process that started it: without this it outlives a killed user endpoint."""

from __future__ import annotations

import os
import runpy
import threading
import time

_CHECK_S = 1.0


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_CHECK_S)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    runpy.run_module("parsl.executors.high_throughput.interchange", run_name="__main__")
