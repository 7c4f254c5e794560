"""JSON answers: what of a model's JSON may leave, and which schemas are taken."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from apps.access.problems import Problem
from apps.generation.markers import markers
from apps.generation.structured import Malformed, asked, instruction, settled, strings

OBJECT = {"type": "json_object"}


def of(schema: dict[str, Any]) -> dict[str, Any]:
    found = asked(schema)
    assert found is not None
    return dict(found)


def test_only_markers_of_passages_leave_whatever_the_json_holds() -> None:
    said = {"a": "one [1] two [9]", "b": [[1], [2, 3], "[2]"], "[1]": {"c": "[Source 2]"}, "d": [1], "e": None}
    text = settled(json.dumps(said), OBJECT, [1, 2])
    assert markers(text) == [1, 2]
    del said["[1]"]
    assert json.loads(text) == said | {"a": "one [1] two", "[ 1 ]": {"c": "[2]"}}
    assert strings(text) == ["one [1] two", "[2]", "[2]"]


@pytest.mark.parametrize(
    "said",
    ["", "no", "{", '{"a": 1} and more', '{"a": NaN}', "[1]", '"text"', "[" * 100_000, '{"a":' * 40 + "1" + "}" * 40],
)
def test_what_is_no_json_object_is_malformed(said: str) -> None:
    with pytest.raises(Malformed):
        settled(said, OBJECT, [1])


def test_a_fence_around_it_is_no_matter() -> None:
    assert json.loads(settled('```json\n{"a": "b"}\n```', OBJECT, [])) == {"a": "b"}


def test_what_a_schema_asks_for_holds_of_what_leaves() -> None:
    short = of({"type": "object", "properties": {"a": {"type": "string", "minLength": 4}}})
    assert json.loads(settled('{"a": "four"}', short, []))
    with pytest.raises(Malformed, match="at a: "):
        settled('{"a": "x [9]"}', short, [1])  # long enough with its marker, which does not leave


def test_white_space_of_a_constant_is_kept() -> None:
    assert json.loads(settled('{"a": " b "}', of({"properties": {"a": {"const": " b "}}}), [])) == {"a": " b "}


def test_text_that_postgres_cannot_keep_does_not_leave() -> None:
    assert json.loads(settled('{"a": "x\\u0000y\\ud800"}', OBJECT, [])) == {"a": "xy\ufffd"}


def test_a_pattern_costs_nothing() -> None:
    slow = of({"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}})
    began = time.monotonic()
    settled(json.dumps({"a": "a" * 40 + "!"}), slow, [])
    assert time.monotonic() - began < 1


def test_a_schema_may_refer_to_itself() -> None:
    tree = of({"type": "object", "properties": {"of": {"$ref": "#"}}, "additionalProperties": False})
    assert json.loads(settled('{"of": {"of": {}}}', tree, []))
    with pytest.raises(Malformed, match="of/of"):
        settled('{"of": {"of": {"x": 1}}}', tree, [])
    with pytest.raises(Malformed):
        settled("{}", of({"$ref": "#"}), [])  # for ever


def test_a_schema_that_doubles_with_each_reference_ends() -> None:
    both = {f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(25)}
    doubling = of({"$ref": "#/$defs/a0", "$defs": both | {"a25": {"type": "number"}}})
    began = time.monotonic()
    with pytest.raises(Malformed, match="too much"):
        settled("{}", doubling, [])
    assert time.monotonic() - began < 20


def test_many_references_that_are_followed_once_are_no_matter() -> None:
    of_numbers = of({"properties": {"a": {"items": {"$ref": "#/$defs/n"}}}, "$defs": {"n": {"type": "number"}}})
    assert json.loads(settled(json.dumps({"a": [1] * 5_000}), of_numbers, []))


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"$ref": "#/$defs/none"}}},
        {"properties": {"a": {"$ref": "#none"}}},
        {"properties": {"a": {"$dynamicRef": "#none"}}},
        {"properties": {"a": {"$id": "http://example.com/y", "$ref": "#/$defs/s"}}, "$defs": {"s": {}}},
    ],
)
def test_a_reference_to_nothing_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(Problem) as refused:
        asked(schema)
    assert refused.value.status_code == 400


def test_references_to_parts_and_anchors_are_taken() -> None:
    named = {"$id": "http://example.com/s", "$defs": {"a": {"$anchor": "b", "type": "string"}, "c/d": {"type": "null"}}}
    schema = named | {"properties": {"e": {"$ref": "#b"}, "f": {"$ref": "#/$defs/a"}, "g": {"$ref": "#/$defs/c~1d"}}}
    assert json.loads(settled('{"e": "x", "f": "y", "g": null}', of(schema), []))
    with pytest.raises(Malformed, match="at e: "):
        settled('{"e": 1}', of(schema), [])


def test_a_number_that_python_cannot_compare_is_malformed() -> None:
    with pytest.raises(Malformed):
        settled('{"a": 1' + "0" * 400 + "}", of({"properties": {"a": {"multipleOf": 0.5}}}), [])


def test_a_string_is_cited_only_where_the_schema_leaves_room() -> None:
    properties = {"of": {"enum": ["Backups", "Costs"]}, "when": {"type": "string"}, "short": {"maxLength": 5}}
    schema = of({"properties": properties | {"list": {"items": {"maxLength": 7}}}})
    said = {"of": "Backups", "when": "At night.", "short": "Night", "list": ["nights", "At day"]}
    told = json.loads(settled(json.dumps(said), schema, [], cite=lambda text: f"{text} [1]"))
    assert told == said | {"when": "At night. [1]"}
    with pytest.raises(Malformed, match="at of: 'Nothing'"):
        settled('{"of": "Nothing"}', schema, [], cite=lambda text: f"{text} [1]")


def test_text_is_no_format() -> None:
    assert asked(None) is None
    assert asked({"type": "text"}) is None


def test_a_format_is_asked_for_as_openai_does_and_told_in_the_prompt() -> None:
    found = of({"type": "object"})
    assert found["json_schema"] == {"name": "answer", "schema": {"type": "object"}, "strict": False}
    assert '{"type":"object"}' in instruction(found)
    named = of({"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}})
    assert named["json_schema"] == {"name": "n", "schema": {}, "strict": True}


def test_a_deep_schema_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"properties": {"a": deep}}
    with pytest.raises(Problem):
        asked(deep)
