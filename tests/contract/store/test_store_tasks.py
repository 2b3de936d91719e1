from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import chain
from uuid import uuid4

import pytest

from muster.errors import Conflict, NotPermitted
from muster.model.task import Outcome, TaskGroup
from muster.store.contract import Finished


def outcome(task, **changes) -> Outcome:
    return replace(Outcome(task.id, "result", details='{"os": "linux"}', completed_at_s=2000.0), **changes)


def ids(tasks):
    return [task.id for task in tasks]


async def test_a_group_belongs_to_who_claimed_it_first(store, harper, alice):
    group = TaskGroup(uuid4(), harper.id, True, 1000.0)
    assert await store.claim_group(group) == group
    assert await store.claim_group(replace(group, bundles=False, created_at_s=9.0)) == group
    with pytest.raises(NotPermitted):
        await store.claim_group(replace(group, owner=alice.id))
    assert await store.group(group.id) == group
    assert await store.group(uuid4()) is None


async def test_of_racing_claimants_one_gets_the_group(store):
    id_ = uuid4()
    ends = await asyncio.gather(
        *(store.claim_group(TaskGroup(id_, uuid4())) for _ in range(10)), return_exceptions=True
    )
    assert sum(isinstance(end, TaskGroup) for end in ends) == 1
    assert sum(isinstance(end, NotPermitted) for end in ends) == 9


async def test_a_group_learns_what_its_client_reads(store, harper):
    group = await store.claim_group(TaskGroup(uuid4(), harper.id, created_at_s=1000.0))
    await store.set_group_bundles(group.id, True)
    assert await store.group(group.id) == replace(group, bundles=True)


async def test_recent_groups_are_those_still_in_use(store, harper):
    old = await store.claim_group(TaskGroup(uuid4(), harper.id, created_at_s=1000.0))
    used = await store.claim_group(TaskGroup(uuid4(), harper.id, created_at_s=2000.0))
    young = await store.claim_group(TaskGroup(uuid4(), harper.id, created_at_s=90_000.0))
    assert await store.claim_group(used) == used
    assert await store.recent_groups(80_000.0) == [used, young]
    assert await store.recent_groups(0.0) == [old, used, young]


async def test_a_task_comes_back_as_it_went_in(started, job):
    full = job.task(payload="02\nx\0y\ud800", resources='{"num_nodes": 2}', serializers=("a.B", "c.D"))
    plain = job.task()
    assert await started.add_tasks([full, plain]) == [full.id, plain.id]
    assert await started.tasks([plain.id, full.id, uuid4()]) == {full.id: full, plain.id: plain}
    assert await started.unfinished(job.endpoint) == [full, plain]


async def test_adding_nothing_and_asking_for_nothing_is_fine(started):
    assert await started.add_tasks([]) == []
    assert await started.finish([]) == []
    assert await started.tasks([]) == {}
    assert await started.outcomes([]) == {}


async def test_repeating_a_batch_changes_nothing(started, job):
    first, more = job.tasks(3), job.tasks(2)
    assert await started.add_tasks(first) == ids(first)
    assert await started.add_tasks(first) == []
    assert await started.add_tasks([first[0], *more, first[2]]) == ids(more)
    assert await started.unfinished(job.endpoint) == first + more


async def test_a_task_that_comes_twice_in_a_batch_is_one_task(started, job):
    task = job.task()
    assert await started.add_tasks([task, task]) == [task.id]
    assert await started.unfinished(job.endpoint) == [task]


async def test_repeating_a_finished_task_does_not_start_it_again(started, job):
    task = job.task()
    await started.add_tasks([task])
    await started.finish([outcome(task)])
    assert await started.add_tasks([task]) == []
    assert await started.unfinished(job.endpoint) == []


@pytest.mark.parametrize("what", ["owner", "group", "function"])
async def test_a_task_id_that_is_taken_refuses_the_whole_batch(started, job, what):
    task, fresh = job.task(), job.task()
    await started.add_tasks([task])
    with pytest.raises(Conflict):
        await started.add_tasks([fresh, replace(task, **{what: uuid4()})])
    assert await started.tasks([task.id, fresh.id]) == {task.id: task}
    with pytest.raises(Conflict):
        await started.add_tasks([fresh, replace(fresh, **{what: uuid4()})])
    assert await started.unfinished(job.endpoint) == [task]


async def test_a_thief_does_not_spoil_the_batches_that_share_his_commit(started, job):
    task = job.task()
    await started.add_tasks([task])
    batches = [job.tasks(3) for _ in range(10)]
    calls = [started.add_tasks(batch) for batch in batches]
    calls.insert(5, started.add_tasks([replace(task, owner=uuid4())]))
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(ends.pop(5), Conflict)
    assert ends == [ids(batch) for batch in batches]


async def test_racing_repeats_agree_on_who_was_first(started, job):
    tasks = job.tasks(20)
    halves = [tasks[n:] + tasks[:n] for n in range(20)]
    added = await asyncio.gather(*(started.add_tasks(half) for half in halves))
    assert sorted(chain(*added)) == sorted(ids(tasks))
    assert len(await started.unfinished(job.endpoint)) == 20


async def test_unfinished_comes_in_order_of_submission_a_page_at_a_time(started, job):
    tasks = job.tasks(10)
    for start in range(0, 10, 2):
        await started.add_tasks(tasks[start : start + 2])
    seen, after = [], None
    while page := await started.unfinished(job.endpoint, after, 3):
        assert len(page) <= 3
        seen += page
        after = page[-1].id
    assert seen == tasks


async def test_a_page_begins_after_a_task_that_has_finished_meanwhile(started, job):
    tasks = job.tasks(5)
    await started.add_tasks(tasks)
    await started.finish([outcome(tasks[1])])
    assert await started.unfinished(job.endpoint, tasks[1].id) == tasks[2:]


async def test_a_group_lists_its_tasks_in_order_of_submission(started, job):
    tasks = job.tasks(5)
    await started.add_tasks(tasks)
    await started.finish([outcome(tasks[2])])
    assert await started.group_tasks(job.group) == [(task.id, 1000.5) for task in tasks]
    assert await started.group_tasks(uuid4()) == []


async def test_an_outcome_comes_back_as_it_went_in(started, job):
    good, bad = job.tasks(2)
    await started.add_tasks([good, bad])
    fine = outcome(good, started_ns=1_700_000_000_123_456_789, ended_ns=1_700_000_000_223_456_789)
    failed = outcome(bad, data="trace\0back \ud800", error=("TaskFailed", "it\0broke"), completed_at_s=2001.0)
    assert await started.finish([fine, failed]) == [
        Finished(good.id, job.group, job.endpoint),
        Finished(bad.id, job.group, job.endpoint),
    ]
    assert await started.outcomes([good.id, bad.id, uuid4()]) == {good.id: fine, bad.id: failed}
    sizes = {one.task: len(one.data.encode("utf-8", "surrogatepass")) for one in (fine, failed)}
    assert await started.result_sizes([good.id, bad.id, uuid4()]) == sizes
    assert await started.group_results(job.group, 0.0) == [(one.task, sizes[one.task]) for one in (fine, failed)]
    assert await started.group_results(job.group, 2000.5) == [(bad.id, sizes[bad.id])]


async def test_the_first_result_of_a_task_stays(started, job):
    task = job.task()
    await started.add_tasks([task])
    first, second = outcome(task), outcome(task, data="another")
    assert await started.finish([first, second]) == [Finished(task.id, job.group, job.endpoint)]
    assert await started.finish([second]) == []
    assert await started.outcomes([task.id]) == {task.id: first}


async def test_a_finished_task_keeps_its_facts_and_loses_its_payload(started, job):
    task = job.task(resources="{}", serializers=("a.B",))
    await started.add_tasks([task])
    await started.finish([outcome(task)])
    assert await started.tasks([task.id]) == {task.id: replace(task, payload="", resources=None, serializers=())}


async def test_results_of_unknown_tasks_are_ignored(started, job):
    task = job.task()
    assert await started.finish([outcome(task)]) == []
    await started.add_tasks([task])
    assert await started.outcomes([task.id]) == {}


async def test_an_endpoint_cannot_finish_the_tasks_of_another(started, job):
    mine, other = job.task(), job.task(endpoint=uuid4())
    await started.add_tasks([mine, other])
    forged = [outcome(other, data="forged"), outcome(mine)]
    assert await started.finish(forged, job.endpoint) == [Finished(mine.id, job.group, job.endpoint)]
    assert await started.unfinished(other.endpoint) == [other]
    honest = outcome(other, data="honest")
    calls = [started.finish([outcome(other, data="forged")], job.endpoint), started.finish([honest], other.endpoint)]
    assert await asyncio.gather(*calls) == [[], [Finished(other.id, job.group, other.endpoint)]]
    assert await started.outcomes([other.id]) == {other.id: honest}


async def test_a_forger_who_shares_the_commit_neither_wins_nor_spoils_it(started, job):
    task = job.task()
    await started.add_tasks([task])
    forged, real = outcome(task, data="forged"), outcome(task)
    calls = [started.finish([forged], uuid4()) for _ in range(6)]
    calls.insert(4, started.finish([real], job.endpoint))
    ends = await asyncio.gather(*calls)
    assert ends.pop(4) == [Finished(task.id, job.group, job.endpoint)]
    assert not any(ends)
    assert await started.outcomes([task.id]) == {task.id: real}


async def test_racing_results_are_new_once(started, job):
    tasks = job.tasks(50)
    await started.add_tasks(tasks)
    calls = [started.finish([outcome(task, data=f"from {n}") for task in tasks[:: 1 - 2 * (n % 2)]]) for n in range(10)]
    finished = list(chain(*await asyncio.gather(*calls)))
    assert sorted(one.task for one in finished) == sorted(ids(tasks))
    assert await started.unfinished(job.endpoint) == []


async def test_work_and_results_that_cross_lose_nothing(started, job):
    batches = [job.tasks(7) for _ in range(40)]

    async def through(batch):
        assert await started.add_tasks(batch) == ids(batch)
        return await started.finish([outcome(task) for task in batch], job.endpoint)

    finished = list(chain(*await asyncio.gather(*map(through, batches))))
    assert sorted(one.task for one in finished) == sorted(task.id for batch in batches for task in batch)
    assert await started.endpoints_with_unfinished() == []
    assert (await started.load())["unfinished"] == 0


async def test_a_batch_longer_than_any_statement_takes_is_one_batch(started, job):
    tasks = job.tasks(2500)
    assert await started.add_tasks(tasks) == ids(tasks)
    assert len(await started.tasks(ids(tasks))) == 2500
    assert len(await started.finish([outcome(task) for task in tasks])) == 2500
    assert len(await started.outcomes(ids(tasks))) == 2500


async def test_endpoints_with_unfinished_tasks_are_named_once(started, job):
    busy = sorted([uuid4() for _ in range(5)], key=lambda id_: id_.bytes)
    for endpoint in busy:
        await started.add_tasks(job.tasks(3, endpoint=endpoint))
    done = job.tasks(2)
    await started.add_tasks(done)
    await started.finish([outcome(task) for task in done])
    assert await started.endpoints_with_unfinished() == busy


async def test_tasks_that_wait_too_long_are_found(started, job):
    old, done, young = job.task(created_at_s=10.0), job.task(created_at_s=10.0), job.task(created_at_s=30.0)
    await started.add_tasks([young, old, done])
    await started.finish([outcome(done)])
    assert await started.unfinished_before(20.0) == [old.id]
    assert await started.unfinished_before(40.0, limit=1) != []
    assert await started.unfinished_before(5.0) == []


async def test_times_nobody_gave_are_now(started, job):
    task = job.task(created_at_s=0.0)
    await started.add_tasks([task])
    await started.finish([outcome(task, completed_at_s=0.0)])
    assert (await started.tasks([task.id]))[task.id].created_at_s > 1.7e9
    assert (await started.outcomes([task.id]))[task.id].completed_at_s > 1.7e9


async def test_old_results_are_purged_with_their_tasks_and_the_rest_stays(started, job):
    old, young, waiting = job.tasks(5), job.task(), job.task(created_at_s=1.0)
    await started.add_tasks([*old, young, waiting])
    await started.finish([outcome(task, completed_at_s=100.0) for task in old])
    await started.finish([outcome(young, completed_at_s=300.0)])
    assert await started.purge_results(200.0, limit=2) == 2
    assert await started.purge_results(200.0) == 3
    assert await started.tasks(ids(old)) == {}
    assert await started.outcomes(ids(old)) == {}
    assert await started.outcomes([young.id]) != {}
    assert await started.unfinished(job.endpoint) == [waiting]


async def test_load_counts_what_there_is(started, job, harper):
    await started.add_identity(harper)
    tasks = job.tasks(3)
    await started.add_tasks(tasks)
    await started.finish([outcome(tasks[0])])
    load = await started.load()
    assert load.pop("bytes") > 0
    assert load == {
        "identities": 1,
        "functions": 0,
        "endpoints": 0,
        "user_endpoints": 0,
        "groups": 1,
        "unfinished": 2,
        "tasks": 3,
    }
