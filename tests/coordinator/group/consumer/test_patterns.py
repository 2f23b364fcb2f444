"""Regular expressions for names of topics, compared with Python's where both can do it."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ottla.coordinator.group.consumer.patterns import InvalidPattern, TopicPattern

NAMES = st.text("abAB1._-", min_size=1, max_size=12)

_CHARACTER = st.sampled_from(
    [
        "a",
        "b",
        "A",
        r"\.",
        "-",
        ".",
        "[ab]",
        "[^a]",
        "[a-c1]",
        r"\d",
        r"\w",
        r"\W",
        "[_.-]",
        "^",
        "$",
    ]
)
PATTERNS = st.recursive(
    _CHARACTER,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "*?", "+?"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
        inner.map(lambda part: f"({part})"),
        inner.map(lambda part: f"(?i:{part})"),
    ),
    max_leaves=8,
)


@given(PATTERNS, NAMES)
@example("(?i:a)b|c", "Ab")
@example("(?:a{0,2}){2}b", "aaab")
def test_names_match_as_they_do_in_python(pattern: str, name: str) -> None:
    expected = re.fullmatch(pattern, name) is not None
    assert TopicPattern(pattern).matches(name) is expected


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("", [], ["a"]),
        ("orders-.*", ["orders-", "orders-eu.1"], ["my-orders-1"]),
        (r"\Qa.b\E+", ["a.b", "a.bb"], ["axb"]),
        ("(?i)ORDERS|X", ["orders", "x"], ["order"]),
        ("a(?i)b|c", ["aB", "C"], ["AB"]),
        ("(?:(?i)a)b", ["Ab"], ["AB"]),
        ("(?i-s:a)(?-i:b)", ["Ab"], ["aB"]),
        ("(?P<name>a)(?<other>b)", ["ab"], ["a"]),
        ("[[:alpha:]_]+[[:^digit:]]", ["a_b"], ["a_1"]),
        (r"\x41\x{42}", ["AB"], ["ab"]),
        (r"[\d-]+", ["1-2"], ["a"]),
        ("[]a]+", ["aa"], ["b"]),
        ("[^]a]", ["b"], ["a"]),
        (r"\Aa\z", ["a"], ["ab"]),
        ("a{,2}", [], ["a", "aa"]),
        ("a{0}b", ["b"], ["ab"]),
        ("(a|b){2,3}", ["ab", "bab"], ["a", "abab"]),
        (r"\s|\S", ["a"], ["aa"]),
    ],
)
def test_what_re2_can_do_besides(pattern: str, matching: list[str], others: list[str]) -> None:
    compiled = TopicPattern(pattern)
    assert [each for each in matching if not compiled.matches(each)] == []
    assert [each for each in others if compiled.matches(each)] == []


@pytest.mark.parametrize(
    "pattern",
    [
        "(", ")", "a)", "(?", "(?x", "(?P<>a)", "(?P<a-b>c)", "(?P<a", "(?=a)", "(?!a)", "(?<=a)",
        "(?<!a)", "(?>a)", "[", "[a", "[b-a]", r"[\d-z]x[", "[[:none:]]", "[[:alpha", "*", "a|*",
        "a**", "a+*", "{2}", "a{2}{3}", "a{3,2}", "a{1001}", "\\", r"\1", r"\b", r"\pL", r"\k<a>",
        r"\x", r"\x{}", r"\xg1", r"\x{41", "(" * 101 + ")" * 101, "(a{100}){100}", "a" * 501,
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidPattern):
        TopicPattern(pattern)


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(.*a){9}b", ".*.*.*.*.*.*.*.*b"])
def test_no_expression_goes_back(pattern: str) -> None:
    """With Python's `re` each of these takes longer than anybody waits."""
    assert not TopicPattern(pattern).matches("a" * 249)
