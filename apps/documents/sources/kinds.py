"""What kinds of sources there are: their settings, checked, with the secret ones kept encrypted; and reading them.

What the operator allows (folders, private addresses, this machine's own credentials) is in the site's settings.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings

from ..connectors import folder, s3, web
from ..connectors.addresses import Allowed, parse
from ..connectors.types import Found, SourceError
from .items import AllAtOnce, Known
from .models import Source

Kind = Source.Kind
SECRET = "secret_key"
#: Kinds whose items come in the order of their keys, so that what is known of them need not be in memory.
ORDERED = frozenset({Kind.FOLDER, Kind.S3})
SCANNED = frozenset({Kind.FOLDER, Kind.S3, Kind.WEB})


def check(kind: str, given: Mapping[str, Any], *, before: Source | None = None) -> tuple[dict[str, Any], bytes | None]:
    """(settings to store, the encrypted secret). A secret that is left out stays as it was. Raises SourceError with a
    pointer into the settings."""
    match kind:
        case Kind.FOLDER:
            return folder.check(dict(given), _roots()), None
        case Kind.S3:
            key = given.get("access_key")
            if before is not None and key and key == before.settings.get("access_key") and not given.get(SECRET):
                given = {**given, **_opened(before)}
            checked = s3.check(dict(given))
            secret = checked.pop(SECRET)
            return checked, _sealed(secret) if secret else None
        case Kind.WEB:
            return web.check(given), None
    if given:
        raise SourceError("invalid", "A feed has no settings.", pointer=f"/settings/{min(given)}")
    return {}, None


def scan(source: Source, known: Known) -> Generator[Found, None, None]:
    """What the source holds now. Raises SourceError."""
    given = ({SECRET: ""} if source.kind == Kind.S3 else {}) | source.settings | _opened(source)
    most = settings.MAX_DOCUMENT_BYTES
    if "max_bytes" in given:
        given["max_bytes"] = min(given["max_bytes"], most)
    match source.kind:
        case Kind.FOLDER:
            yield from folder.scan(given, known, roots=_roots())
        case Kind.S3:
            yield from s3.scan(given, known, guard=_guard, ambient=settings.SOURCE_S3_CREDENTIALS)
        case Kind.WEB:
            assert isinstance(known, AllAtOnce)  # a crawl also asks what else there was
            yield from web.scan(given, known, allowed=settings.SOURCE_PRIVATE_HOSTS, max_bytes=most)
        case _:
            raise SourceError("invalid", "A feed is not read: its events are sent.")


def _roots() -> list[Path]:
    return [Path(each) for each in settings.SOURCE_FOLDERS]


def _guard(url: str) -> None:
    """Raises SourceError where the host of a request may not be connected to: at any of its addresses."""
    parts = urlsplit(url)
    asked = parse(f"{parts.scheme}://{parts.netloc}/")
    try:
        found = socket.getaddrinfo(asked.host, asked.port, type=socket.SOCK_STREAM)
    except OSError:
        raise SourceError("unreachable", f"There is no host {asked.host}.", pointer="/settings/endpoint") from None
    allowed = Allowed(settings.SOURCE_PRIVATE_HOSTS)
    if not all(allowed(asked.host, asked.port, str(each[4][0])) for each in found):
        detail = f"{asked.host} is at an address that is not public."
        raise SourceError("forbidden_address", detail, pointer="/settings/endpoint")


def _box() -> Fernet:
    key = hmac.new(settings.SECRET_KEY.encode(), b"ragsite source secrets", hashlib.sha256).digest()
    return Fernet(base64.urlsafe_b64encode(key))


def _sealed(secret: str) -> bytes:
    return _box().encrypt(secret.encode())


def _opened(source: Source) -> dict[str, str]:
    if source.secret is None:
        return {}
    try:
        return {SECRET: _box().decrypt(bytes(source.secret)).decode()}
    except InvalidToken:
        detail = "The stored secret cannot be read, because SECRET_KEY has changed: enter it again."
        raise SourceError("unauthorized", detail, pointer=f"/settings/{SECRET}") from None
