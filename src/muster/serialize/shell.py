"""Command lines as functions: the peer of the official ShellFunction, readable by it and able to read it.

The attributes are the wire format: an official worker loads ours into its own class by name, and ours loads its.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from muster.serialize.running import task_environment, tie_group

_TIMEOUT_CODE = 124
_TERM_GRACE_S = 2.0
_MAX_SNIPPET_BYTES = 5 * 1024 * 1024


class ShellResult:
    """What a command line did: exit code and the last lines of its output."""

    def __init__(self, cmd: str, stdout: str, stderr: str, returncode: int, exception_name: str | None = None) -> None:
        self.cmd = cmd
        self.stdout = stdout
        self.stderr = stderr
        self.returncode = returncode
        self.exception_name = exception_name

    def __str__(self) -> str:
        text = f"exit code: {self.returncode}\n   stdout:\n{self.stdout.rstrip()}"
        return text + (f"\n   stderr:\n{self.stderr.rstrip()}" if self.stderr.strip() else "")

    def __repr__(self) -> str:
        facts = {"returncode": self.returncode, "cmd": self.cmd, "stdout": self.stdout, "stderr": self.stderr}
        return f"ShellResult({', '.join(f'{name}={value!r}' for name, value in facts.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShellResult) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment] # mutable, as the peer's


class ShellFunction:
    """A command line to run where the task runs; `{name}` in it is replaced by the keyword argument of that name."""

    def __init__(
        self,
        cmd: str,
        stdout: str | None = None,
        stderr: str | None = None,
        walltime: float | None = None,
        snippet_lines: int = 1000,
        name: str | None = None,
        return_dict: bool = False,
    ) -> None:
        if walltime is not None and walltime < 0:
            raise ValueError("walltime must not be negative")
        self.cmd = cmd
        self.stdout = stdout
        self.stderr = stderr
        self.walltime = walltime
        self.snippet_lines = snippet_lines
        self.__name__ = name or type(self).__name__
        self.return_dict = return_dict

    def __call__(self, **kwargs: Any) -> ShellResult | dict[str, Any]:
        """Run it with these values; a walltime ends the whole process group, not just the shell."""
        result = self._run(self.command_line(**kwargs))
        return vars(result).copy() if self.return_dict else result

    def command_line(self, **kwargs: Any) -> str:
        """What bash is given."""
        return self.cmd.format(**kwargs)

    def _run(self, cmd: str) -> ShellResult:
        environment = dict(os.environ) | dict(task_environment.get() or {})
        folder = environment.get("GC_TASK_SANDBOX_DIR")
        with (
            _output(self.stdout, "stdout", folder, environment) as out,
            _output(self.stderr, "stderr", folder, environment) as err,
        ):
            out_from, err_from = out.seek(0, os.SEEK_END), err.seek(0, os.SEEK_END)
            code, name = _run_group(cmd, out, err, folder, environment, self.walltime)
            stdout = _last_lines(out, out_from, self.snippet_lines)
            stderr = _last_lines(err, err_from, self.snippet_lines)
        return ShellResult(cmd, stdout, stderr, code, name)


class MPIFunction(ShellFunction):
    """A command line under the MPI launcher that the engine prepared for this task."""

    def command_line(self, **kwargs: Any) -> str:
        return f"$PARSL_MPI_PREFIX {super().command_line(**kwargs)}"


def _output(path: str | None, kind: str, folder: str | None, environment: dict[str, str]) -> IO[bytes]:
    if path is None and folder is None:
        return TemporaryFile()
    file = Path(folder or ".") / (path or f"{environment.get('GC_TASK_UUID', 'task')}.{kind}")
    file.parent.mkdir(parents=True, exist_ok=True)
    return file.open("a+b")


def _run_group(
    cmd: str, out: IO[bytes], err: IO[bytes], folder: str | None, environment: dict[str, str], walltime: float | None
) -> tuple[int, str | None]:
    """Exit code and, unless it was 0, the name of the exception that fits."""
    shell = "/bin/bash" if Path("/bin/bash").exists() else "bash"
    child = subprocess.Popen(
        [shell, "-c", cmd],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        cwd=folder,
        env=environment,
        process_group=0,
    )
    tie = tie_group(child.pid)
    try:
        code = child.wait(walltime)
    except subprocess.TimeoutExpired:
        _end_group(child)
        return _TIMEOUT_CODE, "subprocess.TimeoutExpired"
    except BaseException:
        _end_group(child)  # a cancelled task must not leave its command behind
        raise
    finally:
        if tie is not None:
            os.close(tie)
    return code, "subprocess.CalledProcessError" if code else None


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """Ask the group to end, then end it: also what has outlived the shell."""
    _signal_group(child.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(_TERM_GRACE_S)
    _signal_group(child.pid, signal.SIGKILL)
    child.wait()


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return  # nobody is left in it


def _last_lines(file: IO[bytes], start: int, lines: int) -> str:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(start, end - _MAX_SNIPPET_BYTES))
    text = file.read().decode("utf-8", "replace")
    return "".join(text.splitlines(keepends=True)[-lines:]) if lines > 0 else ""


_OFFICIAL_HOME = {
    ShellFunction: ("globus_compute_sdk.sdk.shell_function", "ShellFunction"),
    ShellResult: ("globus_compute_sdk.sdk.shell_function", "ShellResult"),
    MPIFunction: ("globus_compute_sdk.sdk.mpi_function", "MPIFunction"),
}


def reduce_for_peers(value: Any) -> tuple[Any, tuple[bytes]]:
    """A reduction that loads as the official class where that is installed, and as ours where Muster reads it.

    The inner pickle is spelled out, because a pickler writes a class by name only if it can import that name.
    """
    module, name = _OFFICIAL_HOME[type(value)]
    state = pickle.dumps(vars(value), 2)[2:-1]  # protocol 2 has no frames: the opcodes can stand inside others
    parts = [bytes([0x8C, len(text)]) + text.encode() for text in (module, name)]
    return pickle.loads, (b"\x80\x04" + b"".join(parts) + b"\x93)\x81" + state + b"b.",)
