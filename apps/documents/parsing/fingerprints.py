"""The FINGERPRINT of each parser's module, told without the libraries that importing it would load."""

from __future__ import annotations

FINGERPRINTS = {
    "archives.archive": "archive/1",
    "archives.epub": "epub/1",
    "archives.slack": "slack/1",
    "data.delimited": "delimited/1",
    "data.json_text": "json_text/1",
    "data.notebook": "notebook/1",
    "data.source": "source/1",
    "data.yaml_text": "yaml_text/1",
    "image": "image/1",
    "legacy.doc": "doc/1",
    "legacy.ppt": "ppt/1",
    "legacy.rtf": "rtf/1",
    "mail.eml": "mail/1",
    "mail.msg": "msg/1",
    "markup.html": "html/3",
    "markup.markdown": "markdown/2",
    "markup.rst": "rst/1",
    "markup.xml": "xml_text/2",
    "office.docx": "docx/1",
    "office.odf": "odf/1",
    "office.pptx": "pptx/1",
    "office.sheets": "sheets/1",
    "pdf.document": "pdf/3",
    "plain": "plain/2",
}
_TODAY = frozenset(FINGERPRINTS.values())


def is_current(parser: str) -> bool:
    """Would what this parser ("html/1") has read be read by the same one today?"""
    return parser in _TODAY
