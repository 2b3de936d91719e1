"""`enable-on-boot` writes a unit that systemd accepts; the seed's words tell what to run next."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from muster.cli.endpoint import muster_endpoint


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MUSTER_HOME", str(tmp_path / "a home"))
    monkeypatch.setenv("MUSTER_SERVICE_URL", "https://muster.example.org")
    monkeypatch.delenv("MUSTER_CLIENT_SECRET", raising=False)
    (tmp_path / "units").mkdir()
    return tmp_path


def run(home: Path, command: str, name: str) -> Result:
    return CliRunner().invoke(muster_endpoint, [command, name, "--unit-dir", str(home / "units")])


def configure(name: str, multi_user: str = "true") -> None:
    CliRunner().invoke(muster_endpoint, ["configure", name, "--multi-user", multi_user])


def test_the_seeds_words_follow_the_unit(home: Path) -> None:
    configure("prod_gpu_large")
    done = run(home, "enable-on-boot", "prod_gpu_large")
    assert done.exit_code == 0
    assert done.stdout == (
        f"Systemd service installed at {home}/units/muster-endpoint-prod_gpu_large.service. Run\n"
        "    sudo systemctl enable muster-endpoint-prod_gpu_large --now\n"
        "to enable the service and start the endpoint.\n"
    )
    assert "log in first" in done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
@pytest.mark.parametrize("multi_user", ["true", "false"])
def test_systemd_has_nothing_to_say_about_the_unit(home: Path, multi_user: str) -> None:
    configure("prod", multi_user)
    run(home, "enable-on-boot", "prod")
    unit = home / "units" / "muster-endpoint-prod.service"
    said = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    about_us = [line for line in said.stderr.splitlines() if unit.stem in line]
    assert about_us == []


def test_the_unit_knows_the_service_and_the_place_but_no_secret(home: Path, monkeypatch) -> None:
    monkeypatch.setenv("MUSTER_CLIENT_SECRET", "ms_secret")
    configure("prod")
    done = run(home, "enable-on-boot", "prod")
    unit = (home / "units" / "muster-endpoint-prod.service").read_text()
    assert f'-c "{home}/a home" start prod' in unit
    assert "Environment=MUSTER_SERVICE_URL=https://muster.example.org" in unit
    assert "ms_secret" not in unit
    assert "/etc/muster/prod.env" in done.stderr


def test_disabling_says_what_to_run(home: Path) -> None:
    configure("prod")
    assert run(home, "disable-on-boot", "prod").exit_code == 65
    run(home, "enable-on-boot", "prod")
    assert "sudo systemctl disable muster-endpoint-prod\n" in run(home, "disable-on-boot", "prod").stdout


def test_a_name_that_systemd_would_misread_is_refused(home: Path) -> None:
    configure("50%")
    done = run(home, "enable-on-boot", "50%")
    assert done.exit_code == 65
    assert "50%" in done.output


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_without_root_it_says_so(home: Path) -> None:
    configure("prod")
    (home / "units").chmod(0o500)
    assert "as root" in run(home, "enable-on-boot", "prod").output
