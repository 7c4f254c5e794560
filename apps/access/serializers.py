"""What every body is held to: UTF-8, no name twice, no unknown fields, no text that Postgres cannot store."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.core.validators import ProhibitNullCharactersValidator
from django.http import QueryDict
from django.http.multipartparser import MultiPartParser, MultiPartParserError
from django.utils.datastructures import MultiValueDict
from django.utils.functional import cached_property
from rest_framework import parsers, serializers
from rest_framework.fields import SkipField, empty
from rest_framework.validators import ProhibitSurrogateCharactersValidator

from .problems import Problem, invalid

MAX_DEPTH = 16
MAX_DIGITS = 4_000  # of a number in JSON; Python refuses to read 4,301
MAX_OBJECT_BYTES = 256 * 1024  # it comes back with every search result
_WHOLE = re.compile(r"-?[0-9]{1,400}")


def load_json(text: str) -> Any:
    """RFC 8259 as I-JSON narrows it (RFC 7493): no NaN or Infinity, no object with a name twice.

    Raises ValueError, also for nesting deeper than the parser's stack.
    """
    try:
        return _JSON.decode(text)
    except RecursionError:
        raise ValueError("Nested too deeply.") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"The name {name[:60]!r} stands twice in one object.")
    return found


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"A whole number of {len(digits)} digits is too long.")
    return int(digits)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON.")


_JSON = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_no_constant, parse_int=_whole)


class JsonParser(parsers.JSONParser):
    """JSON is UTF-8 (RFC 8259, 8.1), whatever charset the header claims: a codec of the client's choice is an attack.

    A byte order mark, which some editors write, is skipped.
    """

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            return load_json(stream.read().decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise Problem(400, "malformed_json", f"The body is not UTF-8: byte {error.start}.")
        except ValueError as error:
            raise Problem(400, "malformed_json", f"The body is not JSON: {error}")


class _Form(MultiPartParser):
    def sanitize_file_name(self, file_name: str) -> str | None:
        return super().sanitize_file_name(_utf8(file_name))


class FormParser(parsers.MultiPartParser):
    """multipart/form-data in UTF-8; Django would put U+FFFD in place of what is not.

    It is made to read Latin-1, which keeps every byte, so that decoding can be strict afterwards.
    """

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        request = (parser_context or {})["request"]
        meta = request.META | {"CONTENT_TYPE": media_type}
        try:
            found, files = _Form(meta, stream, request.upload_handlers, "latin-1").parse()
        except MultiPartParserError as error:
            raise Problem(400, "malformed_multipart", f"The form cannot be read: {error}")
        fields = QueryDict(mutable=True)
        for name, values in found.lists():
            try:
                fields.setlist(_utf8(name), [_utf8(str(value)) for value in values])
            except UnicodeDecodeError:
                raise invalid(f"/{name}", "Must be UTF-8.")
        return parsers.DataAndFiles(fields, MultiValueDict({_utf8(name): sent for name, sent in files.lists()}))


def _utf8(latin: str) -> str:
    return latin.encode("latin-1").decode()


class StrictSerializer(serializers.Serializer):
    """A serializer that names unknown fields instead of ignoring them.

    Its parent asks every field about every body; here only those are asked that were sent, must be, or have a default.
    """

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            return super().to_internal_value(data)  # which says so
        unknown = sorted(data.keys() - self.fields.keys())
        if unknown:
            raise serializers.ValidationError({name: ["Unknown field."] for name in unknown})
        values, errors = {}, {}
        for name, field in self.fields.items():
            if name not in data and name not in self._expected:
                continue
            try:
                values[name] = field.run_validation(data.get(name, empty))
            except serializers.ValidationError as error:
                errors[name] = error.detail
            except SkipField:
                pass
        if errors:
            raise serializers.ValidationError(errors)
        return values

    @cached_property
    def _expected(self) -> set[str]:
        return {name for name, field in self.fields.items() if field.required or field.default is not empty}


def refuse_unbuilt(data: Any, names: Iterable[str]) -> None:
    """Raise Problem 400 `not_supported` with a pointer per field of the contract that is not built yet."""
    if not isinstance(data, dict):
        return
    asked = [name for name in names if data.get(name) is not None]
    if asked:
        detail = "Not supported by this version."
        errors = [{"pointer": f"/{name}", "detail": detail} for name in asked]
        raise Problem(400, "not_supported", f"{', '.join(asked)}: not supported by this version.", errors=errors)


def _storable(value: str) -> None:
    if problem := unstorable_text(value):
        raise serializers.ValidationError(problem)


class TextField(serializers.CharField):
    """A JSON string; unlike its parent it does not take a number for one."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # The parent looks at each character of a text for a surrogate; encoding it tells as well.
        slow = (ProhibitNullCharactersValidator, ProhibitSurrogateCharactersValidator)
        self.validators = [each for each in self.validators if not isinstance(each, slow)] + [_storable]

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError("Must be a string.")
        return super().to_internal_value(data)


class WholeField(serializers.IntegerField):
    """A JSON integer; a string of digits only where everything is a string (multipart, query strings)."""

    def to_internal_value(self, data: Any) -> int:
        digits = isinstance(data, str) and self.context.get("form") and _WHOLE.fullmatch(data)
        if isinstance(data, bool) or not (isinstance(data, int) or digits):
            raise serializers.ValidationError("Must be a whole number.")
        return super().to_internal_value(data)


class NumberField(serializers.FloatField):
    """A finite JSON number; unlike its parent it does not take a string or a boolean for one."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float):
            raise serializers.ValidationError("Must be a number.")
        return super().to_internal_value(data)


class FlagField(serializers.BooleanField):
    """A JSON boolean; unlike its parent it does not take a string or a number for one."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise serializers.ValidationError("Must be true or false.")
        return data


class IdField(serializers.UUIDField):
    """A UUID as a string; unlike its parent it does not take a number for one."""

    def to_internal_value(self, data: Any) -> UUID:
        if not isinstance(data, str):
            raise serializers.ValidationError("Must be a UUID.")
        return super().to_internal_value(data)


class ObjectField(serializers.DictField):
    """A JSON object to be kept as JSONB: no NUL, no lone surrogate, bounded depth and size, finite numbers."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise serializers.ValidationError("Must be a JSON object.")
        errors = _unstorable(data, 0)
        if errors:
            raise serializers.ValidationError(errors)
        if len(json.dumps(data, ensure_ascii=False).encode()) > MAX_OBJECT_BYTES:
            raise serializers.ValidationError(f"At most {MAX_OBJECT_BYTES} bytes as JSON.")
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
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return ["Whole numbers must fit into 64 bits."]
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
