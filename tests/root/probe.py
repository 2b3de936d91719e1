"""Prints what the kernel says about this process. Stands where a user endpoint stands, started by the real path."""

from __future__ import annotations

import json
import os
import resource
import stat
import sys


def kind(fd: int) -> str:
    mode = os.fstat(fd).st_mode
    return {stat.S_IFIFO: "pipe", stat.S_IFREG: "file", stat.S_IFCHR: "device", stat.S_IFSOCK: "socket"}.get(
        stat.S_IFMT(mode), "other"
    )


def may_return() -> list[str]:
    ways = {
        "setresuid": lambda: os.setresuid(0, 0, 0),
        "setresgid": lambda: os.setresgid(0, 0, 0),
        "setgroups": lambda: os.setgroups([0]),
    }
    open_ways = []
    for name, way in ways.items():
        try:
            way()
        except OSError:
            continue
        open_ways.append(name)
    return open_ways


def main() -> None:
    fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    fds = [fd for fd in fds if os.path.exists(f"/proc/self/fd/{fd}")]
    umask = os.umask(0)
    seen = {
        "uid": status["Uid"].split(),
        "gid": status["Gid"].split(),
        "groups": sorted(map(int, status["Groups"].split())),
        "caps": {name: status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
        "no_new_privs": status["NoNewPrivs"],
        "blocked": status["SigBlk"],
        "ignored": status["SigIgn"],
        "fds": {fd: kind(fd) for fd in fds},
        "environment": dict(os.environ),
        "umask": f"{umask:04o}",
        "cwd": os.getcwd(),
        "leads_session": os.getsid(0) == os.getpid(),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "ways_back": may_return(),
        "arguments": sys.argv[1:],
        "payload_position": os.lseek(0, 0, os.SEEK_CUR) if kind(0) == "file" else None,
        "payload": os.pread(0, 1 << 20, 0).decode() if kind(0) == "file" else None,
        "files": {fd: os.pread(fd, 1 << 16, 0).decode() for fd in fds if fd > 2 and kind(fd) == "file"},
    }
    sys.stdout.write("PROBE " + json.dumps(seen) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
