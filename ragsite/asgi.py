"""The ASGI application: Django's handler with one hop into a thread per request.

Every middleware and view of the site is synchronous. Django's own ASGI handler would run some of them on the event
loop and bridge to a thread and back for each of the others, which costs milliseconds (benchmarks/RESULTS.md). Here the
whole chain runs in the request's thread, as it would under WSGI, and only streams (server-sent events) are sent from
the event loop, which notices when a client goes away.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib import import_module
from io import SEEK_END, BytesIO
from typing import IO, Any

import django
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.conf import settings
from django.core.exceptions import BadRequest, RequestAborted, RequestDataTooBig
from django.core.handlers.asgi import ASGIHandler, ASGIRequest, get_script_prefix
from django.core.handlers.base import BaseHandler
from django.core.signals import request_started
from django.http import HttpRequest
from django.urls import set_script_prefix

from apps.access import leaving

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ragsite.settings")

Message = dict[str, Any]
#: That wait for another request; more are there while more are answered at once.
KEPT_THREADS = 64


class BoundedBody:
    """`receive` of one request, up to a number of bytes: a body that declares or brings more ends there.

    What follows is read and thrown away, so that a client that sends all before it listens hears the refusal.
    """

    def __init__(self, scope: dict[str, Any], receive: Callable[[], Awaitable[Message]], limit: int) -> None:
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        self.receive, self.left = receive, limit
        self.too_large = declared.isdigit() and int(declared[:20]) > limit
        self.ended = False

    async def __call__(self) -> Message:
        if self.too_large and not self.ended:
            self.ended = True
            return {"type": "http.request", "body": b"", "more_body": False}
        message = await self.receive()
        while self.too_large and message["type"] == "http.request":
            message = await self.receive()
        self.left -= len(message.get("body", b""))
        if self.left < 0 and not self.too_large:
            self.too_large = self.ended = True
            return {"type": "http.request", "body": b"", "more_body": False}
        return message


class StreamedBody:
    """The body of one request, piece by piece while it comes: for a view that answers while it reads."""

    def __init__(self, receive: Callable[[], Awaitable[Message]]) -> None:
        self.receive = receive
        self.ended = asyncio.Event()
        self.too_large = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Raises RequestAborted when the client goes away before the end."""
        while not self.ended.is_set():
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise RequestAborted
            if not message.get("more_body", False):
                self.ended.set()
            yield message.get("body", b"")

    async def left(self) -> Message:
        """Once the body has been read, wait until the client goes away."""
        await self.ended.wait()
        return await self.receive()


class Lent(Executor):
    """A thread for each call, from those that are idle: a new one would build its own set of database wrappers, which
    takes longer than most queries. Between its calls a request holds none, so that thousands may be streamed."""

    def __init__(self) -> None:
        self.idle: deque[ThreadPoolExecutor] = deque()

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        try:
            thread = self.idle.pop()
        except IndexError:
            thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="request")
        done = thread.submit(call, *args, **kwargs)
        done.add_done_callback(lambda _: self.give_back(thread))
        return done

    def give_back(self, thread: ThreadPoolExecutor) -> None:
        if len(self.idle) < KEPT_THREADS:
            self.idle.append(thread)
        else:
            thread.shutdown(wait=False)


class OneThreadHandler(ASGIHandler):
    def __init__(self) -> None:
        BaseHandler.__init__(self)
        self.load_middleware(is_async=False)
        self.threads = Lent()
        self.respond_in_thread = sync_to_async(self.respond)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError(f"ragsite speaks HTTP, not {scope['type']}")
        async with ThreadSensitiveContext(executor=self.threads):
            await self.handle_in(scope, receive, send)

    async def handle_in(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Django's own `handle`, with the signals, the middlewares, the view and the closing in one visit to the
        thread, after what the express way answers. A call is not interrupted when its client goes away (a thread cannot
        be), but for what it has the event loop do (apps/access/leaving.py); a stream is."""
        streamed = StreamedBody(receive) if _is_ndjson(scope) else None
        bounded = BoundedBody(scope, receive, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
        try:
            body_file = BytesIO() if streamed else await self.read_body(bounded)
        except RequestAborted:
            return
        with body_file:
            size = body_file.seek(0, SEEK_END)
            body_file.seek(0)
            headers = express.headers_of(scope) if not streamed and 0 < size <= express.MOST_BYTES else None
            if headers is not None:
                loop = asyncio.get_running_loop()
                answered = await loop.run_in_executor(self.threads, express.respond, scope, headers, body_file.read())
                if answered is not None:
                    status, told, content = answered
                    await send({"type": "http.response.start", "status": status, "headers": told})
                    await send({"type": "http.response.body", "body": content})
                    return
                body_file.seek(0)
            request, _ = self.create_request(scope | {"ragsite.body": streamed or bounded}, body_file)
            if not streamed:
                leaving.gone.set(partial(self.listen_for_disconnect, receive))
            response = await self.respond_in_thread(request)
            if not response.streaming:
                await self.send_response(response, send)
                if streamed:  # was refused: a client that sends all before it listens has to get rid of it
                    with suppress(RequestAborted):
                        async for _ in streamed:
                            pass
                return
            sending = asyncio.create_task(self.send_response(response, send))
            left = asyncio.create_task(self.listen_for_disconnect(streamed.left if streamed else receive))
            try:
                await asyncio.wait((sending, left), return_when=asyncio.FIRST_COMPLETED)
            finally:
                left.cancel()
                sending.cancel()
                _, sent = await asyncio.gather(left, sending, return_exceptions=True)
                await sync_to_async(response.close)()
            if isinstance(sent, Exception):
                raise sent

    def respond(self, request: ASGIRequest) -> Any:
        """In the request's thread: the response, closed unless it is a stream that has still to be sent."""
        set_script_prefix(get_script_prefix(request.scope))
        request_started.send(sender=self.__class__, scope=request.scope)
        response = self.get_response(request)
        response._handler_class = self.__class__  # type: ignore[attr-defined]
        if not response.streaming:
            response.close()
        return response

    def create_request(self, scope: Mapping[str, Any], body_file: IO[bytes]) -> tuple[ASGIRequest, None]:
        """Always a request: one that is refused gets its problem document and its id from the middlewares as well."""
        refused: Exception | None = None
        try:
            request = ASGIRequest(scope, body_file)
        except UnicodeDecodeError:
            request = ASGIRequest({**scope, "query_string": b""}, body_file)
            refused = BadRequest("The query string is not ASCII.")
        if scope["ragsite.body"].too_large:
            refused = RequestDataTooBig()
        request.META["ragsite.refused"] = refused
        request.META["ragsite.body"] = scope["ragsite.body"]
        # A chunked body declares no length, and REST framework would take it for an empty one; of a body that is still
        # to come any length but 0 will do.
        streamed = isinstance(scope["ragsite.body"], StreamedBody)
        request.META["CONTENT_LENGTH"] = "1" if streamed else str(body_file.seek(0, SEEK_END))
        body_file.seek(0)
        return request, None

    def resolve_request(self, request: HttpRequest) -> Any:
        if request.META["ragsite.refused"]:
            raise request.META["ragsite.refused"]
        return super().resolve_request(request)


def _is_ndjson(scope: dict[str, Any]) -> bool:
    """A body of lines is read by its view, while it answers (documents/bulk); all others refuse the type."""
    found = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return found.partition(b";")[0].strip().lower() == b"application/x-ndjson"


django.setup(set_prefix=False)
express = import_module("ragsite.express")  # not to be imported before the setup
application = OneThreadHandler()
# What is there now stays, and need not be looked through again; a request makes thousands of objects that do not.
gc.collect()
gc.freeze()
gc.set_threshold(20_000, 20, 20)
import_module("ragsite.warm").in_background()
