"""E-mail (.eml), mailboxes (.mbox) and web archives (.mht) to text, over the standard library's email package.

Its old policy, compat32, is used: the new one parses each header when asked and fails on malformed ones.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message

from apps.documents.parsing import encoding, members
from apps.documents.parsing.build import Builder, inline
from apps.documents.parsing.mail import letter
from apps.documents.parsing.types import Parsed, ParseError

FINGERPRINT = "mail/1"

_FIELDS = ("From", "To", "Cc", "Date")
_BODIES = ("text/plain", "text/html")
_SIGNATURES = frozenset(
    {
        "application/pgp-signature",
        "application/pkcs7-signature",
        "application/x-pkcs7-signature",
        "application/pgp-keys",
    }
)
# A line of a mailbox that starts a message: it ends with a date, or the header's first field stands below (RFC 4155).
_FROM_LINE = re.compile(
    rb"^From (?:[^\r\n]{1,320} \d\d:\d\d[^\r\n]{0,20} \d{4}[^\r\n]{0,20}\r?\n|[^\r\n]{1,400}\r?\n(?=[!-9;-~]{1,76}:))",
    re.MULTILINE,
)
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)
_ESCAPED = re.compile("[\udc80-\udcff]")
_FOLD = re.compile(r"\r?\n[ \t]*")


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """Each message as a heading with its subject, the head, the body and the attachments below.

    Of two forms of a body the text is read, or the HTML where that has more structure. Of a web archive the page is
    read.
    """
    reader = _Reader()
    data = _narrow(data.lstrip(b"\r\n\t "))
    if media_type == "application/mbox" or _FROM_LINE.match(data):
        messages = list(_messages(data))
    else:
        messages = [message_from_bytes(data)]
    if len(messages) != 1:
        for message in messages:
            reader.message(message, level=1)
        return reader.built.parsed(media_type=media_type, parser=FINGERPRINT)
    (message,) = messages
    title = _field(message, "Subject")
    if message.get_content_type() == "multipart/encrypted":
        raise ParseError("encrypted", "The message is encrypted and needs a key.")
    if _is_page(message):
        reader.part(message, level=0)
    else:
        reader.message(message, level=1)
    bare = letter.is_bare(reader.built, _fields(message), subject=title)
    built = Builder() if bare else reader.built
    return built.parsed(media_type=media_type, parser=FINGERPRINT, title=title)


def _narrow(data: bytes) -> bytes:
    """A message that somebody saved as Unicode text, as the bytes that it was."""
    if encoding.byte_order_mark(data) or b"\0" in data[:64]:
        return encoding.decode(data).encode()
    return data


def _messages(data: bytes) -> Iterator[Message]:
    starts = list(_FROM_LINE.finditer(data))
    if not starts:
        yield message_from_bytes(data)
        return
    for this, following in zip(starts, [*starts[1:], None], strict=True):
        yield message_from_bytes(_QUOTED_FROM.sub(rb"\1", data[this.end() : following.start() if following else None]))


def _is_page(message: Message) -> bool:
    """Is it a page that a browser saved, not a message that somebody sent?"""
    sent = any(message.get(name) for name in ("To", "Cc", "Received", "Message-ID"))
    return not sent and message.get_content_type() in ("multipart/related", "text/html")


class _Reader:
    """Puts messages into one Builder."""

    def __init__(self) -> None:
        self.built = Builder()
        self._attached = 0
        self._bodies = 0  # with text in them

    def message(self, message: Message, *, level: int) -> None:
        letter.head(self.built, _fields(message), subject=_field(message, "Subject"), level=level)
        self.part(message, level=level)

    def part(self, part: Message, *, level: int) -> None:
        """A part and what is in it: a body, several forms of one, an attachment, a message."""
        kind = part.get_content_type()
        children = _children(part)
        if kind == "message/rfc822" and children:
            self.message(_unwrapped(part, children[0]), level=level + 1)
        elif kind == "multipart/encrypted" or part.get_param("smime-type") == "enveloped-data":
            self.built.note("The message is encrypted: only its head was read.")
        elif kind == "message/delivery-status":
            for status in children:
                self.built.paragraph("\n".join(f"{name}: {value}" for name, value in status.items()))
        elif kind == "multipart/alternative" and children:
            self._alternative(children, level)
        elif kind == "multipart/related" and children:
            self._related(part, children, level)
        elif children:
            for child in children:
                self.part(child, level=level)
        elif kind in _BODIES and part.get_content_disposition() != "attachment" and not _name(part):
            self._body(part, level)
        else:
            self._attachment(part, level)

    def _alternative(self, forms: list[Message], level: int) -> None:
        texts = [form for form in forms if form.get_content_type() == "text/plain"]
        rich = [form for form in forms if _first(form, "text/html") is not None]
        if texts and rich:
            markup = _first(rich[-1], "text/html")
            chosen = rich[-1] if markup and letter.prefers_html(_text(texts[0]), _text(markup)) else texts[0]
        else:
            chosen = (rich or texts or forms)[-1]
        before = self._bodies
        self.part(chosen, level=level)
        if self._bodies == before and texts and chosen is not texts[0]:
            self._body(texts[0], level)
        for form in forms:
            if form is not chosen:
                for each in form.walk():
                    if not each.is_multipart() and each.get_content_maintype() not in ("text", "image"):
                        self._attachment(each, level)

    def _related(self, part: Message, children: list[Message], level: int) -> None:
        """The root (RFC 2387); of what belongs to it only what is named and no picture of the page."""
        start = str(part.get_param("start") or "")
        root = next(
            (child for child in children if start and child.get("Content-ID", "").strip() == start), children[0]
        )
        self.part(root, level=level)
        for child in children:
            if child is root or child.get_content_maintype() in ("image", "text", "font"):
                continue
            if child.get_content_disposition() == "attachment" or (level and _name(child)):
                self._attachment(child, level)

    def _body(self, part: Message, level: int) -> None:
        if part.get_content_type() == "text/html":
            self._bodies += letter.add_html(self.built, _bytes(part), charset=_charset(part), level=level)
            return
        text = _text(part, self.built)
        if str(part.get_param("format") or "").lower() == "flowed":
            text = letter.unflowed(text, delete_space=str(part.get_param("delsp") or "").lower() == "yes")
        self._bodies += letter.add_text(self.built, text)

    def _attachment(self, part: Message, level: int) -> None:
        kind, name = part.get_content_type(), _name(part)
        if kind in _SIGNATURES or (not name and part.get_content_maintype() in ("image", "audio", "video")):
            return
        self._attached += 1
        if self._attached > letter.MAX_ATTACHMENTS:
            self.built.note(f"More than {letter.MAX_ATTACHMENTS} attachments: the others were left out.")
            return
        if kind == "application/ms-tnef" or name.lower() == "winmail.dat":
            self.built.note("An attachment in Outlook's own form (winmail.dat) was left out.")
            return
        content = _bytes(part)
        if content:
            charset = _charset(part)
            declared = f"{kind}; charset={charset}" if charset and kind.startswith("text/") else kind
            members.add(self.built, content, name=name or "Attachment", media_type=declared, level=level + 1)


def _children(part: Message) -> list[Message]:
    payload = part.get_payload()
    return [child for child in payload if isinstance(child, Message)] if isinstance(payload, list) else []


def _unwrapped(part: Message, message: Message) -> Message:
    """A message in a message, also where it was sent in base64, which the standard forbids."""
    if part.get("Content-Transfer-Encoding", "").strip().lower() != "base64":
        return message
    try:
        return message_from_bytes(b64decode(message.as_bytes()))
    except ValueError:
        return message


def _first(part: Message, kind: str) -> Message | None:
    return next((each for each in part.walk() if each.get_content_type() == kind), None)


def _bytes(part: Message) -> bytes:
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else b""


def _charset(part: Message) -> str | None:
    try:
        return part.get_content_charset()
    except (LookupError, ValueError):  # of a parameter in pieces, each in its own encoding
        return None


def _text(part: Message, built: Builder | None = None) -> str:
    """The characters of a body. Damaged ones are replaced, which is noted."""
    content, charset = _bytes(part), _charset(part)
    try:
        return encoding.decode(content, declared=(charset,))
    except ParseError:
        if built is not None:
            built.note("Some characters of a message could not be read: they are not in the encoding it names.")
        return content.decode(encoding.codec_of(charset) or "utf-8", "replace")


def _name(part: Message) -> str:
    """The file name of a part, "" where it has none."""
    try:
        return inline(_decoded(part.get_filename() or ""))
    except (LookupError, ValueError):
        return "attachment"


def _fields(message: Message) -> list[tuple[str, str]]:
    return [(name, _field(message, name)) for name in _FIELDS]


def _field(message: Message, name: str) -> str:
    """A field of the header as a reader sees it; what is broken in it stays as it is."""
    for key, value in message.raw_items():
        if key.lower() == name.lower():
            return _decoded(str(value))
    return ""


def _decoded(value: str) -> str:
    """Encoded words (RFC 2047) and bytes outside ASCII as characters."""
    value = _FOLD.sub(" ", value)
    if _ESCAPED.search(value):
        value = _characters(value.encode("utf-8", "surrogateescape"), None)
    if "=?" not in value:
        return value
    try:
        words = decode_header(value)
    except (HeaderParseError, ValueError):
        return value
    text = "".join(word if isinstance(word, str) else _characters(word, charset) for word, charset in words)
    return text if text.strip() else value


def _characters(content: bytes, charset: str | None) -> str:
    codec = encoding.codec_of(charset)
    try:
        return content.decode(codec) if codec else encoding.decode(content)
    except (ParseError, UnicodeDecodeError):
        return content.decode(codec or "latin-1", "replace")
