"""Slack exports: a folder per channel, a JSON file per day, people and channels by their ids.

No maintained library reads them; orjson does the part that is work.
"""

from __future__ import annotations

import html
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from apps.documents.parsing.archives.zipped import open_zip, read_member
from apps.documents.parsing.build import Builder, inline
from apps.documents.parsing.types import Parsed, ParseError

FINGERPRINT = "slack/1"

_LISTS = ("channels.json", "groups.json", "mpims.json", "dms.json")
_DAY = re.compile(r"([^/]+)/(\d{4}-\d\d-\d\d)\.json")
_STAMP = re.compile(r"\d{1,10}(?:\.\d{1,12})?")
_MARKUP = re.compile(r"<([^<>\n]{1,4000})>")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Messages that Slack writes itself: https://api.slack.com/events/message#subtypes
_NOISE = _words(
    "bot_add bot_remove bot_enable bot_disable channel_archive channel_convert_to_private channel_join channel_leave"
    " channel_name channel_posting_permissions channel_purpose channel_topic channel_unarchive ekm_access_denied"
    " group_archive group_join group_leave group_name group_purpose group_topic group_unarchive huddle_thread"
    " joiner_notification joiner_notification_for_inviter message_deleted pinned_item reminder_add reminder_delete"
    " sh_room_created tombstone unpinned_item"
)
_REPLY = "↳ "


@dataclass(slots=True)
class _Message:
    """A message as it is shown. `at` is its time in seconds since 1970, `key` and `thread` are Slack's own stamps."""

    day: str
    at: float
    key: str
    thread: str
    name: str
    text: str
    replies: list[_Message] = field(default_factory=list)

    def shown(self, day: str = "") -> str:
        """The line of the message; its day is named where it stands under another one."""
        hour, minute = divmod(int(self.at) // 60 % 1440, 60)
        time = f"{hour:02}:{minute:02}"
        return f"{self.name} ({time if self.day == day else f'{self.day} {time}'}): {self.text}"


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """A heading per channel and day, messages in the order of time (UTC), replies below what they answer.

    A file that cannot be read becomes a note. Raises ParseError("corrupt") and "encrypted".
    """
    with open_zip(data) as archive:
        return _Export(archive).built.parsed(media_type=media_type, parser=FINGERPRINT)


class _Export:
    """Reads one export from its lists to its last message."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.built = Builder()
        self._archive = archive
        self._names = set(archive.namelist())
        self._users = {_text(user, "id"): _user_name(user) for user in self._dicts("users.json")}
        listed = [channel for name in _LISTS for channel in self._dicts(name)]
        self._channels = {_text(channel, "id"): _text(channel, "name") for channel in listed}
        days: dict[str, list[tuple[str, str]]] = {}
        for name in sorted(self._names):
            if found := _DAY.fullmatch(name):
                days.setdefault(found[1], []).append((found[2], name))
        for channel in listed:
            folder = _text(channel, "name")
            files = days.pop(folder, None) or days.pop(_text(channel, "id"), None)
            if files:
                self._channel(channel, folder, files)
        for folder, files in days.items():
            self._channel({}, folder, files)

    def _dicts(self, name: str) -> list[dict[str, Any]]:
        """The objects of a file that holds a list of them."""
        if name not in self._names:
            return []
        try:
            found = orjson.loads(read_member(self._archive, name))
        except (ParseError, orjson.JSONDecodeError):
            self.built.note(f"The file {inline(name)[-80:]} of the export is damaged and was left out.")
            return []
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    def _channel(self, channel: dict[str, Any], folder: str, files: list[tuple[str, str]]) -> None:
        messages = _threaded([message for day, name in files for message in self._messages(day, name)])
        if not messages:
            return
        members = channel.get("members")
        if isinstance(members, list) and (not folder or folder.startswith("mpdm-")):
            title = ", ".join(self._users.get(str(member), str(member)) for member in members)
        else:
            title = "#" + folder
        self.built.heading(title, 1)
        for key in ("purpose", "topic"):
            about = channel.get(key)
            self.built.paragraph(self._resolved(_text(about, "value") if isinstance(about, dict) else ""))
        day = ""
        for message in messages:
            if message.day != day:
                day = message.day
                self.built.heading(day, 2)
            orphan = message.thread not in ("", message.key)
            self._say((_REPLY if orphan else "") + message.shown(day))
            for reply in message.replies:
                self._say(_REPLY + reply.shown(day))

    def _say(self, line: str) -> None:
        """A message; what it quotes between ``` is code."""
        for index, part in enumerate(line.split("```")):
            self.built.code(part) if index % 2 else self.built.paragraph(part)

    def _messages(self, day: str, name: str) -> Iterator[_Message]:
        for each in self._dicts(name):
            if each.get("subtype") in _NOISE or each.get("hidden"):
                continue
            key = _text(each, "ts")
            text = self._content(each)
            if text and (at := _seconds(key)) is not None:
                yield _Message(day, at, key, _text(each, "thread_ts"), self._author(each), text)

    def _author(self, message: dict[str, Any]) -> str:
        user = _text(message, "user") or _text(message, "bot_id")
        profile = message.get("user_profile")
        return (
            self._users.get(user)
            or (_user_name({"profile": profile, "id": user}) if isinstance(profile, dict) else "")
            or _text(message, "username")
            or _user_name({"profile": message.get("bot_profile"), "id": user})
            or "Unknown"
        )

    def _content(self, message: dict[str, Any]) -> str:
        """What was said, what an app attached (not the preview of a link) and the names of files."""
        text = self._resolved(_text(message, "text"))
        if text and not (message.get("attachments") or message.get("files")):  # most
            return text
        parts = [text]
        for each in _objects(message, "attachments"):
            if not (each.get("from_url") or each.get("original_url")):
                shown = [self._resolved(_text(each, key)) for key in ("pretext", "title", "text")]
                for row in _objects(each, "fields"):
                    shown.append(self._resolved(f"{_text(row, 'title')}: {_text(row, 'value')}"))
                parts += shown if any(shown) else [self._resolved(_text(each, "fallback"))]
        if not any(parts):
            parts = [self._resolved("".join(_block_text(_objects(message, "blocks"))))]
        names = filter(None, [_text(file, "name") or _text(file, "title") for file in _objects(message, "files")])
        if files := ", ".join(names):
            parts.append(f"[{files}]")
        return "\n".join(filter(None, parts))

    def _resolved(self, text: str) -> str:
        """Text without Slack's markup: https://api.slack.com/reference/surfaces/formatting"""
        if "<" in text:
            text = _MARKUP.sub(lambda found: self._target(found[1]), text)
        return html.unescape(text).strip()

    def _target(self, markup: str) -> str:
        what, _, label = markup.partition("|")
        if what.startswith("@"):
            return "@" + (self._users.get(what[1:]) or label.removeprefix("@") or what[1:])
        if what.startswith("#"):
            return "#" + (label or self._channels.get(what[1:]) or what[1:])
        if what.startswith("!"):
            return label or "@" + what[1:].split("^", 1)[0]
        return label or what.removeprefix("mailto:")


def _text(holder: dict[str, Any], key: str) -> str:
    value = holder.get(key)
    return value if isinstance(value, str) else ""


def _objects(holder: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = holder.get(key)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _user_name(user: dict[str, Any]) -> str:
    """As Slack shows a person: the display name, else the real one, else the account's."""
    profile = user.get("profile")
    profile = profile if isinstance(profile, dict) else {}
    names = (_text(profile, "display_name"), _text(profile, "real_name"), _text(user, "real_name"))
    others = (_text(profile, "name"), _text(user, "name"), _text(user, "id"))
    return next((shown for name in names + others if (shown := inline(name))), "")


def _seconds(stamp: str) -> float | None:
    """Seconds since 1970 of a stamp such as "1577836800.000200", None where it is none."""
    return float(stamp) if _STAMP.fullmatch(stamp) else None


def _block_text(blocks: list[dict[str, Any]]) -> Iterator[str]:
    """The words of Block Kit, for messages that have no plain text."""
    stack: list[Any] = list(reversed(blocks))
    while stack:
        each = stack.pop()
        if isinstance(each, list):
            stack.extend(reversed(each))
        elif isinstance(each, dict):
            kind = each.get("type")
            if kind == "user":
                yield f"<@{_text(each, 'user_id')}>"
            elif kind == "channel":
                yield f"<#{_text(each, 'channel_id')}>"
            elif isinstance(each.get("text"), str):
                yield each["text"]
            elif kind == "link":
                yield _text(each, "url")
            stack.extend(
                reversed(
                    [each[key] for key in ("text", "fields", "elements") if isinstance(each.get(key), dict | list)]
                )
            )
            if kind in ("rich_text_section", "section", "header", "context"):
                stack.append({"text": "\n"})


def _threaded(messages: list[_Message]) -> list[_Message]:
    """Messages in the order of time, each once, the replies in their parents where those are there."""
    unique = {(message.key, message.name): message for message in messages}
    ordered = sorted(unique.values(), key=lambda message: (message.day, message.at))
    parents = {message.key: message for message in ordered if message.thread in ("", message.key)}
    top = []
    for message in ordered:
        parent = parents.get(message.thread) if message.thread != message.key else None
        if parent is None:
            top.append(message)
        else:
            parent.replies.append(message)
    return top
