"""The connector `s3`: the objects of a bucket, on AWS or any other server that speaks S3.

botocore asks the questions: it follows no redirect, so that a server allowed by the guard cannot send us to one that is
not, and it takes every key that S3 takes ("a//b", "./a").
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    ConnectTimeoutError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.session import Session

from apps.documents.connectors.patterns import Patterns, checked
from apps.documents.connectors.types import Fetched, Found, Lookup, SourceError, State

TEXTS = {"bucket", "prefix", "endpoint", "region", "access_key", "secret_key"}
NAMES = TEXTS | {"path_style", "include", "exclude", "max_bytes"}
REGION = "us-east-1"  # where none is given; most servers other than AWS take any
MAX_BYTES = 100 * 2**20
SPOOL_BYTES = 2**20  # a larger object is kept on disk while it is handed on
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 10, 30, 3

_BUCKET = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,61}[a-zA-Z0-9]")
_REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_NO_ENTRY = {"AccessDenied", "AllAccessDisabled", "ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"}

#: Called with the URL of every request before it is sent; raises SourceError where that may not be asked.
Guard = Callable[[str], None]


def check(settings: dict[str, Any]) -> dict[str, Any]:
    """A user's settings, complete: bucket, prefix, endpoint, region, access_key, secret_key, path_style, include,
    exclude, max_bytes. Nothing is connected to.

    prefix: the text that keys begin with. endpoint: an http(s) URL, empty for AWS. access_key, secret_key: both empty
    for what the public may read. path_style: bucket in the URL's path rather than its host; by default for an endpoint.
    include, exclude: as in `patterns.py`, against the key below the last "/" of the prefix. max_bytes: of one object.
    Raises SourceError("invalid") with a pointer to what is at fault.
    """
    if unknown := sorted(str(name) for name in settings.keys() - NAMES):
        raise _invalid(unknown[0], "A bucket has no such setting.")
    texts = {name: settings.get(name) or "" for name in sorted(TEXTS)}
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > 1024 or not _plain(text):
            raise _invalid(name, "A text of at most 1024 characters.")
    if not _BUCKET.fullmatch(texts["bucket"]):
        raise _invalid("bucket", "A bucket's name: 3 to 63 letters, digits, dots and hyphens.")
    if texts["region"] and not _REGION.fullmatch(texts["region"]):
        raise _invalid("region", 'A region such as "eu-central-1".')
    if bool(texts["access_key"]) != bool(texts["secret_key"]):
        missing = "secret_key" if texts["access_key"] else "access_key"
        raise _invalid(missing, "An access key and its secret key go together.")
    _check_endpoint(texts["endpoint"])
    path_style = settings.get("path_style")
    if path_style is not None and not isinstance(path_style, bool):
        raise _invalid("path_style", "true or false.")
    max_bytes = settings.get("max_bytes", MAX_BYTES)
    if type(max_bytes) is not int or max_bytes < 1:
        raise _invalid("max_bytes", "A whole number of bytes, at least 1.")
    return {
        **texts,
        "region": texts["region"] or REGION,
        "path_style": bool(texts["endpoint"]) if path_style is None else path_style,
        "include": checked(settings, "include"),
        "exclude": checked(settings, "exclude"),
        "max_bytes": max_bytes,
    }


def scan(settings: dict[str, Any], known: Lookup, *, guard: Guard, ambient: bool = False) -> Iterator[Found]:
    """The objects of the bucket in the order of the listing, which is held one page (1,000 keys) at a time. Left out:
    the empty objects that end in "/", which stand for folders.

    settings: as `check` returned them. A key is "s3://bucket/key", its state {"etag", "size": bytes, "modified": ISO
    8601}. ambient: without keys, ask with the credentials of this process's environment rather than with none; they
    are the operator's, so let users whom you would not give them name no bucket. Raises SourceError: not_found (no
    such bucket), unauthorized, unreachable, timeout, invalid, and what `guard` raises. It lists nothing of a secret.
    """
    bucket, prefix = settings["bucket"], settings["prefix"]
    patterns = Patterns(settings["include"], settings["exclude"])
    below = prefix.rfind("/") + 1
    client = _client(settings, guard, ambient)
    for each in _objects(client, bucket, prefix):
        name = each["Key"]
        if (name.endswith("/") and not each["Size"]) or not patterns.wants(name[below:]):
            continue
        key, state = f"s3://{bucket}/{name}", _state(each, each["Size"])
        fetch = partial(_fetch, client, bucket, name, each.get("ETag", ""), settings["max_bytes"])
        yield Found(key, state, None if _unchanged(known.get(key), state) else fetch)


def _check_endpoint(endpoint: str) -> None:
    if not endpoint:
        return
    try:
        parts = urlsplit(endpoint)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.username is not None or parts.query or parts.fragment or re.search(r"\s", endpoint):
        raise _invalid("endpoint", 'A URL such as "https://s3.example.org", without user name, query and fragment.')


def _plain(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _invalid(name: str, detail: str) -> SourceError:
    return SourceError("invalid", detail, pointer=f"/settings/{name}")


def _client(settings: dict[str, Any], guard: Guard, ambient: bool) -> Any:
    signed = settings["access_key"] or ambient
    config = Config(
        signature_version="s3v4" if signed else UNSIGNED,
        s3={"addressing_style": "path" if settings["path_style"] else "virtual"},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        # The process's own AWS_ENDPOINT_URL is not the user's.
        ignore_configured_endpoint_urls=True,
        response_checksum_validation="when_required",
        user_agent="ragsite",
    )
    try:
        client = Session().create_client(
            "s3",
            region_name=settings["region"],
            endpoint_url=settings["endpoint"] or None,
            aws_access_key_id=settings["access_key"] or None,
            aws_secret_access_key=settings["secret_key"] or None,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise _explained(error) from None
    client.meta.events.register("before-send.s3", lambda request, **_: guard(request.url))
    return client


def _objects(client: Any, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    """Every object below the prefix. Raises SourceError where the listing does not come to its end."""
    token = ""
    while True:
        more = {"ContinuationToken": token} if token else {}
        try:
            page = client.list_objects_v2(Bucket=bucket, Prefix=prefix, **more)
        except (BotoCoreError, ClientError, ValueError) as error:
            raise _explained(error) from None
        # Any well-formed XML is read as a listing: a proxy's page of apologies must not empty the collection.
        if "IsTruncated" not in page:
            raise _no_s3()
        yield from page.get("Contents", ())
        if not page["IsTruncated"]:
            return
        before, token = token, page.get("NextContinuationToken", "")
        if not token or token == before:
            raise _no_s3()


def _state(answer: Mapping[str, Any], size: int) -> State:
    modified = answer.get("LastModified")
    # Some servers quote the ETag in one answer and not in another.
    etag = answer.get("ETag", "").removeprefix("W/").strip('"')
    # The listing has milliseconds, the object's own answer has none.
    return {
        "etag": etag,
        "size": size,
        "modified": modified.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if modified else "",
    }


def _unchanged(known: State | None, state: State) -> bool:
    names = ("etag", "size") if state["etag"] else ("modified", "size")
    return known is not None and all(known.get(name) == state[name] for name in names)


def _fetch(client: Any, bucket: str, name: str, etag: str, max_bytes: int) -> Fetched:
    """The object as listed, or as it is now where it changed meanwhile; the state is that of the answer."""
    try:
        answer = _get(client, bucket, name, etag)
        with closing(answer["Body"]) as body:
            content, size = _copy(body, answer.get("ContentLength") or 0, max_bytes)
    except (BotoCoreError, ClientError, ValueError) as error:
        raise _explained(error, item=True) from None
    modified: datetime | None = answer.get("LastModified")
    return Fetched(
        content=content,
        state=_state(answer, size),
        media_type=answer.get("ContentType") or "",
        filename=name.rpartition("/")[2],
        modified=modified.astimezone(UTC) if modified else None,
    )


def _get(client: Any, bucket: str, name: str, etag: str) -> dict[str, Any]:
    try:
        return client.get_object(Bucket=bucket, Key=name, **({"IfMatch": etag} if etag else {}))
    except ClientError as error:
        if _status(error) != 412:
            raise
        return client.get_object(Bucket=bucket, Key=name)


def _copy(body: Any, length: int, max_bytes: int) -> tuple[BinaryIO, int]:
    """The bytes and how many there are. botocore raises where fewer come than were announced."""
    too_large = SourceError("too_large", f"The object is larger than {max_bytes} bytes.")
    if length > max_bytes:
        raise too_large
    copy = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES))  # noqa: SIM115 - handed on
    try:
        size = 0
        for piece in body.iter_chunks(SPOOL_BYTES):
            size += copy.write(piece)
            if size > max_bytes:
                raise too_large
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return copy, size


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def _explained(error: Exception, *, item: bool = False) -> SourceError:
    """What went wrong in words of our own: those of the server and of botocore may repeat keys and URLs."""
    if isinstance(error, ClientError):
        return _refused(str(error.response.get("Error", {}).get("Code", "")), _status(error), item=item)
    if isinstance(error, ReadTimeoutError | ConnectTimeoutError):
        return SourceError("timeout", "The server did not answer in time.")
    if isinstance(error, NoCredentialsError):
        return SourceError("unauthorized", "There are no credentials to ask with.", pointer="/settings/access_key")
    if isinstance(error, ConnectionError | IncompleteReadError | ResponseStreamingError):
        return SourceError("unreachable", "The server cannot be reached.", pointer="" if item else "/settings/endpoint")
    return _no_s3()


def _refused(code: str, status: int, *, item: bool) -> SourceError:
    if code == "InvalidObjectState":
        return SourceError("unreadable", "The object is archived: it must be restored before it can be read.")
    if status in (401, 403) or code in _NO_ENTRY:
        subject = "this object" if item else "the bucket"
        return SourceError("unauthorized", f"The credentials do not allow to read {subject}.")
    if item and status == 404:
        return SourceError("not_found", "The object has been removed.")
    if status == 404:
        return SourceError("not_found", "There is no such bucket.", pointer="/settings/bucket")
    if 300 <= status < 400 or code == "AuthorizationHeaderMalformed":
        return SourceError("invalid", "The bucket is in another region or place.", pointer="/settings/region")
    if status >= 500 or status == 429:
        return SourceError("unreachable", f"The server cannot answer now (status {status}).")
    return SourceError("unreachable", f"The server refused to answer (status {status}).")


def _no_s3() -> SourceError:
    return SourceError("unreachable", "The server does not answer as S3 does.", pointer="/settings/endpoint")
