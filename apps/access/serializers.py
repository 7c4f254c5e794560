"""What every JSON body is held to: no unknown fields, no text that Postgres cannot store."""

from __future__ import annotations

import math
from typing import Any

from rest_framework import serializers

MAX_DEPTH = 16


class StrictSerializer(serializers.Serializer):
    """A serializer that names unknown fields instead of ignoring them."""

    def to_internal_value(self, data: Any) -> Any:
        unknown = sorted(set(data) - set(self.fields)) if isinstance(data, dict) else []
        if unknown:
            raise serializers.ValidationError({name: ["Unknown field."] for name in unknown})
        return super().to_internal_value(data)


class TextField(serializers.CharField):
    """A JSON string; unlike its parent it does not take a number for one."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError("Must be a string.")
        return super().to_internal_value(data)


class WholeField(serializers.IntegerField):
    """A JSON integer; a string of digits only where everything is a string (multipart, query strings)."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool | float) or (isinstance(data, str) and not self.context.get("form")):
            raise serializers.ValidationError("Must be a whole number.")
        return super().to_internal_value(data)


class ObjectField(serializers.DictField):
    """A JSON object to be kept as JSONB: no NUL or lone surrogate in any string, bounded depth, finite numbers."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise serializers.ValidationError("Must be a JSON object.")
        errors = _unstorable(data, 0)
        if errors:
            raise serializers.ValidationError(errors)
        return data


def _unstorable(value: Any, depth: int) -> Any:
    """What Postgres cannot store in a JSON value, as nested error details; empty when it can."""
    if depth > MAX_DEPTH:
        return [f"Nested more than {MAX_DEPTH} deep."]
    if isinstance(value, str):
        problem = unstorable_text(value)
        return [problem] if problem else []
    if isinstance(value, float) and not math.isfinite(value):
        return ["Numbers must be finite."]
    if isinstance(value, dict):
        if any(unstorable_text(key) for key in value):
            return ["A key holds a character that cannot be stored."]
        found = {key: _unstorable(item, depth + 1) for key, item in value.items()}
    elif isinstance(value, list):
        found = {str(index): _unstorable(item, depth + 1) for index, item in enumerate(value)}
    else:
        return []
    return {key: problem for key, problem in found.items() if problem}


def unstorable_text(value: str) -> str | None:
    """Why Postgres cannot store this text, or None."""
    if "\x00" in value:
        return "Null characters are not allowed."
    try:
        value.encode()
    except UnicodeEncodeError:
        return "Lone surrogates are not allowed."
    return None
