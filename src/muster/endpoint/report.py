"""The status reports of a user endpoint: its check-in, its heartbeats, and its last word."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import muster
from muster.engine.contract import Load

BUNDLES = 1
FAILED_PERIOD_S = 3  # what official endpoints say when they could not start


@dataclass(frozen=True)
class Reporter:
    """Knows what stays the same from report to report."""

    period_s: float
    config_raw: str = ""
    mapped: Mapping[str, Any] = field(default_factory=dict)
    started_s: float = field(default_factory=time.time)

    def state(self, load: Load, *, active: bool = True) -> dict[str, Any]:
        """The `global_state` of a report: official names, and `bundles` and `muster_version` of ours."""
        outstanding = load.waiting + load.running
        figures = {"total_workers": load.workers, "pending_tasks": load.waiting, "outstanding_tasks": outstanding}
        return {
            **figures,
            **load.figures,
            **self._fixed,
            "heartbeat_period": float(self.period_s),
            "active": active,
        }

    @cached_property
    def _fixed(self) -> dict[str, Any]:
        fixed = {
            "posix_ppid": os.getppid(),
            "posix_pid": os.getpid(),
            "posix_sid": os.getsid(0),
            "posix_uid": os.getuid(),
            "posix_gid": os.getgid(),
            "posix_groups": os.getgroups(),
            "posix_username": _username(),
            "config_raw": self.config_raw,
            "start_iso": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.started_s)),
            "start_unix": self.started_s,
            "bundles": BUNDLES,
            "muster_version": muster.__version__,
        }
        matched = _matched(self.mapped)
        if matched:
            fixed["globus_matched_identity"] = matched
        if "candidates" in self.mapped:
            fixed["globus_candidate_identities"] = self.mapped["candidates"]
        return fixed


def failure(reason: str, code: str) -> dict[str, Any]:
    """The `global_state` of a user endpoint that could not start."""
    return {"error": reason, "code": code, "heartbeat_period": FAILED_PERIOD_S, "bundles": BUNDLES}


def _matched(mapped: Mapping[str, Any]) -> str | None:
    identity = mapped.get("globus")
    found = identity.get("id") if isinstance(identity, Mapping) else None
    return found if isinstance(found, str) else None


def _username() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
