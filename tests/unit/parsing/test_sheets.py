"""Spreadsheets: sheets as pages, regions as tables, values as a reader sees them."""

from __future__ import annotations

import datetime
import io
import struct
import time
import zipfile
from collections.abc import Callable

import pytest
import xlsxwriter

from apps.documents.parsing import parse
from apps.documents.parsing.office.ooxml import figure
from apps.documents.parsing.office.sheets_cells import column_of
from apps.documents.parsing.office.sheets_extra import is_too_large
from tests.support.compound import compound
from tests.support.parsed import code_of, shown

ODS = "application/vnd.oasis.opendocument.spreadsheet"


def book(fill: Callable[[xlsxwriter.Workbook], None]) -> bytes:
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer, {"in_memory": True}) as workbook:
        fill(workbook)
    return buffer.getvalue()


def sheet(*rows: list[object], name: str = "Data") -> bytes:
    def fill(workbook: xlsxwriter.Workbook) -> None:
        worksheet = workbook.add_worksheet(name)
        for number, row in enumerate(rows):
            worksheet.write_row(number, 0, row)

    return book(fill)


def read(*rows: list[object]) -> list[tuple[str, str]]:
    return shown(parse(sheet(*rows)))[1:]


def with_parts(data: bytes, **parts: str) -> bytes:
    """The package with parts added or, where they start with "+", with a line before the end of one's root."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        content = {name: archive.read(name).decode() for name in archive.namelist()}
    content.update(parts)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in content.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def test_each_sheet_is_a_page_under_its_name_and_hidden_ones_are_read() -> None:
    def fill(workbook: xlsxwriter.Workbook) -> None:
        for name in ("Ships", "Empty", "Secret"):
            worksheet = workbook.add_worksheet(name)
            if name != "Empty":
                worksheet.write_row(0, 0, ["name", "length"])
                worksheet.write_row(1, 0, [f"of {name}", 12])
        workbook.get_worksheet_by_name("Secret").hide()
        workbook.set_properties({"title": "Port register"})

    parsed = parse(book(fill))
    assert shown(parsed) == [
        ("heading", "Ships"),
        ("table", "name | length\nof Ships | 12"),
        ("heading", "Secret"),
        ("table", "name | length\nof Secret | 12"),
    ]
    assert [block.page for block in parsed.blocks] == [1, 1, 3, 3]
    assert (parsed.title, parsed.parser) == ("Port register", "sheets/1")


def test_values_are_written_as_a_reader_sees_them() -> None:
    def fill(workbook: xlsxwriter.Workbook) -> None:
        worksheet = workbook.add_worksheet("V")
        day, moment, hour, span = (
            workbook.add_format({"num_format": form})
            for form in ("yyyy-mm-dd", "yyyy-mm-dd hh:mm:ss", "hh:mm:ss", "[h]:mm:ss")
        )
        worksheet.write_row(0, 0, ["a", 3.0, 0.1 + 0.2, True, 1e20, 0.0000001, -2.5])
        worksheet.write_datetime(0, 7, datetime.datetime(2024, 2, 29), day)
        worksheet.write_datetime(0, 8, datetime.datetime(2024, 2, 29, 13, 5, 59), moment)
        worksheet.write_datetime(0, 9, datetime.time(7, 30), hour)
        worksheet.write_datetime(0, 10, datetime.timedelta(hours=30, minutes=5), span)
        worksheet.write_formula(0, 11, "=NA()", value="#N/A")
        worksheet.write_formula(1, 0, "=1/0", value="#DIV/0!")
        worksheet.write_formula(1, 1, "=1+1", value=2)
        worksheet.write_boolean(1, 2, False)

    assert shown(parse(book(fill)))[1][1].split("\n") == [
        "a | 3 | 0.3 | TRUE | 1E+20 | 0.0000001 | -2.5 | 2024-02-29 | 2024-02-29 13:05:59 | 07:30:00 | 30:05:00 | #N/A",
        "#DIV/0! | 2 | FALSE",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5.0, "5"),
        (-0.0, "0"),
        (1234567.891, "1234567.891"),
        (4.35 * 100, "435"),
        (1e15, "1E+15"),
        (123456789012345680.0, "1.23456789012346E+17"),
        (2.5e-8, "0.000000025"),
        (1e-300, "1E-300"),
        (float("nan"), "nan"),
    ],
)
def test_figures_have_fifteen_digits_and_no_binary_noise(value: float, text: str) -> None:
    assert figure(value) == text


def test_empty_rows_part_tables_and_a_lonely_cell_is_a_paragraph() -> None:
    assert read(
        ["Report of the harbour"],
        [],
        ["berth", "price"],
        ["north", 20],
        [],
        [],
        [None, None, "ship", "length"],
        [None, None, "Aurora", 31],
        [],
        ["one line"],
        ["and another"],
    ) == [
        ("paragraph", "Report of the harbour"),
        ("table", "berth | price\nnorth | 20"),
        ("table", "ship | length\nAurora | 31"),
        ("paragraph", "one line\nand another"),
    ]


def test_a_line_over_a_table_does_not_hide_its_header() -> None:
    rows = [["Prices of 2024"], ["berth", "price"], *([f"b{n}", n] for n in range(30))]
    found = read(*rows)
    assert found[0] == ("paragraph", "Prices of 2024")
    assert found[1][1].split("\n")[:2] == ["berth | price", "berth: b0 | price: 0"]


def test_columns_names_with_an_empty_row_under_them_belong_to_the_table() -> None:
    assert read(["berth", "price"], [], ["north", 20], ["south", 30]) == [
        ("table", "berth | price\nnorth | 20\nsouth | 30")
    ]
    assert read(["berth", "price"], [], ["a", "b", "c"], ["d", "e", "f"]) == [
        ("table", "berth | price"),
        ("table", "a | b | c\nd | e | f"),
    ]
    assert read(["berth", "price"], [], ["only", "names"]) == [("table", "berth | price"), ("table", "only | names")]


def test_a_long_column_is_a_table_and_a_header_without_its_first_cell_stays() -> None:
    assert [kind for kind, _ in read(*([f"v{n}"] for n in range(300)))] == ["table"]
    assert read([None, "2023"], ["revenue", 5]) == [("table", " | 2023\nrevenue | 5")]


def test_merged_cells_are_written_once() -> None:
    def fill(workbook: xlsxwriter.Workbook) -> None:
        worksheet = workbook.add_worksheet("M")
        worksheet.merge_range(1, 1, 2, 2, "merged")
        worksheet.write(2, 2, "beneath")
        worksheet.write(1, 3, "right")
        worksheet.write(3, 1, "below")

    assert shown(parse(book(fill)))[1][1] == "merged |  | right\nbelow"


def test_comments_and_text_boxes_follow_the_sheet() -> None:
    def fill(workbook: xlsxwriter.Workbook) -> None:
        worksheet = workbook.add_worksheet("C")
        worksheet.write_row(0, 0, ["a", "b"])
        worksheet.write_comment("B3", "Check this", {"author": "Ann"})
        worksheet.insert_textbox(5, 1, "Floating remark")
        chart = workbook.add_chart({"type": "line"})
        chart.add_series({"values": "=C!$A$1:$B$1"})
        chart.set_title({"name": "Arrivals"})
        worksheet.insert_chart("E5", chart)

    assert [text for _, text in shown(parse(book(fill)))] == [
        "C",
        "a | b",
        "Comment on B3 (Ann): Check this",
        "Floating remark",
        "Arrivals",
    ]


def test_a_thread_is_read_and_its_old_form_is_not() -> None:
    def fill(workbook: xlsxwriter.Workbook) -> None:
        worksheet = workbook.add_worksheet("T")
        worksheet.write_comment("A1", "[Threaded comment]\n\nYour version of Excel ...", {"author": "tc={X}"})

    data = book(fill)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        links = archive.read("xl/worksheets/_rels/sheet1.xml.rels").decode()
        main = archive.read("xl/_rels/workbook.xml.rels").decode()
    space = "http://schemas.microsoft.com/office/spreadsheetml/2018/threadedcomments"
    link = '<Relationship Id="t" Type="http://schemas.microsoft.com/office/2017/10/relationships/{}" Target="{}"/>'
    end = "</Relationships>"
    parts = {
        "xl/worksheets/_rels/sheet1.xml.rels": links.replace(end, link.format("threadedComment", "../t1.xml") + end),
        "xl/_rels/workbook.xml.rels": main.replace(end, link.format("person", "p.xml") + end),
        "xl/p.xml": f'<personList xmlns="{space}"><person displayName="Bob" id="1"/></personList>',
        "xl/t1.xml": f'<ThreadedComments xmlns="{space}"><threadedComment ref="A1" personId="1"><text>Why?</text>'
        "</threadedComment></ThreadedComments>",
    }
    assert [text for _, text in shown(parse(with_parts(data, **parts)))] == ["T", "Comment on A1 (Bob): Why?"]


def test_cells_far_away_and_far_apart_are_read() -> None:
    def far(*places: tuple[int, int]) -> Callable[[xlsxwriter.Workbook], None]:
        def fill(workbook: xlsxwriter.Workbook) -> None:
            worksheet = workbook.add_worksheet("Far")
            for row, column in places:
                worksheet.write(row, column, f"at {row}")
            workbook.add_worksheet("Near").write(0, 0, "near")

        return fill

    last = (1_048_575, 16_383)
    start = time.monotonic()
    assert [text for _, text in shown(parse(book(far(last))))] == ["Far", "at 1048575", "Near", "near"]
    assert time.monotonic() - start < 10
    parsed = parse(book(far((0, 0), last)))
    assert [text for _, text in shown(parsed)] == ["Far", "at 0", "at 1048575", "Near", "near"]
    assert parsed.notes == []
    assert [text for _, text in shown(parse(book(far((0, 0), (1_048_575, 3)))))][1:3] == ["at 0", "at 1048575"]


def test_only_a_sheet_that_would_fill_the_memory_is_too_large() -> None:
    row = '<row r="{0}"><c r="{1}{0}"/></row>'.format
    assert not is_too_large((row(1, "A") + row(1_000_000, "Z")).encode())
    assert is_too_large((row(1, "A") + row(1_000_000, "AA")).encode())
    assert not is_too_large(row(1_000_000, "XFD").encode())
    assert not is_too_large(b"") and not is_too_large(b"<row ")
    assert [column_of(letters) for letters in ("A", "Z", "AA", "XFD")] == [0, 25, 26, 16_383]


def test_text_of_any_script_is_kept_and_line_breaks_in_a_cell_do_not_part_its_row() -> None:
    assert read(["שלום", "港口", "two\nlines"], ["x", "y", "z"]) == [("table", "שלום | 港口 | two lines\nx | y | z")]


def ods(content: str, **more: str) -> bytes:
    names = 'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
    names += 'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" '
    names += 'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"'
    body = f'<office:spreadsheet><table:table table:name="Data">{content}</table:table></office:spreadsheet>'
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("mimetype", ODS)
        archive.writestr("META-INF/manifest.xml", more.get("manifest", "<manifest/>"))
        archive.writestr(
            "content.xml",
            f"<office:document-content {names}><office:body>{body}</office:body></office:document-content>",
        )
    return buffer.getvalue()


def test_an_opendocument_sheet_is_read_with_its_repeated_cells() -> None:
    cell = '<table:table-cell office:value-type="string"><text:p>{}</text:p></table:table-cell>'.format
    empty = '<table:table-row table:number-rows-repeated="1048000"><table:table-cell/></table:table-row>'
    row = f"<table:table-row>{cell('a')}{cell('b')}</table:table-row>"
    assert shown(parse(ods(row + row + empty))) == [("heading", "Data"), ("table", "a | b\na | b")]


def test_what_needs_a_password_is_encrypted() -> None:
    manifest = "<manifest><file-entry><encryption-data/></file-entry></manifest>"
    assert code_of(ods("", manifest=manifest)) == "encrypted"


def test_a_workbook_of_excel_97_with_a_password_is_encrypted() -> None:
    records = struct.pack("<HH16x", 0x809, 16) + struct.pack("<HHH", 0x2F, 2, 1)  # BOF and FilePass
    assert code_of(compound({"Workbook": records + bytes(5_000)})) == "encrypted"


def test_empty_and_broken_workbooks_have_clear_codes() -> None:
    data = sheet(["a", "b"])
    assert code_of(sheet()) == "empty"
    assert code_of(data[: len(data) // 2]) == "corrupt"
    assert code_of(with_parts(data, **{"xl/workbook.xml": "<"})) == "corrupt"
    assert code_of(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), filename="a.xls") in ("corrupt", "unsupported")


def test_a_damaged_sheet_is_said_to_be_so() -> None:
    def fill(workbook: xlsxwriter.Workbook) -> None:
        for name in ("Bad", "Good"):
            workbook.add_worksheet(name).write(0, 0, name)

    parsed = parse(with_parts(book(fill), **{"xl/worksheets/sheet1.xml": "<worksheet><sheetData><row"}))
    assert [text for _, text in shown(parsed)] == ["Good", "Good"]
    assert parsed.notes == ["A sheet is damaged; some or all of it is missing."]


def test_a_workbook_that_calamine_refuses_is_read_from_its_xml() -> None:
    def fill(workbook: xlsxwriter.Workbook) -> None:
        worksheet = workbook.add_worksheet("Rescued")
        day, hour, price = (workbook.add_format({"num_format": form}) for form in ("d/m/yy", "hh:mm", '0.00 "days"'))
        worksheet.write_row(0, 0, ["text", 1.5, True])
        worksheet.write_formula(0, 3, "=NA()", value="#N/A")
        worksheet.write_datetime(1, 0, datetime.datetime(2024, 2, 29), day)
        worksheet.write_datetime(1, 1, datetime.time(7, 30), hour)
        worksheet.write(1, 2, 3, price)
        worksheet.write_rich_string(1, 3, "bo", workbook.add_format({"bold": True}), "th", " parts")
        worksheet.write_row(9, 1, ["far", None, "down"])

    data = book(fill)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        cells = archive.read("xl/worksheets/sheet1.xml").decode()
    broken = cells.replace("</sheetData>", '<row r="11"><c r="A11" t="s"><v>999</v></c></row></sheetData>')
    parsed = parse(with_parts(data, **{"xl/worksheets/sheet1.xml": broken}))
    assert shown(parsed) == [
        ("heading", "Rescued"),
        ("table", "text | 1.5 | TRUE | #N/A\n2024-02-29 | 07:30:00 | 3 | both parts"),
        ("table", "far |  | down"),
    ]
    assert parsed.notes == ["A sheet is damaged; some or all of it is missing."]


def test_an_entity_bomb_is_refused() -> None:
    bomb = '<!DOCTYPE a [<!ENTITY a "' + "a" * 1000 + '"><!ENTITY b "' + "&a;" * 1000 + '">]>'
    part = (
        f'{bomb}<worksheet><sheetData><row r="1"><c t="inlineStr"><is><t>&b;</t></is></c></row></sheetData></worksheet>'
    )
    assert code_of(with_parts(sheet(["x"]), **{"xl/worksheets/sheet1.xml": part})) == "corrupt"


def test_a_long_string_in_many_cells_is_too_large() -> None:
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    cells = '<c t="s"><v>0</v></c>' * 10_000 + '<c t="s"><v>9</v></c>'
    parts = {
        "xl/sharedStrings.xml": f"<sst {space}><si><t>{'a' * 10_000}</t></si></sst>",
        "xl/worksheets/sheet1.xml": f'<worksheet {space}><sheetData><row r="1">{cells}</row></sheetData></worksheet>',
    }
    assert code_of(with_parts(sheet(["x"]), **parts)) == "too_large"
