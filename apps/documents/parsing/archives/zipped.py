"""ZIP containers: opened under limits, and told apart by what is in them.

Nothing is ever unpacked to a file, so that a member's name can lead nowhere.
"""

from __future__ import annotations

import io
import re
import zipfile

from apps.documents.parsing.types import ParseError

MAX_MEMBERS = 10_000
MAX_UNPACKED = 1024**3  # bytes
MAX_RATIO, RATIO_FROM = 200, 64 * 1024**2  # unpacked over packed, asked of archives that unpack to more than this
MAX_TYPES = 1024**2  # bytes of [Content_Types].xml

OOXML = "application/vnd.openxmlformats-officedocument."
#: What the type of the main part contains, and the media type of the whole.
_OFFICE = (
    ("wordprocessingml", OOXML + "wordprocessingml.document"),
    ("ms-word.", OOXML + "wordprocessingml.document"),  # with macros, which are never run
    ("presentationml", OOXML + "presentationml.presentation"),
    ("ms-powerpoint.", OOXML + "presentationml.presentation"),
    ("spreadsheetml", OOXML + "spreadsheetml.sheet"),
    ("ms-excel.sheet.binary", "application/vnd.ms-excel.sheet.binary.macroenabled.12"),
    ("ms-excel.", OOXML + "spreadsheetml.sheet"),
)
_MAIN_PART = re.compile(rb'contenttype\s*=\s*"([^"]{1,200}\.main(?:\+xml)?)"')
_ENCRYPTED = 0x1  # APPNOTE.TXT 4.4.4, bit 0


def open_zip(data: bytes) -> zipfile.ZipFile:
    """The archive, once its directory is within the limits.

    Sizes are those of the directory; `ZipFile.read` never reads more of a member than they say. Raises ParseError:
    "corrupt", "encrypted" where any file in it is, "archive_bomb".
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise ParseError("corrupt", "The ZIP container is damaged and cannot be opened.") from error
    files = [info for info in archive.infolist() if not info.is_dir()]
    if len(archive.filelist) > MAX_MEMBERS:
        raise ParseError("archive_bomb", f"The archive has more than {MAX_MEMBERS} members.")
    unpacked = sum(info.file_size for info in files)
    if unpacked > MAX_UNPACKED:
        raise ParseError("archive_bomb", f"The archive unpacks to more than {MAX_UNPACKED} bytes.")
    if unpacked > RATIO_FROM and unpacked > MAX_RATIO * len(data):
        raise ParseError("archive_bomb", f"The archive unpacks to more than {MAX_RATIO} times its size.")
    if any(info.flag_bits & _ENCRYPTED for info in files):
        raise ParseError("encrypted", "The archive, or a part of it, is encrypted and needs a password.")
    return archive


def read_member(archive: zipfile.ZipFile, member: str | zipfile.ZipInfo) -> bytes:
    """The bytes of one member. Raises ParseError("corrupt"); KeyError where there is none."""
    info = archive.getinfo(member) if isinstance(member, str) else member
    try:
        content = archive.read(info)
    except Exception as error:  # zlib.error, BadZipFile, EOFError, NotImplementedError, lzma.LZMAError ...
        raise ParseError("corrupt", "A member of the ZIP container is damaged.") from error
    if info.CRC and not content:  # zipfile checks the sum of what it has read only
        raise ParseError("corrupt", "A member of the ZIP container is damaged.")
    return content


def identify(data: bytes) -> str:
    """Media type of the document that a ZIP container is, "application/zip" where it is only an archive."""
    with open_zip(data) as archive:
        names = set(archive.namelist())
        if "mimetype" in names:  # OpenDocument 1.3 part 2, 3.3; EPUB OCF 3.3, 4.3
            declared = read_member(archive, "mimetype")[:100].decode("ascii", "ignore").strip()
            if declared.startswith(("application/vnd.oasis.opendocument.", "application/epub+zip")):
                return declared
        if "[Content_Types].xml" in names and archive.getinfo("[Content_Types].xml").file_size <= MAX_TYPES:
            main = [
                part.decode("ascii", "ignore")
                for part in _MAIN_PART.findall(read_member(archive, "[Content_Types].xml"))
            ]
            for mark, media_type in _OFFICE:
                if any(mark in part.lower() for part in main):
                    return media_type
            for folder, media_type in (("word/", _OFFICE[0][1]), ("ppt/", _OFFICE[2][1]), ("xl/", _OFFICE[4][1])):
                if any(name.startswith(folder) for name in names):
                    return media_type
        if "META-INF/container.xml" in names:
            return "application/epub+zip"
        if any(name.startswith("Index/") and name.endswith(".iwa") for name in names) or "Index.zip" in names:
            raise ParseError("unsupported", "The content is an Apple iWork document, which has no parser.")
        if {"users.json", "channels.json"} <= names:
            return "application/x-slack-export+zip"
    return "application/zip"
