"""The guarded HTTP client: which addresses it refuses, however they are written, and what bounds a bad server."""

from __future__ import annotations

import datetime
import gzip
import ssl
import time
import tracemalloc
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from apps.documents.connectors.addresses import Allowed, is_public, parse
from apps.documents.connectors.net import Client, HttpError
from apps.documents.connectors.types import SourceError
from tests.support.sites import Reply, Site, page, redirect

LOCAL = ("127.0.0.1",)
REFUSED = """
    127.0.0.1 127.8.9.10 0.0.0.0 10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 100.64.0.1
    100.100.100.200 192.0.0.192 192.0.2.1 198.18.0.1 224.0.0.1 240.0.0.1 255.255.255.255 168.63.129.16
    localhost localhost. LOCALHOST 2130706433 0x7f000001 0x7f.1 0177.0.0.1 127.1 127.0.0.1. 0 017700000001 1.2.3
    0x 134744072 127.0.0.0x1 １２７.０.０.１ ①②⑦.0.0.1 127。0。0。1
    [::] [::1] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::ffff:8.8.8.8] [::127.0.0.1] [::ffff:0:127.0.0.1]
    [64:ff9b::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b:1::7f00:1] [2002:7f00:1::] [2002:7f00:1::1] [2001::1]
    [2001:db8::1] [fe80::1] [fec0::1] [fc00::1] [fd12:3456::1] [ff02::1] [100::1] [3fff::1] [5f00::1] [4000::1]
"""
INVALID = r"""
    ftp://127.0.0.1/ file:///etc/passwd gopher://127.0.0.1/ //127.0.0.1/ http:///x http:// http://user@127.0.0.1/
    http://user:word@127.0.0.1/ http://good.org\@127.0.0.1/ http://[::1 http://a:x/ http://a:99999/
    http://[fe80::1%25eth0]/ javascript:alert(1) http://exa%6dple/ http://a..b/
"""


def refusal(url: str, *allowed: str, timeout: float = 5.0, max_bytes: int = 2**20) -> str:
    with Client(allowed, timeout=timeout, max_bytes=max_bytes) as client, pytest.raises(SourceError) as caught:
        client.get(url)
    return caught.value.code


@pytest.mark.parametrize("host", REFUSED.split())
def test_an_address_that_is_not_public_is_refused_in_every_spelling(host: str) -> None:
    assert refusal(f"http://{host}:9/") == "forbidden_address"


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111"])
def test_a_public_address_is_public(address: str) -> None:
    assert is_public(ip_address(address))
    assert Allowed()("example.org", 443, address)


@pytest.mark.parametrize("url", [*INVALID.split(), "http://a b/", "http://a/" + "x" * 3_000])
def test_what_is_no_plain_http_address_is_invalid(url: str) -> None:
    assert refusal(url, "0.0.0.0/0", "::/0") == "invalid"


def test_the_message_of_a_refused_address_does_not_repeat_its_password() -> None:
    with pytest.raises(SourceError) as caught:
        parse("http://user:hunter2@example.org/")
    assert "hunter2" not in str(caught.value)


def test_a_url_has_one_spelling() -> None:
    assert str(parse("HTTP://Example.ORG:80")) == "http://example.org/"
    assert str(parse("https://example.org.:443/a/./b/../%7Ec?b=2&a=1#part")) == "https://example.org/a/~c?b=2&a=1"
    assert str(parse("https://bücher.example/grüße x")) == "https://xn--bcher-kva.example/gr%C3%BC%C3%9Fe%20x"
    assert str(parse("../x/%2e%2e/y%2fz?q=%zz", base="http://a/b/c/d")) == "http://a/b/y%2Fz?q=%25zz"
    assert str(parse("http://a/../../..")) == "http://a/"
    assert str(parse("http://[2606:4700:0:0::1111]:8080/")) == "http://[2606:4700::1111]:8080/"
    assert str(parse(str(parse("http://a/100%/%E2%82%AC?%")))) == str(parse("http://a/100%/%E2%82%AC?%"))


def test_a_host_is_allowed_by_name_port_or_network() -> None:
    with Site({"/": page(text="hello")}) as site:
        name = f"http://localhost:{site.port}/"
        for allowed in ("127.0.0.1", "127.0.0.0/8", f"127.0.0.1:{site.port}"):
            for url in (site.url, name):
                with Client([allowed]) as client, client.get(url).body as body:
                    assert b"hello" in body.read()
        for allowed in ("localhost", f"localhost:{site.port}", "LOCALHOST."):
            with Client([allowed]) as client, client.get(name).body as body:
                assert b"hello" in body.read()
            assert refusal(site.url, allowed) == "forbidden_address"
        for allowed in ("127.0.0.2", "10.0.0.0/8", f"127.0.0.1:{site.port + 1}", f"localhost:{site.port + 1}", "host"):
            assert refusal(name, allowed) == "forbidden_address"


@pytest.mark.parametrize("entry", ["", "10.0.0.1/8", "http://host", "a b", "user@host", "host:port", "300.0.0.1"])
def test_an_entry_that_allows_nothing_is_refused(entry: str) -> None:
    with pytest.raises(SourceError) as caught:
        Allowed([entry])
    assert caught.value.code in ("invalid", "forbidden_address")


def test_a_redirect_is_checked_like_the_first_address() -> None:
    with Site({"/": page()}) as inner, Site() as outer:
        targets = {
            "/name": f"http://localhost:{inner.port}/",
            "/number": f"http://2130706433:{inner.port}/",
            "/mapped": f"http://[::ffff:127.0.0.1]:{inner.port}/",
            "/metadata": "http://169.254.169.254/latest/meta-data/",
            "/port": f"{inner.url}/",
        }
        outer.pages = {path: redirect(target) for path, target in targets.items()}
        for path in targets:
            assert refusal(outer.url + path, f"127.0.0.1:{outer.port}") == "forbidden_address", path
        outer.pages = {
            "/file": redirect("file:///etc/passwd"),
            "/user": redirect(f"http://u:p@127.0.0.1:{outer.port}/"),
        }
        assert refusal(outer.url + "/file", *LOCAL) == refusal(outer.url + "/user", *LOCAL) == "invalid"
        assert not inner.requests


def test_redirects_are_followed_five_times() -> None:
    hops = {f"/{n}": redirect(f"/{n + 1}", status) for n, status in enumerate([301, 302, 303, 307, 308, 302])}
    with Site({**hops, "/6": page(text="end"), "/loop": redirect("/loop")}) as site, Client(LOCAL) as client:
        with client.get(f"{site.url}/1").body as body:
            assert b"end" in body.read()
        assert client.get(f"{site.url}/1").url == f"{site.url}/6"
        assert refusal(f"{site.url}/0", *LOCAL) == refusal(f"{site.url}/loop", *LOCAL) == "unreachable"
        response = client.get(f"{site.url}/1", redirects=0)
        assert (response.status, response.location) == (302, "/2")


def test_headers_are_not_sent_on_to_another_site() -> None:
    with Site({"/": page()}) as other, Site({"/": redirect(f"{other.url}/")}) as site, Client(LOCAL) as client:
        client.get(site.url, headers={"Authorization": "Bearer secret"})
        assert site.sent[0]["authorization"] == "Bearer secret"
        assert "authorization" not in other.sent[0]
        assert other.sent[0]["host"] == f"127.0.0.1:{other.port}"


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Site({"/": page()}) as site, Client(LOCAL) as client:
        assert client.get(site.url).status == 200


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "unreachable"), (401, "unauthorized"), (403, "unauthorized"), (404, "not_found"), (410, "not_found"),
     (429, "unreachable"), (500, "unreachable"), (503, "unreachable")],
)  # fmt: skip
def test_an_error_status_is_an_error(status: int, code: str) -> None:
    with Site({"/": Reply(status=status)}) as site, Client(LOCAL) as client:
        with pytest.raises(HttpError) as caught:
            client.get(site.url)
        assert (caught.value.code, caught.value.status) == (code, status)


def test_a_304_that_nobody_asked_for_and_a_redirect_to_nowhere_are_errors() -> None:
    with Site({"/304": Reply(status=304), "/302": Reply(status=302)}) as site:
        assert refusal(f"{site.url}/304", *LOCAL) == refusal(f"{site.url}/302", *LOCAL) == "unreachable"


def test_a_host_without_address_and_a_closed_port_are_unreachable() -> None:
    with Site() as site:
        port = site.port
    assert refusal(f"http://127.0.0.1:{port}/", *LOCAL) == "unreachable"
    assert refusal("http://no-such-host.invalid/") == "unreachable"


def test_a_body_that_is_too_large_is_refused_with_and_without_a_length() -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(b"x" * 65536)

    with Site({"/long": Reply(b"x" * 100_001), "/endless": endless, "/fits": Reply(b"x" * 100_000)}) as site:
        assert refusal(f"{site.url}/long", *LOCAL, max_bytes=100_000) == "too_large"
        assert refusal(f"{site.url}/endless", *LOCAL, max_bytes=100_000) == "too_large"
        with Client(LOCAL, max_bytes=100_000) as client, client.get(f"{site.url}/fits").body as body:
            assert len(body.read()) == 100_000


def test_a_compression_bomb_is_stopped_in_little_memory() -> None:
    bomb = gzip.compress(bytes(200 * 2**20), 9)
    members = gzip.compress(b"") * 100_000
    packed = {"Content-Encoding": "gzip"}
    with Site({"/": Reply(bomb, headers=packed), "/members": Reply(members, headers=packed)}) as site:
        tracemalloc.start()
        assert refusal(site.url, *LOCAL, max_bytes=2**20) == "too_large"
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * 2**20
        assert refusal(f"{site.url}/members", *LOCAL, max_bytes=2**20) == "too_large"


def test_gzip_is_unpacked_and_broken_gzip_is_unreadable() -> None:
    text = b"".join(b"line %d\n" % n for n in range(50_000))
    packed = gzip.compress(text)
    sites = {
        "/whole": packed,
        "/two": packed + gzip.compress(b"end") + b"\0" * 10,
        "/cut": packed[:-20],
        "/none": b"no gzip",
    }
    with Site({path: Reply(body, headers={"Content-Encoding": "gzip"}) for path, body in sites.items()}) as site:
        site.pages["/br"] = Reply(b"x", headers={"Content-Encoding": "br"})
        with Client(LOCAL) as client:
            assert client.get(f"{site.url}/whole").body.read() == text
            assert client.get(f"{site.url}/two").body.read() == text + b"end"
        for path in ("/cut", "/none", "/br"):
            assert refusal(site.url + path, *LOCAL) == "unreadable"


def trickle(head: bytes, drop: bytes) -> Reply:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(head)
        for _ in range(200):
            request.wfile.write(drop)
            time.sleep(0.05)

    return answer  # type: ignore[return-value]


def test_a_server_that_trickles_is_bounded_in_all() -> None:
    pages = {
        "/body": trickle(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        "/headers": trickle(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
        "/continue": trickle(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        "/silent": trickle(b"", b""),
        "/hops": lambda request: (
            time.sleep(0.2),
            request.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /hops\r\nContent-Length: 0\r\n\r\n"),
        ),
    }
    with Site(pages) as site:
        for path in pages:
            started = time.monotonic()
            assert refusal(site.url + path, *LOCAL, timeout=0.6) == "timeout", path
            assert time.monotonic() - started < 2


def test_a_connection_that_breaks_is_unreachable() -> None:
    def cut(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    def rubbish(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"\x00\x01\x02 rubbish\r\n\r\n")

    with Site({"/cut": cut, "/rubbish": rubbish}) as site:
        assert refusal(f"{site.url}/cut", *LOCAL) == refusal(f"{site.url}/rubbish", *LOCAL) == "unreachable"


def test_a_body_that_is_not_wanted_is_not_read() -> None:
    with Site({"/": Reply(b"x" * 100_000, "image/png")}) as site, Client(LOCAL, max_bytes=10) as client:
        response = client.get(site.url, wants=lambda headers: headers["content-type"] != "image/png")
        assert response.body.read() == b""


def certificate(folder: Path, host: str) -> ssl.SSLContext:
    """A server's certificate for one host name, signed by itself; `folder` gets it as ca.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context


def test_tls_verifies_the_name_that_was_asked_for(tmp_path: Path) -> None:
    tls = certificate(tmp_path, "localhost")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with Site({"/": page(text="hello")}, tls=tls) as site:
        with Client(LOCAL, ssl_context=trusting) as client:
            with client.get(f"https://localhost:{site.port}/").body as body:
                assert b"hello" in body.read()
            with pytest.raises(SourceError, match="certificate"):
                client.get(f"https://127.0.0.1:{site.port}/")
        with Client(LOCAL) as client, pytest.raises(SourceError, match="certificate"):
            client.get(f"https://localhost:{site.port}/")
