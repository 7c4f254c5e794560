"""Answers as JSON of a schema: what a client asks for as `response_format`, and what may leave of what a model wrote.

Markers stand within the strings. Of the schema `pattern` is not checked here, as a regular expression may take for
ever: a server that decodes by the schema keeps it. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from copy import deepcopy
from functools import cache
from itertools import count
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from apps.access.problems import invalid
from apps.access.serializers import unstorable_text

from .markers import MARKER, MarkerFilter, neutralise

MAX_SCHEMA = 32_000  # characters
#: Of a schema, and of JSON that a model wrote.
MAX_DEPTH = 32
#: References that are followed while an answer is checked: a few lines of a schema can ask for 2^50 of them.
MAX_FOLLOWED = 20_000
DEFAULT_NAME = "answer"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_REFERENCES = ("$ref", "$dynamicRef")
_followed: ContextVar[Iterator[int]] = ContextVar("followed")

#: OpenAI's form, or a bare JSON schema; what `asked` gives is always the first.
Format = Mapping[str, Any]


class Malformed(Exception):
    """What a model wrote is not the JSON that was asked for; the message tells the model why, and nobody else."""


def _counted(keyword: str) -> Callable[..., Iterator[ValidationError]]:
    follow = Draft202012Validator.VALIDATORS[keyword]

    def counted(*told: Any) -> Iterator[ValidationError]:
        if next(_followed.get()) >= MAX_FOLLOWED:
            raise Malformed("The schema asks for too much checking.")
        yield from follow(*told)

    return counted


_Validator = extend(Draft202012Validator, {"pattern": lambda *_: None} | {name: _counted(name) for name in _REFERENCES})


def asked(said: Any, pointer: str = "/response_format") -> Format | None:
    """A request's `response_format` in OpenAI's form; None for text. Raises Problem 400."""
    if said is None or said == {"type": "text"}:
        return None
    if not isinstance(said, dict):
        raise invalid(pointer, "Must be a JSON schema, or an object as OpenAI's response_format.")
    if said.get("type") == "json_object" and said.keys() == {"type"}:
        return {"type": "json_object"}
    name: Any = DEFAULT_NAME
    schema: Any = said
    strict = False
    if said.get("type") == "json_schema":
        pointer += "/json_schema"
        named = said.get("json_schema")
        if not isinstance(named, dict):
            raise invalid(pointer, "Must be an object with a schema.")
        name, schema, strict = named.get("name", DEFAULT_NAME), named.get("schema"), named.get("strict") is True
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise invalid(pointer + "/name", "Must be up to 64 letters, digits, _ and -.")
        pointer += "/schema"
    _check(schema, pointer)
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": strict}}


def _check(schema: Any, pointer: str) -> None:
    if not isinstance(schema, dict):
        raise invalid(pointer, "Must be a JSON schema: an object.")
    if _deeper(schema, MAX_DEPTH) or len(json.dumps(schema)) > MAX_SCHEMA:
        raise invalid(pointer, f"A schema has at most {MAX_SCHEMA} characters and {MAX_DEPTH} levels.")
    for key, value in _pairs(schema):
        if key in _REFERENCES and isinstance(value, str) and not value.startswith("#"):
            raise invalid(pointer, f"{key}: only references within the schema are followed.", code="unsupported_value")
        if key == "$id" and isinstance(value, str) and value != schema.get("$id"):
            raise invalid(pointer, "$id: a part of the schema cannot have its own.", code="unsupported_value")
        if key == "patternProperties":
            raise invalid(pointer, "patternProperties: not supported.", code="unsupported_value")
        for text in (key, value):
            if isinstance(text, str) and MARKER.search(text):
                raise invalid(pointer, f"{text[:50]!r} looks like a citation, and the text of one leaves no other way.")
            if isinstance(text, str) and (problem := unstorable_text(text)):
                raise invalid(pointer, problem)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise invalid(pointer, f"This is no JSON schema: {error.message[:200]}")
    _check_references(schema, pointer)


def _check_references(schema: dict[str, Any], pointer: str) -> None:
    names = {value for key, value in _pairs(schema) if key in _REFERENCES and isinstance(value, str)}
    try:
        resource = DRAFT202012.create_resource(schema)
        base = resource.id() or ""
        resolver = Registry().with_resource(base, resource).crawl().resolver(base)
        for part in {id(found): found for found in (resolver.lookup(name).contents for name in names)}.values():
            if part is not schema:
                Draft202012Validator.check_schema(part)
    except (Unresolvable, SchemaError, ValueError, TypeError, LookupError):  # what a pointer may stumble over
        raise invalid(pointer, "A reference of the schema is to no schema.") from None


def instruction(wanted: Format, *, cites: bool = True) -> str:
    """What the rules of the prompt end with."""
    if wanted["type"] == "json_object":
        shape = "Reply with one JSON object and nothing else."
    else:
        schema = json.dumps(wanted["json_schema"]["schema"], ensure_ascii=False, separators=(",", ":"))
        shape = f"Reply with JSON of this schema and nothing else: {schema}"
    marks = "- Put the numbers of the passages into the JSON's strings, at the end of what they support.\n"
    return (
        f"- {shape}\n{marks if cites else ''}"
        "- If the passages do not answer the question, the sentence that says so goes into a string of the JSON."
    )


def settled(text: str, wanted: Format, markers: Sequence[int], cite: Callable[[str], str] = str) -> str:
    """What a model wrote, as it may leave: valid, with markers of these passages only. cite: puts them into a string
    that has none, where the schema leaves room for one. Raises Malformed."""
    value = _mapped(_parsed(text), lambda said: _filtered(said, markers))
    _followed.set(count())
    _validate(value, wanted)
    if cite is not str:
        value = _cited(value, wanted, cache(cite))
    # Lines of their own, so that no list of numbers looks like a marker.
    return json.dumps(value, ensure_ascii=False, indent=2)


def citable(text: str, wanted: Format) -> list[str]:
    """The strings of what a model wrote that have room for a marker. Raises Malformed."""
    mark = " [1]"  # no string ends so by itself, for no passage is known here
    marked = strings(settled(text, wanted, (), lambda said: said + mark))
    return [said.removesuffix(mark) for said in marked if said.endswith(mark)]


def read(text: str, wanted: Format) -> Any:
    """What a model wrote for us, and for nobody else. Raises Malformed."""
    value = _parsed(text)
    _followed.set(count())
    _validate(value, wanted)
    return value


def strings(text: str) -> list[str]:
    """The strings of an answer that `settled` made, in their order: what it says, and cites."""
    return [value for _, value in _pairs(json.loads(text)) if isinstance(value, str) and value.strip()]


def _parsed(text: str) -> Any:
    said = text.strip()
    if said.startswith("```"):  # a habit of models that are not held to a schema
        said = said.removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        value = json.loads(said, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"It is not valid JSON: {error}.") from None
    if _deeper(value, MAX_DEPTH):
        raise Malformed("The JSON is too deep.")
    return value


def _no_number(said: str) -> Any:
    raise ValueError(f"{said} is not JSON")


def _cited(value: Any, wanted: Format, cite: Callable[[str], str]) -> Any:
    """A valid value with its strings cited, but for those (of an enum, short ones) that would not be valid then."""
    if _is_valid(whole := _mapped(value, cite), wanted):
        return whole
    held = [deepcopy(value)]
    for within, key in _strings(held):
        said = within[key]
        within[key] = cite(said)
        if not _is_valid(held[0], wanted):
            within[key] = said
    return held[0]


def _strings(value: Any) -> Iterator[tuple[Any, Any]]:
    """Where a value has strings: what each is in, and its place there."""
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        if isinstance(item, str):
            yield value, key
        elif isinstance(item, dict | list):
            yield from _strings(item)


def _is_valid(value: Any, wanted: Format) -> bool:
    try:
        _validate(value, wanted)
    except Malformed:
        return False
    return True


def _validate(value: Any, wanted: Format) -> None:
    if wanted["type"] == "json_object":
        if not isinstance(value, dict):
            raise Malformed("It is not a JSON object.")
        return
    try:
        error = best_match(_Validator(wanted["json_schema"]["schema"]).iter_errors(value))
    except RecursionError:  # a schema may refer to itself
        raise Malformed("The JSON is too deep.") from None
    except ArithmeticError:  # of a number that no float can be
        raise Malformed("It has a number that is too large.") from None
    if error is not None:
        where = "/".join(map(str, error.absolute_path)) or "the whole"
        raise Malformed(f"It does not follow the schema, at {where}: {error.message[:300]}.")


def _filtered(said: str, markers: Sequence[int]) -> str:
    if "[" not in said and "【" not in said and unstorable_text(said) is None:
        return said  # with its white space
    kept = MarkerFilter(markers)
    return kept.feed(said) + kept.close()


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    match value:
        case str():
            return change(value)
        case list():
            return [_mapped(item, change) for item in value]
        case dict():
            return {neutralise(key): _mapped(item, change) for key, item in value.items()}
    return value


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """Each value within one, with the name that it, or the list that it is in, has."""

    def within(name: str, item: Any) -> Iterator[tuple[str, Any]]:
        yield name, item
        for key, inner in item.items() if isinstance(item, dict) else ():
            yield from within(key, inner)
        for inner in item if isinstance(item, list) else ():
            yield from within(name, inner)

    return within("", value)


def _deeper(value: Any, levels: int) -> bool:
    """Without recursion: is there more within a value than so many levels?"""
    rank = [value]
    for _ in range(levels):
        rank = [inner for item in rank for inner in _inner(item)]
    return bool(rank)


def _inner(item: Any) -> Iterable[Any]:
    return item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
