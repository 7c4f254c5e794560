"""Pictures of text: scans, photographs, screenshots."""

from __future__ import annotations

from apps.documents.parsing import ocr
from apps.documents.parsing.build import Builder
from apps.documents.parsing.types import Parsed

FINGERPRINT = "image/1"


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """The text that can be read in the picture, paragraph by paragraph. Raises ParseError as `ocr.read` does."""
    built = Builder()
    for page, paragraph in ocr.read(data):
        built.page = page
        built.paragraph(paragraph)
    return built.parsed(media_type=media_type, parser=FINGERPRINT)
