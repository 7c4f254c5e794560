"""Numbers of list items in Word 97-2003 files: the file stores how they are counted, not what they are."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from apps.documents.parsing.legacy.doc_file import LIST_OVERRIDES, LISTS, WordFile

_LEVELS = 9
_BULLET, _NONE = 23, 255  # MSONFC
_ROMAN = (
    *((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x")),
    *((9, "ix"), (5, "v"), (4, "iv"), (1, "i")),
)


@dataclass(frozen=True, slots=True)
class _Level:
    start: int
    format: int
    template: str  # characters below 9 stand for the number of that level


@dataclass(slots=True)
class _Override:
    list_id: int
    starts: dict[int, int] = field(default_factory=dict)
    used: set[int] = field(default_factory=set)


class Lists:
    """Counts the items of a document in reading order."""

    def __init__(self, word: WordFile) -> None:
        self._levels: dict[int, list[_Level]] = {}
        self._overrides: list[_Override] = []
        self._counts: dict[int, list[int]] = {}
        try:
            self._read_lists(word.entry(LISTS), word.after(LISTS))
            self._read_overrides(word.entry(LIST_OVERRIDES))
        except (struct.error, IndexError):
            pass  # damaged: the items that it does not reach get a dash

    def marker(self, override: int, level: int) -> str:
        """What stands before an item of the list with this index, "-" for a bullet. Counts the item."""
        if not 0 < override <= len(self._overrides):
            return "-"
        used = self._overrides[override - 1]
        levels = self._levels.get(used.list_id, [])
        if not levels:
            return "-"
        level = min(level, len(levels) - 1)
        counts = self._counts.setdefault(used.list_id, [each.start - 1 for each in levels])
        if level in used.starts and level not in used.used:
            counts[level] = used.starts[level] - 1
        used.used.add(level)
        counts[level] += 1
        counts[level + 1 :] = [each.start - 1 for each in levels[level + 1 :]]
        chosen = levels[level]
        if chosen.format in (_BULLET, _NONE) or not chosen.template:
            return "-"
        return "".join(
            _number(max(counts[ord(char)], levels[ord(char)].start), levels[ord(char)].format)
            if ord(char) < len(levels)
            else char
            for char in chosen.template
            if ord(char) < len(levels) or ord(char) >= 0x20
        ).strip()

    def _read_lists(self, table: bytes, behind: bytes) -> None:
        """PlfLst (2.9.192), behind which the levels stand, and LSTF (2.9.147)."""
        (count,) = struct.unpack_from("<H", table)
        at = 0
        for nth in range(min(count, (len(table) - 2) // 28)):
            (list_id,) = struct.unpack_from("<i", table, 2 + 28 * nth)
            simple = table[2 + 28 * nth + 26] & 1
            levels = []
            for _ in range(1 if simple else _LEVELS):
                level, at = _level(behind, at)
                levels.append(level)
            self._levels[list_id] = levels

    def _read_overrides(self, table: bytes) -> None:
        """PlfLfo (2.9.191), LFO (2.9.132) and LFOLVL (2.9.134)."""
        (count,) = struct.unpack_from("<I", table)
        count = min(count, (len(table) - 4) // 16)
        details = []
        for nth in range(count):
            (list_id,) = struct.unpack_from("<i", table, 4 + 16 * nth)
            self._overrides.append(_Override(list_id))
            details.append(table[4 + 16 * nth + 12])
        at = 4 + 16 * count
        for override, number in zip(self._overrides, details, strict=True):
            at += 4
            for _ in range(number):
                start, flags = struct.unpack_from("<iI", table, at)
                at += 8
                if flags & 0x20:
                    level, at = _level(table, at)
                    start = level.start
                if flags & 0x10:
                    override.starts[flags & 0xF] = start


def _level(data: bytes, at: int) -> tuple[_Level, int]:
    """LVL (2.9.150) and where it ends."""
    start, number_format, characters, paragraph = struct.unpack_from("<iB19xBB", data, at)
    at += 28 + characters + paragraph
    (length,) = struct.unpack_from("<H", data, at)
    if at + 2 + 2 * length > len(data):
        raise IndexError
    template = data[at + 2 : at + 2 + 2 * length].decode("utf-16-le", "replace")
    return _Level(start, number_format, template), at + 2 + 2 * length


def _number(value: int, number_format: int) -> str:
    if number_format in (1, 2) and 0 < value < 5000:
        letters = ""
        for worth, sign in _ROMAN:
            letters += sign * (value // worth)
            value %= worth
        return letters.upper() if number_format == 1 else letters
    if number_format in (3, 4) and 0 < value <= 780:
        letter = chr(ord("a") + (value - 1) % 26) * ((value - 1) // 26 + 1)
        return letter.upper() if number_format == 3 else letter
    if number_format == 22:
        return f"{value:02}"
    return "" if number_format in (_BULLET, _NONE) else str(value)
