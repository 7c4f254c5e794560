"""Word 97-2003: text by the piece table, structure by the property tables, broken files."""

from __future__ import annotations

import random
import struct
import time

import pytest

from apps.documents.parsing import ParseError, parse
from apps.documents.parsing.legacy.doc_lists import _number
from apps.documents.parsing.legacy.ole import open_ole
from apps.documents.parsing.legacy.summary import title_of
from tests.support.compound import compound
from tests.support.parsed import code_of, shown

PART_COUNTS = ("footnotes", "headers", "macros", "comments", "endnotes", "boxes")
IN_TABLE, ROW_END = b"\x16\x24\x01", b"\x16\x24\x01\x17\x24\x01"
HIDDEN, DELETED = b"\x3c\x08\x01", b"\x00\x08\x01"


def outline(level: int) -> bytes:
    return b"\x40\x26" + bytes([level])


def listed(number: int, level: int = 0) -> bytes:
    return b"\x0a\x26" + bytes([level]) + b"\x0b\x46" + struct.pack("<H", number)


def plc(positions: list[int], data: list[bytes]) -> bytes:
    return struct.pack(f"<{len(positions)}I", *positions) + b"".join(data)


def word(
    text: str,
    *,
    paragraphs: dict[int, tuple[int, bytes]] | None = None,
    characters: list[tuple[int, int, bytes]] | None = None,
    parts: dict[str, str] | None = None,
    tables: dict[int, bytes] | None = None,
    flags: int = 0x0200,
    compressed: bool = False,
    version: int = 0xC1,
) -> bytes:
    """A Word file: `paragraphs` gives style and modifications by number, `characters` those from CP to CP, `tables`
    what the entries of FibRgFcLcb97 point to."""
    parts = parts or {}
    whole = text + "".join(parts.get(name, "") for name in PART_COUNTS)
    width = 1 if compressed else 2
    body = whole.encode("cp1252") if compressed else whole.encode("utf-16-le")
    at = 2048
    stream = bytearray(at) + body
    stream += bytes(-len(stream) % 512)
    tables = dict(tables or {})

    def page(start: int, end: int, prop: bytes, *, of_paragraph: bool) -> bytes:
        raw = (bytes([0, len(prop) // 2]) if of_paragraph else bytes([len(prop)])) + prop
        head = struct.pack("<II", at + start * width, at + end * width) + bytes([128])
        return (head.ljust(256, b"\0") + raw).ljust(511, b"\0") + b"\x01"

    begun, runs = 0, []
    for number, line in enumerate(text.replace("\x07", "\r").split("\r")):
        end = begun + len(line) + 1
        style, changes = (paragraphs or {}).get(number, (0, b""))
        prop = struct.pack("<H", style) + changes
        runs.append((begun, end, prop + bytes(len(prop) % 2)))
        begun = end
    for index, wanted, of_paragraph in ((13, runs if paragraphs else [], True), (12, characters or [], False)):
        numbers = []
        for start, end, prop in wanted:
            numbers.append(struct.pack("<I", len(stream) // 512))
            stream += page(start, end, prop, of_paragraph=of_paragraph)
        if numbers:
            tables[index] = plc([0] * (len(numbers) + 1), numbers)
    where = at * 2 | 0x40000000 if compressed else at
    pieces = plc([0, len(whole)], [struct.pack("<HIH", 0, where, 0)])
    tables.setdefault(33, b"\x02" + struct.pack("<I", len(pieces)) + pieces)
    table = b"\0" * 4
    for index, content in tables.items():
        struct.pack_into("<II", stream, 0x9A + 8 * index, len(table), len(content))
        table += content
    struct.pack_into("<HH6xH", stream, 0, 0xA5EC, version, flags)
    struct.pack_into("<7i", stream, 0x4C, len(text), *(len(parts.get(name, "")) for name in PART_COUNTS))
    return compound({"WordDocument": bytes(stream), "1Table": table})


def blocks(data: bytes) -> list[tuple[str, str]]:
    return shown(parse(data, filename="a.doc"))


def outcome(data: bytes) -> str:
    """ "read", or the code with which the data is refused."""
    try:
        shown(parse(data, filename="a.doc"))
    except ParseError as error:
        return error.code
    return "read"


@pytest.mark.parametrize("compressed", [False, True])
def test_text_is_read_by_the_piece_table_in_one_and_in_two_bytes(compressed: bool) -> None:
    parsed = parse(word("Café “x” – €\rZwei\x0bZeilen\r", compressed=compressed), filename="a.doc")
    assert shown(parsed) == [("paragraph", "Café “x” – €"), ("paragraph", "Zwei\nZeilen")]
    assert parsed.parser == "doc/1" and parsed.media_type == "application/msword"


def test_other_scripts_and_characters_beyond_the_first_plane() -> None:
    assert blocks(word("שלום עולם\r日本語😀です\r")) == [("paragraph", "שלום עולם"), ("paragraph", "日本語😀です")]


def test_headings_come_from_the_style_or_the_outline_level() -> None:
    data = word("One\rTwo\rThree\rText\r", paragraphs={0: (1, b""), 1: (3, b""), 2: (0, outline(1)), 3: (0, b"")})
    parsed = parse(data, filename="a.doc")
    assert [(block.kind, block.level) for block in parsed.blocks] == [
        *(("heading", 1), ("heading", 3), ("heading", 2), ("paragraph", 0))
    ]


def style_sheet(*styles: tuple[int, int, bytes]) -> bytes:
    sheet = struct.pack("<HHH", 18, len(styles), 10).ljust(20, b"\0")
    for sti, base, changes in styles:
        body = struct.pack("<HHHHH", sti, base << 4 | 1, 2, 0, 0) + struct.pack("<HHH", 1, ord("x"), 0)
        body += struct.pack("<HH", 2 + len(changes), 0) + changes
        sheet += struct.pack("<H", len(body)) + body + bytes(len(body) % 2)
    return sheet


def test_a_style_takes_what_it_is_based_on_and_circles_end() -> None:
    sheet = style_sheet((0, 0xFFF, b""), (2, 0, b""), (4094, 1, b""), (4094, 4, b""), (4094, 3, outline(4)))
    data = word("a\rb\rc\rd\r", paragraphs={0: (2, b""), 1: (1, b""), 2: (3, b""), 3: (4, b"")}, tables={1: sheet})
    assert [block.level for block in parse(data, filename="a.doc").blocks] == [2, 2, 5, 5]


def test_cells_and_rows_make_a_table() -> None:
    text = "before\ra\x07b\rb2\x07\x07c\x07\x07\x07after\r"
    kinds = [b"", IN_TABLE, IN_TABLE, IN_TABLE, ROW_END, IN_TABLE, IN_TABLE, ROW_END, b""]
    data = word(text, paragraphs={number: (0, kind) for number, kind in enumerate(kinds)})
    assert blocks(data) == [("paragraph", "before"), ("table", "a | b b2\nc"), ("paragraph", "after")]


def test_without_property_tables_an_empty_cell_after_a_cell_ends_the_row() -> None:
    assert blocks(word("a\x07b\x07\x07c\x07d\x07\x07after\r")) == [("table", "a | b\nc | d"), ("paragraph", "after")]


def test_fields_show_their_results_even_when_nested_or_unclosed() -> None:
    text = 'See \x13 HYPERLINK "x" \x14the \x13 PAGE \x147\x15 page\x15 now\x13 TC no \x15.\rOpen \x13 stays\r'
    assert blocks(word(text)) == [("paragraph", "See the 7 page now."), ("paragraph", "Open stays")]


def test_a_field_without_a_result_may_show_something_all_the_same() -> None:
    text = "\x13EQ \\* jc2 \\o\\ad(\\s\\up 10(とうきょう),東京)\x15へ \x13 MACROBUTTON Run [Click here] \x15\r"
    assert blocks(word(text)) == [("paragraph", "東京へ [Click here]")]


def test_hidden_and_deleted_text_is_left_out() -> None:
    data = word("See not no this\r", characters=[(4, 8, HIDDEN), (8, 11, DELETED), (11, 15, b"")])
    assert blocks(data) == [("paragraph", "See this")]


def test_special_characters() -> None:
    assert blocks(word("a\x1eb\x1fc\x01\x08\x02\x05\xa0d\x0cpage\r")) == [
        ("paragraph", "a-bc d"),
        ("paragraph", "page"),
    ]


def test_notes_comments_and_boxes_stand_after_their_paragraphs() -> None:
    text = "The cat\x02 sat.\rSecond\x05 one.\rThird.\r"
    parts = {
        "footnotes": "\x02 Felis\rcatus.\r\r",
        "comments": "\x05Really?\r\r",
        "endnotes": "\x02 End.\r\r",
        "boxes": "Box\r\r",
    }
    spa = struct.pack("<I", 77).ljust(26, b"\0")
    box = bytes(14) + struct.pack("<II", 77, 0)
    tables = {
        **{2: plc([7, 30], [b"\1\0"]), 3: plc([0, 15, 16], [])},
        **{4: plc([21, 30], [bytes(30)]), 5: plc([0, 9, 10], [])},
        **{46: plc([7, 30], [b"\1\0"]), 47: plc([0, 7, 8], [])},
        **{40: plc([28, 40], [spa]), 56: plc([0, 4, 5], [box, bytes(22)])},
    }
    assert [line for _, line in blocks(word(text, parts=parts, tables=tables))] == [
        *("The cat sat.", "Felis\ncatus.", "End.", "Second one.", "Comment: Really?", "Third.", "Box")
    ]


def test_notes_without_places_stand_at_the_end() -> None:
    assert blocks(word("Text.\r", parts={"footnotes": "Note.\r", "headers": "Header\r"})) == [
        *(("paragraph", "Text."), ("paragraph", "Note."))
    ]


def lists_tables(levels: list[tuple[int, int, str]]) -> dict[int, bytes]:
    plf = struct.pack("<H", 1) + struct.pack("<ii", 9, 0).ljust(28, b"\0")
    behind = b""
    for start, kind, template in [*levels, *[(1, 0, "x")] * (9 - len(levels))]:
        behind += struct.pack("<iB", start, kind).ljust(28, b"\0") + struct.pack("<H", len(template))
        behind += template.encode("utf-16-le")
    overrides = struct.pack("<I", 2) + struct.pack("<i", 9).ljust(16, b"\0")
    overrides += struct.pack("<i8xB", 9, 1).ljust(16, b"\0") + b"\xff" * 4 + b"\xff" * 4 + struct.pack("<iI", 7, 0x10)
    return {73: plf, 75: behind, 74: overrides}


def test_numbers_of_list_items_are_counted_as_word_counts_them() -> None:
    tables = lists_tables([(1, 0, "\x00."), (1, 4, "\x00.\x01)"), (1, 23, "\uf0b7")])
    levels = [0, 1, 1, 2, 0, 1]
    paragraphs = {number: (0, listed(1, level)) for number, level in enumerate(levels)} | {
        6: (0, listed(2)),
        7: (0, b""),
    }
    data = word("a\rb\rc\rd\re\rf\rg\rend\r", paragraphs=paragraphs, tables=tables)
    assert blocks(data) == [
        ("list", "1. a\n  1.a) b\n  1.b) c\n    - d\n2. e\n  2.a) f\n7. g"),
        ("paragraph", "end"),
    ]


def test_an_item_of_a_list_that_cannot_be_read_gets_a_dash() -> None:
    data = word("a\rb\r", paragraphs={0: (0, listed(5)), 1: (0, listed(1, 3))}, tables={73: b"\x09\x00junk"})
    assert blocks(data)[0][0] == "list" and "- a" in blocks(data)[0][1]


def test_forms_of_numbers() -> None:
    assert [_number(14, kind) for kind in (0, 1, 2, 3, 4, 22)] == ["14", "XIV", "xiv", "N", "n", "14"]
    assert [_number(28, 4), _number(3, 22), _number(10**9, 3), _number(0, 1)] == ["bb", "03", "1000000000", "0"]


def old_word(text: bytes, flags: int = 0) -> bytes:
    stream = bytearray(1024) + text
    struct.pack_into("<HH6xH", stream, 0, 0xA5DC, 0x65, flags)
    struct.pack_into("<II", stream, 0x18, 1024, 1024 + len(text))
    struct.pack_into("<i", stream, 0x34, len(text))
    return compound({"WordDocument": bytes(stream)})


def test_word_6_and_95_give_their_text() -> None:
    assert blocks(old_word(b"One\rTwo\r")) == [("paragraph", "One"), ("paragraph", "Two")]
    russian = "Это старый документ, который написали давно.\rИ ещё один абзац в нём.\r"
    assert [line for _, line in blocks(old_word(russian.encode("cp1251")))] == russian.split("\r")[:2]


def test_an_encrypted_file_says_so() -> None:
    assert code_of(word("x\r", flags=0x0300), filename="a.doc") == "encrypted"
    assert code_of(old_word(b"x\r", 0x0100), filename="a.doc") == "encrypted"


def test_a_file_without_text_is_empty() -> None:
    assert code_of(word("\r\x01\r"), filename="a.doc") == "empty"


def test_what_cannot_be_found_is_corrupt() -> None:
    assert code_of(compound({"WordDocument": b"\xec\xa5"}), filename="a.doc") == "corrupt"
    assert code_of(word("x\r", tables={33: b""}), filename="a.doc") == "corrupt"
    assert code_of(word("x\r")[:1000], filename="a.doc") == "corrupt"


def test_a_piece_that_leads_out_of_the_file_is_cut_and_noted() -> None:
    pieces = plc([0, 3, 2**31], [struct.pack("<HIH", 0, 2048, 0), struct.pack("<HIH", 0, 2054, 0)])
    parsed = parse(word("abcdef\r", tables={33: b"\x02" + struct.pack("<I", len(pieces)) + pieces}), filename="a.doc")
    assert parsed.text.startswith("abc") and "could not be read" in parsed.notes[0]


def test_damaged_property_tables_leave_the_text() -> None:
    data = word("One\rTwo\r", paragraphs={0: (1, b"")}, tables={1: b"\xff" * 40})
    assert [line for _, line in blocks(data)] == ["One", "Two"]


def test_damaged_bytes_never_fail_in_another_way_nor_take_long() -> None:
    sample = word(
        "One\ra\x07b\x07\x07\x13 X \x14y\x15\rend\r",
        paragraphs={0: (1, b""), 1: (0, IN_TABLE), 2: (0, IN_TABLE), 3: (0, ROW_END), 4: (0, listed(1))},
        characters=[(0, 2, HIDDEN)],
        parts={"footnotes": "note\r"},
        tables=lists_tables([(1, 0, "\x00.")]) | {1: style_sheet((0, 0xFFF, b""), (1, 0, b""))},
    )
    chance, started = random.Random(7), time.perf_counter()
    for _ in range(300):
        data = bytearray(sample)
        for _ in range(chance.randint(1, 30)):
            data[chance.randrange(512, len(data))] = chance.choice((0, 1, 7, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        assert outcome(bytes(data)) in ("read", "empty", "malformed", "corrupt", "encrypted", "unsupported")
    assert time.perf_counter() - started < 30


def summary(title: bytes, *, page: int = 1252, kind: int = 30, count: int = 2) -> bytes:
    values = struct.pack("<II", 2, page) + struct.pack("<II", kind, len(title) // (kind - 29)) + title
    head = struct.pack("<IIIIII", 24 + len(values), count, 1, 24, 2, 32)
    return struct.pack("<HHI16xI16xI", 0xFFFE, 0, 0, 1, 48) + head + values


@pytest.mark.parametrize(
    ("stream", "title"),
    [
        (summary("Café\0".encode("cp1252")), "Café"),
        (summary("Привет\0".encode("cp1251"), page=1251), "Привет"),
        (summary("日本".encode("utf-16-le"), kind=31), "日本"),
        (summary(b"\0"), None),
        (summary(b"T\0", count=0xFFFFFFFF), None),
        (summary(b"T\0", kind=4126), None),
        (b"\xfe\xff", None),
    ],
)
def test_the_title_is_that_of_the_properties_and_a_damaged_one_costs_nothing(stream: bytes, title: str | None) -> None:
    data = compound({"WordDocument": b"x", "\x05SummaryInformation": stream})
    with open_ole(data) as ole:
        assert title_of(ole) == title
