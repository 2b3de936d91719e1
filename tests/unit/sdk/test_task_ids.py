from __future__ import annotations

import os
import threading
import time
from uuid import UUID

from muster.sdk.ids import key_of, new_key, text_of


def test_ids_made_later_sort_later():
    keys = [new_key() for _ in range(5000)]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


def test_an_id_is_a_uuid_of_version_7_that_carries_its_time():
    before_ms = time.time_ns() // 1_000_000
    made = UUID(bytes=new_key())
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert before_ms <= made.int >> 80 <= time.time_ns() // 1_000_000


def test_the_text_of_an_id_is_that_of_a_uuid_and_leads_back():
    key = new_key()
    assert text_of(key) == str(UUID(bytes=key))
    assert key_of(text_of(key)) == key


def test_threads_never_make_the_same_id():
    made: list[bytes] = []
    threads = [threading.Thread(target=lambda: made.extend(new_key() for _ in range(2000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8000


def test_a_fork_makes_other_ids_than_its_parent():
    new_key()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"".join(new_key() for _ in range(100)))
        os._exit(0)
    mine = {new_key() for _ in range(100)}
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    theirs = {told[at : at + 16] for at in range(0, len(told), 16)}
    assert len(theirs) == 100
    assert not mine & theirs
