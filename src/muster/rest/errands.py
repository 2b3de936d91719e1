"""Blocking calls beside an event loop, in threads that never keep the interpreter from ending."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def aside(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `asyncio.to_thread`, whose threads are waited for at exit: there an outage would hold up the end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def finish(value: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)  # type: ignore[arg-type] # without an error it is a T

    def work() -> None:
        value, error = None, None
        try:
            value = call(*args, **kwargs)
        except BaseException as why:  # noqa: BLE001 - it is raised where somebody waits for it
            error = why
        with suppress(RuntimeError):  # the loop has ended meanwhile: nobody waits
            loop.call_soon_threadsafe(finish, value, error)

    threading.Thread(target=work, name="muster errand", daemon=True).start()
    return await done
