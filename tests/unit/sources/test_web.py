"""Web sites as sources: what is found, what is read again, what is gone, and what is never asked for."""

from __future__ import annotations

import gzip
import io
import json
import time
import tracemalloc
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from apps.documents.connectors import web
from apps.documents.connectors.addresses import parse
from apps.documents.connectors.pages import read_page
from apps.documents.connectors.types import Fetched, SourceError, State
from tests.support.sites import Reply, Site, page, redirect

LOCAL = ("127.0.0.1",)
Crawled = dict[str, bytes | str | None]


def crawl(site: Site, known: dict[str, State] | None = None, *, start: str = "/", **settings: Any) -> Crawled:
    """What a scan finds, by path: its body, None for what is unchanged, the code of the error for what cannot be read.
    `known` is brought up to date as a sync would."""
    known = {} if known is None else known
    found: Crawled = {}
    asked = web.check({"url": site.url + start, "delay_seconds": 0, **settings})
    for item in web.scan(asked, dict(known), allowed=LOCAL, timeout=1.0):
        path = item.key.removeprefix(site.url)
        assert path not in found
        try:
            found[path] = read(item.fetch()) if item.fetch else None
            known[item.key] = json.loads(json.dumps(item.state))
        except SourceError as error:
            found[path] = error.code
    for key in [key for key in known if key.removeprefix(site.url) not in found]:
        del known[key]
    return found


def read(fetched: Fetched) -> bytes:
    with fetched.content as content:
        return content.read()


def failure(site: Site, start: str = "/", known: Mapping[str, State] | None = None, **settings: Any) -> SourceError:
    asked = web.check({"url": site.url + start, "delay_seconds": 0, **settings})
    with pytest.raises(SourceError) as caught:
        list(web.scan(asked, known or {}, allowed=LOCAL, timeout=1.0))
    return caught.value


def sitemap(site: Site, paths: Iterable[str], *, index: bool = False) -> Reply:
    root, each = ("sitemapindex", "sitemap") if index else ("urlset", "url")
    entries = "".join(
        f"<{each}><loc>\n {site.url}{path} </loc><lastmod>2024-01-01</lastmod></{each}>" for path in paths
    )
    text = f'<?xml version="1.0"?><{root} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{entries}</{root}>'
    return Reply(text.encode(), "application/xml")


def test_a_site_with_cycles_is_found_breadth_first_and_each_page_once() -> None:
    pages = {
        "/": page("/b", "a?y=1&x=2", "/#top", "http://127.0.0.2/", "mailto:x@y", "//127.0.0.1/", "javascript:x()"),
        "/b": page("/", "/c/../c", "/b#part", "%2e/a?y=1&x=2", "/missing"),
        "/a?y=1&x=2": page("/a?x=2&y=1", "/c"),
        "/c": page("./b", "/"),
        "/a?x=2&y=1": page(),
    }
    with Site(pages) as site:
        found = crawl(site)
        assert list(found) == ["/", "/b", "/a?y=1&x=2", "/c", "/a?x=2&y=1"]
        assert found["/c"] == pages["/c"].body
        assert [path for path, _ in site.requests].count("/c") == 1


def test_depth_counts_links_from_the_start_page() -> None:
    with Site({f"/{n}": page(f"/{n + 1}") for n in range(12)}) as site:
        for depth in (0, 1, 3, 10):
            assert len(crawl(site, start="/0", depth=depth)) == depth + 1


def test_unchanged_pages_cost_no_body_and_pages_behind_them_are_found_again() -> None:
    with Site({"/": page("/a"), "/a": page("/b"), "/b": page(text="old")}) as site:
        known: dict[str, State] = {}
        crawl(site, known)
        assert set(site.statuses().values()) == {200, 404}
        assert crawl(site, known) == {"/": None, "/a": None, "/b": None}
        assert site.statuses() == {"/robots.txt": 404, "/": 304, "/a": 304, "/b": 304}
        site.pages["/b"] = page("/new", text="new")
        site.pages["/new"] = page()
        found = crawl(site, known)
        assert (found["/"], found["/a"]) == (None, None)
        assert b"new" in found["/b"] and found["/new"]
        assert site.statuses() == {"/robots.txt": 404, "/": 304, "/a": 304, "/b": 200, "/new": 200}
        del site.pages["/b"]
        assert crawl(site, known) == {"/": None, "/a": None}
        assert len(known) == 2


def test_last_modified_is_a_validator_too() -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        since = request.headers.get("If-Modified-Since")
        request.send_response(304 if since else 200)
        request.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        request.send_header("Content-Type", "text/plain")
        request.end_headers()
        if not since:
            request.wfile.write(b"text")

    with Site({"/": answer}) as site:
        item = next(iter(web.scan({"url": site.url}, {}, allowed=LOCAL)))
        assert item.fetch
        fetched = item.fetch()
        assert fetched.modified and fetched.modified.isoformat() == "2015-10-21T07:28:00+00:00"
        assert crawl(site, {item.key: {**item.state, "links": []}}) == {"/": None}


def test_a_server_without_validators_is_compared_by_content_and_type() -> None:
    with Site({"/": Reply(b"<a href=/a>", validators=False), "/a": Reply(b"one", "text/plain")}) as site:
        site.pages["/a"] = Reply(b"one", "text/plain", validators=False)
        known: dict[str, State] = {}
        crawl(site, known)
        assert crawl(site, known) == {"/": None, "/a": None}
        site.pages["/a"] = Reply(b"two", "text/plain", validators=False)
        assert crawl(site, known) == {"/": None, "/a": b"two"}
        site.pages["/a"] = Reply(b"two", "text/markdown", validators=False)
        assert crawl(site, known) == {"/": None, "/a": b"two"}


def test_a_page_known_from_the_last_depth_is_read_again_when_its_links_are_needed() -> None:
    with Site({"/": page("/a"), "/a": page("/b"), "/b": page()}) as site:
        known: dict[str, State] = {}
        assert list(crawl(site, known, depth=1)) == ["/", "/a"]
        found = crawl(site, known, depth=2)
        assert (found["/"], found["/a"]) == (None, None)
        assert found["/b"]


def test_a_page_that_fails_is_not_gone_and_neither_is_what_lies_behind() -> None:
    def slow(request: BaseHTTPRequestHandler) -> None:
        time.sleep(1.5)

    healthy = {"/": page("/a", "/s"), "/a": page("/b"), "/b": page(), "/s": page("/t"), "/t": page()}
    with Site(healthy) as site:
        known: dict[str, State] = {}
        crawl(site, known)
        site.pages.update({"/a": Reply(status=500), "/s": slow})
        assert crawl(site, known) == {"/": None, "/a": "unreachable", "/s": "timeout", "/b": None, "/t": None}
        site.pages.update(healthy)
        assert set(crawl(site, known).values()) == {None}


def test_a_failing_page_that_is_no_item_does_not_hide_the_known_pages_behind_it() -> None:
    index = page("/b", "/c", head='<meta name="robots" content="noindex">')
    with Site({"/": page("/list"), "/list": index, "/b": page(), "/c": page()}) as site:
        known: dict[str, State] = {}
        assert list(crawl(site, known)) == ["/", "/b", "/c"]
        site.pages["/list"] = Reply(status=503)
        del site.pages["/c"]
        assert crawl(site, known) == {"/": None, "/list": "unreachable", "/b": None}


def test_a_failing_redirect_does_not_make_its_target_gone() -> None:
    with Site({"/": page("/old"), "/old": redirect("/new"), "/new": page()}) as site:
        site.pages["/sitemap.xml"] = sitemap(site, ["/old"])
        for settings in ({"depth": 1}, {"start": "/sitemap.xml"}):
            known: dict[str, State] = {}
            site.pages["/old"] = redirect("/new")
            assert "/new" in crawl(site, known, **settings)
            site.pages["/old"] = Reply(status=500)
            found = crawl(site, known, **settings)
            assert (found["/old"], found["/new"]) == ("unreachable", None)


def test_a_new_page_that_fails_is_told_and_one_that_is_missing_is_not() -> None:
    with Site({"/": page("/500", "/404", "/410", "/403"), "/500": Reply(status=500)}) as site:
        site.pages.update({"/410": Reply(status=410), "/403": Reply(status=403)})
        found = crawl(site)
        assert list(found) == ["/", "/500", "/403"]
        assert (found["/500"], found["/403"]) == ("unreachable", "unauthorized")


def test_a_site_that_goes_down_during_a_scan_ends_the_scan() -> None:
    links = [f"/{n}" for n in range(40)]
    with Site({"/": page(*links), **{link: Reply(status=502) for link in links}}) as site:
        assert failure(site).code == "unreachable"
        assert len(site.requests) == 2 + web.FAILURES_IN_A_ROW
        site.pages.update({link: Reply(status=403) for link in links})
        assert len(crawl(site)) == 41


def test_a_start_page_that_cannot_be_read_fails_the_scan() -> None:
    answers = {
        "/404": "not_found",
        "/401": "unauthorized",
        "/500": "unreachable",
        "/302": "invalid",
        "/png": "unreadable",
    }
    with Site({"/401": Reply(status=401), "/500": Reply(status=500), "/png": Reply(b"x", "image/png")}) as site:
        site.pages["/302"] = redirect("https://127.0.0.1/login?token=secret")
        for path, code in answers.items():
            error = failure(site, path)
            assert error.code == code
            assert "secret" not in str(error)
        site.pages["/loop"] = redirect("/loop")
        assert failure(site, "/loop").code == "unreachable"


def test_a_site_at_a_private_address_is_refused_unless_it_is_allowed() -> None:
    with Site({"/": page()}) as site:
        for url in (site.url, f"http://localhost:{site.port}/"):
            with pytest.raises(SourceError) as caught:
                list(web.scan({"url": url}, {}))
            assert caught.value.code == "forbidden_address"
        assert not site.requests


def test_redirects_on_the_site_are_followed_and_others_are_not() -> None:
    with Site({"/": page()}) as other, Site() as site:
        site.pages = {
            "/": page("/old", "/out", "/loopback", "/circle", "/again", "/scheme"),
            "/old": redirect("new", 301),
            "/new": page("/behind"),
            "/behind": page(),
            "/out": redirect("http://example.org/"),
            "/loopback": redirect(f"{other.url}/"),
            "/scheme": redirect("file:///etc/passwd"),
            "/circle": redirect("/circle2"),
            "/circle2": redirect("/circle"),
            "/again": redirect("/new"),
        }
        found = crawl(site)
        assert list(found) == ["/", "/new", "/circle", "/behind"]
        assert found["/circle"] == "unreachable"
        assert not other.requests
        assert [path for path, _ in site.requests].count("/new") == 1


def test_a_start_page_that_redirects_on_its_site_is_followed() -> None:
    with Site({"/": redirect("/en/"), "/en/": page("/en/a", "/de/"), "/en/a": page(), "/de/": page()}) as site:
        known: dict[str, State] = {}
        assert list(crawl(site, known, include=["/en/"])) == ["/en/", "/en/a"]
        assert crawl(site, known, include=["/en/"]) == {"/en/": None, "/en/a": None}


def test_robots_are_obeyed() -> None:
    mine = "User-agent: ragsite\nDisallow: /private\nAllow: /private/open$\nCrawl-delay: 0.2\n"
    robots = f"User-agent: *\nDisallow: /\n\n{mine}"
    pages = {"/": page("/private/a", "/private/open", "/to"), "/private/open": page(), "/to": redirect("/private/b")}
    with Site({**pages, "/robots.txt": Reply(robots.encode(), "text/plain")}) as site:
        started = time.monotonic()
        assert list(crawl(site)) == ["/", "/private/open"]
        assert time.monotonic() - started >= 3 * 0.2
        assert list(site.statuses()) == ["/robots.txt", "/", "/private/open", "/to"]
        assert failure(site, "/private/a").code == "unauthorized"
        assert failure(site, user_agent="other/1").code == "unauthorized"


@pytest.mark.parametrize(
    ("status", "read"), [(404, True), (403, True), (410, True), (500, False), (503, False), (429, False)]
)
def test_a_robots_file_that_is_missing_allows_all_and_one_that_fails_nothing(status: int, read: bool) -> None:
    with Site({"/": page(), "/robots.txt": Reply(status=status)}) as site:
        if read:
            assert list(crawl(site)) == ["/"]
        else:
            assert failure(site).code == "unreachable"
            assert list(site.statuses()) == ["/robots.txt"]


def test_a_robots_file_may_be_redirected_but_not_to_a_private_address() -> None:
    rules = Reply(b"User-agent: *\nDisallow: /a", "text/plain")
    with Site({"/robots.txt": rules}) as other, Site({"/": page("/a", "/b"), "/a": page(), "/b": page()}) as site:
        site.pages["/robots.txt"] = redirect(f"{other.url}/robots.txt")
        assert list(crawl(site)) == ["/", "/b"]
        only_this = (f"127.0.0.1:{site.port}",)
        with pytest.raises(SourceError) as caught:
            list(web.scan({"url": site.url}, {}, allowed=only_this))
        assert caught.value.code == "forbidden_address"
        assert len(other.requests) == 1


def test_noindex_and_nofollow_are_obeyed_in_pages_headers_and_links() -> None:
    hidden = '<meta name="ROBOTS" content="NoIndex">'
    pages = {
        "/": page("/noindex", "/nofollow", "/none", "/header", "/mine", "/other", "/rel"),
        "/noindex": page("/1", head=hidden),
        "/nofollow": page("/2", head='<meta name="robots" content="max-snippet:5, nofollow">'),
        "/none": page("/2", head='<meta name="robots" content="none">'),
        "/header": Reply(b"<a href=/2>", headers={"X-Robots-Tag": "ragsite: noindex, nofollow"}),
        "/mine": page("/2", head='<meta name="ragsite" content="noindex, nofollow">'),
        "/other": Reply(b"<a href=/3>", headers={"X-Robots-Tag": "googlebot: noindex, nofollow"}),
        "/rel": Reply(b'<a rel="external nofollow" href=/2>'),
        **{f"/{n}": page() for n in (1, 2, 3)},
    }
    with Site(pages) as site:
        known: dict[str, State] = {}
        expected = ["/", "/nofollow", "/other", "/rel", "/1", "/3"]
        assert list(crawl(site, known)) == expected
        assert set(crawl(site, known)) == set(expected)
        site.pages["/3"] = Reply(page().body, headers={"X-Robots-Tag": "noindex"})
        assert "/3" not in crawl(site, known)


def test_base_and_canonical_are_heeded_on_the_same_site_only() -> None:
    with Site() as site:
        canonical = '<link rel="canonical" href="{}">'.format
        site.pages = {
            "/": page("/v?id=1", "/v?id=2", "/base", "/far", "/v"),
            "/v?id=1": page("/deep", head=canonical("/v#x")),
            "/v?id=2": page(head=canonical(f"{site.url}/v")),
            "/v": page(head=canonical("/v")),
            "/far": page(head=canonical("https://example.org/far")),
            "/base": page("page", head='<base href="/sub/dir/">'),
            "/sub/dir/page": page("x", head='<base href="http://example.org/">'),
            "/deep": page(),
        }
        known: dict[str, State] = {}
        expected = ["/", "/v", "/base", "/far", "/deep", "/sub/dir/page"]
        assert list(crawl(site, known)) == expected
        assert known[f"{site.url}/v"]["url"] == f"{site.url}/v?id=1"
        site.statuses()
        assert crawl(site, known) == dict.fromkeys(expected)
        assert site.statuses()["/v?id=1"] == 304


def test_only_pages_and_documents_are_items_and_others_are_not_downloaded() -> None:
    office = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    types = {
        "/a.pdf": "application/pdf", "/b.docx": office, "/c.md": "text/markdown", "/d.txt": "text/plain; charset=utf-8",
        "/e.xhtml": "application/xhtml+xml", "/f.pdf": "application/octet-stream", "/g.png": "image/png",
        "/h.js": "text/javascript", "/i.zip": "application/zip", "/j.json": "application/json", "/k": "",
    }  # fmt: skip
    with Site({"/": page(*types), **{path: Reply(b"content", kind) for path, kind in types.items()}}) as site:
        assert list(crawl(site)) == ["/", "/a.pdf", "/b.docx", "/c.md", "/d.txt", "/e.xhtml", "/f.pdf"]
        item = [
            item for item in web.scan({"url": site.url, "delay_seconds": 0}, {}, allowed=LOCAL) if "d.txt" in item.key
        ]
        assert item[0].fetch
        fetched = item[0].fetch()
        assert (fetched.media_type, fetched.filename, fetched.content.read()) == (types["/d.txt"], "d.txt", b"content")
        with pytest.raises(SourceError):
            item[0].fetch()


def test_a_page_has_its_title_and_links_in_its_own_encoding() -> None:
    html = '<meta charset="windows-1252"><title> Grüße\n an alle </title><a href="/ü">'
    with Site({"/": Reply(html.encode("cp1252"), "text/html"), "/%C3%BC": page()}) as site:
        items = list(web.scan({"url": site.url, "delay_seconds": 0}, {}, allowed=LOCAL))
        assert [item.key for item in items] == [f"{site.url}/", f"{site.url}/%C3%BC"]
        assert items[0].fetch and items[0].fetch().title == "Grüße an alle"


@pytest.mark.parametrize("unit", ["<div>", "<b><i></b>", "<table><a href=x>", "<!--", "<a <", "</p>", "<svg><title>"])
def test_a_page_of_broken_markup_is_read_in_time(unit: str) -> None:
    url = parse("http://example.org/")
    started = time.monotonic()
    read_page(io.BytesIO((unit * (2**20 // len(unit))).encode()), url, charset="", robot="ragsite")
    assert time.monotonic() - started < 5
    for nothing in (b"", b"\0", b"<", b"<!doctype html>", b"\xff\xfe"):
        assert read_page(io.BytesIO(nothing), url, charset="no-such", robot="ragsite").links == []


def test_include_and_exclude_limit_pages_by_their_paths() -> None:
    links = ["/docs/a", "/docs/old/b", "/blog/c", "/documents"]
    with Site({"/": page(*links), **{link: page("/docs/deep") for link in links}, "/docs/deep": page()}) as site:
        found = crawl(site, include=["/docs/"], exclude=["/docs/old"])
        assert list(found) == ["/docs/a", "/docs/deep"]
        assert "/blog/c" not in site.statuses()


def test_at_most_so_many_pages_are_found_and_no_maze_is_endless() -> None:
    with Site({"/": page(*(f"/{n}" for n in range(50))), **{f"/{n}": page() for n in range(50)}}) as site:
        assert len(crawl(site, max_pages=10)) == 10
        assert len(site.requests) == 11

    def maze(request: BaseHTTPRequestHandler) -> None:
        body = page(*(f"{request.path}{n}" for n in range(10)), head='<meta name="robots" content="noindex">').body
        request.send_response(200)
        request.send_header("Content-Type", "text/html")
        request.end_headers()
        request.wfile.write(body)

    class Maze(dict[str, Any]):
        def get(self, path: str, default: Any = None) -> Any:
            return default if path == "/robots.txt" else maze

    with Site() as site:
        site.pages = Maze()
        assert crawl(site, max_pages=1, depth=10) == {}
        assert len(site.requests) <= 1_100


def test_the_delay_lies_between_any_two_requests() -> None:
    with Site({"/": page("/a", "/b"), "/a": page(), "/b": redirect("/c"), "/c": page()}) as site:
        started = time.monotonic()
        crawl(site, delay_seconds=0.1)
        assert time.monotonic() - started >= 4 * 0.1


def test_a_sitemap_names_its_pages_and_their_links_are_not_followed() -> None:
    with Site({"/a": page("/c"), "/b?x=1&y=2": page(), "/c": page()}) as site:
        site.pages["/sitemap.xml"] = sitemap(site, ["/a", "/b?x=1&amp;y=2", "/missing", "/a"])
        known: dict[str, State] = {}
        assert list(crawl(site, known, start="/sitemap.xml")) == ["/a", "/b?x=1&y=2"]
        assert crawl(site, known, start="/sitemap.xml") == {"/a": None, "/b?x=1&y=2": None}
        assert "links" not in known[f"{site.url}/a"]
        site.pages["/sitemap.xml"] = sitemap(site, ["/a"])
        assert crawl(site, known, start="/sitemap.xml") == {"/a": None}


def test_sitemaps_may_be_packed_and_in_an_index() -> None:
    with Site({"/a": page(), "/b": page(), "/c": page()}) as site:
        site.pages["/index.xml.gz"] = Reply(gzip.compress(sitemap(site, ["/1.xml", "/2.xml.gz", "/gone.xml", "/3.xml",
            "/index.xml.gz"], index=True).body), "application/gzip")  # fmt: skip
        site.pages["/1.xml"] = sitemap(site, ["/a"])
        site.pages["/2.xml.gz"] = Reply(gzip.compress(sitemap(site, ["/b"]).body), "application/gzip")
        site.pages["/3.xml"] = redirect("/4.xml")
        packed = {"Content-Encoding": "gzip"}
        site.pages["/4.xml"] = Reply(gzip.compress(sitemap(site, ["/c"]).body), "text/xml", headers=packed)
        assert list(crawl(site, start="/index.xml.gz")) == ["/a", "/b", "/c"]
        site.pages["/1.xml"] = Reply(status=500)
        assert failure(site, "/index.xml.gz").code == "unreachable"


def test_a_sitemap_that_is_broken_cut_short_or_none_fails_the_scan() -> None:
    with Site() as site:
        whole = sitemap(site, [f"/{n}" for n in range(1_000)]).body
        site.pages = {
            "/cut.xml": Reply(whole[:-100]),
            "/cut.xml.gz": Reply(gzip.compress(whole)[:-100]),
            "/html.xml": page(),
            "/xhtml.xml": Reply(b"<html><body/></html>"),
            "/empty.xml": Reply(b""),
        }
        for path in site.pages:
            assert failure(site, path, max_pages=5_000).code == "unreadable", path
        site.pages["/away.xml"] = redirect("http://example.org/sitemap.xml")
        assert failure(site, "/away.xml").code == "invalid"
        assert failure(site, "/none.xml").code == "not_found"


def test_a_sitemap_cannot_read_files_or_fill_the_memory() -> None:
    with Site({"/a": page()}) as site:
        entity = (
            '<!DOCTYPE urlset [<!ENTITY e SYSTEM "file:///etc/hostname">]><urlset><url><loc>{}/&e;</loc></url></urlset>'
        )
        site.pages["/file.xml"] = Reply(entity.format(site.url).encode())
        crawl(site, start="/file.xml")
        assert all(path in ("/robots.txt", "/file.xml", "/") for path, _ in site.requests)
        laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
        bomb = f'<!DOCTYPE urlset [<!ENTITY l0 "lol">{laughs}]><urlset><url><loc>&l11;</loc></url></urlset>'
        site.pages["/laughs.xml"] = Reply(bomb.encode())
        site.pages["/nodes.xml"] = Reply(b"<urlset><url>" + b"<a/>" * 100_000 + b"</url></urlset>")
        site.pages["/large.xml.gz"] = Reply(gzip.compress(b"<urlset>" + b" " * 70 * 2**20 + b"</urlset>"))
        assert failure(site, "/laughs.xml").code == "unreadable"
        assert failure(site, "/nodes.xml").code == "too_large"
        tracemalloc.start()
        assert failure(site, "/large.xml.gz").code in ("too_large", "unreadable")
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
        tracemalloc.stop()


def test_pages_are_yielded_as_they_are_read() -> None:
    with Site({"/": page("/a"), "/a": page()}) as site:
        items = web.scan({"url": site.url, "delay_seconds": 0}, {}, allowed=LOCAL)
        assert next(items).key == f"{site.url}/"
        assert list(site.statuses()) == ["/robots.txt", "/"]
        items.close()  # type: ignore[attr-defined]


def test_settings_are_completed_and_normalised() -> None:
    assert web.check({"url": " HTTPS://Example.ORG:443/docs#x ", "include": ["/a b/../c/"], "delay_seconds": 2}) == {
        "url": "https://example.org/docs", "depth": 3, "max_pages": 1_000, "delay_seconds": 2.0, "include": ["/c/"],
        "exclude": [], "user_agent": "ragsite/0.1",
    }  # fmt: skip
    checked = web.check({"url": "http://example.org", "exclude": ["/x%2fy"]})
    assert web.check(checked) == checked


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        ({"url": ""}, "url"), ({"url": 5}, "url"), ({"url": None}, "url"), ({"url": "ftp://x"}, "url"),
        ({"url": "http://u:p@x"}, "url"), ({"url": "http://0x7f.1/"}, "url"), ({"depth": 11}, "depth"),
        ({"depth": "3"}, "depth"), ({"depth": True}, "depth"), ({"depth": 1.5}, "depth"),
        ({"max_pages": 0}, "max_pages"),
        ({"max_pages": None}, "max_pages"), ({"delay_seconds": -1}, "delay_seconds"),
        ({"delay_seconds": float("nan")}, "delay_seconds"), ({"include": "/docs"}, "include"),
        ({"include": ["docs"]}, "include/0"), ({"exclude": ["/a", "/b?c"]}, "exclude/1"),
        ({"include": ["/"] * 101}, "include"), ({"user_agent": "a\nb"}, "user_agent"),
        ({"user_agent": ""}, "user_agent"),
        ({"user_agent": "ü"}, "user_agent"), ({"allowed": ["127.0.0.1"]}, "allowed"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_pointed_at(settings: dict[str, Any], pointer: str) -> None:
    with pytest.raises(SourceError) as caught:
        web.check({"url": "http://example.org", **settings})
    assert caught.value.pointer == f"/settings/{pointer}"
    assert "u:p" not in str(caught.value)
