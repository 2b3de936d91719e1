from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.engine.parsl.engine import ParslEngine
from muster.engine.parsl.kinds import LAUNCHERS, PROVIDERS, make
from muster.engine.parsl.settings import Container, Scaling
from muster.engine.process import ProcessEngine
from muster.engine.registry import build
from muster.engine.thread import ThreadEngine
from muster.errors import ConfigInvalid

POLARIS = """
type: GlobusComputeEngine
address: {type: address_by_interface, ifname: lo}
strategy:
  type: SimpleStrategy
  max_idletime: 30
provider:
  type: PBSProProvider
  queue: debug-scaling
  account: 12345
  worker_init:
  init_blocks: 0
  min_blocks: 0
  max_blocks: 1
  nodes_per_block: 2
  walltime: 1:00:00
  launcher: {type: MpiExecLauncher}
"""


def refusal(config: Any) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        build(config)
    return caught.value.message()


def test_the_names_of_the_seed_and_of_the_official_endpoint_select_the_engines() -> None:
    assert isinstance(build({"type": "ThreadPoolEngine"}), ThreadEngine)
    assert isinstance(build({"type": "ProcessPoolEngine", "max_workers": 1}), ProcessEngine)
    assert isinstance(build({"type": "GlobusComputeEngine"}), ParslEngine)


def test_an_unknown_engine_is_answered_with_the_likely_one_and_all() -> None:
    message = refusal({"type": "ThreadPoolEngin"})
    assert "engine.type" in message
    assert "did you mean 'ThreadPoolEngine'?" in message
    assert "GlobusComputeEngine" in message


@pytest.mark.parametrize(
    ("config", "path", "hint"),
    [
        ({}, "engine.type", "missing"),
        ([], "engine", "mapping"),
        ({"type": "ThreadPoolEngine", "max_worker": 2}, "engine.max_worker", "did you mean 'max_workers'"),
        ({"type": "ProcessPoolEngine", "max_workers": 0}, "engine.max_workers", "above zero"),
        ({"type": "ProcessPoolEngine", "task_timeout_s": -1}, "engine.task_timeout_s", "positive"),
        (
            {"type": "GlobusComputeEngine", "max_workers_per_nod": 2},
            "engine.max_workers_per_nod",
            "max_workers_per_node",
        ),
        (
            {"type": "GlobusComputeEngine", "provider": {"type": "SlurmProvidr"}},
            "engine.provider.type",
            "SlurmProvider",
        ),
        ({"type": "GlobusComputeEngine", "provider": {"type": "os.system"}}, "engine.provider.type", "Known"),
        ({"type": "GlobusComputeEngine", "address": {"type": "eval"}}, "engine.address.type", "address_by_interface"),
        (
            {"type": "GlobusComputeEngine", "strategy": {"type": "SimplStrategy"}},
            "engine.strategy.type",
            "SimpleStrategy",
        ),
        ({"type": "GlobusComputeEngine", "container_type": "dockr"}, "engine.container_type", "docker"),
        ({"type": "GlobusComputeEngine", "container_type": "podman"}, "engine.container_uri", "missing"),
    ],
)
def test_a_wrong_key_or_value_is_named_by_its_path_with_a_way_out(config: Any, path: str, hint: str) -> None:
    message = refusal(config)
    assert message.startswith(f"{path}")
    assert hint in message


@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")  # Parsl's
def test_the_seeds_polaris_template_becomes_a_parsl_executor(tmp_path: Path) -> None:
    config = yaml.safe_load(POLARIS)
    assert config["provider"]["walltime"] == 3600  # YAML 1.1 reads base 60
    engine = build(config)
    assert isinstance(engine, ParslEngine)
    executor = engine._settings.executor(tmp_path)
    provider = executor.provider
    assert (provider.walltime, provider.account, provider.queue) == ("01:00:00", "12345", "debug-scaling")
    assert (provider.nodes_per_block, provider.worker_init) == (2, "")
    assert type(provider.launcher).__name__ == "MpiExecLauncher"
    assert executor.address == "127.0.0.1"
    assert executor.encrypted is True
    assert engine._settings.scaling == Scaling(True, 30.0)


@pytest.mark.parametrize(
    ("block", "table", "path"),
    [
        ({"type": "LocalProvider", "max_block": 1}, PROVIDERS, "engine.provider.max_block"),
        ({"type": "LocalProvider", "launcher": {"type": "SrunLaunchr"}}, PROVIDERS, "engine.provider.launcher.type"),
        ({"type": "WrappedLauncher"}, LAUNCHERS, "engine.provider.prepend"),
    ],
)
def test_arguments_of_parsls_classes_are_checked_before_anything_is_built(
    block: dict[str, Any], table: Any, path: str
) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        make("engine.provider", block, table)
    assert caught.value.message().startswith(path)


def test_job_status_settings_of_the_newer_form_are_understood() -> None:
    assert Scaling.of(None, {"strategy": "none", "max_idletime": 5}) == Scaling(False, 5.0)
    assert Scaling.of("simple", None).enabled


def test_the_workers_command_is_put_into_the_container() -> None:
    podman = Container.of("podman", "quay.io/x/y", "-e A=1")
    assert podman is not None
    assert podman.around("pool -x", Path("/run")) == "podman run --rm -e A=1 -v /run:/run quay.io/x/y pool -x"
    own = Container.of("custom", None, "ch-run {EXECUTOR_RUNDIR} -- {EXECUTOR_LAUNCH_CMD}")
    assert own is not None
    assert own.around("pool -x", Path("/run")) == "ch-run /run -- pool -x"
