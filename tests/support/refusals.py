"""How every refusal of the API looks, and the addresses that tests try it on."""

from __future__ import annotations

from typing import Any

import httpx

NOBODY = "00000000-0000-0000-0000-000000000000"
DOCUMENTS, SEARCH, CHAT = "/api/v1/documents", "/api/v1/search", "/v1/chat/completions"


def refused(response: httpx.Response, status: int, code: str | None = None, pointer: str | None = None) -> dict:
    """The problem document of a refusal, checked for what all of them have in common."""
    assert response.status_code == status, response.text
    request_id = response.headers["x-request-id"]
    body = response.json()
    assert "Traceback" not in response.text
    if response.url.path.startswith("/v1/"):
        assert set(body["error"]) == {"message", "type", "param", "code"}
        return body["error"]
    assert response.headers["content-type"] == "application/problem+json"
    assert body["status"] == status and body["request_id"] == request_id and body["detail"] and body["title"]
    assert code is None or body["code"] == code, body
    assert pointer is None or pointer in [error["pointer"] for error in body["errors"]], body
    return body


def nothing_stored(client: httpx.Client) -> bool:
    return client.get(DOCUMENTS).json()["results"] == [] and client.get("/api/v1/jobs").json()["results"] == []


def send(client: httpx.Client, body: Any, path: str = DOCUMENTS, **headers: str) -> httpx.Response:
    return client.post(path, content=body, headers={"Content-Type": "application/json"} | headers)
