"""OpenAI's request bodies, as far as ragsite reads them.

Other fields are tolerated, unless the answer would not be what they ask for; wrong types are not.
"""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.access.problems import Problem, invalid
from apps.access.serializers import FlagField, NumberField, ObjectField, TextField, WholeField, unstorable_text
from apps.retrieval.serializers import MAX_QUERY, WhenMixin

from .openai_tools import text_of, tool_use
from .serializers import MAX_TOKENS, ResponseFormatField, attribution_field, min_grounded_field, slugs_field
from .types import Turn

MAX_MESSAGES = 1_000
MAX_SAID = 200_000  # characters of a message before the question
MAX_TOOLS = 128  # OpenAI's own limit
MAX_INPUTS = 2_048  # OpenAI's own limit
MAX_STOP = 500  # characters of a stop sequence
_STRINGS = {"type": "array", "items": {"type": "string"}}


@extend_schema_field({"oneOf": [{"type": "string"}, _STRINGS]})
class StopField(serializers.Field):
    """A string of up to MAX_STOP characters, or up to four of them."""

    def to_internal_value(self, data: Any) -> list[str]:
        found = [data] if isinstance(data, str) else data
        if not isinstance(found, list) or len(found) > 4 or not all(isinstance(item, str) for item in found):
            raise serializers.ValidationError("Must be a string or a list of up to four.")
        for item in found:
            if len(item) > MAX_STOP:
                raise serializers.ValidationError(f"At most {MAX_STOP} characters each.")
            if problem := unstorable_text(item):
                raise serializers.ValidationError(problem)
        return [item for item in found if item]

    def to_representation(self, value: Any) -> Any:
        return value


class MetadataField(serializers.DictField):
    """Up to 16 names of up to 64 characters, each with a text of up to 512, as OpenAI bounds them."""

    child = TextField(allow_blank=True, max_length=512)

    def to_internal_value(self, data: Any) -> dict[str, str]:
        found = super().to_internal_value(data)
        if len(found) > 16 or any(len(name) > 64 or unstorable_text(name) for name in found):
            raise serializers.ValidationError("At most 16 names of at most 64 characters.")
        return found


class StreamOptionsSerializer(serializers.Serializer):
    include_usage = FlagField(required=False, default=False)


class MessageSerializer(serializers.Serializer):
    role = TextField()
    content = serializers.JSONField(required=False, allow_null=True)
    tool_calls = serializers.ListField(child=ObjectField(), required=False, allow_null=True, max_length=MAX_TOOLS)
    tool_call_id = TextField(required=False, allow_null=True, max_length=200)


class ChatSerializer(WhenMixin, serializers.Serializer):
    """validated_data also holds `question`, the last user message's text, `before`, the turns before it, and `tool_use`
    (tools.Tools) where there is something of tools."""

    model = TextField(required=False, allow_null=True, max_length=200)
    messages = serializers.ListField(child=MessageSerializer(), allow_empty=False, max_length=MAX_MESSAGES)
    collections = slugs_field()
    k = WholeField(required=False, min_value=1, max_value=200)
    stream = FlagField(required=False, allow_null=True)
    rerank = FlagField(required=False, allow_null=True)
    stream_options = StreamOptionsSerializer(required=False, allow_null=True)
    n = WholeField(required=False, allow_null=True)
    temperature = NumberField(required=False, allow_null=True, min_value=0, max_value=2)
    top_p = NumberField(required=False, allow_null=True, min_value=0, max_value=1)
    max_tokens = WholeField(required=False, allow_null=True, min_value=1, max_value=MAX_TOKENS)
    max_completion_tokens = WholeField(required=False, allow_null=True, min_value=1, max_value=MAX_TOKENS)
    stop = StopField(required=False, allow_null=True)
    seed = WholeField(required=False, allow_null=True, min_value=-(2**63), max_value=2**63 - 1)
    response_format = ResponseFormatField(required=False, allow_null=True)
    user = TextField(required=False, allow_null=True, allow_blank=True, max_length=512)
    metadata = MetadataField(required=False, allow_null=True)
    tools = serializers.ListField(child=ObjectField(), required=False, allow_null=True, max_length=MAX_TOOLS)
    tool_choice = serializers.JSONField(required=False, allow_null=True)
    parallel_tool_calls = FlagField(required=False, allow_null=True)
    attribution = attribution_field()
    min_grounded = min_grounded_field()

    def to_internal_value(self, data: Any) -> Any:
        _refuse_orders(data)
        return super().to_internal_value(data)

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("n") not in (None, 1):
            raise invalid("/n", "n must be 1: one answer per question.", code="unsupported_value")
        values["question"] = question(values["messages"])
        values["tool_use"] = tool_use(values)
        values["before"] = before(values["messages"])
        values["max_tokens"] = values.get("max_completion_tokens") or values.get("max_tokens")
        values = {name: value for name, value in values.items() if value is not None}
        return values


def _refuse_orders(data: Any) -> None:
    """Raise Problem 400 for what would change the answer."""
    if not isinstance(data, dict):
        return
    ordered = ["function_call"] if data.get("function_call") not in (None, "none", "auto") else []
    for name in [*ordered, *(["logprobs"] if data.get("logprobs") else [])]:
        raise invalid(f"/{name}", f"{name}: not supported.", code="unsupported_value")


def question(messages: list[dict[str, Any]]) -> str:
    """The text of the last user message: a string, or the text parts of a list. Raises Problem 400."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index]["role"] == "user":
            return _text(messages[index].get("content"), f"/messages/{index}/content")
    raise invalid("/messages", "There is no message with the role 'user'.")


def before(messages: list[dict[str, Any]]) -> tuple[Turn, ...]:
    """What was said before the last user message: each text of the assistant with that of the user before it.

    What a ragsite model is to do it knows from ragsite: messages with other roles are not read. Raises Problem 400.
    """
    found: list[Turn] = []
    asked = ""
    last = max(index for index, message in enumerate(messages) if message["role"] == "user")
    for index, message in enumerate(messages[:last]):
        said, content = message["role"], message.get("content")
        if said not in ("user", "assistant") or not content:
            continue
        text = _text(content, f"/messages/{index}/content", most=MAX_SAID)
        if said == "user":
            asked = text
        elif asked:
            found.append(Turn(asked, text))
            asked = ""
    return tuple(found)


def _text(content: Any, pointer: str, *, most: int = MAX_QUERY) -> str:
    text = text_of(content, pointer)
    if not text.strip():
        raise invalid(pointer, "The question is empty.")
    if len(text) > most:
        raise invalid(pointer, f"At most {most} characters are read.")
    return text.strip()


@extend_schema_field({"oneOf": [{"type": "string"}, _STRINGS]})
class InputField(serializers.Field):
    """A non-empty string or a list of them; lists of token ids are another model's and are refused."""

    def to_internal_value(self, data: Any) -> list[str]:
        texts = [data] if isinstance(data, str) else data
        if not isinstance(texts, list) or not texts:
            raise serializers.ValidationError("Must be a string or a non-empty list of strings.")
        if len(texts) > MAX_INPUTS:
            raise serializers.ValidationError(f"At most {MAX_INPUTS} texts.")
        if isinstance(texts[0], int | list):
            raise invalid("/input", "Tokens are another model's: send texts (check_embedding_ctx_length=False).")
        for index, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise Problem(
                    400,
                    "invalid",
                    "Each text must be a non-empty string.",
                    errors=[{"pointer": f"/input/{index}", "detail": "Must be a non-empty string."}],
                )
            if problem := unstorable_text(text):
                raise invalid(f"/input/{index}", problem)
        return texts

    def to_representation(self, value: Any) -> Any:
        return value


class EmbeddingsSerializer(serializers.Serializer):
    model = TextField(max_length=200)
    input = InputField()
    encoding_format = serializers.ChoiceField(choices=["float", "base64"], default="float", allow_null=True)
    dimensions = WholeField(required=False, allow_null=True, min_value=1)
    user = TextField(required=False, allow_null=True, allow_blank=True)


class ModelSerializer(serializers.Serializer):
    id = serializers.CharField()
    object = serializers.CharField(default="model")
    created = serializers.IntegerField()
    owned_by = serializers.CharField()


class ModelListSerializer(serializers.Serializer):
    object = serializers.CharField(default="list")
    data = ModelSerializer(many=True)  # type: ignore[assignment]
