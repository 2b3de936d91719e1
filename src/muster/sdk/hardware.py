"""The function that a worker runs to describe its machine."""

from __future__ import annotations

import inspect

NAME = "worker_hardware"


def worker_hardware() -> str:
    """Processors, memory, disks and graphics cards, as this machine tells them."""
    import os
    import platform
    import shutil
    import subprocess

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [
        f"host      {platform.node()}",
        f"system    {platform.platform()}",
        f"python    {platform.python_version()}",
        f"cores     {usable} of {os.cpu_count()} usable",
    ]
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        lines.append(f"memory    {pages * size / 2**30:.1f} GiB")
    except (ValueError, OSError):
        lines.append("memory    unknown")
    disk = shutil.disk_usage(".")
    lines.append(f"disk      {disk.free / 2**30:.1f} of {disk.total / 2**30:.1f} GiB free")
    for command in (["lscpu"], ["nvidia-smi"]):
        if shutil.which(command[0]):
            told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
            lines += ["", f"$ {command[0]}", told.rstrip()]
    return "\n".join(lines)


def source() -> str:
    """Its text: it must run where Muster is not installed."""
    return inspect.getsource(worker_hardware)
