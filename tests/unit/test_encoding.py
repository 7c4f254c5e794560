"""Bytes to characters: the right ones, or a refusal that names the byte; never a garbled text."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.documents.parsing import ParseError, parse
from apps.documents.parsing.encoding import decode

WESTERN = "Größe und Länge: Die Brücke über den Fluss wäre schöner. L'été où j'étais là, ça coûtait 15 £ à peine."
POLISH = (
    "Urząd miasta informuje, że od poniedziałku biuro będzie czynne dłużej. Zażółć gęślą jaźń, mówił stary człowiek."
)
RUSSIAN = "Привет, мир. Сегодня хорошая погода, и мы идём гулять в парк."
GREEK = "Η Ελλάδα είναι μια όμορφη χώρα με πολλά νησιά."
JAPANESE = "日本語のテキストです。東京は日本の首都であり、多くの人が住んでいます。"
CHINESE = "北京是中华人民共和国的首都，也是全国的政治和文化中心。"
TRADITIONAL = "台北是一座現代化的城市，有許多著名的博物館和夜市。"
KOREAN = "안녕하세요. 오늘 날씨는 맑고 바람이 조금 불겠습니다."
THAI = "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย"
ARABIC = "مرحبا بالعالم، هذا نص قصير باللغة العربية."
LEGACY = [
    (WESTERN, "cp1252"),
    (WESTERN, "latin-1"),
    (WESTERN, "mac_roman"),
    (WESTERN, "cp850"),
    (POLISH, "cp1250"),
    (POLISH, "iso8859_2"),
    (RUSSIAN, "cp1251"),
    (RUSSIAN, "koi8-r"),
    (RUSSIAN, "cp866"),
    (RUSSIAN, "iso8859_5"),
    (GREEK, "cp1253"),
    (GREEK, "iso8859_7"),
    (JAPANESE, "shift_jis"),
    (JAPANESE, "euc_jp"),
    (JAPANESE, "iso2022_jp"),
    (CHINESE, "gb18030"),
    (CHINESE, "gb2312"),
    (TRADITIONAL, "big5"),
    (KOREAN, "euc_kr"),
    (KOREAN, "iso2022_kr"),
    (THAI, "cp874"),
    (ARABIC, "cp1256"),
]
WIDE = ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
SCRIPTS = [
    WESTERN,
    POLISH,
    RUSSIAN,
    GREEK,
    JAPANESE + "\n",
    CHINESE + "\n2024\n",
    KOREAN,
    THAI + " 2024",
    ARABIC,
    "plain ASCII",
]


def refusal(data: bytes, **values: str) -> ParseError:
    """The error of a file with these bytes, as plain text unless said otherwise."""
    with pytest.raises(ParseError) as caught:
        parse(data, **({"media_type": "text/plain"} | values))
    return caught.value


def outcome(data: bytes) -> str:
    """The text, or the code of the error; whatever else is raised fails the test."""
    try:
        return decode(data)
    except ParseError as error:
        return error.code


@pytest.mark.parametrize(
    ("text", "encoding"), LEGACY, ids=[f"{encoding}-{n}" for n, (_, encoding) in enumerate(LEGACY)]
)
def test_text_in_a_legacy_encoding_is_read_without_a_declaration(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == text
    assert decode((text + "\n").encode(encoding) * 40) == (text + "\n") * 40


SHORT = [
    ("あれから何日か", "euc_jp"),
    ("に広くなり、群馬県佐波郡玉村町", "euc_jp"),
    ("04年と比較すると、非暴力的犯罪こそ2%", "euc_jp"),
    ("される形で、当時の鉄道省の鉄道大臣である", "euc_jp"),
    ("官の選挙に誰も立", "cp932"),
    ("った。\n兵士たちが部屋に来ない", "cp932"),
    ("が厚くなり毛が抜けてしまう。度重なる炎症", "cp932"),
    ("德军进入。《凡尔赛条约》以", "gb18030"),
    ("901 年的人口普查，711,988 名", "gb18030"),
    ("了多項措施來緩解", "big5hkscs"),
    ("工選擇手段。複製和幹細胞技術，", "big5hkscs"),
    ("오늘 아침에 커피를", "cp949"),
    ("재미있네요 ㅋㅋㅋ ㅠㅠ", "cp949"),
]


@pytest.mark.parametrize(("text", "encoding"), SHORT)
def test_a_line_of_east_asian_text_is_told_by_its_common_characters(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_or_a_zero_may_have_bytes_of_control_characters(encoding: str) -> None:
    text = "北京是中华人民共和国的首都，也是全国的政治中心。今天早上我们喝了咖啡。"
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize("word", ["Größe", "naïve café", "été", "## können\n\näöüß\n", "£10 off", "“quoted”, she said"])
def test_a_few_western_letters_are_enough(word: str) -> None:
    assert decode(word.encode("cp1252")) == word


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Привет, мир", "cp1251"),
        ("Привет, мир", "koi8-r"),
        ("Привет, мир", "cp866"),
        ("Ελληνικά", "cp1253"),
        ("こんにちは世界", "shift_jis"),
        ("中文文本", "gb18030"),
        ("안녕하세요", "euc_kr"),
    ],
)
def test_a_word_or_two_of_another_script_is_enough(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize("text", SCRIPTS, ids=lambda text: ascii(text)[:12])
def test_utf_16_and_32_need_no_mark(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == text
    assert decode(text.encode(encoding) * 3000) == text * 3000


def test_a_byte_order_mark_wins_over_what_was_declared() -> None:
    assert decode(b"\xff\xfe" + JAPANESE.encode("utf-16-le"), declared=("latin-1",)) == JAPANESE
    assert decode(b"\xef\xbb\xbf" + b"gr\xc3\xbcn", declared=("utf-16-be",)) == "grün"


def test_a_declared_charset_without_a_byte_order_does_not_choose_one() -> None:
    assert decode("plain".encode("utf-16-be"), declared=("utf-16",)) == "plain"
    assert decode("北京首都".encode("utf-16-be"), declared=("utf-16be",)) == "北京首都"


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"a\x00b", 1),
        (b"a\x00bc", 1),
        (b"hello world\x00", 11),
        (b"one\x00two\x00six\x00", 3),
        (b"one word\x00one more\x00" * 50, 8),
        ("grün\x00e Wiese".encode(), 5),
        ("gr\u00fcn\x00e Wiese".encode("latin-1"), 4),
        ("Привет\x00, мир!".encode(), 12),
        ("Привет\x00, мир и хорошая погода".encode("cp1251"), 6),
        (JAPANESE.encode("shift_jis") + b"\x00\x00", 70),
        (b"x" * 70_000 + b"\x00", 70_000),
    ],
    ids=lambda value: ascii(value)[:20],
)
@pytest.mark.parametrize("kind", ["text/plain", "text/markdown", "text/html", "text/plain; charset=latin-1"])
def test_a_nul_in_8_bit_text_is_refused_at_its_offset(data: bytes, offset: int, kind: str) -> None:
    error = refusal(data, media_type=kind)
    assert (error.code, re.findall(r"\d+", error.detail)[0]) == ("undecodable", str(offset))
    assert "NUL" in error.detail


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"\xef\xbb\xbfab\x00c", 5),
        (b"\xff\xfe" + "ab\x00c".encode("utf-16-le"), 6),
        (b"\xfe\xff" + "a\x00c".encode("utf-16-be"), 4),
        (b"\xef\xbb\xbfab\xffc", 5),
        (b"\xff\xfea\x00b", 4),
        (b"\xff\xfea\x00\x00\xd8b\x00", 4),
    ],
)
def test_a_mark_does_not_excuse_what_is_broken(data: bytes, offset: int) -> None:
    error = refusal(data)
    assert error.code == "undecodable" and f"byte {offset} " in error.detail


@pytest.mark.parametrize("text", [WESTERN, POLISH, RUSSIAN, GREEK, JAPANESE, CHINESE, KOREAN, THAI, ARABIC])
@pytest.mark.parametrize("declared", [None, "latin-1", "cp1251", "gb18030"])
def test_one_broken_byte_in_utf_8_is_named_and_nothing_is_guessed(text: str, declared: str | None) -> None:
    data = text.encode()
    rng = random.Random(5)
    for _ in range(20):
        at = rng.choice([n for n, byte in enumerate(data) if byte < 0x80] + [len(data)])
        broken = data[:at] + b"\xff" + data[at:]
        kind = "text/plain" + (f"; charset={declared}" if declared else "")
        error = refusal(broken, media_type=kind)
        assert (error.code, error.detail) == ("undecodable", f"The text is UTF-8 but for byte {at} (0xFF).")


@pytest.mark.parametrize("cut", [1, 2])
def test_utf_8_that_ends_in_the_middle_of_a_character_is_refused(cut: int) -> None:
    data = JAPANESE.encode()
    error = refusal(data[:-cut])
    assert error.code == "undecodable" and f"byte {len(data) - 3} " in error.detail


@pytest.mark.parametrize("kind", ["text/markdown", "text/html"])
def test_every_text_format_refuses_nearly_valid_utf_8(kind: str) -> None:
    body = f"<html><meta charset=windows-1252><body><h1>Größe</h1><p>{WESTERN}</p>".encode()
    error = refusal(body.replace(b"Br\xc3\xbccke", b"Br\xc3cke"), media_type=kind)
    assert error.code == "undecodable" and f"byte {body.index(b'cke') - 2} " in error.detail


@pytest.mark.parametrize(
    "data",
    [
        b"hello \xff\xfe world",
        b"ok \xff\xfe\xfd",
        b"abc \xc3\x28 def",
        b"abc \xe2\x28\xa1 def",
        b"caf\xc3\xa9 \xff\xfe",
        b"pric\xa9\xaees w\xb1th no\xacse\xbd insid\xa6e",
        bytes(range(0x80, 0x100)),
        b"\xff" * 100,
        b"\x80\x81" * 20,
        random.Random(1).randbytes(200).translate(None, bytes(range(32))),
    ],
    ids=lambda data: ascii(data)[:24],
)
def test_bytes_that_no_encoding_makes_sense_of_are_refused(data: bytes) -> None:
    first = next(at for at in range(len(data)) if data[at] >= 0x80 and not data[: at + 1].endswith(b"caf\xc3"))
    error = refusal(data)
    assert error.code == "undecodable"
    named = int(re.findall(r"byte (\d+)", error.detail)[0])
    assert named >= first or named == 6


def test_a_page_that_says_utf_16_in_ascii_is_not_utf_16() -> None:
    page = "<html><meta charset=utf-16><p>Größe über alles, schöne Grüße".encode("cp1252")
    assert "Größe über alles, schöne Grüße" in parse(page, media_type="text/html").text


@given(st.text(alphabet=st.characters(min_codepoint=9, exclude_categories=["Cs"]), min_size=1, max_size=200))
@settings(max_examples=200, deadline=None)
def test_valid_utf_8_is_never_read_as_anything_else(text: str) -> None:
    """Unless it is an escape sequence of ISO-2022 or starts like a binary format."""
    assert outcome(text.encode()) in (text.removeprefix("\ufeff"), "unsupported") or "\x1b$" in text


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_bytes_become_a_text_with_a_nul(data: bytes) -> None:
    assert "\x00" not in outcome(data)
