"""Every number the service lives by. Tests shrink them; a site rarely needs to."""

from __future__ import annotations

from dataclasses import dataclass

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times in seconds, sizes in bytes."""

    check_in_timeout_s: float = 120  # since the last sign of life of the attempt
    repeat_s: float = 5  # a start order may be swallowed by an official manager: say it again
    offline_grace_s: float = 60  # how long a manager may be away before its tasks end
    single_offline_grace_s: float = 3600  # a human restarts these
    submit_wait_s: float = 20  # official clients learn of a failed start from the answer to their POST
    quick_failures: int = 3  # in a row; then the tasks end instead of starting once more
    quick_s: float = 30  # dying this young counts as a quick failure
    lock_s: float = 60
    revoke_delay_s: float = 5  # after `lock`: revoked at once, the agent's own `stop` would report a failure
    watch_s: float = 5
    sweep_s: float = 60
    task_ttl_s: float = 14 * _DAY_S
    result_ttl_s: float = 14 * _DAY_S
    unfetched_s: float = 1800  # results leave a queue nobody reads; they stay in the store
    group_queue_s: float = _DAY_S  # a restart declares the queues of groups at most this old
    account_s: float = _DAY_S  # user endpoints and readers
    account_purge_s: float = 14 * _DAY_S
    max_tasks: int = 10_000  # in one POST
    max_config_bytes: int = 32 * 1024
    max_depth: int = 32
    max_registration_bytes: int = 1024 * 1024
    max_small_bytes: int = 256 * 1024
    max_batch_status: int = 10_000
    function_cache_bytes: int = 64 * 1024 * 1024
