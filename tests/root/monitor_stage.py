"""Runs inside the namespace, as root and in a dirty state: a real monitor, a scripted agent, probes as user endpoints.

Input: {"steps": [...], "mapping": [...] or null, "config": "more lines", "prepare": "shell", "record": {...}}, and
"until_log": a text whose appearance in the log is the end, instead of the end of the steps; "later": [[text, shell]],
what root does once the text is in the log; "nofile": the limit of descriptors; "owner": the account of an
unprivileged manager.
Output: {"transcript": [...], "log": "...", "status": exit status, "complained": stderr}.
"""

from __future__ import annotations

import json
import os
import pwd
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from dirt import make_dirty

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1] / "src/muster_root"
SITE = Path("/srv/sites/debug_queue")
DEADLINE_S = 60


def environment_with_probes() -> str:
    """A Python environment whose `muster` is our probe and our agent, beside the real `muster_root`."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path("/srv/python")
    packages = base / "lib" / version / "site-packages"
    for package in ("muster/endpoint", "muster/manager"):
        (packages / package).mkdir(parents=True)
        (packages / package / "__init__.py").touch()
    (packages / "muster/__init__.py").touch()
    (packages / "muster/endpoint/__main__.py").write_text((HERE / "probe.py").read_text())
    (packages / "muster/manager/agent.py").write_text((HERE / "script_agent.py").read_text())
    subprocess.run(["cp", "-r", str(SOURCE), str(packages)], check=True)
    real = Path(os.path.realpath(sys.executable))
    (base / "bin").mkdir()
    (base / "bin/python").symlink_to(real)
    (base / "pyvenv.cfg").write_text(f"home = {real.parent}\n")
    return str(base / "bin/python")


def prepare(document: dict[str, Any]) -> None:
    os.umask(0o022)
    agent = SITE / "agent"
    agent.mkdir(parents=True)
    (SITE / "config.yaml").write_text(
        f"identity_mapping_config_path: {SITE}/mapping.json\n" + document.get("config", "")
    )
    if document.get("mapping") is not None:
        (SITE / "mapping.json").write_text(json.dumps(document["mapping"]))
    (SITE / "user_config_template.yaml").write_text("engine:\n  type: ThreadPoolEngine\n")
    (SITE / "user_environment.yaml").write_text("SITE: yes\n")
    (SITE / "root.json").write_text(json.dumps(document["record"]))
    (SITE / "root.json").chmod(0o600)
    (agent / "scenario.json").write_text(json.dumps(document["steps"]))
    owner = pwd.getpwnam(document.get("owner", "_muster"))
    for path in (agent, agent / "scenario.json", *([SITE, *SITE.iterdir()] if "owner" in document else [])):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    subprocess.run(["sh", "-ec", document.get("prepare", ":")], cwd=SITE, check=True)


def over(logged: str | None) -> bool:
    if logged is not None:
        return logged in (SITE / "endpoint.log").read_text()
    return (SITE / "agent/finished.json").exists()


def left() -> list[str]:
    """Who still runs, as one of our people and in this mount namespace: other tests have people of the same numbers."""
    found = []
    mine = Path("/proc/self/ns/mnt").readlink()
    for entry in Path("/proc").iterdir():
        try:
            ours = entry.name.isdigit() and (entry / "ns/mnt").readlink() == mine
            if ours and 2000 < entry.stat().st_uid < 2010:
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def main() -> None:
    document = json.load(sys.stdin)
    python = environment_with_probes()
    prepare(document)
    make_dirty()
    agent_dir = os.open(SITE / "agent", os.O_RDONLY | os.O_DIRECTORY)
    log = os.open(SITE / "endpoint.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    settings = os.memfd_create("environment")
    program = next(Path("/srv/python/lib").glob("*/site-packages/muster_root/__main__.py"))
    call = [python, "-I", "-S", str(program), str(SITE), "0", "0", *map(str, (log, agent_dir, settings))]
    secrets = {"SECRET": "of root", "PYTHONPATH": "/srv/evil", "LD_PRELOAD_X": "1", "HOME": "/root", "LANG": "C.UTF-8"}
    for fd in (agent_dir, log, settings):
        os.set_inheritable(fd, True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    owner = pwd.getpwnam(document.get("owner", "root"))
    if owner.pw_uid:
        secrets = {"PATH": "/usr/bin:/bin", "HOME": owner.pw_dir, "USER": owner.pw_name}
    resource.setrlimit(resource.RLIMIT_NOFILE, (document.get("nofile", soft), hard))
    monitor = subprocess.Popen(
        call,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        close_fds=False,
        env=secrets,
        user=owner.pw_uid or None,
        group=owner.pw_gid or None,
        extra_groups=[] if owner.pw_uid else None,
    )
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    ends = time.monotonic() + DEADLINE_S
    later = list(document.get("later", ()))
    while not over(document.get("until_log")) and monitor.poll() is None and time.monotonic() < ends:
        time.sleep(0.05)
        if later and later[0][0] in (SITE / "endpoint.log").read_text():
            subprocess.run(["sh", "-ec", later.pop(0)[1]], cwd=SITE, check=True)
    began = time.monotonic()
    monitor.send_signal(signal.SIGTERM)
    try:
        _, complained = monitor.communicate(timeout=40)
    except subprocess.TimeoutExpired:
        monitor.kill()
        _, complained = monitor.communicate()
    transcript = SITE / "agent/transcript.json"
    print(
        json.dumps(
            {
                "transcript": json.loads(transcript.read_text()) if transcript.exists() else [],
                "log": (SITE / "endpoint.log").read_text(),
                "status": monitor.returncode,
                "stopped_in_s": time.monotonic() - began,
                "left": left(),
                "complained": complained.decode(),
            }
        )
    )


if __name__ == "__main__":
    main()
