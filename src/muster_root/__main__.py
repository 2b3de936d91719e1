"""What `muster-endpoint start` turns into.

    python3 -I -S __main__.py DIRECTORY AGENT_DIR ENVIRONMENT LOG READY CONSOLE ENDPOINT_ID

The four in the middle are descriptors. READY is closed when all is up; -1 when nobody waits for that.
"""

from __future__ import annotations

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))  # last: nothing beside us hides a module

from muster_root.monitor import Monitor
from muster_root.settings import Site, Unusable


def main() -> None:
    directory, *fds, console, endpoint_id = sys.argv[1:]
    agent_dir, environment, log, ready = map(int, fds)
    try:
        monitor = Monitor(Site(directory), agent_dir, environment, log, console=console == "1")
        monitor.register(endpoint_id)
        monitor.start_agent()
    except (Unusable, FileNotFoundError) as why:
        sys.exit(f"{why}")
    if ready >= 0:
        for fd in (0, 1, 2):  # detached: the terminal is given back
            os.dup2(os.open(os.devnull, os.O_RDWR), fd)
        os.write(ready, b"+")
        os.close(ready)
    monitor.run(clock=os.isatty(1) and console == "0")


main()
