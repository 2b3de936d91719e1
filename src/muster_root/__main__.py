"""What `muster-endpoint start` turns into: python3 -I -S __main__.py DIRECTORY AGENT_DIR ENVIRONMENT LOG READY CONSOLE

The four in the middle are descriptors. READY is told that the monitor took over; -1 when nobody waits for that.
"""

from __future__ import annotations

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))  # last: nothing there hides a module

from muster_root.monitor import Monitor
from muster_root.settings import Site

directory, *fds, console = sys.argv[1:]
agent_dir, environment, log, ready = map(int, fds)
monitor = Monitor(Site(directory), [agent_dir, environment], log, console=console == "1")
if ready >= 0:
    os.write(ready, b"+")
    for fd in (0, 1, 2, ready):  # detached: the terminal is given back
        os.dup2(os.open(os.devnull, os.O_RDWR), fd)
monitor.run(clock=os.isatty(1) and console == "0")
