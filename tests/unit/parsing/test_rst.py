"""reStructuredText, also that of Sphinx, to text and blocks; nothing outside the text is read."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from docutils.parsers.rst import directives, roles

from apps.documents.parsing import Parsed, parse
from tests.support.parsed import code_of, shown

OTHER_FILE = "Text that the document takes from another file was left out."


def read(source: str) -> Parsed:
    return parse(source.encode(), filename="a.rst")


def blocks(source: str) -> list[tuple[str, str]]:
    return shown(read(source))


def test_sections_become_headings_by_their_depth_and_the_first_is_the_title() -> None:
    parsed = read("Guide\n=====\n\nIntro.\n\nPart\n----\n\nText\nover two lines.\n\nDeep\n~~~~\n\nEnd.\n")
    assert [(block.level, text) for block, (_, text) in zip(parsed.blocks, shown(parsed), strict=True)] == [
        (1, "Guide"),
        (0, "Intro."),
        (2, "Part"),
        (0, "Text over two lines."),
        (3, "Deep"),
        (0, "End."),
    ]
    assert (parsed.title, parsed.parser, parsed.media_type) == ("Guide", "rst/1", "text/x-rst")


def test_a_footnote_follows_its_paragraph_and_leaves_no_mark_in_it() -> None:
    source = "First [#a]_ line.\n\nSecond.\n\n.. [#a] The *note*.\n.. [2] Nobody refers to it.\n"
    assert [text for _, text in blocks(source)] == ["First line.", "The note.", "Second.", "Nobody refers to it."]


def test_a_citation_keeps_its_label() -> None:
    assert [text for _, text in blocks("See [Knuth]_.\n\n.. [Knuth] A book.\n")] == ["See [Knuth].", "[Knuth] A book."]


def test_lists_keep_their_markers_and_nesting() -> None:
    source = "1. one\n\n   a. sub\n   b. sub\n\n2. two\n\n   more\n\n- dash\n\n  - deeper\n\n(iv) four\n(v) five\n"
    assert blocks(source) == [
        ("list", "1. one\n  a. sub\n  b. sub\n2. two\n   more"),
        ("list", "- dash\n  - deeper"),
        ("list", "(iv) four\n(v) five"),
    ]


def test_code_in_a_list_stays_code_and_the_list_goes_on() -> None:
    source = "1. Do::\n\n    x = 1\n\n   Then rest.\n\n2. Go.\n"
    assert blocks(source) == [
        ("list", "1. Do:"),
        ("code", "x = 1"),
        ("paragraph", "Then rest."),
        ("list", "2. Go."),
    ]


def test_definitions_fields_and_options() -> None:
    source = "Term : kind\n    Meaning.\n\n:Author: Ann\n:Empty:\n\n-a FILE, --all=FILE  everything\n-b  other\n"
    assert blocks(source) == [
        ("list", "Term : kind\n  Meaning."),
        ("list", "Author: Ann\nEmpty"),
        ("list", "-a FILE, --all=FILE everything\n-b other"),
    ]


def test_merged_cells_stand_once() -> None:
    grid = (
        "+---+---+---+\n| A | B | C |\n+===+===+===+\n| wide  | c |\n+---+---+---+\n| d | e | f |\n"
        "+   +---+---+\n|   | g | h |\n+---+---+---+\n"
    )
    assert blocks(grid) == [("table", "A | B | C\nwide |  | c\nd | e | f\n | g | h")]


def test_tables_of_lists_and_of_csv() -> None:
    source = (
        ".. csv-table:: Prices\n   :header: A, B\n\n   1, 2\n\n"
        ".. list-table::\n   :header-rows: 1\n\n   * - x\n     - y\n   * - 1\n     - 2\n"
    )
    assert blocks(source) == [("paragraph", "Prices"), ("table", "A | B\n1 | 2"), ("table", "x | y\n1 | 2")]


def test_admonitions_say_what_they_are() -> None:
    source = ".. note:: Mind\n   this.\n\n.. warning::\n\n   - x\n\n.. admonition:: Own *title*\n\n   Text.\n"
    assert blocks(source) == [
        ("paragraph", "Note: Mind this."),
        ("paragraph", "Warning:"),
        ("list", "- x"),
        ("paragraph", "Own title: Text."),
    ]


def test_substitutions_images_and_links_are_read_as_they_are_shown() -> None:
    source = (
        "A |x| with `a link <https://example.org>`_, `another`_ and H\\ :sub:`2`\\ O.\n\n"
        ".. |x| replace:: *new* thing\n\n.. figure:: a.png\n   :alt: A ship\n   :loading: lazy\n\n   Its caption.\n"
    )
    assert [text for _, text in blocks(source)] == [
        "A new thing with a link, another and H2O.",
        "A ship",
        "Its caption.",
    ]


def test_comments_and_page_furniture_are_left_out() -> None:
    source = ":orphan:\n\n.. contents::\n.. header:: above\n.. a comment\n.. _target:\n\nText.\n\n.. date::\n"
    assert [text for _, text in blocks(source)] == ["Text."]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        (":class:`~a.b.C`", "C"),
        (":py:func:`a.b`", "a.b"),
        (":ref:`the guide <guide>`", "the guide"),
        (":ref:`here`", "Part One"),
        (":meth:`!run`", "run"),
        (":pep:`8`", "PEP 8"),
        (":kbd:`Ctrl+C`", "Ctrl+C"),
        (":menuselection:`File --> Open`", "File --> Open"),
        (":made-up:`words`", "words"),
        ("`default`", "default"),
        ("``a_b*``", "a_b*"),
    ],
)
def test_roles_keep_their_text(markup: str, text: str) -> None:
    assert blocks(f"See {markup}.\n\n.. _here:\n\nPart One\n========\n\nText.\n")[0] == ("paragraph", f"See {text}.")


def test_directives_of_sphinx_keep_their_text() -> None:
    source = (
        ".. versionadded:: 2.0\n\n.. versionchanged:: 3.1\n   It *moved*.\n\n.. deprecated:: 4.0 Use y.\n\n"
        ".. seealso:: :func:`a.b`, too\n\n.. py:method:: run(*args, **kw)\n   :async:\n\n   Runs it.\n\n"
        ".. autoclass:: app.Task\n   :members:\n\n.. only:: html\n\n   Shown.\n\n"
        ".. setting:: timezone\n\n.. unheard-of:: Head *line*\n\n   Inside.\n\n"
        ".. code-block:: python\n   :emphasize-lines: 1\n   :caption: Example\n\n   def f():\n       pass\n\n"
        ".. toctree::\n   :maxdepth: 2\n\n   First steps <first>\n   other\n"
    )
    assert blocks(source) == [
        ("paragraph", "New in version 2.0."),
        ("paragraph", "Changed in version 3.1: It moved."),
        ("paragraph", "Deprecated since version 4.0: Use y."),
        ("paragraph", "See also: a.b, too"),
        ("paragraph", "run(*args, **kw)"),
        ("paragraph", "Runs it."),
        ("paragraph", "app.Task"),
        ("paragraph", "Shown."),
        ("paragraph", "Head line"),
        ("paragraph", "Inside."),
        ("paragraph", "Example"),
        ("code", "def f():\n    pass"),
        ("list", "- First steps\n- other"),
    ]


@pytest.mark.parametrize(
    "directive",
    [
        ".. include:: {}",
        ".. literalinclude:: {}",
        ".. csv-table:: T\n   :file: {}",
        ".. csv-table:: T\n   :url: file://{}",
        ".. raw:: html\n   :file: {}",
    ],
)
def test_no_other_file_is_read(directive: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("xyzzy")
    parsed = read(f"Before.\n\n{directive.format(secret)}\n\nAfter.\n")
    assert [text for _, text in shown(parsed)] == ["Before.", "After."]
    assert "xyzzy" not in parsed.text
    assert parsed.notes == ([] if "raw" in directive else [OTHER_FILE])


def test_what_one_document_defines_is_unknown_to_the_next() -> None:
    before = dict(directives._directives), dict(roles._roles)
    read(".. role:: mine(raw)\n   :format: html\n\n.. default-role:: math\n\n.. code-block:: c\n\n   x\n\n.. zzz:: y\n")
    after = dict(directives._directives), dict(roles._roles)
    assert set(after[0]) - set(before[0]) <= {"image"} and not set(after[0]) & {"zzz", "code-block"}
    assert before[1] == after[1]


def test_broken_markup_loses_no_words() -> None:
    source = "Title\n===\n\nAn *open emphasis and a `quote.\n\n  odd indent\nback\n\n.. note::\n\n.. image::\n"
    text = read(source).text
    for words in ("Title", "An *open emphasis and a `quote.", "odd indent", "back"):
        assert words in text


def test_scripts_from_right_to_left_and_without_spaces_are_kept() -> None:
    assert blocks("عنوان\n=====\n\n中文段落。\n第二行。\n") == [
        ("heading", "عنوان"),
        ("paragraph", "中文段落。 第二行。"),
    ]


def test_a_text_without_words_is_empty() -> None:
    assert code_of(b".. only a comment\n", filename="a.rst") == "empty"
    assert code_of(b"\n\n", filename="a.rst") == "empty"


def test_a_long_list_takes_time_in_proportion() -> None:
    parsed = read("".join(f"- item {number}\n" for number in range(3000)))
    assert parsed.text.count("\n") == 2999 and len(parsed.blocks) == 1


def test_a_paragraph_of_open_marks_takes_no_time_in_its_square() -> None:
    started = time.monotonic()
    assert blocks("*a " * 20_000 + "\n\nEnd *here*.\n")[1] == ("paragraph", "End here.")
    assert time.monotonic() - started < 5
