from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from muster.config import read_document, read_text
from muster.errors import ConfigInvalid

UNFOLDING = "a: &a [x, x, x, x]\n" + "".join(
    f"k{at}: &{fresh} [{', '.join([f'*{old}'] * 8)}]\n" for at, (old, fresh) in enumerate(pairwise("abcdefgh"))
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3", "line 3, column 1: 'a' stands here again (first in line 1)"),
        ("a:\n  b: 1\n  b: 2", "line 3, column 3"),
        ("yes: 1", "line 1, column 1: the key yes is not text"),
        ("1: 1", "the key 1 is not text"),
        ("a: [", "line 2, column 1"),
        ("- 1", "must be a mapping"),
        ("a: &a [*a]", "nested too deeply"),
        ("a: !!python/object/apply:os.system [id]", "line 1, column 4: could not determine a constructor"),
        ("a: " + "[" * 2000, "config.yaml"),
        ("a: " + "[" * 80 + "]" * 80, "nested too deeply"),
        ("a: b\0", "is not YAML"),
        ("x" * (5 << 20), "is larger than"),
        (UNFOLDING, "too many values"),
    ],
)
def test_what_is_not_plain_strict_yaml_is_refused_with_its_place(text: str, expected: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        read_document(text, "config.yaml")
    assert caught.value.message().startswith("config.yaml: ")
    assert expected in caught.value.message()


def test_scalars_mean_what_they_look_like() -> None:
    text = "walltime: 1:00:00\nday: 2024-01-31\nnumber: 1e3\nhex: 0x10\nflag: true\nnothing: ~\ntext: '5'\nhalf: .5\n"
    assert read_document(text, "f").data == {
        "walltime": "1:00:00",
        "day": "2024-01-31",
        "number": 1000.0,
        "hex": 16,
        "flag": True,
        "nothing": None,
        "text": "5",
        "half": 0.5,
    }


def test_anchors_and_merges_work() -> None:
    text = "base: &base {a: 1, b: 2}\nmore:\n  <<: *base\n  b: 3\n"
    assert read_document(text, "f").data["more"] == {"a": 1, "b": 3}


def test_an_empty_file_is_an_empty_mapping() -> None:
    assert read_document("# nothing\n", "f").data == {}


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="No such file"):
        read_text(tmp_path / "none.yaml")
    (tmp_path / "latin").write_bytes(b"a: \xe9")
    with pytest.raises(ConfigInvalid, match="not UTF-8 text"):
        read_text(tmp_path / "latin")
