"""Outlook messages (.msg) to text: [MS-OXMSG] read over olefile.

python-oxmsg, the library for it, fails on names of code pages that Python calls otherwise (950) and on a single wrong
byte, and reads no message that is attached to another; this takes the same few properties and forgives both.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email import message_from_string
from email.utils import format_datetime
from typing import Any

import compressed_rtf
import olefile

from apps.documents.parsing import encoding, members, nesting
from apps.documents.parsing.build import Builder
from apps.documents.parsing.legacy import rtf
from apps.documents.parsing.legacy.ole import open_ole
from apps.documents.parsing.legacy.rtf_html import unwrapped
from apps.documents.parsing.mail import letter
from apps.documents.parsing.types import Parsed, ParseError

FINGERPRINT = "msg/1"

# Property ids ([MS-OXPROPS])
_SUBJECT, _BODY, _HTML, _RTF, _HEADERS = 0x0037, 0x1000, 0x1013, 0x1009, 0x007D
_SENDER, _SENDER_ADDRESS, _SENDER_SMTP, _TO, _CC = 0x0C1A, 0x0C1F, 0x5D01, 0x0E04, 0x0E03
_SENT, _DELIVERED, _MESSAGE_PAGE, _INTERNET_PAGE = 0x0039, 0x0E06, 0x3FFD, 0x3FDE
_LONG_NAME, _SHORT_NAME, _MIME, _DATA, _METHOD, _DISPLAY, _HIDDEN, _CONTENT_ID = (
    0x3707,
    0x3704,
    0x370E,
    0x3701,
    0x3705,
    0x3001,
    0x7FFE,
    0x3712,
)
_UNICODE, _STRING_8, _BINARY, _OBJECT = 0x001F, 0x001E, 0x0102, 0x000D
_EMBEDDED_MESSAGE = 5
_HEADER = 32  # bytes before the properties of a message, 24 of one in another, 8 of an attachment
_PAGES = {65001: "utf-8", 20127: "cp1252", 28591: "cp1252", 50220: "iso2022_jp", 51932: "euc_jp", 20866: "koi8_r"}
_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """Subject as heading and title, the head as a paragraph, the body, and the attachments below it.

    The body is the plain text, the HTML where that has more structure, or what RTF holds. Raises ParseError("corrupt").
    """
    with open_ole(data) as ole:
        built = Builder()
        message = _Storage(ole, [], _HEADER)
        _read(message, built, level=1)
        title = message.text(_SUBJECT)
        if letter.is_bare(built, _fields(message), subject=title):
            built = Builder()
    return built.parsed(media_type=media_type, parser=FINGERPRINT, title=title)


class _Storage:
    """The properties of a message or an attachment."""

    def __init__(self, ole: olefile.OleFileIO, path: list[str], header: int) -> None:
        self.ole, self.path = ole, path
        self._fixed: dict[int, bytes] = {}
        properties = self._stream("__properties_version1.0")
        for at in range(header, len(properties) - 15, 16):
            number = int.from_bytes(properties[at + 2 : at + 4], "little")
            self._fixed[number] = properties[at + 8 : at + 16]

    def number(self, number: int) -> int:
        """A 32-bit property, 0 where there is none."""
        return int.from_bytes(self._fixed.get(number, b"")[:4], "little")

    def date(self, number: int) -> str:
        """A time as mail writes it, "" where there is none."""
        value = int.from_bytes(self._fixed.get(number, b""), "little")
        try:
            return format_datetime(_EPOCH + timedelta(seconds=value // 10_000_000)) if value else ""
        except OverflowError:
            return ""

    def text(self, number: int, page: int = 0) -> str:
        """A string property, in Unicode or in the code page `page` or that of the message."""
        if wide := self._stream(f"__substg1.0_{number:04X}{_UNICODE:04X}"):
            return wide[: len(wide) & ~1].decode("utf-16-le", "replace").rstrip("\0")
        narrow = self._stream(f"__substg1.0_{number:04X}{_STRING_8:04X}").rstrip(b"\0")
        return _decoded(narrow, page or self.number(_MESSAGE_PAGE) or self.number(_INTERNET_PAGE)) if narrow else ""

    def binary(self, number: int) -> bytes:
        return self._stream(f"__substg1.0_{number:04X}{_BINARY:04X}")

    def storages(self, prefix: str) -> list[str]:
        """Names of the storages in this one that start with `prefix`, in their order."""
        entry: Any = self.ole.root
        for name in self.path:
            entry = next((kid for kid in entry.kids if kid.name == name), None) if entry else None
        kids = entry.kids if entry else []
        return sorted(kid.name for kid in kids if kid.name.lower().startswith(prefix))

    def _stream(self, name: str) -> bytes:
        path = [*self.path, name]
        try:
            if self.ole.exists(path) and self.ole.get_type(path) == olefile.STGTY_STREAM:
                return bytes(self.ole.openstream(path).read())
        except OSError as error:
            raise ParseError("corrupt", "The compound file is damaged.") from error
        return b""


def _decoded(content: bytes, page: int) -> str:
    codec = _PAGES.get(page) or encoding.codec_of(f"cp{page}") or "cp1252"
    try:
        return content.decode(codec)
    except UnicodeDecodeError:
        pass
    try:
        return encoding.decode(content)
    except ParseError:
        return content.decode(codec, "replace")


def _read(message: _Storage, built: Builder, *, level: int) -> None:
    if level > nesting.MAX_DEPTH:
        raise ParseError("archive_bomb", f"Documents are nested more than {nesting.MAX_DEPTH} deep.")
    letter.head(built, _fields(message), subject=message.text(_SUBJECT), level=level)
    try:
        _body(message, built, level)
    except ParseError as error:
        built.note(f"The text of the message was left out: {error.detail}")
    names = message.storages("__attach_version1.0_#")
    if len(names) > letter.MAX_ATTACHMENTS:
        built.note(f"More than {letter.MAX_ATTACHMENTS} attachments: the others were left out.")
    for name in names[: letter.MAX_ATTACHMENTS]:
        _attachment(_Storage(message.ole, [*message.path, name], 8), built, level + 1)


def _fields(message: _Storage) -> list[tuple[str, str]]:
    headers = message_from_string(message.text(_HEADERS).replace("\r\n", "\n").lstrip("\n"))
    name = message.text(_SENDER)
    address = message.text(_SENDER_SMTP) or message.text(_SENDER_ADDRESS)
    if "@" in address and address != name:
        name = f"{name} <{address}>" if name else address
    return [
        ("From", name or str(headers.get("From", ""))),
        ("To", message.text(_TO) or str(headers.get("To", ""))),
        ("Cc", message.text(_CC) or str(headers.get("Cc", ""))),
        ("Date", str(headers.get("Date", "")) or message.date(_SENT) or message.date(_DELIVERED)),
    ]


def _body(message: _Storage, built: Builder, level: int) -> None:
    page = message.number(_INTERNET_PAGE)
    text = message.text(_BODY, page)
    charset = _PAGES.get(page) or (f"cp{page}" if page else None)
    markup = message.binary(_HTML)
    if not markup and (string := message.text(_HTML, page)):
        markup, charset = string.encode("utf-8", "replace"), "utf-8"
    rich = markup and letter.prefers_html(text, markup.decode("latin-1"))
    if rich and letter.add_html(built, markup, charset=charset, level=level):
        return
    if text.strip():
        letter.add_text(built, text)
        return
    if packed := message.binary(_RTF):
        _rtf(packed, built, level)


def _rtf(packed: bytes, built: Builder, level: int) -> None:
    try:
        source = compressed_rtf.decompress(packed)
    except Exception:  # it raises bare Exception for a wrong check sum, IndexError for what is cut off
        built.note("The text of the message was left out: its compressed RTF is damaged.")
        return
    if (markup := unwrapped(source)) is not None:
        letter.add_html(built, markup.encode("utf-8", "replace"), charset="utf-8", level=level)
    elif source.strip(b"\0 \r\n"):
        built.graft(rtf.parse(source, media_type="application/rtf", charset=None), under=level)


def _attachment(attachment: _Storage, built: Builder, level: int) -> None:
    name = attachment.text(_LONG_NAME) or attachment.text(_SHORT_NAME) or attachment.text(_DISPLAY)
    inside = f"__substg1.0_{_DATA:04X}{_OBJECT:04X}"
    if attachment.number(_METHOD) == _EMBEDDED_MESSAGE and inside in attachment.storages("__substg1.0_3701000d"):
        _read(_Storage(attachment.ole, [*attachment.path, inside], 24), built, level=level)
        return
    content = attachment.binary(_DATA)
    kind = attachment.text(_MIME) or None
    is_inline = not name or attachment.number(_HIDDEN) & 1 or attachment.text(_CONTENT_ID)
    if not content or (is_inline and (kind or "").startswith("image/")):
        return
    if kind == "multipart/signed":  # the whole message once more, as it was sent
        kind, name = "message/rfc822", name or "Signed message"
    members.add(built, content, name=name or "Attachment", media_type=kind, level=level)
