"""The title that an OLE compound file says it has.

olefile's own reader of property sets believes the counts in a damaged one and goes on for hours.
"""

from __future__ import annotations

import struct

import olefile

from apps.documents.parsing.encoding import codec_of

_STREAM = "\x05SummaryInformation"
_CODE_PAGE, _TITLE = 1, 2  # [MS-OLEPS] 2.18.1, 3.1.3
_I2, _LPSTR, _LPWSTR = 2, 30, 31
_MOST = 256  # properties looked at; the summary has 18


def title_of(ole: olefile.OleFileIO) -> str | None:
    """Title of the property set, None where it has none or is damaged."""
    try:
        data = bytes(ole.openstream(_STREAM).read()) if ole.exists(_STREAM) else b""
        (start,) = struct.unpack_from("<I", data, 44)
        (count,) = struct.unpack_from("<I", data, start + 4)
        places = dict(struct.unpack_from("<II", data, start + 8 + 8 * nth) for nth in range(min(count, _MOST)))
        if _TITLE not in places:
            return None
        page = 1252
        if _CODE_PAGE in places and struct.unpack_from("<I", data, start + places[_CODE_PAGE])[0] == _I2:
            (page,) = struct.unpack_from("<H", data, start + places[_CODE_PAGE] + 4)
        at = start + places[_TITLE]
        kind, length = struct.unpack_from("<II", data, at)
    except (OSError, struct.error):
        return None
    if kind == _LPWSTR:
        text = data[at + 8 : at + 8 + 2 * length].decode("utf-16-le", "replace")
    elif kind == _LPSTR:
        codec = {65001: "utf-8", 1200: "utf-16-le", 10000: "mac_roman"}.get(page) or codec_of(f"cp{page}") or "cp1252"
        text = data[at + 8 : at + 8 + length].decode(codec, "replace")
    else:
        return None
    return text.split("\0", 1)[0].strip() or None
