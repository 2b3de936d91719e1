"""What `muster-endpoint start` turns into: python3 -I -S __main__.py DIRECTORY CONSOLE CLOCK LOG AGENT_DIR ENVIRONMENT

The last three are descriptors; CONSOLE (show the log) and CLOCK (show the time) are 1 or 0.
"""

from __future__ import annotations

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))  # last: nothing there hides a module

from muster_root.monitor import Monitor
from muster_root.site import Site

directory, console, clock, log, *lent = sys.argv[1:]
Monitor(Site(directory), [int(fd) for fd in lent], int(log), console=console == "1").run(clock=clock == "1")
