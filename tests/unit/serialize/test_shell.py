from __future__ import annotations

import base64
import pickletools
import time
from pathlib import Path

import pytest

from muster.serialize import Serializer
from muster.serialize.running import task_environment
from muster.serialize.shell import MPIFunction, ShellFunction, ShellResult

# Written by the official 4.19 client.
OFFICIAL_FUNCTION = (
    "01\ngASVowAAAAAAAACMJWdsb2J1c19jb21wdXRlX3Nkay5zZGsuc2hlbGxfZnVuY3Rpb26UjA1TaGVs\n"
    "bEZ1bmN0aW9ulJOUKYGUfZQojANjbWSUjAhlY2hvIHt4fZSMBnN0ZG91dJROjAZzdGRlcnKUTowI\n"
    "d2FsbHRpbWWUTowNc25pcHBldF9saW5lc5RN6AOMCF9fbmFtZV9flGgBjAtyZXR1cm5fZGljdJSJ\ndWIu\n"
)
OFFICIAL_RESULT = (
    "00\ngASVhgAAAAAAAACMJWdsb2J1c19jb21wdXRlX3Nkay5zZGsuc2hlbGxfZnVuY3Rpb26UjAtTaGVs\n"
    "bFJlc3VsdJSTlCmBlH2UKIwDY21klIwBY5SMBnN0ZG91dJSMAW+UjAZzdGRlcnKUjAFllIwKcmV0\n"
    "dXJuY29kZZRLAIwOZXhjZXB0aW9uX25hbWWUTnViLg=="
)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_values_are_put_in_and_output_and_code_come_back() -> None:
    result = ShellFunction("echo {greeting}; echo oops >&2; exit 3")(greeting="hello")
    assert isinstance(result, ShellResult)
    assert (result.stdout, result.stderr, result.returncode) == ("hello\n", "oops\n", 3)
    assert result.cmd == "echo hello; echo oops >&2; exit 3"
    assert result.exception_name == "subprocess.CalledProcessError"


def test_success_names_no_exception() -> None:
    result = ShellFunction("true")()
    assert isinstance(result, ShellResult)
    assert (result.returncode, result.exception_name) == (0, None)


def test_a_dictionary_of_the_same_facts_when_asked_for() -> None:
    assert ShellFunction("echo 1", return_dict=True)() == vars(ShellFunction("echo 1")())


def test_only_the_last_lines_are_returned() -> None:
    result = ShellFunction("seq 100", snippet_lines=2)()
    assert isinstance(result, ShellResult)
    assert result.stdout == "99\n100\n"


def test_output_goes_to_the_named_file_too(tmp_path: Path) -> None:
    result = ShellFunction("echo new", stdout=str(tmp_path / "deep" / "out"))()
    assert isinstance(result, ShellResult)
    assert (tmp_path / "deep" / "out").read_text() == result.stdout == "new\n"


def test_a_walltime_ends_the_whole_process_group_even_one_that_ignores_the_request(tmp_path: Path) -> None:
    command = (
        f"sleep 77 & echo $! > {tmp_path}/plain; (trap '' TERM; sleep 78 & echo $! > {tmp_path}/deaf; wait) & wait"
    )
    began = time.monotonic()
    result = ShellFunction(command, walltime=0.5)()
    assert isinstance(result, ShellResult)
    assert (result.returncode, result.exception_name) == (124, "subprocess.TimeoutExpired")
    assert time.monotonic() - began < 5
    for name in ("plain", "deaf"):
        pid, deadline = int((tmp_path / name).read_text()), time.monotonic() + 5
        while alive(pid) and time.monotonic() < deadline:
            continue
        assert not alive(pid)


def test_it_runs_in_the_sandbox_of_its_task(tmp_path: Path) -> None:
    token = task_environment.set({"GC_TASK_SANDBOX_DIR": str(tmp_path), "GC_TASK_UUID": "an-id"})
    try:
        result = ShellFunction("pwd; echo $GC_TASK_UUID")()
    finally:
        task_environment.reset(token)
    assert isinstance(result, ShellResult)
    assert result.stdout == f"{tmp_path}\nan-id\n"
    assert (tmp_path / "an-id.stdout").exists()


def test_an_mpi_function_runs_under_the_prefix_of_the_engine() -> None:
    assert MPIFunction("app {n}").command_line(n=3) == "$PARSL_MPI_PREFIX app 3"


def test_a_negative_walltime_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        ShellFunction("true", walltime=-1)


def test_the_official_clients_instances_are_read_without_its_package() -> None:
    function = Serializer().deserialize(OFFICIAL_FUNCTION)
    assert type(function) is ShellFunction
    assert vars(function) == vars(ShellFunction("echo {x}"))
    result = Serializer().deserialize(OFFICIAL_RESULT)
    assert result == ShellResult("c", "o", "e", 0)


@pytest.mark.parametrize(
    ("value", "home"),
    [
        (ShellFunction("echo {x}", name="hello"), "globus_compute_sdk.sdk.shell_function"),
        (MPIFunction("echo"), "globus_compute_sdk.sdk.mpi_function"),
        (ShellResult("c", "o", "e", 1, "E"), "globus_compute_sdk.sdk.shell_function"),
    ],
)
def test_ours_name_the_official_classes_on_the_wire_and_come_back_as_ours(value: object, home: str) -> None:
    serializer = Serializer()
    raw = base64.b64decode(serializer.serialize(value)[3:])
    inner = next(argument for _, argument, _ in pickletools.genops(raw) if isinstance(argument, bytes))
    named = [argument for _, argument, _ in pickletools.genops(inner) if isinstance(argument, str)]
    assert named[:2] == [home, type(value).__name__]
    back = serializer.deserialize(serializer.serialize([value, {"again": value}]))
    assert type(back[0]) is type(value)
    assert vars(back[0]) == vars(value)
    assert vars(back[1]["again"]) == vars(value)


def test_a_function_that_holds_one_takes_it_along() -> None:
    greet = ShellFunction("echo {x}")
    function = Serializer().unpack_function(Serializer().pack_function(lambda x: greet(x=x)))
    assert function("hi").stdout == "hi\n"
