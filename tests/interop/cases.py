"""Every case, written once for either SDK: `python cases.py {muster|globus_compute_sdk} ENDPOINT CONFIG_JSON CASE…`.

Prints one JSON line a case. Both SDKs promise the same names, so the import is all that differs.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
from uuid import uuid4

PACKAGE, ENDPOINT, CONFIG = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
sdk = importlib.import_module(PACKAGE)
PATIENCE_S = 90


def whoami():
    import os

    return os.getuid()


def double(number):
    return number * 2


def hello(name):
    import os

    return f"Hello, {name}; I ran on {os.uname().nodename}"


def explode(word):
    def inner():
        raise ValueError(f"no {word} here")

    return inner()


def executor(**more):
    # The throttle of the official SDK counts small batches; 1 switches it off.
    return sdk.Executor(endpoint_id=ENDPOINT, user_endpoint_config=CONFIG or None, api_burst_limit=1, **more)


def case_submit():
    with executor() as ex:
        future = ex.submit(hello, "Obi-Wan")
        assert future.result(PATIENCE_S).startswith("Hello, Obi-Wan; I ran on ")
        return {"task_id": future.task_id, "uid": ex.submit(whoami).result(PATIENCE_S)}


def case_map():
    with executor() as ex:
        futures = [ex.submit(double, n) for n in range(100)]
        assert [f.result(PATIENCE_S) for f in futures] == [n * 2 for n in range(100)]
    if PACKAGE == "muster":
        with executor() as ex:
            assert list(ex.map(double, range(100), timeout=PATIENCE_S)) == [n * 2 for n in range(100)]
    return {"tasks": 100}


def case_exception():
    with executor() as ex:
        future = ex.submit(explode, "droids")
        why = future.exception(PATIENCE_S)
    assert type(why).__name__ == "TaskExecutionFailed", repr(why)
    assert "ValueError: no droids here" in str(why), str(why)
    assert "inner" in str(why), "the traceback names the frame"
    return {"error": type(why).__name__}


def pending(client, call):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except Exception as why:
            if type(why).__name__ != "TaskPending" or time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def case_client():
    client = sdk.Client()
    function = client.register_function(double)
    keyword = {"user_endpoint_config": CONFIG} if CONFIG else {}
    batch = client.create_batch(**keyword)
    for number in (20, 21, 22):
        batch.add(function, (number,))
    placed = client.batch_run(ENDPOINT, batch)
    ids = placed["tasks"][function]
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = client.get_batch_result(ids)
        if all(not found[i]["pending"] for i in ids):
            break
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    assert [found[i]["result"] for i in ids] == [40, 42, 44]
    assert pending(client, lambda: client.get_result(ids[0])) == 40
    one = None
    if not CONFIG:
        one = client.run(7, endpoint_id=ENDPOINT, function_id=function)
        assert pending(client, lambda: client.get_result(one)) == 14
    return {"group": placed["task_group_id"], "run": one}


def case_reload():
    # The official SDK remembers the first task group of a process for every later Executor: take a new one.
    with executor(task_group_id=str(uuid4())) as ex:
        futures = [ex.submit(double, n) for n in range(5)]
        [f.result(PATIENCE_S) for f in futures]
        group = ex.task_group_id
    assert group, "an executor tells its task group"
    with executor(task_group_id=group) as ex:
        again = list(ex.reload_tasks())
        assert sorted(f.result(PATIENCE_S) for f in again) == [0, 2, 4, 6, 8]
    return {"group": str(group)}


def case_shell():
    with executor() as ex:
        good = ex.submit(sdk.ShellFunction("echo {word}; echo oops >&2"), word="hello").result(PATIENCE_S)
        assert good.returncode == 0, good
        assert good.stdout.strip() == "hello", good.stdout
        assert "oops" in good.stderr.splitlines(), good.stderr  # theirs adds a warning of its own
        bad = ex.submit(sdk.ShellFunction("exit 3")).result(PATIENCE_S)
        assert bad.returncode == 3, bad
    return {"returncodes": [good.returncode, bad.returncode]}


def case_config():
    """The same person with other values gets another user endpoint."""
    import os

    with executor() as ex:
        one = ex.submit(os.getpid).result(PATIENCE_S)
        ex.user_endpoint_config = {**CONFIG, "worker_init": "export SEEN=1"}
        other = ex.submit(os.getpid).result(PATIENCE_S)
    assert one != other, "two configurations, two processes"
    return {"pids": [one, other]}


def case_refused():
    """A value that the schema refuses reaches the user as an error that names it."""
    bad = sdk.Executor(endpoint_id=ENDPOINT, user_endpoint_config={"max_workers": "many"}, api_burst_limit=1)
    with bad as ex:
        why = ex.submit(whoami).exception(PATIENCE_S)
    assert why is not None
    assert "many" in str(why), str(why)
    return {"error": str(why)[:300]}


def main():
    failed = 0
    for name in sys.argv[4:]:
        begun = time.monotonic()
        try:
            told = {"case": name, "ok": True, **globals()[f"case_{name}"]()}
        except BaseException:  # noqa: BLE001 - a case may end in anything, and is told
            told = {"case": name, "ok": False, "why": traceback.format_exc()[-3000:]}
            failed += 1
        told["seconds"] = round(time.monotonic() - begun, 2)
        print(json.dumps(told), flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
