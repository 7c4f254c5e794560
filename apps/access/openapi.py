"""How the API shows in its OpenAPI document: what each operation does, for whom, and how it refuses."""

from __future__ import annotations

import inspect
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema

from .authentication import ApiKeyAuthentication
from .permissions import needed_scope
from .problems import MEDIA_TYPE
from .serializers import StrictSerializer


class OperationSchema(AutoSchema):
    """The first line of a method's docstring is the summary; the rest, and the scope it needs, the description."""

    def _told(self) -> tuple[str, str]:
        first, _, rest = (inspect.getdoc(getattr(self.view, self.method.lower())) or "").partition("\n")
        return first.rstrip("."), rest.strip()

    def get_summary(self) -> str:
        return self._told()[0]

    def get_description(self) -> str:  # type: ignore[override]
        scope = f"Needs a key with the scope `{needed_scope(self.view, self.method)}`."
        return "\n\n".join(part for part in (self._told()[1], scope) if part)

    def get_tags(self) -> list[str]:
        return ["OpenAI"] if self.path.startswith("/v1/") else [self.path.split("/")[3]]


class ApiKeyScheme(OpenApiAuthenticationExtension):
    target_class = ApiKeyAuthentication
    name = ["bearer", "apiKey"]

    def get_security_requirement(self, auto_schema: object) -> list[dict[str, list[str]]]:
        """One or the other, not both."""
        return [{name: []} for name in self.name]

    def get_security_definition(self, auto_schema: object) -> list[dict[str, str]]:
        return [
            {"type": "http", "scheme": "bearer"},
            {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        ]


class StrictSchema(OpenApiSerializerExtension):
    """Unknown fields are refused."""

    target_class = StrictSerializer
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Any) -> Any:
        found = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        return found | {"additionalProperties": False}


def add_refusals(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """drf-spectacular's hook: every operation may answer with a problem document, or OpenAI's error under /v1/.

    Where it answers line by line, a line may be a problem, too.
    """
    text, whole, uuid = {"type": "string"}, {"type": "integer"}, {"type": "string", "format": "uuid"}
    bad_field = {"type": "object", "properties": {"pointer": text | {"description": "JSON pointer"}, "detail": text}}
    members = {"type": text, "title": text, "status": whole, "detail": text, "code": text, "request_id": text}
    numbered = whole | {"description": "number of the line, from 1"}
    more = {
        "errors": {"type": "array", "items": bad_field},
        "current_version": whole | {"description": "that a write must be above, where it was `stale_version`"},
        "id": uuid | {"description": "of the document that was accepted and could not be read"},
        "job": uuid | {"description": "that could not read it"},
    }
    openai = {name: text | {"nullable": True} for name in ("message", "type", "param", "code")}
    shapes = {
        "Problem": {"type": "object", "required": list(members), "properties": members | more},
        "LineProblem": {
            "allOf": [_named("Problem"), {"type": "object", "required": ["line"], "properties": {"line": numbered}}]
        },
        "OpenAIError": {"type": "object", "properties": {"error": {"type": "object", "properties": openai}}},
    }
    result["components"]["schemas"].update(shapes)
    for path, operations in result["paths"].items():
        name, media_type = ("OpenAIError", "application/json") if path.startswith("/v1/") else ("Problem", MEDIA_TYPE)
        answer = {"content": {media_type: {"schema": _named(name)}}}
        for operation in operations.values():
            for response in operation["responses"].values():
                if line := response.get("content", {}).get("application/x-ndjson"):
                    line["schema"] = {"oneOf": [line["schema"], _named("LineProblem")]}
            operation["responses"]["default"] = answer | {"description": "Why the request was refused."}
    return result


def _named(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}
