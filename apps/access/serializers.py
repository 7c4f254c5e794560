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


class ObjectField(serializers.DictField):
    """A JSON object to be kept as JSONB: no NUL or lone surrogate in any string, bounded depth, finite numbers."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        value = super().to_internal_value(data)
        errors: dict[str, Any] = {}
        for key, item in value.items():
            problem = _unstorable(key, 0) or _unstorable(item, 1)
            if problem:
                errors[key] = [problem]
        if errors:
            raise serializers.ValidationError(errors)
        return value


def _unstorable(value: Any, depth: int) -> str | None:
    if depth > MAX_DEPTH:
        return f"Nested more than {MAX_DEPTH} deep."
    if isinstance(value, str):
        return unstorable_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "Numbers must be finite."
    if isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, list):
        parts = value
    else:
        return None
    return next((problem for part in parts if (problem := _unstorable(part, depth + 1))), None)


def unstorable_text(value: str) -> str | None:
    """Why Postgres cannot store this text, or None."""
    if "\x00" in value:
        return "Null characters are not allowed."
    if any(0xD800 <= ord(char) <= 0xDFFF for char in value) if not value.isascii() else False:
        return "Lone surrogates are not allowed."
    return None
