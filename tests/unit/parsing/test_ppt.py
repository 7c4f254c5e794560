"""PowerPoint 97-2003: slides as the last saving left them, their texts, tables, notes and comments; broken files."""

from __future__ import annotations

import random
import struct
import time

from apps.documents.parsing import ParseError, parse
from tests.support.compound import compound
from tests.support.parsed import code_of, shown

TITLE, BODY, NOTES, OTHER, CENTER_BODY, CENTER_TITLE = 0, 1, 2, 4, 5, 6


def record(kind: int, data: bytes, *, instance: int = 0, container: bool = True) -> bytes:
    return struct.pack("<HHI", instance << 4 | (0xF if container else 0), kind, len(data)) + data


def atom(kind: int, data: bytes, *, instance: int = 0) -> bytes:
    return record(kind, data, instance=instance, container=False)


def text(kind: int, characters: str, *more: bytes) -> bytes:
    body = atom(0x0F9F, struct.pack("<I", kind))
    if all(ord(char) < 256 for char in characters):
        return body + atom(0x0FA8, characters.encode("latin-1")) + b"".join(more)
    return body + atom(0x0FA0, characters.encode("utf-16-le")) + b"".join(more)


def shape(*records: bytes, anchor: tuple[int, int] | None = None) -> bytes:
    place = atom(0xF00F, struct.pack("<iiii", *anchor, 0, 0)) if anchor else b""
    return record(0xF004, place + record(0xF00D, b"".join(records)))


def drawing(*shapes: bytes) -> bytes:
    return record(0x040C, record(0xF002, record(0xF003, b"".join(shapes))))


def slide(*shapes: bytes, notes: int = 0, more: bytes = b"", kind: int = 0x03EE) -> bytes:
    head = atom(0x03EF, struct.pack("<I8xIIHH", 0, 0, notes, 0, 0)) if kind == 0x03EE else b""
    return record(kind, head + drawing(*shapes) + more)


class Deck:
    """A presentation that can be saved again and again, as PowerPoint does it: by adding to the stream."""

    def __init__(self) -> None:
        self.stream = b""
        self.last_edit = 0

    def save(self, slides: dict[int, bytes], order: list[int], kept: dict[int, bytes] | None = None) -> Deck:
        """Write `slides` by persist id (notes from 100), and a document that lists `order`."""
        places = {}
        for persist, content in slides.items():
            places[persist] = len(self.stream)
            self.stream += content
        entries = b"".join(
            atom(0x03F3, struct.pack("<IIiII", persist, 0, 0, persist + 256, 0)) + (kept or {}).get(persist, b"")
            for persist in order
        )
        notes = b"".join(atom(0x03F3, struct.pack("<IIiII", n, 0, 0, n, 0)) for n in slides if n >= 100)
        master = atom(0x03F3, struct.pack("<IIiII", 90, 0, 0, 1, 0)) + text(TITLE, "Click to edit")
        places[1] = len(self.stream)
        self.stream += record(
            0x03E8,
            record(0x0FF0, master, instance=1) + record(0x0FF0, entries) + record(0x0FF0, notes, instance=2),
        )
        directory = len(self.stream)
        table = b"".join(struct.pack("<II", 1 << 20 | persist, place) for persist, place in places.items())
        self.stream += atom(0x1772, table)
        edit = len(self.stream)
        self.stream += atom(0x0FF5, struct.pack("<IHBBIIIIHH", 0, 0, 0, 3, self.last_edit, directory, 1, 200, 0, 0))
        self.last_edit = edit
        return self

    def file(self, *, token: int = 0xE391C05F) -> bytes:
        user = atom(0x0FF6, struct.pack("<III", 0x14, token, self.last_edit).ljust(32, b"\0"))
        return compound({"Current User": user, "PowerPoint Document": self.stream})


def of_one(*shapes: bytes, kept: bytes = b"", **more: object) -> bytes:
    return Deck().save({10: slide(*shapes, **more)}, [10], {10: kept}).file()  # type: ignore[arg-type]


def blocks(data: bytes) -> list[tuple[str, str]]:
    return shown(parse(data, filename="a.ppt"))


def outcome(data: bytes) -> str:
    """ "read", or the code with which the data is refused."""
    try:
        shown(parse(data, filename="a.ppt"))
    except ParseError as error:
        return error.code
    return "read"


def test_a_slide_is_a_page_with_its_title_as_heading() -> None:
    data = (
        Deck()
        .save(
            {
                10: slide(shape(text(OTHER, "A box\rof two")), shape(text(TITLE, "One\x0btwo"))),
                11: slide(shape(text(CENTER_TITLE, "日本語")), shape(text(CENTER_BODY, "שלום"))),
            },
            [11, 10],
        )
        .file()
    )
    parsed = parse(data, filename="a.ppt")
    assert shown(parsed) == [
        *(("heading", "日本語"), ("paragraph", "שלום")),
        *(("heading", "One two"), ("paragraph", "A box"), ("paragraph", "of two")),
    ]
    assert [(block.page, block.level) for block in parsed.blocks] == [(1, 1), (1, 0), (2, 1), (2, 0), (2, 0)]
    assert parsed.parser == "ppt/1"


def test_bodies_are_lists_as_deep_as_their_paragraphs_are_indented() -> None:
    style = struct.pack("<IHI", 2, 0, 0)
    style += (
        struct.pack("<IHI", 2, 1, 0x100001 | 0x20 | 0x800) + bytes(2 + 4 + 2) + struct.pack("<HHHHH", 2, 1, 1, 1, 1)
    )
    style += struct.pack("<IHI", 2, 2, 0)
    assert blocks(of_one(shape(text(BODY, "a\rb\rc", atom(0x0FA1, style))))) == [("list", "- a\n  - b\n    - c")]


def test_texts_of_the_outline_stand_where_the_slide_refers_to_them() -> None:
    kept = text(TITLE, "Title") + text(BODY, "one\rtwo") + text(BODY, "forgotten")
    body = shape(atom(0x0F9E, struct.pack("<I", 1)))
    title = shape(atom(0x0F9E, struct.pack("<I", 0)))
    assert blocks(of_one(body, shape(text(OTHER, "between")), title, kept=kept)) == [
        *(("heading", "Title"), ("list", "- one\n- two"), ("paragraph", "between"), ("list", "- forgotten"))
    ]


def test_only_the_last_saving_counts() -> None:
    deck = Deck().save({10: slide(shape(text(OTHER, "old"))), 11: slide(shape(text(OTHER, "deleted")))}, [10, 11])
    deck.save({12: slide(shape(text(OTHER, "added")))}, [12, 10])
    deck.save({10: slide(shape(text(OTHER, "new")))}, [12, 10])
    assert [line for _, line in blocks(deck.file())] == ["added", "new"]


def test_where_the_chain_of_savings_is_broken_the_newest_slides_are_taken() -> None:
    deck = Deck().save({10: slide(shape(text(OTHER, "old")))}, [10])
    deck.save({10: slide(shape(text(OTHER, "new")))}, [10])
    deck.last_edit = 3
    parsed = parse(deck.file(), filename="a.ppt")
    assert parsed.text == "new" and "damaged" in parsed.notes[0]


def test_tables_are_rows_by_where_their_cells_stand() -> None:
    table = atom(0xF122, struct.pack("<HI", 0x039F, 1), instance=1)
    group = record(
        0xF003,
        record(0xF004, table)
        + shape(text(OTHER, "d"), anchor=(50, 20))
        + shape(text(OTHER, "a\rb"), anchor=(0, 0))
        + shape(text(OTHER, "c"), anchor=(0, 20)),
    )
    assert blocks(of_one(group)) == [("table", "a b\nc | d")]


def test_shapes_in_groups_are_read() -> None:
    assert blocks(of_one(record(0xF003, record(0xF003, shape(text(OTHER, "deep")))))) == [("paragraph", "deep")]


def test_notes_and_comments_follow_their_slide() -> None:
    comment = record(
        0x2EE0, atom(0x0FBA, "Ann".encode("utf-16-le")) + atom(0x0FBA, "Why?".encode("utf-16-le"), instance=1)
    )
    tags = record(0x1388, record(0x138A, atom(0x138B, comment)))
    notes = slide(shape(text(OTHER, "7")), shape(text(NOTES, "Say this.\rThen that.")), kind=0x03F0)
    slides = {10: slide(shape(text(TITLE, "T")), notes=100, more=tags), 11: slide(shape(text(TITLE, "U"))), 100: notes}
    assert blocks(Deck().save(slides, [10, 11]).file()) == [
        *(("heading", "T"), ("paragraph", "Notes: Say this.\nThen that."), ("paragraph", "Comment: Why?")),
        ("heading", "U"),
    ]


def test_a_star_in_place_of_a_number_or_date_is_left_out() -> None:
    number = atom(0x0FD8, struct.pack("<I", 5))
    assert blocks(of_one(shape(text(OTHER, "Page * of 5*", number)))) == [("paragraph", "Page of 5*")]
    assert code_of(of_one(shape(text(OTHER, "*", atom(0x0FD8, bytes(4))))), filename="a.ppt") == "empty"


def test_blank_and_invisible_paragraphs_of_a_body_are_no_items() -> None:
    assert blocks(of_one(shape(text(BODY, "a\r\xa0\r\xad\r\x0b\rb")))) == [("list", "- a\n- b")]


def test_encrypted_files_say_so() -> None:
    deck = Deck().save({10: slide(shape(text(OTHER, "x")))}, [10])
    assert code_of(deck.file(token=0xF3D1C4DF), filename="a.ppt") == "encrypted"


def test_what_is_no_presentation_is_corrupt() -> None:
    for stream in (b"", b"\0" * 500, record(0x03EE, b"")):
        data = compound({"Current User": b"", "PowerPoint Document": stream})
        assert code_of(data, filename="a.ppt") == "corrupt"


def test_groups_in_groups_without_end_are_bounded() -> None:
    group = shape(text(OTHER, "too deep"))
    for _ in range(500):
        group = record(0xF003, group)
    assert blocks(of_one(shape(text(OTHER, "seen")), group)) == [("paragraph", "seen")]


def test_savings_that_lead_in_a_circle_end() -> None:
    deck = Deck().save({10: slide(shape(text(OTHER, "x")))}, [10])
    deck.stream = deck.stream[:-20] + struct.pack("<I", deck.last_edit) + deck.stream[-16:]
    assert blocks(deck.file()) == [("paragraph", "x")]


def test_damaged_bytes_never_fail_in_another_way_nor_take_long() -> None:
    sample = (
        Deck()
        .save(
            {
                10: slide(shape(text(TITLE, "T")), shape(atom(0x0F9E, bytes(4))), notes=100),
                100: slide(shape(text(NOTES, "n")), kind=0x03F0),
            },
            [10],
            {10: text(BODY, "a\rb", atom(0x0FA1, struct.pack("<IHI", 4, 1, 0)))},
        )
        .save({11: slide(shape(text(OTHER, "y")))}, [10, 11])
        .file()
    )
    chance, started = random.Random(11), time.perf_counter()
    for _ in range(300):
        data = bytearray(sample)
        for _ in range(chance.randint(1, 20)):
            data[chance.randrange(512, len(data))] = chance.choice((0, 1, 0x0F, 0x80, 0xFF, chance.randrange(256)))
        assert outcome(bytes(data)) in ("read", "empty", "malformed", "corrupt", "encrypted", "unsupported")
    assert time.perf_counter() - started < 30
