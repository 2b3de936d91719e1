"""What `muster-endpoint start` turns into: python3 -I -S __main__.py DIRECTORY AGENT_DIR ENVIRONMENT LOG CONSOLE CLOCK

The three in the middle are descriptors; the last two are 1 or 0.
"""

from __future__ import annotations

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))  # last: nothing there hides a module

from muster_root.monitor import Monitor
from muster_root.settings import Site

directory, *numbers = sys.argv[1:]
agent_dir, environment, log, console, clock = map(int, numbers)
Monitor(Site(directory), [agent_dir, environment], log, console=console == 1).run(clock=clock == 1)
