"""Slack exports: channels, days, messages and threads as a reader of Slack sees them."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from apps.documents.parsing import Parsed, parse
from tests.support.parsed import code_of, shown

USERS: list[dict[str, Any]] = [
    {"id": "U1", "name": "ann", "profile": {"display_name": "Ann", "real_name": "Ann Smith"}},
    {"id": "U2", "name": "ben", "real_name": "Ben Jones", "profile": {"display_name": ""}},
]
GENERAL = {"id": "C1", "name": "general", "purpose": {"value": "For all &amp; sundry"}, "topic": {"value": ""}}
NOON = 1_577_880_000  # 2020-01-01 12:00 UTC


def message(text: str, at: int = 0, user: str = "U1", **more: Any) -> dict[str, Any]:
    """A message `at` seconds after noon of the first day."""
    return {"type": "message", "user": user, "text": text, "ts": f"{NOON + at}.000100", **more}


def export(files: dict[str, Any]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in {"users.json": USERS, "channels.json": [GENERAL], **files}.items():
            archive.writestr(name, content if isinstance(content, bytes) else json.dumps(content))
    return target.getvalue()


def read(*messages: Any, **files: Any) -> Parsed:
    return parse(export({"general/2020-01-01.json": list(messages), **files}), filename="export.zip")


def said(*messages: Any) -> list[str]:
    return [text for kind, text in shown(read(*messages)) if kind != "heading"][1:]


def test_channels_days_and_messages() -> None:
    parsed = read(message("Later", 60, "U2"), message("Hello", 0))
    assert [(block.level, text) for block, (_, text) in zip(parsed.blocks, shown(parsed), strict=True)] == [
        (1, "#general"),
        (0, "For all & sundry"),
        (2, "2020-01-01"),
        (0, "Ann (12:00): Hello"),
        (0, "Ben Jones (12:01): Later"),
    ]
    assert (parsed.parser, parsed.media_type) == ("slack/1", "application/x-slack-export+zip")


def test_replies_stand_under_what_they_answer() -> None:
    first, second = message("Question", 0), message("Other", 30, "U2")
    first["thread_ts"] = first["ts"]
    reply = message("Answer", 60, "U2", thread_ts=first["ts"])
    late = message("Next day", 86_400, thread_ts=first["ts"])
    data = export({"general/2020-01-01.json": [first, second, reply], "general/2020-01-02.json": [late]})
    assert [text for _, text in shown(parse(data))][3:] == [
        "Ann (12:00): Question",
        "↳ Ben Jones (12:01): Answer",
        "↳ Ann (2020-01-02 12:00): Next day",
        "Ben Jones (12:00): Other",
    ]


def test_a_reply_whose_parent_is_gone_stands_on_its_day() -> None:
    assert said(message("Answer", 0, thread_ts="1.000100")) == ["↳ Ann (12:00): Answer"]


def test_markup_is_resolved() -> None:
    text = "<@U2> see <#C1|general> or <#C1>: <https://a.example|the page> &lt;b&gt; <https://b.example> <!here> <@U9>"
    assert said(message(text)) == [
        "Ann (12:00): @Ben Jones see #general or #general: the page <b> https://b.example @here @U9"
    ]


def test_code_between_backticks_is_code() -> None:
    parsed = read(message("Try ```def f():\n    pass``` now"))
    assert shown(parsed)[3:] == [
        ("paragraph", "Ann (12:00): Try"),
        ("code", "def f():\n    pass"),
        ("paragraph", "now"),
    ]


def test_what_slack_says_itself_is_left_out() -> None:
    noise = [
        message("joined", at, subtype=subtype) for at, subtype in enumerate(["channel_join", "bot_add", "tombstone"])
    ]
    assert said(*noise, message("Real", 9)) == ["Ann (12:00): Real"]


def test_bots_files_and_attachments_are_named() -> None:
    bot = {"subtype": "bot_message", "username": "Deploy", "bot_id": "B1", "ts": f"{NOON}.1", "text": ""}
    bot["attachments"] = [{"title": "Build 7", "text": "passed", "fields": [{"title": "Branch", "value": "main"}]}]
    preview = message("See <https://a.example>", 60, attachments=[{"from_url": "https://a.example", "text": "A page"}])
    file = message("", 120, files=[{"name": "plan.pdf", "title": "Plan"}, {"id": "F2"}])
    assert said(bot, preview, file) == [
        "Deploy (12:00): Build 7\npassed\nBranch: main",
        "Ann (12:01): See https://a.example",
        "Ann (12:02): [plan.pdf]",
    ]


def test_a_message_of_blocks_only_is_read() -> None:
    elements = [{"type": "text", "text": "Hi "}, {"type": "user", "user_id": "U2"}]
    block = {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": elements}]}
    assert said(message("", blocks=[block])) == ["Ann (12:00): Hi @Ben Jones"]


def test_direct_messages_are_called_by_who_is_in_them() -> None:
    data = export(
        {
            "dms.json": [{"id": "D1", "members": ["U1", "U2"]}],
            "mpims.json": [{"id": "G1", "name": "mpdm-ann--ben-1", "members": ["U2", "U1"]}],
            "groups.json": [{"id": "G2", "name": "secret"}],
            "D1/2020-01-01.json": [message("one")],
            "mpdm-ann--ben-1/2020-01-01.json": [message("two")],
            "secret/2020-01-01.json": [message("three")],
            "unlisted/2020-01-01.json": [message("four")],
        }
    )
    parsed = parse(data)
    headings = [text for block, (_, text) in zip(parsed.blocks, shown(parsed), strict=True) if block.level == 1]
    assert headings == ["#secret", "Ben Jones, Ann", "Ann, Ben Jones", "#unlisted"]


def test_the_same_message_twice_is_said_once() -> None:
    assert said(message("Once"), message("Once")) == ["Ann (12:00): Once"]


def test_people_unknown_to_the_export_keep_what_is_known_of_them() -> None:
    assert said(message("Hi", user="U7"), message("Ho", 60, user="U8", user_profile={"display_name": "Guest"})) == [
        "U7 (12:00): Hi",
        "Guest (12:01): Ho",
    ]


def test_a_damaged_day_is_noted_and_the_others_are_read() -> None:
    data = export({"general/2020-01-01.json": b"[{", "general/2020-01-02.json": [message("Fine", 86_400)]})
    parsed = parse(data)
    assert "Ann (12:00): Fine" in parsed.text
    assert parsed.notes == ["The file general/2020-01-01.json of the export is damaged and was left out."]


def test_odd_shapes_are_passed_over() -> None:
    odd = [None, 7, {}, {"text": "no time"}, {"ts": "soon", "text": "x"}, message("Good", attachments=[3], files="x")]
    parsed = parse(export({"general/2020-01-01.json": odd, "general/2020-01-03.json": {"ok": False}, "dms.json": [1]}))
    assert shown(parsed)[-1] == ("paragraph", "Ann (12:00): Good")


def test_an_export_without_messages_is_empty() -> None:
    assert code_of(export({})) == "empty"


def test_a_truncated_export_is_corrupt() -> None:
    assert code_of(export({"general/2020-01-01.json": [message("x")]})[:-40], filename="a.zip") == "corrupt"


def test_scripts_from_right_to_left_and_without_spaces_are_kept() -> None:
    assert said(message("مرحبا 世界")) == ["Ann (12:00): مرحبا 世界"]
