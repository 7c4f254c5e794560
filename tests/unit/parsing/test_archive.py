"""ZIP archives: each member under its path, and no way to make them harm."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping

import pytest

from apps.documents.parsing import ParseError, parse
from apps.documents.parsing.nesting import MAX_DEPTH
from tests.support.parsed import code_of, shown


def packed(members: Mapping[str, bytes | str], *, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def test_members_stand_under_their_paths_in_their_order() -> None:
    parsed = parse(packed({"b/two.md": "# Two\n\nSecond.", "a/one.txt": "First.", "b/empty/": ""}), filename="x.zip")
    assert shown(parsed) == [
        ("heading", "a/one.txt"),
        ("paragraph", "First."),
        ("heading", "b/two.md"),
        ("heading", "# Two"),
        ("paragraph", "Second."),
    ]
    assert [block.level for block in parsed.blocks] == [1, 0, 1, 2, 0]
    assert parsed.media_type == "application/zip" and parsed.notes == []


def test_an_archive_in_an_archive_is_read() -> None:
    parsed = parse(packed({"inner.zip": packed({"deep.txt": "Deep."})}), filename="x.zip")
    assert shown(parsed) == [("heading", "inner.zip"), ("heading", "deep.txt"), ("paragraph", "Deep.")]


def test_what_cannot_be_read_is_noted_and_left_out() -> None:
    parsed = parse(packed({"good.txt": "Good.", "film.bin": bytes(range(256)), "none.txt": ""}), filename="x.zip")
    assert shown(parsed) == [("heading", "good.txt"), ("paragraph", "Good.")]
    assert [note.partition(" was left out")[0] for note in parsed.notes] == ["film.bin", "none.txt"]


def test_litter_of_other_systems_is_left_out_without_a_note() -> None:
    parsed = parse(packed({"a.txt": "A.", "__MACOSX/._a.txt": "no", ".DS_Store": "no", "x/.git/HEAD": "no"}))
    assert shown(parsed) == [("heading", "a.txt"), ("paragraph", "A.")] and parsed.notes == []


@pytest.mark.parametrize("members", [{}, {"a/": ""}, {"x.bin": bytes(range(256))}, {"none.txt": b""}])
def test_an_archive_without_a_readable_document_is_empty(members: dict[str, bytes]) -> None:
    assert code_of(packed(members), filename="x.zip") == "empty"


@pytest.mark.parametrize("path", ["../../etc/cron.d/x", "/etc/passwd", "C:\\windows\\x", "a/../../b", "\x1b[2Jx.txt"])
def test_a_path_leads_nowhere(path: str) -> None:
    kinds = shown(parse(packed({path: "text"}), media_type="application/zip"))
    assert kinds[0][0] == "heading" and kinds[1] == ("paragraph", "text")


def test_an_archive_that_is_cut_short_is_corrupt() -> None:
    whole = packed({"a.txt": "word " * 1000})
    assert code_of(whole[: len(whole) // 2], filename="x.zip") == "corrupt"
    assert code_of(b"PK\x03\x04" + bytes(100), filename="x.zip") == "corrupt"


def test_a_damaged_member_is_noted() -> None:
    whole = bytearray(packed({"a.txt": "first " * 100, "b.txt": "second " * 100}))
    at = whole.index(b"a.txt") + 5
    whole[at : at + 8] = bytes(8)
    parsed = parse(bytes(whole), filename="x.zip")
    assert "second" in parsed.text and parsed.notes[0].startswith("a.txt was left out")


def test_an_archive_with_an_encrypted_member_is_encrypted() -> None:
    def locked(data: bytes, *names: str) -> bytes:
        """The same archive with the flag of encryption on these members."""
        found = bytearray(data)
        for name in names:
            for signature, flag, start in ((b"PK\x03\x04", 6, 30), (b"PK\x01\x02", 8, 46)):
                at = found.find(signature)
                while at >= 0:
                    if found[at + start :].startswith(name.encode()):
                        found[at + flag] |= 1
                    at = found.find(signature, at + 4)
        return bytes(found)

    whole = packed({"a.txt": "A.", "b.txt": "B."})
    assert code_of(locked(whole, "a.txt"), filename="x.zip") == "encrypted"
    assert code_of(locked(whole, "a.txt", "b.txt"), filename="x.zip") == "encrypted"


def test_nesting_has_an_end() -> None:
    data = b"text"
    for depth in range(MAX_DEPTH + 2):
        data = packed({f"{depth}.zip" if depth else "x.txt": data})
    assert code_of(data, filename="x.zip") == "archive_bomb"


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = packed({"zeros.txt": bytes(100 * 2**20)})
    assert len(bomb) < 2**20 and code_of(bomb, filename="x.zip") == "archive_bomb"
    assert code_of(packed({f"{number}.txt": b"" for number in range(10_001)}), filename="x.zip") == "archive_bomb"


def test_a_directory_that_claims_ten_gigabytes_is_a_bomb() -> None:
    many = {f"{number}.txt": "x" for number in range(4)}
    whole = bytearray(packed(many))
    at = whole.find(b"PK\x01\x02")
    while at >= 0:
        whole[at + 24 : at + 28] = struct.pack("<I", 0xFFFFFFF0 - 1)
        at = whole.find(b"PK\x01\x02", at + 4)
    assert code_of(bytes(whole), filename="x.zip") == "archive_bomb"


def test_a_member_that_lies_about_its_size_gives_no_more_than_it_says() -> None:
    whole = bytearray(packed({"a.txt": "x" * 5_000_000, "b.txt": "B."}))
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = whole.find(signature)
        whole[start + at : start + at + 4] = struct.pack("<I", 100)
    parsed = parse(bytes(whole), filename="x.zip")
    assert "B." in parsed.text and len(parsed.text) < 1000


@pytest.mark.parametrize("claimed", [0, 1, 100])
def test_an_archive_of_nothing_but_a_member_that_lies_about_its_size_is_corrupt(claimed: int) -> None:
    whole = bytearray(packed({"a.txt": "some words " * 100, "film.bin": bytes(range(256))}))
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = whole.find(signature)
        whole[start + at : start + at + 4] = struct.pack("<I", claimed)
    assert code_of(bytes(whole), filename="x.zip") == "corrupt"


def test_a_symbolic_link_is_left_out_with_a_note() -> None:
    link = zipfile.ZipInfo("link.txt")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    for members in ([], ["a.txt"]):
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            archive.writestr(link, "/etc/passwd")
            for name in members:
                archive.writestr(name, "A.")
        if members:
            parsed = parse(data.getvalue(), filename="x.zip")
            assert shown(parsed) == [("heading", "a.txt"), ("paragraph", "A.")]
            assert parsed.notes == ["link.txt was left out: It is a symbolic link."]
        else:
            assert code_of(data.getvalue(), filename="x.zip") == "empty"


def test_a_bomb_among_the_members_is_the_whole_archives_fault() -> None:
    inner = packed({"zeros.txt": bytes(100 * 2**20)})
    with pytest.raises(ParseError, match="archive_bomb"):
        parse(packed({"a.txt": "A.", "inner.zip": inner}, compression=zipfile.ZIP_STORED), filename="x.zip")
