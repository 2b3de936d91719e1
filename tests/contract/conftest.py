"""Servers that several contracts are tried on. Missing ones are skipped on a laptop and fail in CI."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from muster.testing.rabbitmq import RabbitMQ, find_rabbitmq


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    if find_rabbitmq() is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs a RabbitMQ server")
        pytest.skip("no RabbitMQ server on this machine")
    node = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    node.start()
    yield node
    node.stop()
