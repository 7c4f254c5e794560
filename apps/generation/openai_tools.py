"""What a chat request says of tools, validated: `tools`, `tool_choice`, `parallel_tool_calls`, calls and results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from apps.access.problems import invalid
from apps.access.serializers import unstorable_text

from .prompts import harmless
from .tools import Tools

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


def tool_use(values: dict[str, Any]) -> Tools | None:
    """Of a ChatSerializer's values; None where there is nothing of tools. Raises Problem 400."""
    offered = values.get("tools") or []
    for index, tool in enumerate(offered):
        function = tool.get("function")
        if tool.get("type") != "function" or not isinstance(function, dict):
            raise invalid(f"/tools/{index}", "Only tools of type 'function' can be offered.")
        name = function.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise invalid(
                f"/tools/{index}/function/name", "Must be 1 to 64 letters, digits, dots, dashes, underscores."
            )
        if not isinstance(function.get("parameters", {}), dict):
            raise invalid(f"/tools/{index}/function/parameters", "Must be a JSON schema.")
    choice = _choice(values.get("tool_choice"), [tool["function"]["name"] for tool in offered])
    since = _since(values["messages"])
    if not offered and not since:
        return None
    return Tools(tuple(offered), choice if offered else None, values.get("parallel_tool_calls"), since)


def _choice(said: Any, names: Sequence[str]) -> str | dict[str, Any] | None:
    if said in (None, "none", "auto"):
        return said
    if said == "required":
        if names:
            return "required"
        raise invalid("/tool_choice", "There are no tools to call.")
    name = said["function"].get("name") if isinstance(said, dict) and isinstance(said.get("function"), dict) else None
    if name is None or said.get("type") != "function":
        raise invalid("/tool_choice", "Must be none, auto, required or one function by its name.")
    if name not in names:
        raise invalid("/tool_choice/function/name", "There is no tool of this name.")
    return {"type": "function", "function": {"name": name}}


def _since(messages: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The calls and results behind the last user message, as a model is sent them."""
    last = max((index for index, each in enumerate(messages) if each["role"] == "user"), default=len(messages))
    found: list[dict[str, Any]] = []
    known: set[str] = set()
    for index, message in list(enumerate(messages))[last + 1 :]:
        here = f"/messages/{index}"
        said = message.get("content")
        if message["role"] == "assistant" and message.get("tool_calls"):
            calls = [_call(call, f"{here}/tool_calls/{number}") for number, call in enumerate(message["tool_calls"])]
            known |= {call["id"] for call in calls}
            found.append({"role": "assistant", "content": said and joined(said, here), "tool_calls": calls})
        elif message["role"] == "tool":
            if message.get("tool_call_id") not in known:
                raise invalid(f"{here}/tool_call_id", "Must be the id of a call that stands before it.")
            content = joined("" if said is None else said, here)
            found.append({"role": "tool", "tool_call_id": message["tool_call_id"], "content": content})
    return tuple(found)


def _call(call: dict[str, Any], pointer: str) -> dict[str, Any]:
    function = call.get("function")
    texts = [call.get("id"), *(map(function.get, ("name", "arguments")) if isinstance(function, dict) else [None])]
    if not all(isinstance(text, str) for text in texts):
        raise invalid(pointer, "Must be a call: id, and function with name and arguments.")
    return {"id": texts[0], "type": "function", "function": {"name": texts[1], "arguments": texts[2]}}


def joined(content: Any, pointer: str) -> str:
    """The text of a message: a string, or text parts. It names no passage and begins no turn."""
    return harmless(text_of(content, f"{pointer}/content"))


def text_of(content: Any, pointer: str) -> str:
    """A string, or the text parts of a list, and refusals as an assistant has said them. Raises Problem 400."""
    if isinstance(content, list):
        for position, part in enumerate(content):
            kind = part.get("type") if isinstance(part, dict) else None
            if kind not in ("text", "refusal") or not isinstance(part.get(kind), str):
                raise invalid(f"{pointer}/{position}", "Only parts of type 'text' are read.")
        content = "\n".join(part[part["type"]] for part in content)
    if not isinstance(content, str):
        raise invalid(pointer, "Must be a string or a list of text parts.")
    if problem := unstorable_text(content):
        raise invalid(pointer, problem)
    return content
