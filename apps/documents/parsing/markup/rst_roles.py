"""Inline markup of reStructuredText: roles of Sphinx, and any others, keep their text."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.parsers.rst.states import Inliner

_TARGET = re.compile(r"(.+?)\s*<[^<>]*>\Z", re.DOTALL)
#: Roles of Sphinx whose "~" asks for the last part of a dotted name.
_NAMES = re.compile(
    "any|attr|class|cls|const|data|deco|enum|envvar|exc|func|meth|mod|obj|option|setting|sig|signal|state|task|type|var"
)
_NUMBERED = {"pep": "PEP ", "rfc": "RFC ", "pep-reference": "PEP ", "rfc-reference": "RFC "}
_LONGEST = 10_000  # characters of a paragraph: docutils looks from every open mark to the end, a time in their square


def inliner() -> Inliner:
    """Roles of any name keep their text, without a word to docutils' registry; what is very long keeps its marks.

    It is no subclass because Inliner looks for its own patterns in the very class of the object.
    """
    found = Inliner()
    whole = found.parse

    def parse_inline(
        text: str, lineno: int, memo: Any, parent: nodes.Element
    ) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        return whole(text, lineno, memo, parent) if len(text) <= _LONGEST else ([nodes.Text(nodes.unescape(text))], [])

    found.parse = parse_inline  # type: ignore[method-assign]
    found.interpreted = _interpreted  # type: ignore[method-assign]
    return found


def _interpreted(
    rawsource: str, text: str, role: str, lineno: int
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    shown = _role_text(role.lower() if role else "", nodes.unescape(text))
    label = nodes.fully_normalize_name(shown) if role == "ref" else ""
    return [nodes.inline("", shown, label=label)], []


def _role_text(role: str, text: str) -> str:
    """What a reader sees of ``:role:`text```."""
    last = role.rsplit(":", 1)[-1]
    if last.startswith("raw"):  # as documents call the roles that they make of "raw"
        return ""
    if last in _NUMBERED:
        return _NUMBERED[last] + text
    if last in ("code", "literal", "math", "samp", "kbd", "abbr", "guilabel", "menuselection"):
        return text
    if found := _TARGET.match(text):
        return found[1]
    if not _NAMES.fullmatch(last):
        return text
    return text[1:].rsplit(".", 1)[-1] if text.startswith("~") else text.removeprefix("!")
