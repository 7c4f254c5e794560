"""YAML is kept as it is, in blocks by document, key or item."""

from __future__ import annotations

import time

from apps.documents.parsing import parse
from tests.support.parsed import code_of, shown

LONG = "x" * 2000


def blocks(text: str) -> list[str]:
    parsed = parse(text.encode(), filename="a.yaml")
    assert parsed.text == text
    assert (parsed.title, parsed.parser) == (None, "yaml_text/1")
    pieces = shown(parsed)
    assert {kind for kind, _ in pieces} <= {"code"}
    return [piece for _, piece in pieces]


def test_a_short_document_is_one_block() -> None:
    assert blocks("# why\nkind: Rope\nlength: 3\n") == ["# why\nkind: Rope\nlength: 3"]


def test_documents_are_blocks() -> None:
    assert blocks("a: 1\n---\nb: 2\n--- # third\nc: 3\n") == ["a: 1", "---\nb: 2", "--- # third\nc: 3"]


def test_keys_of_a_long_document_are_blocks_with_the_comments_above_them() -> None:
    text = (
        f"# the file\n\nfirst: {LONG}\n# on the second\n# and more\n'second key':\n- item\n- item: 2\nthird:\n  a: 1\n"
    )
    assert blocks(text) == [
        f"# the file\n\nfirst: {LONG}",
        "# on the second\n# and more\n'second key':\n- item\n- item: 2",
        "third:\n  a: 1",
    ]


def test_items_are_blocks_where_there_are_no_keys() -> None:
    assert blocks(f"- name: a\n  long: {LONG}\n# on b\n- name: b\n-\n  c\n") == [
        f"- name: a\n  long: {LONG}", "# on b\n- name: b", "-\n  c",
    ]  # fmt: skip


def test_block_scalars_and_flow_collections_stay_together() -> None:
    text = f"a: |\n  key: no\n\n  - item\n  {LONG}\nb: {{\n  c: 1\n}}\nhttp://x.org/: y\n"
    assert [piece.split("\n")[0] for piece in blocks(text)] == ["a: |", "b: {", "http://x.org/: y"]


def test_nothing_is_loaded_so_no_alias_grows_and_no_tag_runs() -> None:
    bomb = (
        "a: &a [x, x]\n"
        + "".join(f"k{n}: &k{n} [*a, *a]\n" for n in range(99))
        + "z: !!python/object/apply:os.abort []\n"
    )
    assert blocks(bomb) == [bomb.rstrip()]


def test_other_scripts_are_read() -> None:
    assert blocks(f"שלום: עולם\n港: 船\n長: {LONG}\n") == ["שלום: עולם", "港: 船", f"長: {LONG}"]


def test_an_empty_file_is_empty() -> None:
    assert code_of(b"\n \n", filename="a.yml") == "empty"


def test_hostile_lines_take_linear_time() -> None:
    began = time.monotonic()
    for line in ("# comment\n", "---\n", "k: v\n", "- \n", "aaaa", '"\\', "a  "):
        parse(("k: v\n" + line * 100_000).encode(), filename="a.yaml")
    assert time.monotonic() - began < 20
