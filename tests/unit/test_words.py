"""What Postgres' parser is given to read in place of a text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.documents.words import UNSPACED, to_index


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("ERR_CONN-7 failed", "ERR CONN 7 failed ERRCONN7"),
        ("see foo.bar() in v1.2.3", "see foo bar() in v1 2 3 foobar v123"),
        ("here and/or there", "here and or there"),
        ("due 2024-03-01", "due 2024 03 01 20240301"),
        ("C++ and C#", "C++ and C# Cplusplus Csharp"),
        ("東京都の水。", " 東京 京都 都の の水 。"),
        ("東京abc水", " 東京 abc 水 "),
        ("ภาษาไทย", " ภา าษ ษา าไ ไท ทย "),
        ("ＡＢＣ ﬁne", "ABC fine"),
    ],
)
def test_unspaced_scripts_and_identifiers(text: str, read: str) -> None:
    assert to_index(text) == read


@pytest.mark.parametrize(
    "text",
    [
        "Plain words, with a comma.",
        "state-of-the-art write-through",
        "3.14 at 12:30",
        "https://example.org/a-b/c_d?e=1",
        "ask a.b@example.org",
        "/etc/passwd",
        "e.g. in the U.S.",
        "Größe, naïve, данные",
    ],
)
def test_what_the_parser_knows_is_left_to_it(text: str) -> None:
    assert to_index(text) is text


@given(st.text())
def test_any_text(text: str) -> None:
    read = to_index(text)
    assert all(len(run) <= 2 for run in UNSPACED.findall(read))
    assert read is text or read != text
