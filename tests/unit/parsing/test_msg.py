"""Outlook messages: properties in Unicode and in code pages, the best body, attachments, broken files."""

from __future__ import annotations

import random
import struct
import time

import compressed_rtf

from apps.documents.parsing import ParseError, parse
from tests.support.compound import compound
from tests.support.parsed import code_of, shown

SUBJECT, BODY, HTML, RTF, SENDER, TO, SENT = 0x0037, 0x1000, 0x1013, 0x1009, 0x0C1A, 0x0E04, 0x0039
HEADERS, ADDRESS = 0x007D, 0x0C1F
INTERNET_PAGE, MESSAGE_PAGE, METHOD, NAME, DATA, MIME, HIDDEN = 0x3FDE, 0x3FFD, 0x3705, 0x3707, 0x3701, 0x370E, 0x7FFE
Properties = dict[int, str | bytes | int]
REFUSALS = ("empty", "malformed", "corrupt", "encrypted", "unsupported", "archive_bomb")


def storage(properties: Properties, *, header: int, prefix: str = "", narrow: str = "") -> dict[str, bytes]:
    """The streams of a message or an attachment: strings in UTF-16, or in the charset `narrow`."""
    streams, table = {}, bytes(header)
    for number, value in properties.items():
        if isinstance(value, int):
            table += struct.pack("<HHIQ", 0x40 if number == SENT else 3, number, 6, value)
            continue
        kind = 0x0102 if isinstance(value, bytes) else 0x001E if narrow else 0x001F
        raw = value if isinstance(value, bytes) else value.encode(narrow or "utf-16-le")
        streams[f"{prefix}__substg1.0_{number:04X}{kind:04X}"] = raw
        table += struct.pack("<HHIII", kind, number, 6, len(raw), 0)
    return {f"{prefix}__properties_version1.0": table, **streams}


def msg(properties: Properties, *more: dict[str, bytes], narrow: str = "") -> bytes:
    streams = storage(properties, header=32, narrow=narrow)
    for each in more:
        streams |= each
    return compound(streams)


def attachment(number: int, properties: Properties) -> dict[str, bytes]:
    return storage({METHOD: 1, **properties}, header=8, prefix=f"__attach_version1.0_#{number:08X}/")


def blocks(data: bytes) -> list[tuple[str, str]]:
    return shown(parse(data, filename="a.msg"))


def outcome(data: bytes) -> str:
    """ "read", or the code with which the data is refused."""
    try:
        shown(parse(data, filename="a.msg"))
    except ParseError as error:
        return error.code
    return "read"


def test_subject_head_and_body() -> None:
    data = msg(
        {
            SUBJECT: "Grüße 日本",
            SENDER: "Ann",
            ADDRESS: "a@x.org",
            TO: "Bob; Cy",
            SENT: 116444736000000000,
            BODY: "Hi\r\n\r\nAnn\0",
        }
    )
    parsed = parse(data, filename="a.msg")
    assert shown(parsed) == [
        ("heading", "Grüße 日本"),
        ("paragraph", "From: Ann <a@x.org>\nTo: Bob; Cy\nDate: Thu, 01 Jan 1970 00:00:00 +0000"),
        *(("paragraph", "Hi"), ("paragraph", "Ann")),
    ]
    assert (parsed.title, parsed.parser, parsed.media_type) == ("Grüße 日本", "msg/1", "application/vnd.ms-outlook")


def test_the_headers_of_the_way_say_what_the_properties_do_not() -> None:
    data = msg({SUBJECT: "S", HEADERS: "From: a@x.org\r\nTo: b@x.org\r\nDate: Mon, 1 Jan 2024\r\n\r\n", BODY: "x"})
    assert blocks(data)[1] == ("paragraph", "From: a@x.org\nTo: b@x.org\nDate: Mon, 1 Jan 2024")


def test_strings_in_code_pages() -> None:
    assert blocks(msg({SUBJECT: "Привет", BODY: "мир", MESSAGE_PAGE: 1251}, narrow="cp1251")) == [
        *(("heading", "Привет"), ("paragraph", "мир"))
    ]
    assert blocks(msg({SUBJECT: "測試", BODY: "中文", INTERNET_PAGE: 950}, narrow="cp950")) == [
        *(("heading", "測試"), ("paragraph", "中文"))
    ]
    assert blocks(msg({SUBJECT: "Käse", BODY: "öäü", INTERNET_PAGE: 65001}, narrow="cp1252"))[0] == ("heading", "Käse")


def test_html_is_read_where_it_has_structure_or_there_is_nothing_else() -> None:
    table = "<h1>T</h1><table><tr><td>Ä<td>b</table>".encode("cp1252")
    parsed = parse(msg({SUBJECT: "S", BODY: "T Ä b", HTML: table, INTERNET_PAGE: 1252}), filename="a.msg")
    assert shown(parsed)[1:] == [("heading", "T"), ("table", "Ä | b")]
    assert parsed.blocks[1].level == 2
    assert blocks(msg({SUBJECT: "S", BODY: "plain", HTML: b"<p>rich</p>"}))[1:] == [("paragraph", "plain")]
    assert blocks(msg({SUBJECT: "S", HTML: b"<p>rich</p>"}))[1:] == [("paragraph", "rich")]


def test_rtf_is_read_and_html_in_it_unwrapped() -> None:
    rtf = compressed_rtf.compress(rb"{\rtf1\ansi{\stylesheet{\s1 heading 1;}}\pard\s1 Head\par\pard Text\par}")
    parsed = parse(msg({SUBJECT: "S", RTF: rtf}), filename="a.msg")
    assert shown(parsed)[1:] == [("heading", "Head"), ("paragraph", "Text")]
    assert parsed.blocks[1].level == 2
    wrapped = rb"{\rtf1\ansi\fromhtml1{\*\htmltag <ul><li>}one{\*\htmltag </ul>}\htmlrtf no\htmlrtf0}"
    assert blocks(msg({SUBJECT: "S", RTF: compressed_rtf.compress(wrapped)}))[1:] == [("list", "- one")]
    broken = parse(msg({SUBJECT: "S", RTF: rtf[:-9]}), filename="a.msg")
    assert broken.text == "S" and "compressed RTF" in broken.notes[0]


def test_attachments_and_messages_among_them_stand_below() -> None:
    inner = storage(
        {SUBJECT: "Inner", BODY: "Inside"}, header=24, prefix="__attach_version1.0_#00000001/__substg1.0_3701000D/"
    )
    data = msg(
        {SUBJECT: "Outer", BODY: "Text"},
        attachment(0, {NAME: "a.txt", DATA: b"attached", MIME: "text/plain"}),
        attachment(1, {METHOD: 5}),
        inner,
        attachment(2, {DATA: b"\x89PNG\r\n\x1a\nxx", MIME: "image/png"}),
        attachment(3, {NAME: "x.bin", DATA: b"\0\1\2", MIME: "application/x-unknown"}),
        attachment(4, {NAME: "logo.png", DATA: b"\x89PNG\r\n\x1a\nxx", MIME: "image/png", HIDDEN: 1}),
    )
    parsed = parse(data, filename="a.msg")
    assert [text for _, text in shown(parsed)] == ["Outer", "Text", "a.txt", "attached", "Inner", "Inside"]
    assert [block.level for block in parsed.blocks] == [1, 0, 2, 0, 2, 0]
    assert len(parsed.notes) == 1 and parsed.notes[0].startswith("x.bin was left out")


def test_messages_in_messages_are_bounded() -> None:
    streams, prefix = storage({SUBJECT: "0"}, header=32), ""
    for depth in range(1, 9):
        streams |= storage({METHOD: 5}, header=8, prefix=f"{prefix}__attach_version1.0_#00000000/")
        prefix += "__attach_version1.0_#00000000/__substg1.0_3701000D/"
        streams |= storage({SUBJECT: str(depth)}, header=24, prefix=prefix)
    assert code_of(compound(streams), filename="a.msg") == "archive_bomb"


def test_a_message_that_says_nothing_is_empty() -> None:
    assert code_of(msg({SENT: 116444736000000000, TO: "Bob"}), filename="a.msg") == "empty"
    assert code_of(msg({}), filename="a.msg") == "empty"


def test_times_out_of_range_are_left_out() -> None:
    assert blocks(msg({SUBJECT: "S", SENT: 2**64 - 1})) == [("heading", "S")]


def test_damaged_bytes_never_fail_in_another_way_nor_take_long() -> None:
    sample = msg(
        {SUBJECT: "S", BODY: "text", HTML: b"<table><tr><td>x</table>", RTF: compressed_rtf.compress(rb"{\rtf1 x}")},
        attachment(0, {NAME: "a.txt", DATA: b"attached"}),
    )
    chance, started = random.Random(13), time.perf_counter()
    for _ in range(300):
        data = bytearray(sample)
        for _ in range(chance.randint(1, 20)):
            data[chance.randrange(512, len(data))] = chance.choice((0, 1, 0x80, 0xFF, chance.randrange(256)))
        assert outcome(bytes(data)) in ("read", *REFUSALS)
    assert time.perf_counter() - started < 30
