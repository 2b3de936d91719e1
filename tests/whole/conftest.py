"""What several files of whole-system tests need."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.testing.namespace import Namespace, NamespaceRefusedError
from muster.testing.processes import Processes
from muster.testing.site import Site


@pytest.fixture
def shared_site() -> Iterator[Site]:
    """A site with several accounts, for managers that run as root."""
    with tempfile.TemporaryDirectory(prefix="muster-whole-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        try:
            with Namespace(directory, network=False) as space, Processes(space) as processes:
                yield Site(directory, processes)
        except NamespaceRefusedError as why:
            if os.environ.get("CI"):
                pytest.fail(str(why))
            pytest.skip(str(why))
