"""`python -I -m muster.worker SOCKET SLOTS LIFELINE OPTIONS`: started by an engine, as the user, never by hand."""

import json
import sys

from muster.worker.process import main

main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4]))
