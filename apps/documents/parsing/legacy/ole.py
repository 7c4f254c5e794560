"""OLE compound files, told apart by their streams: the Office formats of 1997 to 2003, and encrypted newer ones."""

from __future__ import annotations

import olefile

from apps.documents.parsing.types import ParseError

_STREAMS = (
    ("WordDocument", "application/msword"),
    ("Workbook", "application/vnd.ms-excel"),
    ("Book", "application/vnd.ms-excel"),
    ("PowerPoint Document", "application/vnd.ms-powerpoint"),
    ("__properties_version1.0", "application/vnd.ms-outlook"),
)


def open_ole(data: bytes) -> olefile.OleFileIO:
    """The compound file. Raises ParseError("corrupt")."""
    try:
        return olefile.OleFileIO(data)
    except Exception as error:  # it indexes what a damaged header says
        raise ParseError("corrupt", "The compound file is damaged and cannot be opened.") from error


def identify(data: bytes) -> str:
    """Media type of the document. Raises ParseError: "corrupt", "encrypted" or "unsupported"."""
    with open_ole(data) as ole:
        if ole.exists("EncryptedPackage"):  # MS-OFFCRYPTO 2.3.4.4
            raise ParseError("encrypted", "The document is encrypted and needs a password.")
        for stream, media_type in _STREAMS:
            if ole.exists(stream):
                return media_type
    raise ParseError("unsupported", "The content is an OLE compound file of a kind that has no parser.")
