"""What a submission says about the interpreter it comes from; templates may read it as `user_runtime`."""

from __future__ import annotations

import platform
import sys
from functools import cache
from typing import Any

import muster

# The field by which official managers decide how to start a user endpoint: it names the dialect, and this is ours.
PROTOCOL_VERSION = "4.19.0"


@cache
def user_runtime() -> dict[str, Any]:
    """The official keys, and `muster_version`."""
    info = sys.version_info
    version = platform.python_version()
    return {
        "muster_version": muster.__version__,
        "globus_compute_sdk_version": PROTOCOL_VERSION,
        "globus_sdk_version": "",
        "python_version": sys.version,
        "python": {
            "version": version,
            "version_description": sys.version,
            "version_tuple": list(info[:3]),
            "version_info": list(info),
            "implementation": platform.python_implementation(),
            "compiler": platform.python_compiler(),
        },
        "platform": {
            "architecture": list(platform.architecture()),
            "machine": platform.machine(),
            "node": platform.node(),
            "platform": platform.platform(),
            "processor": platform.processor(),
            "release": platform.release(),
        },
    }
