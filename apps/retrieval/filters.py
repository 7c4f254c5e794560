"""Filters on documents: the grammar of the API, compiled to SQL in which every value is a parameter.

    {"metadata.year": {"$gte": 2020, "$lt": 2024}, "$or": [{"title": "Handbook"}, {"source_uri": {"$prefix": "hr/"}}]}

Fields of one object are joined by AND. A value without an operator stands for `$eq`. Metadata is compared by type: a
number with numbers, a text with texts (by code points). Where a value is a list, one fitting element is enough. A field
that is absent satisfies only `$exists: false`, `$ne` and `$nin`; JSON's null is a value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.dateparse import parse_datetime

from apps.access.problems import Problem, invalid
from apps.documents.attributes import Question

from .narrowing import narrowed

MAX_DEPTH = 8  # of $and, $or and $not
MAX_CONDITIONS = 100
MAX_VALUES = 1_000  # in all lists of a filter together
MAX_KEYS = 8  # of a metadata path
MAX_TEXT = 2_000

COMPARED = {"$eq": "=", "$ne": "<>", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
LISTED = ("$in", "$nin")
OPERATORS = (*COMPARED, *LISTED, "$exists", "$prefix")
COLUMNS = {"source_uri": str, "title": str, "document_id": UUID, "created_at": datetime, "updated_at": datetime}


@dataclass(slots=True)
class Filter:
    """A condition on the row `d` of documents_document, its parameters by name, and what finds the rows by an index."""

    sql: str
    parameters: dict[str, Any]
    question: Question | None = None  # what it asks of the documents' terms


def compile_filter(filters: Mapping[str, Any], *, pointer: str = "/filters") -> Filter | None:
    """The condition; None for one that says nothing. Raises Problem 400 with a pointer to what is wrong, 422
    `filter_too_complex` for one that is too deep or too long."""
    compiler = _Compiler()
    sql = compiler.all_of(filters, pointer, depth=0)
    return Filter(sql, compiler.parameters, narrowed(filters)) if sql else None


@dataclass(slots=True)
class _Compiler:
    parameters: dict[str, Any] = field(default_factory=dict)
    conditions: int = 0
    values: int = 0

    def all_of(self, filters: Any, pointer: str, *, depth: int) -> str:
        if not isinstance(filters, Mapping):
            raise invalid(pointer, "A filter is a JSON object.")
        if depth > MAX_DEPTH:
            raise _too_complex(pointer, f"Filters may be nested {MAX_DEPTH} deep.")
        parts = [self._part(name, value, f"{pointer}/{_escaped(name)}", depth) for name, value in filters.items()]
        return " AND ".join(filter(None, parts))

    def _part(self, name: str, value: Any, pointer: str, depth: int) -> str:
        if name in ("$and", "$or"):
            if not isinstance(value, Sequence) or isinstance(value, str) or not value:
                raise invalid(pointer, f"{name} takes a list of filters, at least one.")
            found = [self.all_of(each, f"{pointer}/{at}", depth=depth + 1) for at, each in enumerate(value)]
            # An empty filter holds for everything: in a conjunction it says nothing, in a disjunction all is said.
            if name == "$or" and "" in found:
                return ""
            return _joined(" AND " if name == "$and" else " OR ", filter(None, found))
        if name == "$not":
            inner = self.all_of(value, pointer, depth=depth + 1)
            return f"NOT ({inner})" if inner else "false"
        if name.startswith("$"):
            raise invalid(pointer, f"There is no operator {_shown(name)} here; $and, $or and $not are.")
        return self._field(name, value, pointer)

    def _field(self, name: str, value: Any, pointer: str) -> str:
        compare = self._comparison(name, pointer)
        given = value if isinstance(value, Mapping) and any(key.startswith("$") for key in value) else {"$eq": value}
        parts = []
        for operator, operand in given.items():
            at = pointer if given is not value else f"{pointer}/{_escaped(operator)}"
            if operator not in OPERATORS:
                raise invalid(at, f"There is no operator {_shown(operator)}; there are {', '.join(OPERATORS)}.")
            self.conditions += 1
            if self.conditions > MAX_CONDITIONS:
                raise _too_complex(at, f"A filter may have {MAX_CONDITIONS} conditions.")
            if operator == "$exists" and not isinstance(operand, bool):
                raise invalid(at, "$exists takes true or false.")
            if operator in LISTED:
                if not isinstance(operand, list):
                    raise invalid(at, f"{operator} takes a list.")
                self.values += len(operand)
                if self.values > MAX_VALUES:
                    raise _too_complex(at, f"The lists of a filter may have {MAX_VALUES} values.")
            parts.append(compare(operator, operand, at))
        return _joined(" AND ", parts)

    def _comparison(self, name: str, pointer: str) -> Callable[[str, Any, str], str]:
        if name in COLUMNS:
            return lambda operator, operand, at: self._column(name, operator, operand, at)
        prefix, _, path = name.partition(".")
        if prefix != "metadata" or not path:
            known = ", ".join(("metadata.<key>", *COLUMNS))
            raise invalid(pointer, f"There is no field {_shown(name)}; there are {known}.")
        keys = path.split(".")
        if len(keys) > MAX_KEYS or len(path) > MAX_TEXT:
            raise _too_complex(pointer, f"A path may have {MAX_KEYS} keys and {MAX_TEXT} characters.")
        return lambda operator, operand, at: self._metadata(keys, operator, operand, at)

    def _column(self, name: str, operator: str, operand: Any, pointer: str) -> str:
        kind = COLUMNS[name]
        if operator == "$exists":  # each has a value, if an empty one
            there = "d.title <> ''" if name == "title" else "true"
            return there if operand else f"NOT ({there})"
        if operator in LISTED:
            values = [_typed(each, kind, f"{pointer}/{at}") for at, each in enumerate(operand)]
            condition = f"d.{_column_of(name)} = ANY({self._parameter(values)}::{_array_type(kind)})"
            return condition if operator == "$in" else f"NOT {condition}"
        value = _typed(operand, kind, pointer)
        if operator == "$prefix":
            if kind is not str:
                raise invalid(pointer, f"$prefix is for texts; {name} is none.")
            return f"starts_with(d.{name}, {self._parameter(value)})"
        if kind is UUID and operator not in ("$eq", "$ne"):
            raise invalid(pointer, f"{name} can be compared by $eq, $ne, $in, $nin and $exists.")
        # By code points, as metadata is; the database's own order depends on where it runs.
        order = ' COLLATE "C"' if kind is str and operator not in ("$eq", "$ne") else ""
        return f"d.{_column_of(name)} {COMPARED[operator]} {self._parameter(value)}{order}"

    def _metadata(self, keys: Sequence[str], operator: str, operand: Any, pointer: str) -> str:
        path = "$" + "".join(f".{_literal(key, pointer)}" for key in keys)
        if operator == "$exists":
            condition = f"d.metadata @? {self._parameter(path)}::jsonpath"
            return condition if operand else f"NOT {condition}"
        if operator in ("$ne", "$nin"):
            positive = self._metadata(keys, {"$ne": "$eq", "$nin": "$in"}[operator], operand, pointer)
            return f"NOT ({positive})"
        if operator == "$in":
            values = [_literal(each, f"{pointer}/{at}") for at, each in enumerate(operand)]
            tests = " || ".join(f"@ == {value}" for value in values)
            return f"d.metadata @? {self._parameter(f'{path} ? ({tests})')}::jsonpath" if values else "false"
        if operator == "$eq" and isinstance(operand, list | Mapping):  # a JSON path compares no lists and objects
            whole = json.dumps(operand)
            if len(whole) > MAX_TEXT:
                raise _too_complex(pointer, f"A list or object to compare with may have {MAX_TEXT} characters.")
            return f"d.metadata #> {self._parameter(list(keys))}::text[] = {self._parameter(whole)}::jsonb"
        if operator == "$prefix":
            if not isinstance(operand, str):
                raise invalid(pointer, "$prefix takes a text.")
            test = f"@ starts with {_literal(operand, pointer)}"
        else:
            if operator != "$eq" and (isinstance(operand, bool) or not isinstance(operand, str | int | float)):
                raise invalid(pointer, f"{operator} takes a number or a text.")
            test = f"@ {'==' if operator == '$eq' else COMPARED[operator]} {_literal(operand, pointer)}"
        return f"d.metadata @? {self._parameter(f'{path} ? ({test})')}::jsonpath"

    def _parameter(self, value: Any) -> str:
        name = f"filter_{len(self.parameters)}"
        self.parameters[name] = value
        return f"%({name})s"


def _literal(value: Any, pointer: str) -> str:
    """A scalar as a JSON path writes it, which is as JSON does."""
    if isinstance(value, list | Mapping):
        raise invalid(pointer, "A text, a number, true, false or null is compared here.")
    if isinstance(value, float) and not math.isfinite(value):
        raise invalid(pointer, "This is no number of JSON.")
    written = json.dumps(_storable(value, pointer), ensure_ascii=False)
    if len(written) > MAX_TEXT:
        raise _too_complex(pointer, f"A value may have {MAX_TEXT} characters.")
    return written


def _storable(value: Any, pointer: str) -> Any:
    """What Postgres can hold: no NUL, no half of a surrogate pair."""
    if isinstance(value, str) and ("\0" in value or (not value.isascii() and not _encodes(value))):
        raise invalid(pointer, "This text cannot be stored, so that nothing equals it.")
    return value


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _typed(value: Any, kind: type, pointer: str) -> Any:
    """A value for a column."""
    if not isinstance(value, str):
        raise invalid(pointer, "This field is compared with a text.")
    if len(value) > MAX_TEXT:
        raise _too_complex(pointer, f"A value may have {MAX_TEXT} characters.")
    _storable(value, pointer)
    if kind is UUID:
        try:
            return UUID(value)
        except ValueError:
            raise invalid(pointer, "This is not a UUID.") from None
    if kind is datetime:
        try:
            moment = parse_datetime(value)
        except ValueError:
            moment = None
        if moment is None:
            raise invalid(pointer, 'This is not a time as in "2026-01-31T12:00:00Z".')
        return moment if timezone.is_aware(moment) else moment.replace(tzinfo=UTC)
    return value


def _column_of(name: str) -> str:
    return "id" if name == "document_id" else name


def _array_type(kind: type) -> str:
    return {str: "text[]", UUID: "uuid[]", datetime: "timestamptz[]"}[kind]


def _joined(by: str, parts: Any) -> str:
    found = list(parts)
    return found[0] if len(found) == 1 else f"({by.join(found)})" if found else ""


def _escaped(name: str) -> str:
    """A name as a JSON pointer has it."""
    return name.replace("~", "~0").replace("/", "~1")


def _shown(name: str) -> str:
    return json.dumps(name[:60])


def _too_complex(pointer: str, detail: str) -> Problem:
    return invalid(pointer, detail, status=422, code="filter_too_complex")
