"""Small things in XML documents on one line: persons, references, markers of a list."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from apps.documents.parsing.markup import xml_data
from apps.documents.parsing.markup import xml_names as names
from apps.documents.parsing.markup.xml_tree import NAMES, Element, is_mixed, local, words


def name_of(element: Element) -> str:
    """Its name in small letters: vocabularies that were SGML once have capitals."""
    return _lower(local(element))


_lower = lru_cache(NAMES)(str.lower)


def marker_of(label: str) -> str:
    """A label of an item as the marker of a list: numbers end in a full stop."""
    return label + "." if label.isdecimal() else label


def person(element: Element) -> str:
    """A name as it is spoken: given names, then the family's."""
    for given, family in (("given-names", "surname"), ("firstname", "surname"), ("forename", "surname")):
        surname = next(element.iter("{*}" + family), None)
        first = next(element.iter("{*}" + given), None)
        if surname is not None and first is not None:
            return f"{words(first)} {words(surname)}"
    name = next(element.iter("{*}string-name", "{*}collab", "{*}personname", "{*}name"), None)
    return words(element if name is None else name)


def details(element: Element) -> Iterable[str]:
    """What is said about a person beside the name: role, address."""
    for each in element:
        name = name_of(each)
        if name in names.DETAILS:
            yield words(each) if is_mixed(each) else ", ".join(parts(each))


def parts(element: Element) -> Iterable[str]:
    """What a reference is made of, in its order, a name or a date in one piece."""
    for each in element:
        name = name_of(each)
        if name == "label" or name in names.SKIPPED:
            continue
        if name in names.PEOPLE and not is_mixed(each):
            yield person(each)
        elif name in names.DATES and (date := xml_data.date(each)):
            yield date
        elif is_mixed(each):
            yield words(each)
        else:
            yield from parts(each)
