"""The connector `s3`, with a real S3 server on this machine."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from apps.documents.connectors import s3
from apps.documents.connectors.types import Fetched, Found, SourceError, State
from tests.support.buckets import S3Server
from tests.support.processes import free_port

SECRET = "do-not-tell-anyone"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as running:
        yield running


@contextmanager
def strange_server(
    status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Its URL, which always gets the same answer, and the headers of every request."""
    asked: list[dict[str, str]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as strange:
        threading.Thread(target=strange.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{strange.server_port}", asked
        finally:
            strange.shutdown()


def scan(
    endpoint: str,
    bucket: str,
    known: Mapping[str, State] | None = None,
    *,
    guard: s3.Guard = lambda url: None,
    **settings: Any,
) -> list[Found]:
    given = {"bucket": bucket, "endpoint": endpoint, "access_key": "key", "secret_key": SECRET, **settings}
    return list(s3.scan(s3.check(given), known or {}, guard=guard))


def names(found: list[Found]) -> list[str]:
    return [each.key.split("/", 3)[3] for each in found]


def fetch(found: Found) -> Fetched:
    assert found.fetch is not None
    return found.fetch()


def known(found: list[Found]) -> dict[str, State]:
    remembered = {}
    for each in found:
        fetched = fetch(each)
        fetched.content.close()
        remembered[each.key] = fetched.state
    return remembered


def changed(found: list[Found]) -> list[str]:
    return names([each for each in found if each.fetch])


def test_every_object_is_found_and_read_with_its_type(server: S3Server) -> None:
    bucket = server.bucket()
    odd = ["a.md", "b/c d.md", "b//c.md", "./d.md", "b/../e.md", "ü é.md", "p%20+q.md", "a~b[1]#?.md", "empty.md"]
    for name in odd:
        server.put(bucket, name, b"" if name == "empty.md" else name.encode())
    found = scan(server.url, bucket)
    assert names(found) == sorted(odd)
    assert found[0].key == f"s3://{bucket}/{sorted(odd)[0]}"
    for name, each in zip(sorted(odd), found, strict=True):
        read = fetch(each)
        with read.content as content:
            assert content.read() == (b"" if name == "empty.md" else name.encode())
        assert (read.media_type, read.filename) == ("text/markdown", name.rpartition("/")[2])
        assert read.modified is not None and read.modified.utcoffset() is not None


def test_what_is_unchanged_is_not_read_again(server: S3Server) -> None:
    bucket = server.bucket(a=b"1", b=b"2")
    again = scan(server.url, bucket, known(scan(server.url, bucket)))
    assert names(again) == ["a", "b"] and not changed(again)


def test_new_changed_and_removed_objects_are_told_apart(server: S3Server) -> None:
    bucket = server.bucket(same=b"1", changed=b"1", removed=b"1")
    before = known(scan(server.url, bucket))
    server.put(bucket, "changed", b"2")
    server.put(bucket, "new", b"1")
    server.admin.delete_object(Bucket=bucket, Key="removed")
    found = scan(server.url, bucket, before)
    assert names(found) == ["changed", "new", "same"]
    assert changed(found) == ["changed", "new"]


def test_a_listing_of_several_pages_is_read_to_its_end(server: S3Server) -> None:
    everything = [f"{number:04}" for number in range(2_345)]
    bucket = server.bucket()
    server.fill(bucket, everything)
    asked: list[str] = []
    found = scan(server.url, bucket, guard=asked.append)
    assert names(found) == everything
    assert len(asked) == 3 and all(url.startswith(server.url) for url in asked)


def test_folder_markers_are_left_out_and_prefix_and_patterns_choose(server: S3Server) -> None:
    bucket = server.bucket()
    for name in ("docs/a.md", "docs/old/b.md", "docs/c.txt", "docs-2/d.md", "e.md"):
        server.put(bucket, name, b"x")
    server.put(bucket, "docs/", b"")
    assert names(scan(server.url, bucket, prefix="docs/")) == ["docs/a.md", "docs/c.txt", "docs/old/b.md"]
    assert "docs-2/d.md" in names(scan(server.url, bucket, prefix="docs"))
    chosen = scan(server.url, bucket, prefix="docs/", include=["*.md"], exclude=["old/"])
    assert names(chosen) == ["docs/a.md"]


def test_an_object_that_changed_since_the_listing_is_read_as_it_is_now(server: S3Server) -> None:
    bucket = server.bucket(a=b"old")
    found = scan(server.url, bucket)
    server.put(bucket, "a", b"newer")
    read = fetch(found[0])
    with read.content as content:
        assert content.read() == b"newer"
    assert not changed(scan(server.url, bucket, {found[0].key: read.state}))


def test_an_object_that_is_too_large_or_gone_fails_alone(server: S3Server) -> None:
    bucket = server.bucket(gone=b"x", good=b"x", large=b"x" * 11)
    gone, good, large = scan(server.url, bucket, max_bytes=10)
    server.admin.delete_object(Bucket=bucket, Key="gone")
    with pytest.raises(SourceError, match="not_found"):
        fetch(gone)
    with pytest.raises(SourceError, match="too_large"):
        fetch(large)
    fetch(good).content.close()


def test_a_large_object_arrives_whole(server: S3Server) -> None:
    content = bytes(range(256)) * 4096 * 5
    bucket = server.bucket(a=content)
    with fetch(scan(server.url, bucket)[0]).content as read:
        assert read.read() == content


def test_a_bucket_that_is_not_there_is_not_found(server: S3Server) -> None:
    with pytest.raises(SourceError) as caught:
        scan(server.url, "no-such-bucket")
    assert (caught.value.code, caught.value.pointer) == ("not_found", "/settings/bucket")


def test_wrong_keys_are_unauthorized_and_the_secret_stays_one(
    server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = server.bucket(a=b"x")
    key, secret = server.demand_keys()
    try:
        with caplog.at_level(logging.INFO):
            found = scan(server.url, bucket, access_key=key, secret_key=secret)
            assert names(found) == ["a"]
            for keys in ({"access_key": key}, {"access_key": "nobody"}):
                with pytest.raises(SourceError) as caught:
                    scan(server.url, bucket, **keys)
                assert caught.value.code == "unauthorized"
                assert SECRET not in repr(caught.value) + caplog.text
                assert caught.value.__cause__ is None and caught.value.__suppress_context__
    finally:
        server.demand_no_keys()


def test_the_credentials_of_the_process_are_used_only_where_that_is_allowed(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = server.bucket(a=b"x")
    key, secret = server.demand_keys()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    try:
        settings = s3.check({"bucket": bucket, "endpoint": server.url})
        assert len(list(s3.scan(settings, {}, guard=lambda url: None, ambient=True))) == 1
    finally:
        server.demand_no_keys()
    with strange_server(403) as (url, asked), pytest.raises(SourceError, match="unauthorized"):
        list(s3.scan({**settings, "endpoint": url}, {}, guard=lambda url: None))
    assert asked and not any("authorization" in headers or "x-amz-security-token" in headers for headers in asked)


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(SourceError) as caught:
        scan(f"http://127.0.0.1:{free_port()}", "bucket")
    assert (caught.value.code, caught.value.pointer) == ("unreachable", "/settings/endpoint")


def test_nothing_is_sent_where_the_guard_refuses(server: S3Server) -> None:
    def guard(url: str) -> None:
        raise SourceError("forbidden_address", "No.")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        with pytest.raises(SourceError, match="forbidden_address"):
            scan(f"http://127.0.0.1:{listener.getsockname()[1]}", "bucket", guard=guard)
        with pytest.raises(TimeoutError):
            listener.accept()


ITEM = b"<Contents><Key>a</Key><Size>1</Size></Contents>"
PAGE = b"<ListBucketResult><IsTruncated>true</IsTruncated>%s" + ITEM + b"</ListBucketResult>"


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (302, b"", "invalid"),
        (307, b"", "invalid"),
        (200, b"<html>Please log in</html>", "unreachable"),
        (200, b"not xml", "unreachable"),
        (200, b"", "unreachable"),
        (200, PAGE % b"", "unreachable"),
        (200, PAGE % b"<NextContinuationToken>same</NextContinuationToken>", "unreachable"),
        (503, b"", "unreachable"),
        (400, b"<Error><Code>Odd</Code><Message>do-not-tell-anyone</Message></Error>", "unreachable"),
    ],
)
def test_an_answer_that_is_no_whole_listing_raises_and_no_redirect_is_followed(
    server: S3Server, status: int, body: bytes, code: str
) -> None:
    bucket = server.bucket(a=b"x")
    headers = {"Location": f"{server.url}/{bucket}?list-type=2"} if status < 400 else {}
    with strange_server(status, body, headers) as (url, _), pytest.raises(SourceError) as caught:
        scan(url, bucket)
    assert caught.value.code == code
    assert SECRET not in str(caught.value)


def test_defaults_are_filled_in() -> None:
    assert s3.check({"bucket": "docs"}) == {
        "bucket": "docs",
        "prefix": "",
        "endpoint": "",
        "region": "us-east-1",
        "access_key": "",
        "secret_key": "",
        "path_style": False,
        "include": [],
        "exclude": [],
        "max_bytes": s3.MAX_BYTES,
    }
    assert s3.check({"bucket": "docs", "endpoint": "http://minio:9000"})["path_style"] is True


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        ({"bucket": ""}, "bucket"),
        ({"bucket": "a/b"}, "bucket"),
        ({"bucket": 3}, "bucket"),
        ({"prefix": "a\0"}, "prefix"),
        ({"prefix": "\ud800"}, "prefix"),
        ({"endpoint": "minio:9000"}, "endpoint"),
        ({"endpoint": "file:///etc"}, "endpoint"),
        ({"endpoint": "http://user:word@minio"}, "endpoint"),
        ({"endpoint": "http://minio:99999"}, "endpoint"),
        ({"endpoint": "http://[::1"}, "endpoint"),
        ({"region": "x/y"}, "region"),
        ({"access_key": "a"}, "secret_key"),
        ({"secret_key": "a"}, "access_key"),
        ({"path_style": "yes"}, "path_style"),
        ({"include": [""]}, "include/0"),
        ({"max_bytes": 1.5}, "max_bytes"),
        ({"buket": "a"}, "buket"),
    ],
)
def test_settings_at_fault_are_pointed_at(settings: dict[str, Any], pointer: str) -> None:
    with pytest.raises(SourceError) as caught:
        s3.check({"bucket": "docs", **settings})
    assert (caught.value.code, caught.value.pointer) == ("invalid", f"/settings/{pointer}")
