"""The Parsl engine: bundles of calls as HTEX tasks, blocks by need.

An HTEX task costs two milliseconds whatever is in it, so short calls travel together, up to fifty milliseconds of
work. A function of unknown duration travels alone until it is known.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import ceil
from pathlib import Path
from typing import Any

from muster.engine.contract import Deliver, Load
from muster.engine.options import CommonOptions
from muster.engine.outlet import Outlet, result_of
from muster.engine.pace import Pace
from muster.engine.parsl.blocks import Blocks
from muster.engine.parsl.settings import Settings
from muster.engine.seat import Call
from muster.errors import MusterError, StartFailed, WorkerLost
from muster.wire.bundle import ResultItem, TaskItem
from muster.worker.bundle import Row, pack_bundle, unpack_answers

_log = logging.getLogger(__name__)

_BUDGET_NS = 50e6
_OVERHEAD_NS = 40e3
_MAX_CALLS = 1000
_MAX_CHARACTERS = 4_000_000
_AHEAD = 2  # bundles for each worker, so that none waits for us
_TEND_S = 1.0
_FORGIVE_S = 30.0  # after giving blocks up, until the next attempt
_STOP_S = 10.0


class ParslEngine:
    """Parsl's HighThroughputExecutor, driven directly."""

    def __init__(self, **config: Any) -> None:
        self._settings = Settings.of(config)
        self._common = CommonOptions.of(**self._settings.common)
        self._retries = self._settings.retries
        self._waiting: deque[Call] = deque()
        self._flying: dict[int, list[Call]] = {}
        self._numbers = itertools.count()
        self._pace = Pace()
        self._stopped = False
        self._broken = ""  # the executor is beyond repair, and why
        self._broken_at_s = float("-inf")
        self._mend_at_s = 0.0
        self._tending: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "parsl")  # its sockets and the batch system: one question at a time

    async def start(self, workdir: Path, deliver: Deliver) -> None:
        """Import Parsl, start the interchange, submit the first blocks; returns when calls can be handed over."""
        self._loop = asyncio.get_running_loop()
        self._outlet = Outlet(deliver)
        self._common = self._common.at(workdir)
        self._workdir = workdir / "parsl"
        try:
            await self._loop.run_in_executor(self._thread, self._bring_up)
        except MusterError:
            raise
        except Exception as why:
            # Anything may go wrong in another program's start; it is told as ours.
            raise StartFailed(why=f"Parsl did not start: {why}") from why
        self._tending = asyncio.create_task(self._live())
        self._dispatch()

    def _bring_up(self) -> None:
        self._run_dir = self._workdir / f"{time.strftime('%Y%m%d-%H%M%S')}-{next(self._numbers)}"
        for folder in ("submit_scripts", "workers"):
            (self._run_dir / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        executor = self._settings.executor(self._run_dir)
        executor.run_dir = str(self._run_dir)
        executor.provider.script_dir = str(self._run_dir / "submit_scripts")
        try:
            executor.start()
        except Exception:
            executor.shutdown(timeout=1)
            raise
        scaling = self._settings.scaling
        self._executor = executor
        self._blocks = Blocks(executor, max_idletime_s=scaling.max_idletime_s, enabled=scaling.enabled)
        self._blocks.first(len(self._waiting))

    def submit(self, tasks: Sequence[TaskItem], code: dict[bytes, str]) -> None:
        """Queue them; a block starts at once when they need one."""
        calls = [Call(item, code[item.function]) for item in tasks]
        if self._stopped or (self._broken and time.monotonic() < self._mend_at_s):
            self._fail(calls, self._broken or "the engine was stopped")
            return
        self._waiting.extend(calls)
        self._dispatch()
        self._wake.set()

    def load(self) -> Load:
        flying = sum(len(calls) for calls in self._flying.values())
        workers = self._blocks.workers
        running = min(flying, workers)
        managers = self._blocks.managers
        provider = self._executor.provider
        figures = {
            "engine_type": "GlobusComputeEngine",
            "provider_type": type(provider).__name__,
            "managers": len(managers),
            "active_managers": sum(bool(manager["active"]) for manager in managers),
            "idle_workers": max(0, workers - running),
            "scaling_enabled": self._settings.scaling.enabled,
            "max_blocks": provider.max_blocks,
            "min_blocks": provider.min_blocks,
            "nodes_per_block": provider.nodes_per_block,
            "max_workers_per_node": self._executor.workers_per_node,
            "queue": getattr(provider, "queue", getattr(provider, "partition", None)),
            "account": getattr(provider, "account", None),
        }
        return Load(len(self._waiting) + flying - running, running, workers, figures)

    def room(self) -> int:
        held = len(self._waiting) + sum(len(calls) for calls in self._flying.values())
        return self._pace.room(self._blocks.most_workers, held)

    async def stop(self) -> None:
        """Cancel the blocks first, or their managers would run on for minutes; then the interchange."""
        if self._stopped or self._tending is None:
            return  # it is stopped already, or never came up
        self._stopped = True
        self._tending.cancel()
        await asyncio.gather(self._tending, return_exceptions=True)
        left = [call for calls in self._flying.values() for call in calls] + list(self._waiting)
        self._flying.clear()
        self._waiting.clear()
        self._fail(left, "the engine was stopped")
        try:
            async with asyncio.timeout(_STOP_S):
                await self._loop.run_in_executor(self._thread, self._shut_down)
        except TimeoutError:
            _log.warning("Parsl did not stop within %s seconds", _STOP_S)
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._outlet.flush()

    def _shut_down(self) -> None:
        self._blocks.cancel_all()
        self._executor.shutdown(timeout=2)

    # Blocks

    async def _live(self) -> None:
        while True:
            await self._tend()
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            await self._mend()

    async def _tend(self) -> None:
        """Look after the blocks until the executor is broken."""
        watched = os.pidfd_open(self._executor.interchange_proc.pid)
        self._loop.add_reader(watched, self._check, None)
        try:
            await self._scale()
        finally:
            self._loop.remove_reader(watched)
            os.close(watched)

    async def _scale(self) -> None:
        while not self._broken:
            self._wake.clear()
            try:
                await self._loop.run_in_executor(self._thread, self._blocks.tend, self._demand())
            except Exception as why:  # noqa: BLE001 - Parsl, the scheduler, the file system: none may end the engine
                _log.warning("looking after the blocks failed", exc_info=True)
                self._check(why)
            self._check(None)
            self._dispatch()
            if not self._broken:
                await self._pause()

    async def _pause(self) -> None:
        """Until the next look, or until calls come that no block would run."""
        try:
            async with asyncio.timeout(_TEND_S):
                await self._wake.wait()
                while self._blocks.active >= self._blocks.most_workers // self._blocks.capacity:
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            return

    def _demand(self) -> int:
        """Workers that could be busy now: short calls count by the bundle."""
        held = len(self._waiting) + sum(len(calls) for calls in self._flying.values())
        mean_ns = self._pace.mean_ns
        if mean_ns is None or mean_ns >= _BUDGET_NS:
            return held
        return min(held, ceil(held * (mean_ns + _OVERHEAD_NS) / _BUDGET_NS))

    def _check(self, why: Exception | None) -> None:
        """Fail what cannot run any more, with the cause."""
        executor = self._executor
        if self._broken:
            return
        if executor.bad_state_is_set:
            self._break(str(executor.executor_exception))
        elif executor.interchange_proc.poll() is not None:
            self._break(f"Parsl's interchange ended with code {executor.interchange_proc.returncode}")
        elif type(why).__name__ == "CommandClientTimeoutError":
            self._break("Parsl's interchange does not answer")
        elif self._blocks.given_up and not self._blocks.active:
            self._break(f"no block of workers comes up: {self._blocks.cause}", patience_s=_FORGIVE_S)

    def _break(self, why: str, patience_s: float = 0.0) -> None:
        """Fail what there is. What comes later finds a new executor, but not at once if that would break as well."""
        now = time.monotonic()
        if now - self._broken_at_s < _FORGIVE_S:
            patience_s = _FORGIVE_S
        self._broken, self._broken_at_s, self._mend_at_s = why, now, now + patience_s
        left = [call for calls in self._flying.values() for call in calls] + list(self._waiting)
        self._flying.clear()
        self._waiting.clear()
        self._fail(left, why)

    async def _mend(self) -> None:
        """A new executor in place of the broken one: what the old one still had queued must never run."""
        try:
            await self._loop.run_in_executor(self._thread, self._shut_down)
            await self._loop.run_in_executor(self._thread, self._bring_up)
        except Exception as why:  # noqa: BLE001 - as at the first start, but now calls wait for the answer
            _log.warning("Parsl could not be started again", exc_info=True)
            self._break(f"Parsl did not start: {why}", patience_s=_FORGIVE_S)
            return
        self._broken = ""
        self._dispatch()

    # Calls

    def _dispatch(self) -> None:
        blocks = self._blocks
        workers = blocks.workers or blocks.most_workers
        while self._waiting and len(self._flying) < workers * _AHEAD and not (self._stopped or self._broken):
            free = workers * _AHEAD - len(self._flying)
            self._send(self._choose(ceil(len(self._waiting) / max(1, min(workers, free)))))

    def _choose(self, share: int) -> list[Call]:
        chosen: list[Call] = []
        expected_ns, characters = 0.0, 0
        while self._waiting and len(chosen) < min(share, _MAX_CALLS) and characters < _MAX_CHARACTERS:
            one_ns = self._pace.expect_ns(self._waiting[0].item.function) + _OVERHEAD_NS
            if chosen and expected_ns + one_ns > _BUDGET_NS:
                break
            expected_ns += one_ns
            call = self._waiting.popleft()
            characters += len(call.item.payload)
            chosen.append(call)
        return chosen

    def _send(self, calls: list[Call]) -> None:
        numbers: dict[str, int] = {}
        rows: list[Row] = []
        for call in calls:
            code = numbers.setdefault(call.code, len(numbers))
            rows.append((code, call.item.task, call.item.payload, call.item.serializers))
        codes = {number: text for text, number in numbers.items()}
        logs = str(self._run_dir / "workers")
        data = pack_bundle(self._common.task, self._common.timeout_s, logs, codes, rows)
        number = next(self._numbers)
        self._flying[number] = calls
        try:
            future = self._executor.submit_payload({"task_executor": {"f": "muster.worker.bundle.run"}}, data)
        except Exception as why:  # noqa: BLE001 - Parsl raises what broke it before
            self._flying.pop(number)
            self._waiting.extendleft(reversed(calls))
            self._break(str(why))
            return
        future.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._landed, number, done))

    def _landed(self, number: int, future: Future[bytes]) -> None:
        calls = self._flying.pop(number, None)
        if calls is None:
            return
        why = future.exception()
        if why is not None:
            self._lost(calls, why)
        else:
            details, answers = unpack_answers(future.result())
            results = []
            for call, answer in zip(calls, answers, strict=True):
                data, code, message, started_ns, ended_ns = answer
                if started_ns is not None and ended_ns is not None:
                    self._pace.saw(call.item.function, ended_ns - started_ns)
                    results.append(result_of(call.item.task, (data, code, message, started_ns, ended_ns), details))
                else:
                    results.append(ResultItem(call.item.task, data, code, message, details=details))
            self._outlet.put_now(results)
        self._dispatch()

    def _lost(self, calls: list[Call], why: BaseException) -> None:
        """A node, a manager or the worker program is gone, and nobody can say how far it was."""
        if isinstance(why, ModuleNotFoundError) and (why.name or "").startswith("muster"):
            self._fail(calls, "the workers' environment has no Muster: install muster-compute[endpoint] in it")
            return
        again = [call for call in calls if call.tries < self._retries]
        for call in again:
            call.tries += 1
        self._fail([call for call in calls if call not in again], str(why) or type(why).__name__)
        self._waiting.extendleft(reversed(again))

    def _fail(self, calls: list[Call], why: str) -> None:
        error = WorkerLost(why=why)
        text = error.message()
        self._outlet.put([ResultItem(call.item.task, text, error.code, text) for call in calls])
