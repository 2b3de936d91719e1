"""What the service concludes from status reports alone."""

from __future__ import annotations

from uuid import uuid4

from muster.service.presence import Presence


def test_two_idle_reports_in_a_row_at_a_reconnect_do_not_prove_idleness() -> None:
    presence, endpoint = Presence(), uuid4()
    presence.saw(endpoint, 30, idle=True)
    presence.saw(endpoint, 30, idle=True)
    assert presence.idle_since_s(endpoint) is None


def test_a_report_with_work_ends_the_idleness() -> None:
    presence, endpoint = Presence(), uuid4()
    presence.saw(endpoint, 0, idle=True)
    presence.saw(endpoint, 0, idle=True)
    assert presence.idle_since_s(endpoint) is not None
    presence.saw(endpoint, 0)
    assert presence.idle_since_s(endpoint) is None
