"""E-mail, mailboxes and web archives: heads, bodies, attachments, broken headers."""

from __future__ import annotations

import random
import time
from email.message import EmailMessage

import pytest

from apps.documents.parsing import ParseError, parse
from apps.documents.parsing.mail.letter import unflowed
from tests.support.parsed import code_of, shown

HEAD = b"From: Ann <a@x.org>\r\nTo: b@x.org\r\nSubject: Hello\r\nDate: Fri, 16 Dec 2022 17:04:16 -0500\r\n"
HEAD_TEXT = "From: Ann <a@x.org>\nTo: b@x.org\nDate: Fri, 16 Dec 2022 17:04:16 -0500"


def message(body: str | None = None, **fields: str) -> EmailMessage:
    made = EmailMessage()
    for name, value in {"Subject": "Hello", "From": "Ann <a@x.org>", **fields}.items():
        made[name] = value
    if body is not None:
        made.set_content(body)
    return made


def blocks(data: bytes | EmailMessage, filename: str = "a.eml") -> list[tuple[str, str]]:
    return shown(parse(data if isinstance(data, bytes) else data.as_bytes(), filename=filename))


def outcome(data: bytes) -> str:
    """ "read", or the code with which the data is refused."""
    try:
        shown(parse(data, filename="a.eml"))
    except ParseError as error:
        return error.code
    return "read"


def test_subject_head_and_body() -> None:
    parsed = parse(HEAD + b"Cc: C\r\n\r\nHi,\r\n\r\n> quoted\r\n> reply\r\n\r\n-- \r\nAnn\r\n", filename="a.eml")
    assert shown(parsed) == [
        ("heading", "Hello"),
        ("paragraph", "From: Ann <a@x.org>\nTo: b@x.org\nCc: C\nDate: Fri, 16 Dec 2022 17:04:16 -0500"),
        ("paragraph", "Hi,"),
        ("paragraph", "> quoted\n> reply"),
        ("paragraph", "--\nAnn"),
    ]
    assert (parsed.title, parsed.parser, parsed.blocks[0].level) == ("Hello", "mail/1", 1)


def test_headers_in_encoded_words_in_raw_bytes_and_broken() -> None:
    subjects = {
        b"=?utf-8?B?5pel5pys?= =?utf-8?B?6Kqe?=": "日本語",
        b"=?iso-8859-1?Q?Caf=E9?= au\r\n lait": "Café au lait",
        "Grüße aus Köln".encode(): "Grüße aus Köln",
        b"=?no-such-charset?Q?plain?=": "plain",
        b"=?utf-8?B?!!!?=": None,
        b"=?utf-8?Q?=FF=FE?=": None,
    }
    for raw, wanted in subjects.items():
        first = blocks(b"Subject: " + raw + b"\r\nFrom: a\r\n\r\nBody\r\n")[0]
        assert first[0] == "heading"
        assert wanted is None or first[1] == wanted


def test_of_two_forms_html_is_read_where_it_has_structure_and_plain_text_otherwise() -> None:
    plain = message("Plain words")
    plain.add_alternative("<p>Plain <b>words</b></p>", subtype="html")
    assert blocks(plain)[2:] == [("paragraph", "Plain words")]
    rich = message("A B 1 2")
    rich.add_alternative("<h1>T</h1><table><tr><th>A<th>B<tr><td>1<td>2</table>", subtype="html")
    assert blocks(rich)[2:] == [("heading", "T"), ("table", "A | B\n1 | 2")]
    assert parse(rich.as_bytes(), filename="a.eml").blocks[2].level == 2
    shorter = message("A B and some more words that only stand here")
    shorter.add_alternative("<table><tr><th>A<th>B<tr><td>1<td>2</table>", subtype="html")
    assert blocks(shorter)[2:] == [("paragraph", "A B and some more words that only stand here")]
    hint = message("View this e-mail in your browser")
    hint.add_alternative("<p>The news</p>", subtype="html")
    assert blocks(hint)[2:] == [("paragraph", "The news")]
    empty = message("Real")
    empty.add_alternative("<table></table>", subtype="html")
    assert "Real" in parse(empty.as_bytes(), filename="a.eml").text


def test_attachments_stand_under_headings_of_their_names() -> None:
    made = message("See below")
    made.add_attachment("a,b\n1,2\n", subtype="plain", filename="übersicht.txt")
    made.add_attachment(b"<h1>Page</h1><p>x</p>", maintype="text", subtype="html", filename="p.html")
    made.add_attachment(b"MZ\x90\0", maintype="application", subtype="octet-stream", filename="strange.bin")
    parsed = parse(made.as_bytes(), filename="a.eml")
    assert [(block.kind, block.level) for block in parsed.blocks][3:] == [
        *(("heading", 2), ("paragraph", 0), ("heading", 2), ("heading", 3), ("paragraph", 0))
    ]
    assert "übersicht.txt" in parsed.text
    assert len(parsed.notes) == 1 and parsed.notes[0].startswith("strange.bin was left out")


def test_a_message_in_a_message_stands_below_it() -> None:
    outer = message("Forwarded:")
    outer.add_attachment(message("Inner words", Subject="Inside"))
    parsed = parse(outer.as_bytes(), filename="a.eml")
    assert [text for _, text in shown(parsed)][2:] == ["Forwarded:", "Inside", "From: Ann <a@x.org>", "Inner words"]
    assert parsed.blocks[3].level == 2


def test_pictures_signatures_and_outlooks_own_form_are_no_attachments() -> None:
    made = message("Hi")
    made.add_alternative("<p>Hi</p><img src='cid:1'>", subtype="html")
    made.get_payload()[1].add_related(b"\x89PNG", "image", "png", cid="<1>")  # type: ignore[index,union-attr]
    made.make_mixed()
    made.add_attachment(b"x", maintype="application", subtype="pgp-signature", filename="signature.asc")
    made.add_attachment(b"x\x9f\x3e\x22", maintype="application", subtype="ms-tnef", filename="winmail.dat")
    parsed = parse(made.as_bytes(), filename="a.eml")
    assert [text for _, text in shown(parsed)][2:] == ["Hi"]
    assert parsed.notes == ["An attachment in Outlook's own form (winmail.dat) was left out."]


def test_lines_that_a_program_broke_are_joined() -> None:
    body = b"Content-Type: text/plain; format=flowed\r\n\r\n"
    body += b"One line \r\ngoes on.\r\n> quoted \r\n> too\r\n>> deeper\r\n-- \r\nAnn\r\n"
    assert blocks(HEAD + body)[2:] == [("paragraph", "One line goes on.\n> quoted too\n>> deeper\n--\nAnn")]
    assert unflowed("日本 \n語\n", delete_space=True) == "日本語\n"


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        (b"text/plain; charset=windows-1251", "Привет".encode("cp1251"), "Привет"),
        (b"text/plain; charset=no-such", "Grüße".encode(), "Grüße"),
        (b'text/plain; charset="utf-8"Content-Transfer-Encoding: 8bit', "Grüße".encode(), "Grüße"),
        (b"text/plain; charset=iso-2022-jp", "日本語".encode("iso2022_jp"), "日本語"),
        (b"text/html; charset=shift_jis", "<p>日本語</p>".encode("shift_jis"), "日本語"),
        (b"text", b"words", "words"),
    ],
)
def test_bodies_are_read_in_the_charset_they_name_or_in(kind: bytes, body: bytes, text: str) -> None:
    assert blocks(HEAD + b"Content-Type: " + kind + b"\r\n\r\n" + body)[-1] == ("paragraph", text)


def test_damaged_characters_are_replaced_and_noted() -> None:
    parsed = parse(
        HEAD + b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + "äöüß".encode() * 9 + b"\xff", filename="a.eml"
    )
    assert "äöü" in parsed.text and parsed.notes


def test_a_message_that_was_saved_as_utf_16() -> None:
    data = (HEAD + b"\r\nBody\r\n").decode().encode("utf-16")
    assert blocks(data) == [("heading", "Hello"), ("paragraph", HEAD_TEXT), ("paragraph", "Body")]


def test_a_mailbox_is_its_messages_one_after_another() -> None:
    box = (
        b"From a@x.org Mon Jun 01 10:00:00 2009\nSubject: One\n\nFirst\n>From the start\n\n"
        b"From b@x.org Mon Jun 01 11:00:00 2009\nSubject: Two\n\nSecond\nFrom here on nothing\n"
    )
    parsed = parse(box, filename="a.mbox")
    assert shown(parsed) == [
        *(("heading", "One"), ("paragraph", "First\nFrom the start")),
        *(("heading", "Two"), ("paragraph", "Second\nFrom here on nothing")),
    ]
    assert parsed.title is None and parsed.media_type == "application/mbox"
    assert shown(parse(box)) == shown(parsed)


def test_a_mailbox_of_messages_without_headers() -> None:
    box = b"From a Mon Jun 01 10:00:00 2009\n\nFirst\n\nFrom b Mon Jun 01 11:00:00 2009\n\nSecond\n"
    assert blocks(box, "a.mbox") == [("paragraph", "First"), ("paragraph", "Second")]


def test_a_web_archive_is_its_page() -> None:
    data = (
        b"From: <Saved by Blink>\r\nSubject: A page\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/related; type="text/html"; start="<2>"; boundary="B"\r\n\r\n'
        b"--B\r\nContent-Type: text/css\r\nContent-ID: <1>\r\n\r\nh1 {}\r\n"
        b"--B\r\nContent-Type: text/html; charset=utf-8\r\nContent-ID: <2>\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n"
        b"\r\n<title>A page</title><h1>Caf=C3=A9</h1><p>Te=\r\nxt</p>\r\n"
        b"--B\r\nContent-Type: image/png\r\nContent-Location: http://x/y.png\r\n\r\nxxxx\r\n--B--\r\n"
    )
    parsed = parse(data, filename="a.mht")
    assert shown(parsed) == [("heading", "Café"), ("paragraph", "Text")]
    assert (parsed.title, parsed.blocks[0].level, parsed.notes) == ("A page", 1, [])


def test_an_encrypted_message_says_so() -> None:
    data = HEAD + b'Content-Type: multipart/encrypted; boundary="B"\r\n\r\n--B\r\n\r\nx\r\n--B--\r\n'
    assert code_of(data, filename="a.eml") == "encrypted"


@pytest.mark.parametrize("data", [b"\n\n    \n", b"From: a@x.org\nDate: x\n\n\n", b"Received: x\n\n"])
def test_a_message_that_says_nothing_is_empty(data: bytes) -> None:
    assert code_of(data, filename="a.eml") == "empty"


def test_a_subject_alone_is_a_text() -> None:
    assert blocks(b"Subject: Lunch at one?\n\n") == [("heading", "Lunch at one?")]


def test_parts_that_were_cut_off_give_what_there_is() -> None:
    made = message("Body words")
    made.add_attachment(b"attached words " * 50, maintype="text", subtype="plain", filename="a.txt")
    data = made.as_bytes()
    assert "attached words" in parse(data[: len(data) - 300], filename="a.eml").text


def test_messages_in_messages_without_end_are_refused_or_cut() -> None:
    data = b"Subject: x\n\nend\n"
    for _ in range(2000):
        data = b"Subject: x\nContent-Type: message/rfc822\n\n" + data
    assert outcome(data) in ("read", "malformed", "archive_bomb")


def test_many_attachments_are_cut_and_noted() -> None:
    part = b'--B\r\nContent-Type: text/plain\r\nContent-Disposition: attachment; filename="a.txt"\r\n\r\nx\r\n'
    data = HEAD + b'Content-Type: multipart/mixed; boundary="B"\r\n\r\n' + part * 1100 + b"--B--\r\n"
    assert any("More than 1000 attachments" in note for note in parse(data, filename="a.eml").notes)


def test_damaged_bytes_never_fail_in_another_way_nor_take_long() -> None:
    made = message("Body", To="=?utf-8?B?5pel?= <b@x.org>")
    made.add_alternative("<table><tr><td>x</table>", subtype="html")
    made.add_attachment(b"attached", maintype="text", subtype="plain", filename="a.txt")
    sample, chance, started = made.as_bytes(), random.Random(3), time.perf_counter()
    for _ in range(300):
        data = bytearray(sample)
        for _ in range(chance.randint(1, 20)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        assert outcome(bytes(data)) != "crashed"
    assert time.perf_counter() - started < 30


def test_a_mailbox_of_lines_that_nearly_start_a_message_costs_little() -> None:
    started = time.perf_counter()
    parse(b"From a 10:00:00 2009\n\nx\n" + b"From " + b" 10:00" * 200_000, filename="a.mbox")
    parse(b"From a 10:00:00 2009\n\nx\n" + b"From x\n" * 200_000, filename="a.mbox")
    assert time.perf_counter() - started < 10
