"""Directives for reStructuredText that is read, not built: those of Sphinx, and any other, keep their text.

docutils has one registry of directives for the whole process. `registered` puts these in for one document and takes
them out again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.parsers.rst.directives import images

_DIRECTIVE = re.compile(r"\.\.[ \t]+(?:\|[^|\n]+\|[ \t]+)?([\w:+.-]+?)[ \t]?::(?=\s)")
_ENTRY = re.compile(r"(.*\S)\s*<[^<>]*>\Z")
_LEADS = {
    "versionadded": "New in version",
    "versionchanged": "Changed in version",
    "versionremoved": "Removed in version",
    "deprecated": "Deprecated since version",
    "deprecated-removed": "Deprecated since version",
}
_BOXES = {"seealso": "See also", "todo": "Todo", "admonition": ""}


class outside(nodes.Invisible, nodes.Element):
    """Stands where the text of another file would."""


class _AnyOption(dict[str, Any]):
    """Options of any name are taken, since nobody needs their values but the few that are asked for."""

    def __missing__(self, key: str) -> object:
        return directives.unchanged


class _Image(images.Image):
    """An image, or what Sphinx and its themes add to one."""

    option_spec = _AnyOption(images.Image.option_spec or {})


class _Figure(images.Figure):
    """The same with a caption."""

    option_spec = _AnyOption(images.Figure.option_spec or {})


class _Kept(Directive):
    """A directive that is not known: what is said in it."""

    optional_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec = _AnyOption({"": directives.unchanged})

    def run(self) -> list[nodes.Node]:
        """Its argument, then its content."""
        return [*self.said(), *self.inside()]

    def argument(self) -> str:
        return " ".join(self.arguments[0].split()) if self.arguments else ""

    def said(self) -> list[nodes.Node]:
        """The argument as a paragraph."""
        if not self.arguments:
            return []
        found, _ = self.state.inline_text(self.argument(), self.lineno)
        return [nodes.paragraph("", "", *found)]

    def inside(self) -> list[nodes.Node]:
        """The content as the blocks that it is."""
        holder = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, holder)
        return list(holder.children)


class _Object(_Kept):
    """A signature: its stars and underscores are no markup."""

    def said(self) -> list[nodes.Node]:
        return [nodes.paragraph("", line.strip()) for line in "".join(self.arguments).split("\n") if line.strip()]


class _Target(_Object):
    """Where references lead; the heading that follows says the same. What has content is described here."""

    def said(self) -> list[nodes.Node]:
        return super().said() if self.content else []


class _Silent(_Kept):
    """Only what is inside is text; the argument is a condition or a class."""

    def said(self) -> list[nodes.Node]:
        return []


class _Nothing(_Kept):
    """An instruction to the program that builds the pages."""

    def run(self) -> list[nodes.Node]:
        return []


class _Outside(_Kept):
    """Text that another file holds, which is never read."""

    def run(self) -> list[nodes.Node]:
        return [outside()]


class _Code(_Kept):
    """Lines of a program under their caption; the argument names the language."""

    def run(self) -> list[nodes.Node]:
        caption = self.options.get("caption")
        above: list[nodes.Node] = [nodes.paragraph(caption, caption)] if caption else []
        text = "\n".join(self.content)
        return [*above, nodes.literal_block(text, text)] if text.strip() else above


class _Math(_Kept):
    """A formula as it was typed."""

    def run(self) -> list[nodes.Node]:
        text = "\n".join([*self.arguments, *self.content])
        return [nodes.literal_block(text, text)] if text.strip() else []


class _Change(_Kept):
    """What changed in which version."""

    def run(self) -> list[nodes.Node]:
        version, _, text = self.argument().partition(" ")
        lead = f"{_LEADS[self.name.lower()]} {version}".strip()
        found, _ = self.state.inline_text(text.strip(), self.lineno) if text.strip() else ([], [])
        inside = self.inside()
        first = inside[0] if inside else None
        if not found and isinstance(first, nodes.paragraph):
            first.insert(0, nodes.Text(lead + ": "))
            return inside
        return [nodes.paragraph("", "", nodes.Text(f"{lead}: " if found else f"{lead}."), *found), *inside]


class _Box(_Kept):
    """An admonition with a title of its own."""

    def run(self) -> list[nodes.Node]:
        title = _BOXES[self.name.lower()]
        box = nodes.admonition()
        if title:
            box += nodes.title(title, title)
            box += self.said()
        else:
            found, _ = self.state.inline_text(self.argument(), self.lineno)
            box += nodes.title("", "", *found)
        box += self.inside()
        return [box]


class _Contents(_Kept):
    """Sphinx's list of other documents: those with a title of their own are named."""

    def run(self) -> list[nodes.Node]:
        if "hidden" in self.options:
            return []
        caption = self.options.get("caption")
        above: list[nodes.Node] = [nodes.paragraph(caption, caption)] if caption else []
        entries = (line.strip() for line in [*"".join(self.arguments).split("\n"), *self.content])
        listed = nodes.bullet_list()
        for entry in filter(None, entries):
            found = _ENTRY.match(entry)
            listed += nodes.list_item("", nodes.paragraph("", found[1] if found else entry))
        return [*above, listed] if len(listed) else above


def _named(kind: type[Directive], names: str) -> dict[str, type[Directive]]:
    return dict.fromkeys(names.split(), kind)


_OURS: dict[str, type[Directive]] = {
    **_named(
        _Code, "code code-block sourcecode parsed-code testcode testoutput doctest testsetup ipython prompt console"
    ),
    **_named(_Code, "graphviz digraph graph mermaid uml plantuml jupyter-execute plot productionlist highlight-block"),
    **_named(_Math, "math"),
    **_named(_Change, " ".join(_LEADS)),
    **_named(_Box, " ".join(_BOXES)),
    **_named(_Target, "setting signal event state control sig templatetag templatefilter fieldlookup"),
    **_named(_Contents, "toctree"),
    **_named(_Silent, "only ifconfig container class rst-class cssclass compound div grid grid-item tab-set hlist"),
    **_named(
        _Nothing, "highlight highlightlang index currentmodule module py:module py:currentmodule program raw meta"
    ),
    **_named(_Nothing, "contents sectnum section-numbering header footer title target-notes role default-role date"),
    **_named(_Nothing, "tabularcolumns testcleanup restructuredtext-test-directive local sectionauthor codeauthor"),
    "image": _Image,
    "figure": _Figure,
    **_named(_Outside, "include literalinclude"),
}
_OBJECTS = re.compile(
    r"(?:\w+:)[\w:-]+|auto\w+|(?:function|class|method|classmethod|staticmethod|attribute|data|exception|property"
    r"|decorator|describe|object|option|cmdoption|envvar|confval|directive|django-admin)\Z"
)
_lock = RLock()
_known: dict[str, object] = directives._directive_registry  # type: ignore[attr-defined]
_loaded: dict[str, object] = directives._directives  # type: ignore[attr-defined]


def _handler(name: str) -> type[Directive] | None:
    """Ours, None where docutils has its own that will do."""
    if found := _OURS.get(name) or (_OURS.get(name.split(":", 1)[1]) if ":" in name else None):
        return found
    if name in _known:
        return None
    return _Object if _OBJECTS.match(name) else _Kept


@contextmanager
def registered(source: str) -> Iterator[None]:
    """Within, every directive that `source` names does something sensible."""
    with _lock:
        names = {name.lower() for name in _DIRECTIVE.findall(source)}
        before = dict(_loaded)
        try:
            for name in names:
                if handler := _handler(name):
                    directives.register_directive(name, handler)
            yield
        finally:
            _loaded.clear()
            _loaded.update(before)
