from __future__ import annotations

import math
import pickle
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster import serialize
from muster.errors import CannotDeserialize, CannotSerialize, ConfigInvalid, NotPermitted
from muster.serialize import JSONData, PickleCode, Serializer
from muster.serialize.concretes import BY_PATH, STRATEGIES
from muster.serialize.pickling import armour, unarmour
from muster.serialize.serializer import allowed

FACTOR = 3


class Pair:
    def __init__(self, left: int, right: int) -> None:
        self.left, self.right = left, right


def times_factor(x: int) -> int:
    return math.floor(x * FACTOR)


def via_another(x: int) -> int:
    return times_factor(x) + 1


def factorial(n: int) -> int:
    return 1 if n < 2 else n * factorial(n - 1)


def self_contained(x: int) -> int:
    "A docstring: with a colon, é and\ntwo lines."
    return x * 2


WRITABLE_CODE = [s for s in STRATEGIES if s.for_code and s is not PickleCode]
DATA = [s for s in STRATEGIES if not s.for_code]


@pytest.mark.parametrize("strategy", WRITABLE_CODE)
def test_every_code_strategy_carries_a_function(strategy: Any) -> None:
    buffer = strategy.serialize(self_contained)
    assert buffer.startswith(f"{strategy.identifier}\n")
    assert Serializer().deserialize(buffer)(21) == 42


@pytest.mark.parametrize("strategy", DATA)
def test_every_data_strategy_carries_plain_values(strategy: Any) -> None:
    value = {"a": [1, 2.5, None, True], "é": "\U0001f600"}
    assert Serializer().deserialize(strategy.serialize(value)) == value


def test_pickled_code_of_old_clients_is_read_and_never_written() -> None:
    body = armour(pickle.dumps(math.floor))
    assert Serializer().deserialize(f"02\n{body}")(2.5) == 2
    with pytest.raises(CannotSerialize, match="read only"):
        Serializer(code=PickleCode).serialize(self_contained)


@given(st.binary(max_size=400))
def test_base64_has_lines_of_76_and_a_last_newline_as_the_official_writers_make_it(data: bytes) -> None:
    from base64 import encodebytes

    assert armour(data) == encodebytes(data).decode()
    assert unarmour(armour(data)) == data
    assert unarmour(armour(data).replace("\n", "")) == data


# Written by the official 4.19 client: what must be readable for ever.
OFFICIAL = {
    "00\ngASVFwAAAAAAAABdlChLAUsCZX2UjAFhlIwCw6mUc4aULg==\n": ([1, 2], {"a": "é"}),
    '11\n[[1, 2], {"a": "\\u00e9"}]': [[1, 2], {"a": "é"}],
    '13\n28\n11\n[[1, 2], {"a": "\\u00e9"}]52\n00\ngASVFwAAAAAAAABdlChLAUsCZX2UjAFhlIwCw6mUc4aULg==\n': [
        [1, 2],
        {"a": "é"},
    ],
}
OFFICIAL_CODE = [
    "03\ngASVMQAAAAAAAACMAWiUjCdkZWYgaCh4KToKICAgICJkb2M6IMOpIgogICAgcmV0dXJuIHgqMgqU\nhpQu\n",
    "04\ngASVMQAAAAAAAACMAWiUjCdkZWYgaCh4KToKICAgICJkb2M6IMOpIgogICAgcmV0dXJuIHgqMgqU\nhpQu\n",
    'st\nh:def h(x):\n    "doc: é"\n    return x*2\n',
    'sd\nh:def h(x):\n    "doc: é"\n    return x*2\n',
    '12\n43\nst\nh:def h(x):\n    "doc: é"\n    return x*2\n43\nsd\nh:def h(x):\n    "doc: é"\n    return x*2\n',
    '10\n04\n:broken:03\n:broken:st\n:h:def h(x):\n    "doc: é"\n    return x*2\n',
]


@pytest.mark.parametrize("buffer", OFFICIAL)
def test_data_of_the_official_client_is_read(buffer: str) -> None:
    assert Serializer().deserialize(buffer) == OFFICIAL[buffer]


@pytest.mark.parametrize("buffer", OFFICIAL_CODE)
def test_code_of_the_official_client_is_read(buffer: str) -> None:
    assert Serializer().deserialize(buffer)(4) == 8


def in_another_process(body: str, *texts: str) -> str:
    """What a fresh interpreter prints that has none of this test's modules."""
    program = f"import sys\nfrom muster.serialize import Serializer\ns = Serializer()\n{body}"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], input="\0".join(texts), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_function_takes_the_globals_it_uses_with_it() -> None:
    code = Serializer().pack_function(via_another)
    assert in_another_process("print(s.unpack_function(sys.stdin.read())(2))", code) == "7"


def test_a_recursive_function_finds_itself_elsewhere() -> None:
    code = Serializer().pack_function(factorial)
    assert in_another_process("print(s.unpack_function(sys.stdin.read())(5))", code) == "120"


def test_an_instance_of_a_class_of_this_program_travels_by_value_and_comes_home_as_itself() -> None:
    serializer = Serializer()
    there = serializer.serialize(Pair(1, 2))
    body = "p = s.deserialize(sys.stdin.read()); p.left = 40; print(s.serialize(p))"
    back = serializer.deserialize(in_another_process(body, there) + "\n")
    assert type(back) is Pair
    assert (back.left, back.right) == (40, 2)
    assert Pair.__module__ == __name__


def test_dill_is_not_loaded_for_values_that_pickle_can_carry() -> None:
    body = "s.unpack_arguments(s.pack_arguments((1, 'x', [2.5]), {'k': b'1'})); print('dill' in sys.modules)"
    assert in_another_process(body) == "False"


def test_what_cannot_be_pickled_says_what_it_was() -> None:
    with pytest.raises(CannotSerialize, match="generator"):
        Serializer().serialize(character for character in "abc")


@pytest.mark.parametrize("buffer", ["", "00", "zz\nx", "00\n!!!!", "01\nAAAA\n", "11\n{", "13\n9\nx", "st\nno colon"])
def test_an_unreadable_buffer_is_an_error_of_its_own(buffer: str) -> None:
    with pytest.raises(CannotDeserialize):
        Serializer().deserialize(buffer)


@given(st.text(max_size=60))
def test_no_text_makes_the_reader_fail_in_another_way(text: str) -> None:
    serializer = Serializer()
    for call in (serializer.deserialize, serializer.unpack_function, serializer.unpack_arguments):
        try:
            call(text)
        except CannotDeserialize:
            continue


def test_a_name_from_outside_selects_from_a_table_and_never_imports() -> None:
    assert BY_PATH["globus_compute_sdk.serialize.concretes.JSONData"] is JSONData
    assert BY_PATH["globus_compute_sdk.serialize.JSONData"] is JSONData
    for path in ("os.system", "globus_compute_sdk.serialize.concretes.SerializationError", "builtins.eval"):
        with pytest.raises(CannotSerialize, match="no serializer"):
            Serializer().serialize_by(1, [path])


def test_the_first_named_serializer_that_works_is_taken() -> None:
    paths = ["globus_compute_sdk.serialize.JSONData", "globus_compute_sdk.serialize.DillDataBase64"]
    assert Serializer().serialize_by([1], paths).startswith("11\n")
    assert Serializer().serialize_by({1, 2}, paths).startswith("00\n")


def test_a_site_decides_which_serializers_are_read() -> None:
    identifiers = allowed(["globus_compute_sdk.*Code", "globus_compute_sdk.serialize.concretes.JSONData"])
    serializer = Serializer(allowed_identifiers=identifiers)
    assert serializer.deserialize("11\n1") == 1
    with pytest.raises(NotPermitted, match="does not read DillDataBase64"):
        serializer.deserialize(Serializer().serialize(1))


@pytest.mark.parametrize("names", [["globus_compute_sdk.*Code"], ["globus_compute_sdk.*Data"], ["os.system"], []])
def test_a_list_that_lets_no_task_in_or_no_name_at_all_is_refused(names: list[str]) -> None:
    with pytest.raises(ConfigInvalid):
        allowed(names)


def test_the_same_function_text_is_read_once() -> None:
    serializer = Serializer()
    code = serializer.pack_function(self_contained)
    assert serializer.unpack_function(code) is serializer.unpack_function(code)


def test_every_public_strategy_is_reachable() -> None:
    assert {strategy.__name__ for strategy in STRATEGIES} <= set(serialize.__all__)
