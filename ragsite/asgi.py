"""The ASGI application: Django's handler with one hop into a thread per request.

Every middleware and view of the site is synchronous. Django's own ASGI handler would run some of them on the event
loop and bridge to a thread and back for each of the others, which costs milliseconds (benchmarks/RESULTS.md). Here the
whole chain runs in the request's thread, as it would under WSGI, and only streams (server-sent events) are sent from
the event loop, which notices when a client goes away.
"""

from __future__ import annotations

import os
from typing import Any

import django
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.base import BaseHandler
from django.http import HttpRequest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ragsite.settings")


class OneThreadHandler(ASGIHandler):
    def __init__(self) -> None:
        BaseHandler.__init__(self)
        self.load_middleware(is_async=False)

    async def get_response_async(self, request: HttpRequest) -> Any:
        return await sync_to_async(self.get_response, thread_sensitive=True)(request)


django.setup(set_prefix=False)
application = OneThreadHandler()
