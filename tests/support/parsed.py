"""What tests of parsers share."""

from __future__ import annotations

import re
import unicodedata

import pytest

from apps.documents.parsing import Parsed, ParseError, parse
from apps.documents.parsing.types import KINDS


def shown(parsed: Parsed) -> list[tuple[str, str]]:
    """(kind, text) of each block, once the result is what every parser promises."""
    check(parsed)
    return [(block.kind, parsed.text[block.start : block.end]) for block in parsed.blocks]


def check(parsed: Parsed) -> None:
    """What every parser promises."""
    parsed.text.encode("utf-8")
    assert parsed.text.strip()
    assert not re.search("[\x00-\x08\x0b-\x1f]", parsed.text)
    last = 0
    for block in parsed.blocks:
        assert block.kind in KINDS
        assert last <= block.start < block.end <= len(parsed.text)
        assert parsed.text[block.start : block.end].strip()
        assert (1 <= block.level <= 6) == (block.kind == "heading")
        last = block.end


def code_of(data: bytes, media_type: str | None = None, filename: str | None = None) -> str:
    """The code with which `data` is refused."""
    with pytest.raises(ParseError) as caught:
        parse(data, media_type=media_type, filename=filename)
    assert caught.value.code in ParseError.CODES
    assert "Traceback" not in caught.value.detail and not re.search(r"(?:^|\s)/\w", caught.value.detail)
    return caught.value.code


def comparable(text: str) -> str:
    """The form in which the shared manifest's phrases are compared."""
    text = unicodedata.normalize("NFKC", text).replace("\u00ad", "")
    return re.sub(r"\s+", " ", text).strip().casefold()
