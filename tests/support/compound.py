"""OLE compound files for tests ([MS-CFB]): olefile reads them but writes none."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

SECTOR, MINI, CUTOFF = 512, 64, 4096
END, FREE, FAT = 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD


@dataclass
class _Entry:
    name: str
    kind: int
    data: bytes = b""
    children: list[int] = field(default_factory=list)
    start: int = END
    right: int = FREE


def compound(streams: dict[str, bytes]) -> bytes:
    """A compound file of `streams` by path, "storage/stream"."""
    entries = [_Entry("Root Entry", 5)]
    places = {"": 0}
    for path, data in streams.items():
        parts = path.split("/")
        for depth in range(len(parts)):
            here = "/".join(parts[: depth + 1])
            if here not in places:
                is_stream = depth == len(parts) - 1
                entries.append(_Entry(parts[depth], 2 if is_stream else 1, data if is_stream else b""))
                places[here] = len(entries) - 1
                entries[places["/".join(parts[:depth])]].children.append(places[here])
    for entry in entries:
        for one, following in zip(entry.children, entry.children[1:], strict=False):
            entries[one].right = following

    sectors: list[bytes] = []
    chain: list[int] = []

    def put(data: bytes) -> int:
        if not data:
            return END
        first = len(sectors)
        count = -(-len(data) // SECTOR)
        sectors.extend(data[at * SECTOR : (at + 1) * SECTOR].ljust(SECTOR, b"\0") for at in range(count))
        chain.extend([*range(first + 1, first + count), END])
        return first

    mini, mini_chain = b"", []
    for entry in entries[1:]:
        if entry.kind == 2 and 0 < len(entry.data) < CUTOFF:
            entry.start = len(mini_chain)
            count = -(-len(entry.data) // MINI)
            mini += entry.data.ljust(count * MINI, b"\0")
            mini_chain += [*range(entry.start + 1, entry.start + count), END]
        elif entry.kind == 2:
            entry.start = put(entry.data)
    entries[0].data, entries[0].start = mini, put(mini)
    mini_chain += [FREE] * (-len(mini_chain) % (SECTOR // 4))
    mini_fat = put(struct.pack(f"<{len(mini_chain)}I", *mini_chain))
    directory = put(b"".join(map(_directory_entry, entries)))
    fats = 1
    while fats * (SECTOR // 4) < len(sectors) + fats:
        fats += 1
    first_fat = len(sectors)
    table = [*chain, *[FAT] * fats]
    table += [FREE] * (fats * SECTOR // 4 - len(table))
    sectors.append(struct.pack(f"<{len(table)}I", *table))
    header = struct.pack(
        "<8s16xHHHHH6x9I",
        *(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 0x3E, 3, 0xFFFE, 9, 6, 0, fats, directory, 0, CUTOFF, mini_fat),
        *(4 * len(mini_chain) // SECTOR, END, 0),
    )
    header += struct.pack("<109I", *range(first_fat, first_fat + fats), *[FREE] * (109 - fats))
    return header + b"".join(sectors)


def _directory_entry(entry: _Entry) -> bytes:
    name = entry.name.encode("utf-16-le") + b"\0\0"
    child = entry.children[0] if entry.children else FREE
    return struct.pack(
        "<64sHBBIII16xI8x8xIQ",
        *(name, len(name), entry.kind, 1, FREE, entry.right, child, 0, entry.start, len(entry.data)),
    )
