"""A small web site of a test's own, served from a thread."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


@dataclass
class Reply:
    """What a path answers. Without `validators` it has no ETag; with them a matching request gets a 304."""

    body: bytes = b""
    media_type: str = "text/html; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    validators: bool = True


Answer = Reply | Callable[[BaseHTTPRequestHandler], None]


def page(*links: str, head: str = "", text: str = "") -> Reply:
    """An HTML page with links."""
    anchors = "".join(f'<a href="{link}">{link}</a>' for link in links)
    return Reply(f"<!doctype html><html><head>{head}</head><body>{text}{anchors}</body></html>".encode())


def redirect(location: str, status: int = 302) -> Reply:
    """A redirect to anywhere."""
    return Reply(status=status, headers={"Location": location}, validators=False)


class Site:
    """`pages` maps paths, with their queries, to answers, and may change at any time; the rest is 404. `requests` has
    (path, status) of each request, in order, and `sent` the headers of each."""

    def __init__(self, pages: Mapping[str, Answer] | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self.pages: dict[str, Answer] = dict(pages or {})
        self.requests: list[tuple[str, int]] = []
        self.sent: list[dict[str, str]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # headers and body are two writes, and the second would wait 40 ms

            def do_GET(self) -> None:
                site._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def statuses(self) -> dict[str, int]:
        """The last status of each path asked for, and forget all requests so far."""
        found = dict(self.requests)
        self.requests.clear()
        self.sent.clear()
        return found

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        answer = self.pages.get(request.path, Reply(status=404, validators=False))
        self.sent.append({name.lower(): value for name, value in request.headers.items()})
        if not isinstance(answer, Reply):
            self.requests.append((request.path, 0))
            with contextlib.suppress(OSError):  # the client has gone
                answer(request)
            request.close_connection = True
            return
        etag = f'"{hashlib.sha256(answer.body).hexdigest()[:16]}"'
        status, body = answer.status, answer.body
        if answer.validators and request.headers.get("If-None-Match") == etag:
            status, body = 304, b""
        self.requests.append((request.path, status))
        request.send_response(status)
        headers = {"Content-Type": answer.media_type, **answer.headers}
        if answer.validators:
            headers["ETag"] = etag
        if status != 304:
            headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)
