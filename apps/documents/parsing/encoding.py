"""Bytes to text for formats without a declared, trustworthy encoding.

Evidence is weighed in the order of how rarely it is wrong: byte order mark, NUL pattern of UTF-16/32,
escape sequences of ISO-2022, valid UTF-8, what the sender declared, then a statistical guess that has to look
like text. What is left is refused: a wrong guess would be searched, cited and verified as if it were the document.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from apps.documents.parsing.languages import FIRST_LEVELS, bits, east_asian_bits, is_common
from apps.documents.parsing.types import ParseError

SAMPLE = 64 * 1024
TELLING = 500  # bytes outside ASCII
JUDGED = 4096  # characters outside ASCII that are enough to judge a guess by

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark starts with the UTF-16 one
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_BINARY_MAGIC = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "a ZIP archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ\x00", "xz data"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an OLE compound file"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"\x7fELF", "an executable"),
    (b"MZ\x90\x00", "an executable"),
    (b"{\\rtf", "an RTF document"),
    (b"%!PS-", "a PostScript program"),
    (b"SQLite format 3\x00", "an SQLite database"),
)
_MAGIC = tuple(magic for magic, _ in _BINARY_MAGIC)
_CONTROLS = bytes([*range(1, 9), *range(0x0E, 0x1B), *range(0x1C, 0x20)])
_MAX_CONTROL_SHARE = 0.02
# Shares of zeros among every other byte: over the first it is UTF-16 of a Latin script, not ASCII records ended by NUL;
# under the second it is no UTF-16, whose white space and digits alone are more in any script.
_LATIN_ZEROS, _FEW_ZEROS = 0.7, 0.02
_MAX_KANA_SHARE = 0.85  # of bytes in ASCII: 0.5 for the first byte of each, 0.3 for the second in hiragana
_MAX_ODD_SHARE, _MAX_ODD_SHARE_MULTI_BYTE = 0.15, 0.25  # East Asian text stands close beside Latin words

# WHATWG Encoding Standard, section 4.2: these labels mean windows-1252 / windows-1254 on the web.
_WEB_ALIASES = {"iso8859-1": "cp1252", "ascii": "cp1252", "iso8859-9": "cp1254"}
# Its legacy encodings, each as its superset, and the code pages of DOS and the Mac; of two that fit equally well
# the first is taken.
_LATIN_BYTES = (
    *("cp1252", "cp1250", "cp1254", "cp1257", "cp1258", "cp850", "cp852", "iso8859_2", "iso8859_15", "mac_roman"),
)
_OTHER_BYTES = (
    *("cp1251", "koi8_u", "cp866", "cp1253", "iso8859_7", "iso8859_5", "cp1255", "cp1256", "iso8859_6", "cp874"),
    *("mac_cyrillic", "cp862"),
)
_SINGLE_BYTE = _LATIN_BYTES + _OTHER_BYTES
_MULTI_BYTE = ("cp932", "euc_jp", "gb18030", "big5hkscs", "cp949")
_NO_TEXT = ("Cc", "Cn", "Co", "Cs")
_WITHOUT_ORDER = ("utf-16", "utf-32")  # declared without a mark they do not say which byte comes first
_COMMON = "cp1252"
# Characters outside ASCII that a text needs before it is taken to be in another one: scattered letters, or a word.
_EVIDENCE, _EVIDENCE_MULTI_BYTE = 6, 4
_SURE = 3  # bits by which a text with less evidence must be more likely than any other reading
_MAX_BITS = 8  # per character; of languages 4 to 5
_ODD_BITS, _SHOUTING_BITS, _COMMON_BITS = 6, 4, 3
_DISTINCT, _DISTINCT_LETTERS = 2, 3  # of them, the latter in another script: padding with 0xFF is no Cyrillic
# Share of the bytes outside ASCII that are valid UTF-8 by chance: of 300 cuts from XQuAD, DRCD and JaQuAD in each of
# 23 legacy encodings at most 4 % have 2/3 when 15 characters long, none when 300; in a Latin script 2 % have 1/2.
_NEARLY, _MIXED = 2 / 3, 1 / 2
_EAST_ASIAN = frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "FULLWIDTH", "IDEOGRAPHIC"})
_LATIN = frozenset({"LATIN", "FEMININE", "MASCULINE", "MICRO"})  # ª º µ are letters among Latin ones
_OUTSIDE_ASCII = re.compile(r"[^\x00-\x7f]")
_ENOUGH = re.compile(rf"(?:[\x00-\x7f]*+[^\x00-\x7f]){{0,{JUDGED}}}[\x00-\x7f]?")
_AMONG_ASCII = re.compile(r"(?<=[\x00-\x7f])[\x00-\x7f]+(?=[\x00-\x7f])")
_BETWEEN_LETTERS, _OPENING, _FILLING, _BRACKETS = "’·…", "¿¡", "ÿ", "([{"
_TOLD_APART = frozenset(_BETWEEN_LETTERS + _OPENING + _FILLING + _BRACKETS)
_FIRST_OF_KIND: dict[tuple[str, str, bool, bool, bool], str] = {}
_LATIN_RUN = re.compile("[\u00c0-\u024f]{5,}")  # no language writes five accented letters in a row
_ASCII = bytes(range(128))
_ASCII_LETTERS = bytes(byte for byte in range(128) if chr(byte).isalpha())
_MAX_LETTERS_SHARE = 0.6  # of the bytes of East Asian text in UTF-16: two letters of ASCII are a Han character


def binary_kind(data: bytes) -> str | None:
    """Name the well-known binary format that `data` starts with ("a ZIP archive"), or None."""
    if not data.startswith(_MAGIC):
        return None
    return next(name for magic, name in _BINARY_MAGIC if data.startswith(magic))


def codec_of(label: str | None) -> str | None:
    """Python codec name for a charset label as senders write it, or None when it is not a text codec."""
    if not label:
        return None
    try:
        name = codecs.lookup(label.strip().strip("\"'").lower()).name
        b"".decode(name)
    except (LookupError, ValueError, UnicodeError):
        return None
    return _WEB_ALIASES.get(name, name)


def byte_order_mark(data: bytes) -> tuple[str, int] | None:
    """(codec, length of the mark) when `data` starts with a byte order mark."""
    return next(((name, len(bom)) for bom, name in _BOMS if data.startswith(bom)), None)


def decode(data: bytes, *, declared: Iterable[str | None] = ()) -> str:
    """Text of `data`, without U+0000; `declared` are charset labels in falling order of trust.

    Raises ParseError("unsupported") for binary content, and ParseError("undecodable"), with the offset of the first
    byte that is wrong (counted from 0), for text that is damaged or in no encoding that can be told.
    """
    if kind := binary_kind(data):
        raise ParseError("unsupported", f"The content is {kind}, not text.")
    if bom := byte_order_mark(data):
        return _marked(data, *bom)
    codecs_declared = [codec for label in declared if (codec := codec_of(label)) not in _WITHOUT_ORDER and codec]
    if (text := _wide(data, codecs_declared)) is not None:
        return text
    head = data[:SAMPLE]
    if b"\x1b$" in head:
        codec = "iso2022_kr" if b"\x1b$)C" in head else "iso2022_jp_2"
        if (text := _strict(data, codec)) is not None and "\x00" not in text:
            return text
    if _count(head, _CONTROLS) > max(2, _MAX_CONTROL_SHARE * len(head)):
        if (text := _east_asian(data)) is not None:
            return text
        raise ParseError("unsupported", "The content is binary, not text.")
    if (nul := data.find(b"\x00")) >= 0:
        raise ParseError("undecodable", f"Byte {nul} is NUL, and the content is not UTF-16 or UTF-32.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        wrong = error.start
    utf8 = _utf8_share(data, wrong)
    if utf8 >= _NEARLY:
        raise ParseError("undecodable", f"The text is UTF-8 but for byte {wrong} (0x{data[wrong]:02X}).")
    for codec in codecs_declared:
        if (text := _strict(data, codec)) is not None and "\x00" not in text:
            return text
    if (text := _east_asian(data)) is not None or (text := _guess(data, latin=utf8 < _MIXED)) is not None:
        return text
    detail = f"The text is not UTF-8 from byte {wrong} (0x{data[wrong]:02X}) on, and no other encoding fits it."
    raise ParseError("undecodable", detail)


def _count(data: bytes, of: bytes) -> int:
    """How many bytes of `data` are among `of`."""
    return len(data) - len(data.translate(None, of))


def _strict(data: bytes, codec: str) -> str | None:
    try:
        return data.decode(codec)
    except (UnicodeError, LookupError, ValueError):
        return None


def _marked(data: bytes, codec: str, skip: int) -> str:
    """Text behind a byte order mark of `skip` bytes, which is believed. Raises ParseError("undecodable")."""
    label = codec.upper()
    try:
        text = str(memoryview(data)[skip:], codec)
    except UnicodeDecodeError as error:
        detail = f"The content is marked as {label}, but is not from byte {skip + error.start} on."
        raise ParseError("undecodable", detail) from None
    if (nul := text.find("\x00")) >= 0:
        at = skip + len(text[:nul].encode(codec))
        raise ParseError("undecodable", f"The character at byte {at} of the {label} text is NUL.")
    return text


def _wide(data: bytes, declared: list[str]) -> str | None:
    """Text of UTF-16 or UTF-32 without a mark, seen by where its zero bytes are and by what it reads as."""
    head = data[: SAMPLE - SAMPLE % 4]
    if b"\x00" not in head:
        return None
    units = len(head) // 2
    big, little = head[0::2].count(0) / max(1, units), head[1::2].count(0) / max(1, units)
    candidates = [codec for codec in declared if codec.startswith(_WITHOUT_ORDER)]
    candidates += ["utf-32-le", "utf-32-be"]
    narrow = head.replace(b"\x00", b"")
    is_text = _count(narrow, _CONTROLS) <= _MAX_CONTROL_SHARE * len(narrow)
    is_text = is_text and (max(big, little) < _FEW_ZEROS or _is_8_bit(narrow))
    if max(big, little) > _LATIN_ZEROS or not is_text:
        candidates += ["utf-16-le", "utf-16-be"] if little >= big else ["utf-16-be", "utf-16-le"]
    for codec in candidates:
        text = _strict(data, codec)
        if text and "\x00" not in text and _unlikely(text) <= _MAX_CONTROL_SHARE * len(text):
            return text
    return None


def _east_asian(data: bytes) -> str | None:
    """Text of UTF-16 without a mark and without a zero byte, as short East Asian text is: in one byte order all of its
    characters are common in one language."""
    head = data[:SAMPLE]
    if len(data) % 2 or len(data) < 2 * _EVIDENCE_MULTI_BYTE:
        return None
    if _count(head, _ASCII_LETTERS) > _MAX_LETTERS_SHARE * len(head):
        return None
    orders = [codec for codec in ("utf-16-le", "utf-16-be") if _is_common(_strict(head, codec) or "")]
    return _strict(data, orders[0]) if len(orders) == 1 else None


def _is_common(text: str) -> bool:
    """Are all characters, and there are some, among the common ones of one language?"""
    chars = set(text)
    return len(chars) >= _EVIDENCE_MULTI_BYTE and any(
        all(is_common(char, standard) for char in chars) for standard in FIRST_LEVELS
    )


def _is_8_bit(narrow: bytes) -> bool:
    """Is this, its zeros dropped, text of one byte per ASCII character? Kana in UTF-16 have most bytes in ASCII too."""
    return _count(narrow, _ASCII) > _MAX_KANA_SHARE * len(narrow) or _utf8_share(narrow, 0) >= _NEARLY


def _unlikely(text: str) -> int:
    """How many characters are controls, unassigned or private; above the first plane, which still grows, none is."""
    strange = {
        char for char in set(text) - set("\t\n\v\f\r\x1b") if char < "\U00010000" and _category(char) in _NO_TEXT
    }
    return sum(text.count(char) for char in strange)


def _utf8_share(data: bytes, at: int) -> float:
    """Share (0..1) of the bytes outside ASCII around byte `at` that stand in valid UTF-8; 1 where there are none."""
    window = data[max(0, at - SAMPLE) : at + SAMPLE]
    outside = len(window) - _count(window, _ASCII)
    broken = len(window) - len(window.decode("utf-8", "ignore").encode())
    return 1 - broken / outside if outside else 1.0


def _guess(data: bytes, *, latin: bool) -> str | None:
    """The text in the legacy encoding that makes most sense of it, or None when it makes none in any.

    `latin` says whether an encoding of the Latin script is possible.

    The guesser tells whether it is one of East Asia; of these that one is taken whose characters are the most common,
    because a short text in EUC-JP is no bad Korean otherwise. Between single bytes that encoding is taken in which
    the text is most like a language.
    """
    # Imported here: its tables cost more than the rest of a child's start, and most text is UTF-8.
    from charset_normalizer import from_bytes

    sample = _sample(data)
    single_byte = _SINGLE_BYTE if latin else _OTHER_BYTES
    matches = from_bytes(sample, cp_isolation=[*single_byte, *_MULTI_BYTE])
    for codec in (codec for match in matches for codec in match.could_be_from_charset):
        if (text := _strict(sample, codec)) is None:
            continue
        odd, _ = _oddity(text, least=_least(codec))
        if codec in single_byte and odd <= _MAX_ODD_SHARE:
            break
        if codec in _MULTI_BYTE and odd <= _MAX_ODD_SHARE_MULTI_BYTE and _strict(data, codec) is not None:
            return _most_common(data, sample)
    likeliest = _likeliest(_telling(sample), single_byte)
    return _strict(data, likeliest) if likeliest else None


def _most_common(data: bytes, sample: bytes) -> str | None:
    """The text in the encoding of East Asia whose characters are the most common ones."""
    found = ((text, codec) for codec in _MULTI_BYTE if (text := _strict(sample[:SAMPLE], codec)) is not None)
    ranked = sorted((east_asian_bits(text), codec) for text, codec in found)
    return next((whole for _, codec in ranked if (whole := _strict(data, codec)) is not None), None)


def _likeliest(sample: bytes, codecs_: Iterable[str]) -> str | None:
    """The encoding of one byte per character in which the sample is most like a language, None where it is like none,
    or where a few letters could be those of several."""
    found: dict[str, tuple[float, str]] = {}
    for codec in codecs_:
        if (text := _strict(sample, codec)) is not None and text not in found:
            odd, shouting = _oddity(text, least=1)
            odd_bits = _ODD_BITS * odd * len(_OUTSIDE_ASCII.findall(text))
            habit = _SHOUTING_BITS * shouting - _COMMON_BITS * (codec == _COMMON)
            found[text] = (bits(text)[0] + odd_bits + habit, codec)
    if not found:
        return None
    (text, (least, codec)), *others = sorted(found.items(), key=lambda each: each[1][0])
    information, count = bits(text)
    if _oddity(text, least=1)[0] > _MAX_ODD_SHARE or information > _MAX_BITS * count:
        return None
    outside = _OUTSIDE_ASCII.findall(text)
    if codec in _OTHER_BYTES:
        return codec if len(outside) >= _EVIDENCE and len(set(outside)) >= _DISTINCT_LETTERS else None
    enough = len(outside) >= _EVIDENCE and len(set(outside)) >= _DISTINCT
    sure = not others or others[0][1][0] - least >= _SURE
    return codec if enough or (sure and (codec == _COMMON or len(outside) > 1)) else None


def _least(codec: str) -> int:
    """Characters outside ASCII that a text needs before it is taken to be in `codec`."""
    return 1 if codec == _COMMON else _EVIDENCE_MULTI_BYTE if codec in _MULTI_BYTE else _EVIDENCE


def _sample(data: bytes) -> bytes:
    """At most 1.25 SAMPLE around the first high byte, cut where no multi-byte character can be cut in two."""
    if len(data) <= SAMPLE:
        return data
    first = next((match.start() for match in re.finditer(rb"[\x80-\xff]", data)), 0)
    sample = data[max(0, first - SAMPLE // 4) : first + SAMPLE]
    end = max(sample.rfind(mark) for mark in (b"\n", b" ", b",", b"."))
    return sample[: end + 1] if end > SAMPLE // 2 else sample


def _telling(sample: bytes) -> bytes:
    """As much of the sample as tells its language: up to so many bytes outside ASCII, where it has them."""
    for number, high in enumerate(re.finditer(rb"[\x80-\xff]", sample)):
        if number == 0:
            start = max(0, high.start() - TELLING)
        elif number == TELLING:
            return sample[start : max(high.start(), start + 4 * TELLING)]
    return sample


def _oddity(text: str, *, least: int) -> tuple[float, bool]:
    """(share of the characters outside ASCII that stand where text has none like them, are most of them capitals?).

    The share, 0..1, is 1 for fewer characters than `least`, or one again and again. Capitals tell KOI8 from
    windows-1251 where the text is too short for its language to be told.
    """
    text = _AMONG_ASCII.sub("", _ENOUGH.match(text)[0])  # type: ignore[index]
    there = set(text)
    if len({char for char in there if char > "\x7f"}) < min(least, _DISTINCT):
        return 1.0, False
    # The same few kinds of neighbourhoods come again and again. A line's end stands for that of the text.
    kinds = text.translate({ord(char): _kind(char) for char in there})
    places = Counter(zip("\n" + kinds, kinds, kinds[1:] + "\n", strict=False))
    outside = {place: times for place, times in places.items() if place[1] > "\x7f"}
    count = sum(outside.values())
    if count < least:
        return 1.0, False
    odd = sum(times for place, times in outside.items() if _is_odd(*place))
    odd += sum(len(run.group()) for run in _LATIN_RUN.finditer(text))
    return odd / count, sum(times for (_, char, _), times in outside.items() if char.isupper()) * 2 > count


def _is_odd(before: str, char: str, after: str) -> bool:
    """Is `char` between `before` and `after` a sign of a wrong guess?

    Odd are a letter beside one of another script, with its case the wrong way round in the word, or alone before a
    bracket; a mark without its letter; an opening quote behind a letter; and other signs between two letters.
    """
    category = _category(char)
    if category in _NO_TEXT:
        return True
    if category[0] == "L":
        if _script(char) == "HALFWIDTH" or char == _FILLING:  # far more often another encoding's letter, or 0xFF
            return True
        if any(near.isalpha() and _script(near) != _script(char) for near in (before, after)):
            return True
        if after in _BRACKETS:
            return not before.isalpha()
        return (char.isupper() and before.islower()) or (char.islower() and after.isupper())
    if category[0] == "M":
        return _category(before)[0] not in "LM"
    if category in ("Pd", "Zs", "Cf") or char in _BETWEEN_LETTERS:
        return False
    if category in ("Ps", "Pi") or char in _OPENING:
        return before.isalpha()
    return before.isalpha() and after.isalpha()


@lru_cache(JUDGED)
def _kind(char: str) -> str:
    """A character of which `_is_odd` asks the same and hears the same, one for all of them."""
    if char in _TOLD_APART:
        return char
    kind = (_category(char), _script(char), char.isupper(), char.islower(), char.isascii())
    return _FIRST_OF_KIND.setdefault(kind, char)


@lru_cache(JUDGED)
def _category(char: str) -> str:
    return unicodedata.category(char)


@lru_cache(JUDGED)
def _script(char: str) -> str:
    """First word of the character's name, one for the scripts that East Asian text mixes."""
    word = unicodedata.name(char, "").split(" ", 1)[0]
    return "CJK" if word in _EAST_ASIAN else "LATIN" if word in _LATIN else word
