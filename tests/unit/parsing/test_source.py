"""Source code is kept as it is, in blocks between which it may be cut."""

from __future__ import annotations

from apps.documents.parsing import parse
from tests.support.parsed import code_of, shown

PYTHON = '''# Copyright 2024 The Authors.
# All rights reserved.

import os


def moor(rope: str) -> None:
    """Moor."""

    os.write(1, rope)


class Buoy:
    colour = "red"
'''


def test_functions_are_blocks_and_the_licence_stays_with_the_first() -> None:
    parsed = parse(PYTHON.encode(), filename="a.py")
    assert parsed.text == PYTHON
    assert [kind for kind, _ in shown(parsed)] == ["code"] * 3
    assert [text.split("\n")[0] for _, text in shown(parsed)] == [
        "# Copyright 2024 The Authors.", "def moor(rope: str) -> None:", "class Buoy:",
    ]  # fmt: skip
    assert (parsed.title, parsed.parser) == (None, "source/1")


def test_a_closing_bracket_begins_no_block() -> None:
    source = "int main() {\n  f();\n\n}\n\nint g;\n"
    assert [text for _, text in shown(parse(source.encode(), filename="a.c"))] == [
        "int main() {\n  f();\n\n}",
        "int g;",
    ]


def test_a_comment_over_several_lines_stays_with_what_follows() -> None:
    source = "/*\nLicence\ntext\n*/\n\npackage a;\n\nclass B {}\n"
    blocks = shown(parse(source.encode(), filename="a.java"))
    assert [text for _, text in blocks] == ["/*\nLicence\ntext\n*/\n\npackage a;", "class B {}"]


def test_indentation_at_the_start_and_other_line_ends_are_kept() -> None:
    parsed = parse(b"\xef\xbb\xbf\r\n    indented\r\n\tmore\r\n\r\nnot\r\n", filename="a.rb")
    assert parsed.text == "\n    indented\n\tmore\n\nnot\n"
    assert [text for _, text in shown(parsed)] == ["    indented\n\tmore", "not"]


def test_a_text_that_is_only_a_comment_is_read() -> None:
    assert [text for _, text in shown(parse(b"# nothing else\n", filename="a.sh"))] == ["# nothing else"]


def test_comments_in_other_scripts_and_encodings_are_read() -> None:
    assert "заметка о гавани" in parse("# заметка о гавани\nx = 1\n".encode("utf-16"), filename="a.py").text
    assert "港の記録を保存する" in parse("// 港の記録を保存する\nlet a;\n".encode("cp932"), filename="a.js").text


def test_binary_and_empty_files_are_refused() -> None:
    assert code_of(bytes(range(256)) * 20, filename="a.py") in ("unsupported", "undecodable")
    assert code_of(b"\n\n", filename="a.py") == "empty"
