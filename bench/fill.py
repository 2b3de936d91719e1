"""`fill.py URL COUNT`: finished tasks in a store, through its own API, as two weeks of use would leave them."""

from __future__ import annotations

import asyncio
import sys
import time
from uuid import UUID, uuid4

from muster.model.task import Outcome, Task, TaskGroup
from muster.store import open_store

URL, COUNT = sys.argv[1], int(sys.argv[2])
GROUP, ENDPOINTS = 1000, 50
PAYLOAD, RESULT, DETAILS = "x" * 120, "y" * 60, '{"os": "Linux-6.1", "python_version": "3.11.2"}'
AGE_S = 13 * 86_400


async def main() -> None:
    store = await open_store(URL)
    owner, function, endpoints = uuid4(), uuid4(), [uuid4() for _ in range(ENDPOINTS)]
    begun, now_s = time.perf_counter(), time.time()
    for number in range(0, COUNT, GROUP):
        at_s = now_s - AGE_S * (1 - number / COUNT)
        group, endpoint = uuid4(), endpoints[number // GROUP % ENDPOINTS]
        await store.claim_group(TaskGroup(group, owner, True, at_s))
        ids = [UUID(int=(int(at_s * 1000) << 80) | (uuid4().int >> 48)) for _ in range(min(GROUP, COUNT - number))]
        await store.add_tasks([Task(id_, group, owner, endpoint, function, PAYLOAD, None, (), at_s) for id_ in ids])
        await store.finish([Outcome(id_, RESULT, None, DETAILS, 1, 2, at_s) for id_ in ids], endpoint)
    await store.close()
    print(time.perf_counter() - begun, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
