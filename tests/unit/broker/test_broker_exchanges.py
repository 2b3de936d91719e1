from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.broker.exchange import topic_matches


def by_words(pattern: list[str], words: list[str]) -> bool:
    """The definition, word by word."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return by_words(pattern[1:], words) or (bool(words) and by_words(pattern, words[1:]))
    return bool(words) and pattern[0] in ("*", words[0]) and by_words(pattern[1:], words[1:])


@pytest.mark.parametrize(
    ("binding", "key", "matches"),
    [
        ("*.results", "a.results", True),
        ("*.results", "a.b.results", False),
        ("*.results", "results", False),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("a.#", "ab", False),
        ("#.z", "z", True),
        ("a.#.z", "a.z", True),
        ("a.b", "a+b", False),
        ("a.b", "a.b", True),
    ],
)
def test_star_is_one_word_and_hash_any_number(binding: str, key: str, matches: bool) -> None:
    assert topic_matches(binding, key) is matches


@given(
    st.lists(st.sampled_from(["a", "b", "*", "#"]), min_size=1, max_size=6),
    st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=6),
)
def test_patterns_match_as_defined(pattern: list[str], words: list[str]) -> None:
    assert topic_matches(".".join(pattern), ".".join(words)) is by_words(pattern, words)
