"""A guarded HTTP client: what a stranger's URL can make this machine connect to, and how much it can make it read.

Each connection goes to an address that was checked after the name was resolved, and to no other: a name that
resolves differently a moment later gains nothing. Redirects are new requests and are checked as such. Proxies and
cookies do not exist here.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, Self, cast

import httpcore
import httpx

from .addresses import Allowed, Url, parse
from .types import SourceError

MAX_BYTES = 128 * 2**20  # decoded, of one body
MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SPOOL_BYTES = 256 * 1024  # a longer body waits on disk
_CONNECT_SECONDS = 10.0
_ADDRESSES = 6  # of one host, that are tried
_INFLATED = 64 * 1024  # bytes at a time: however small the bomb


class HttpError(SourceError):
    """The server answered, with a status that is an error. `headers` are its."""

    def __init__(self, status: int, host: str, headers: httpx.Headers) -> None:
        self.status, self.headers = status, headers
        code = {401: "unauthorized", 403: "unauthorized", 404: "not_found", 410: "not_found"}.get(status, "unreachable")
        super().__init__(code, f"{host} answered with status {status}.")


@dataclass(frozen=True, slots=True)
class Response:
    """What a server answered. `body` is at its start, decoded, and closed by the caller; empty where not wanted."""

    status: int
    headers: httpx.Headers
    url: str  # the last one, after redirects
    body: BinaryIO

    @property
    def location(self) -> str:
        """Where a redirect points, as it is written; "" where the answer is none."""
        return self.headers.get("location", "") if self.status in REDIRECTS else ""

    @property
    def charset(self) -> str:
        """As the content type declares it, "" where it does not."""
        message = Message()
        message["content-type"] = self.headers.get("content-type", "")
        return str(message.get_param("charset", ""))[:100]


Wants = Callable[[httpx.Headers], bool]


class Client:
    """Gets pages over http and https. Not thread-safe; a context manager.

    allowed: see `Allowed`; public addresses always are. timeout: seconds for a whole `get`, redirects included.
    max_bytes: the most of one body, decoded. ssl_context: for tests and private authorities; SSL_CERT_FILE is heeded.
    """

    def __init__(
        self,
        allowed: Sequence[str] = (),
        *,
        user_agent: str = "ragsite/0.1",
        timeout: float = 30.0,
        max_bytes: int = MAX_BYTES,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._user_agent, self._timeout, self._max_bytes = user_agent, timeout, max_bytes
        self._clock = _Clock()
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl_context or _authorities(),
            max_connections=4,
            keepalive_expiry=15.0,
            network_backend=_Guarded(Allowed(allowed), self._clock),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._pool.close()

    def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        redirects: int = MAX_REDIRECTS,
        wants: Wants | None = None,
    ) -> Response:
        """The answer of `url`: 2xx, 304, or a redirect when `redirects` is 0. The body is read if `wants(headers)`.

        Raises SourceError: forbidden_address, invalid (the URL), unreachable, timeout, too_large, unreadable (a broken
        content encoding); HttpError for every status from 400 on, of which 404 and 410 are not_found, 401 and 403
        unauthorized, and the others unreachable.
        """
        self._clock.start(self._timeout)
        seen = parse(url)
        for _ in range(redirects + 1):
            response = self._request(seen, headers or {}, wants)
            if response.status < 300 or (response.status == 304 and headers) or (response.location and not redirects):
                return response
            response.body.close()
            if not response.location:
                raise SourceError("unreachable", f"{seen.host} answered with status {response.status} unasked.")
            target = parse(response.location, base=str(seen))
            headers = headers if target.site == seen.site else None
            seen = target
        raise SourceError("unreachable", f"{seen.host} redirects more than {redirects} times.")

    def _request(self, url: Url, headers: Mapping[str, str], wants: Wants | None) -> Response:
        sent = {
            "Host": url.netloc,
            "User-Agent": self._user_agent,
            "Accept": "*/*",
            "Accept-Encoding": "gzip",
            **headers,
        }
        target = httpcore.URL(
            scheme=url.scheme.encode(), host=url.host.encode(), port=url.port, target=url.target.encode()
        )
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout)
        with (
            _as_source_errors(url.host, self._timeout),
            self._pool.stream("GET", target, headers=list(sent.items()), extensions={"timeout": timeouts}) as answer,
        ):
            found = httpx.Headers(answer.headers)
            if answer.status >= 400:
                raise HttpError(answer.status, url.host, found)
            body = SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115 - the caller closes it
            try:
                if 200 <= answer.status < 300 and (wants is None or wants(found)):
                    self._read(answer.iter_stream(), found, body)
            except BaseException:
                body.close()
                raise
        return Response(answer.status, found, str(url), cast(BinaryIO, body))

    def _read(self, chunks: Iterable[bytes], headers: httpx.Headers, body: SpooledTemporaryFile[bytes]) -> None:
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise SourceError("unreadable", "The content has an encoding that nobody asked for.")
        length = headers.get("content-length", "")
        if length.isdecimal() and (len(length) > 18 or int(length) > self._max_bytes):
            raise self._too_large()
        chunks = self._bounded(chunks)
        for piece in chunks if encoding in ("", "identity") else self._bounded(gunzip(chunks)):
            body.write(piece)
        body.seek(0)

    def _bounded(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        size = 0
        for chunk in chunks:
            if (size := size + len(chunk)) > self._max_bytes:
                raise self._too_large()
            self._clock.left()
            yield chunk

    def _too_large(self) -> SourceError:
        return SourceError("too_large", f"The content is larger than {self._max_bytes} bytes.")


@functools.cache
def _authorities() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def gunzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The content of gzip data, a bounded piece at a time. Raises SourceError("unreadable") where it is broken."""
    engine, started = zlib.decompressobj(wbits=31), False
    try:
        for chunk in chunks:
            while chunk:
                if engine.eof:
                    if not chunk.startswith(b"\x1f"):  # padding after the last member
                        break
                    engine = zlib.decompressobj(wbits=31)
                started = True
                while piece := engine.decompress(chunk, _INFLATED):
                    yield piece
                    chunk = engine.unconsumed_tail
                chunk = engine.unused_data
    except zlib.error:
        raise SourceError("unreadable", "The content is not the gzip data it is said to be.") from None
    if started and not engine.eof:
        raise SourceError("unreadable", "The content is cut short.")


@contextlib.contextmanager
def _as_source_errors(host: str, seconds: float) -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException:
        raise SourceError("timeout", f"{host} did not answer in full within {seconds:g} seconds.") from None
    except httpcore.ConnectError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise SourceError("unreachable", f"The certificate of {host} is not valid.") from None
        raise SourceError("unreachable", f"{host} cannot be connected to.") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError):
        raise SourceError("unreachable", f"The connection to {host} broke.") from None


class _Clock:
    """When the `get` that is under way has to be over."""

    def __init__(self) -> None:
        self._ends = 0.0

    def start(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds. Raises httpcore.ReadTimeout when there are none."""
        if (seconds := self._ends - time.monotonic()) <= 0:
            raise httpcore.ReadTimeout
        return seconds


class _Guarded(httpcore.NetworkBackend):
    """Connects to addresses that it has resolved and checked itself."""

    def __init__(self, allowed: Allowed, clock: _Clock) -> None:
        self._allowed, self._clock, self._sockets = allowed, clock, httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = _resolve(host, port, min(_CONNECT_SECONDS, self._clock.left()))
        permitted = [address for address in addresses if self._allowed(host, port, address)]
        if not permitted:
            raise SourceError("forbidden_address", f"{host} is at an address that is not public.")
        last: Exception = httpcore.ConnectError()
        for address in permitted[:_ADDRESSES]:
            try:
                stream = self._sockets.connect_tcp(address, port, min(_CONNECT_SECONDS, self._clock.left()))
                return _Timed(stream, self._clock)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        raise last


class _Timed(httpcore.NetworkStream):
    """A stream all of whose reads and writes share what is left of one span of time, however they trickle."""

    def __init__(self, stream: httpcore.NetworkStream, clock: _Clock) -> None:
        self._stream, self._clock = stream, clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._clock.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._clock.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, self._clock.left()), self._clock)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _resolve(host: str, port: int, seconds: float) -> list[str]:
    """The addresses of a host. In a thread of its own, because the C library cannot be told how long it may take."""
    found: list[str] = []
    failed: list[OSError | UnicodeError] = []

    def resolve() -> None:
        try:
            for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                found.append(str(address[0]))
        except (OSError, UnicodeError) as error:
            failed.append(error)

    thread = threading.Thread(target=resolve, daemon=True, name="resolve")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise httpcore.ConnectTimeout
    if failed or not found:
        raise SourceError("unreachable", f"The host {host} has no address.")
    return list(dict.fromkeys(found))
