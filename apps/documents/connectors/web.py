"""A web site, or the pages of a sitemap, as a source.

1. robots.txt is read first, and asked before each request.
2. From the start page links are followed breadth first, on the same scheme, host and port only; redirects join the
   queue at its front, so that what is asked of a link is asked of them. A sitemap names its pages itself.
3. A page that was known is asked for with its validators. "Not modified" costs no body: the page's links are in its
   state. Where a server has no validators, the hash of the body says whether it changed.
4. A page that fails is still there, and its remembered links are followed. Where a failure may hide pages, the known
   ones that were not met are asked for directly: what is not yielded at the end is gone, as far as the site says.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import unquote

import httpx

from .addresses import Url, parse
from .net import MAX_BYTES, MAX_REDIRECTS, Client, HttpError, Response
from .pages import read_page, read_sitemap
from .robots import Directives, header_directives, product, read_rules
from .types import Found, SourceError, State
from .web_items import (
    Held,
    content_hash,
    is_html,
    is_item,
    media_type_of,
    modified_at,
    new_state,
    raiser,
    validators,
)
from .web_settings import WebSettings, validated

MAX_SITEMAPS = 1_000  # of one scan
FAILURES_IN_A_ROW = 20  # from here on it is the site that fails, not its pages


def check(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings a user sent, validated, with defaults: see `WebSettings`. Asks nothing of the network.

    Raises SourceError("invalid") with a pointer to the setting, and "forbidden_address" for an odd spelling of one.
    """
    return validated(settings).as_json()


def scan(
    settings: Mapping[str, Any],
    known: Mapping[str, State],
    *,
    allowed: Sequence[str] = (),
    timeout: float = 30.0,
    max_bytes: int = MAX_BYTES,
) -> Iterator[Found]:
    """The pages and files of a site that are there now, breadth first; a page's key is its URL, or its canonical one.

    allowed, max_bytes: see `net.Client`. timeout: seconds for each page. `fetch` hands out, once, the body that was
    read for the comparison. Ends quietly at `max_pages`. Raises SourceError where robots.txt, the start page or a
    sitemap cannot be read, or FAILURES_IN_A_ROW pages.
    """
    asked = validated(settings)
    with Client(allowed, user_agent=asked.user_agent, timeout=timeout, max_bytes=max_bytes) as client:
        yield from _Crawl(asked, known, client).run()


@dataclass(frozen=True, slots=True)
class _Step:
    """A page to visit: its path and query, its links from the start, and the redirects that led to it."""

    target: str
    depth: int
    chain: tuple[str, ...] = ()
    start: bool = False


class _Crawl:
    def __init__(self, asked: WebSettings, known: Mapping[str, State], client: Client) -> None:
        self._asked, self._known, self._client = asked, known, client
        self._site = asked.url.site
        self._robot = product(asked.user_agent)
        self._depth = 0 if asked.is_sitemap else asked.depth
        self._most_urls = 4 * asked.max_pages + 1_000  # looked at, so that no maze of links is endless
        self._queue: deque[_Step] = deque()
        self._seen: dict[str, bool] = {}  # by target: has it been visited?
        self._keys: set[str] = set()
        self._aliases = {state["url"]: key for key, state in known.items() if "url" in state}
        self._hidden = False  # may pages have stayed out of sight?
        self._failures = 0
        self._next_request = 0.0

    def run(self) -> Iterator[Found]:
        self._rules = read_rules(self._client, self._site, self._asked.user_agent)
        self._delay = max(self._asked.delay_seconds, self._rules.delay)
        self._rest()
        if not self._rules.allow(self._asked.url):
            raise SourceError("unauthorized", "robots.txt does not allow the start page.", pointer="/settings/url")
        if self._asked.is_sitemap:
            self._read_sitemaps()
        else:
            self._seen[self._asked.url.target] = False
            self._queue.append(_Step(self._asked.url.target, 0, start=True))
        yield from self._visit_all()
        if self._hidden:
            self._queue_unmet()
            yield from self._visit_all()

    def _visit_all(self) -> Iterator[Found]:
        while self._queue and len(self._keys) < self._asked.max_pages:
            step = self._queue.popleft()
            if self._seen.get(step.target):
                continue
            self._seen[step.target] = True
            url = parse(self._site + step.target)
            if self._rules.allow(url) and (found := self._visit(step, url)):
                self._keys.add(found.key)
                yield found

    def _queue_unmet(self) -> None:
        for key, state in self._known.items():
            with contextlib.suppress(SourceError):
                url = parse(state.get("url", key))
                if key not in self._keys and url.site == self._site and self._asked.covers(url.path):
                    self._queue.append(_Step(url.target, self._depth))

    def _visit(self, step: _Step, url: Url) -> Found | None:
        key = self._aliases.get(str(url), str(url))
        before = self._known.get(key)
        if before is not None and before.get("url", key) != str(url):
            before = None  # the state is of the same page at another URL
        usable = before if before and ("links" in before or step.depth >= self._depth) else None
        try:
            response = self._get(url, headers=validators(usable), wants=lambda headers: is_item(headers, url))
        except SourceError as error:
            return self._failed(step, key, before, error)
        self._failures = 0
        if response.location:
            response.body.close()
            return self._redirected(step, url, response.location)
        said = header_directives(response.headers, self._robot)
        if response.status == 304 and usable is not None:
            response.body.close()
            self._follow(step, usable.get("links", []) if said.follow else [])
            return Found(key, usable, None) if said.index and self._is_new_item(key, url) else None
        try:
            return self._read(step, url, response, said)
        except SourceError as error:
            return self._failed(step, key, before, error)

    def _read(self, step: _Step, url: Url, response: Response, said: Directives) -> Found | None:
        key, title, links = str(url), "", list[str]()
        media_type = media_type_of(response.headers, url)
        with Held(response.body) as held:
            if not is_item(response.headers, url):
                if step.start:
                    raise SourceError("unreadable", "The start page is no page.", pointer="/settings/url")
                return None
            if is_html(media_type):
                page = read_page(held.body, url, charset=response.charset, robot=self._robot)
                title, said = page.title, said & page.directives
                links = page.links if said.follow else []
                if page.canonical and self._asked.covers(page.canonical.path):
                    key = str(page.canonical)
            state = new_state(response, key, url, content_hash(held.body, media_type))
            if step.depth < self._depth:
                state["links"] = links
                self._follow(step, links)
            if not said.index or not self._is_new_item(key, url):
                return None
            if self._known.get(key, {}).get("sha256") == state["sha256"]:
                return Found(key, state, None)
            return Found(
                key,
                state,
                held.keep(
                    state=state,
                    media_type=media_type,
                    filename=unquote(url.path.rpartition("/")[2]),
                    title=title,
                    modified=modified_at(response.headers),
                ),
            )

    def _failed(self, step: _Step, key: str, before: State | None, error: SourceError) -> Found | None:
        if step.start:
            raise error
        if error.code == "not_found":
            self._failures = 0
            return None
        refused = isinstance(error, HttpError) and error.status < 500 and error.status != 429
        self._failures = self._failures + 1 if error.code in ("timeout", "unreachable") and not refused else 0
        if self._failures >= FAILURES_IN_A_ROW:
            detail = f"{FAILURES_IN_A_ROW} pages in a row could not be read. {error.detail}"
            raise SourceError(error.code, detail)
        if before is not None and "links" in before:
            self._follow(step, before["links"])
        elif before is None or step.depth < self._depth:  # it may have linked, or redirected, to anything
            self._hidden = True
        covered = self._is_new_item(key, parse(self._site + step.target))
        return Found(key, before or {}, raiser(error)) if covered else None

    def _redirected(self, step: _Step, url: Url, location: str) -> Found | None:
        try:
            target = self._on_site(location, url)
        except SourceError:
            if step.start:
                raise
            return None
        chain = (*step.chain, url.target)
        if target.target in chain or len(chain) > MAX_REDIRECTS:
            error = SourceError("unreachable", f"{url.host} redirects in a circle, or too often.")
            first = self._site + chain[0]
            first_key = self._aliases.get(first, first)
            return self._failed(step, first_key, self._known.get(first_key), error)
        if step.start or self._asked.covers(target.path):
            if target.target not in self._seen and len(self._seen) >= self._most_urls:
                self._hidden = True
            elif not self._seen.get(target.target):
                self._seen[target.target] = False
                self._queue.appendleft(_Step(target.target, step.depth, chain, step.start))
        return None

    def _on_site(self, location: str, base: Url) -> Url:
        target = parse(location, base=str(base))
        if target.site != self._site:
            detail = f"The address redirects to another site: {target.site}"
            raise SourceError("invalid", detail, pointer="/settings/url")
        return target

    def _follow(self, step: _Step, links: Sequence[str]) -> None:
        if step.depth < self._depth:
            for target in links:
                self._queue_page(target, step.depth + 1)

    def _queue_page(self, target: str, depth: int) -> bool:
        """False where no more fit."""
        if target not in self._seen and self._asked.covers(target.partition("?")[0]):
            if len(self._seen) >= self._most_urls:
                self._hidden = True
                return False
            self._seen[target] = False
            self._queue.append(_Step(target, depth))
        return True

    def _is_new_item(self, key: str, url: Url) -> bool:
        return key not in self._keys and self._asked.covers(url.path)

    def _read_sitemaps(self) -> None:
        waiting, seen = deque([self._asked.url]), {self._asked.url.target}
        while waiting:
            url = waiting.popleft()
            if not self._rules.allow(url):
                raise SourceError("unauthorized", f"robots.txt does not allow the sitemap {url.path}.")
            try:
                body = self._get_sitemap(url)
            except SourceError as error:
                if error.code == "not_found" and url != self._asked.url:
                    continue
                raise
            with body:
                for entry in read_sitemap(body):
                    if entry.url.site != self._site:
                        continue
                    if not entry.is_sitemap:
                        if not self._queue_page(entry.url.target, 0):
                            return
                    elif entry.url.target not in seen:
                        if len(seen) >= MAX_SITEMAPS:
                            raise SourceError("too_large", f"There are more than {MAX_SITEMAPS} sitemaps.")
                        seen.add(entry.url.target)
                        waiting.append(entry.url)

    def _get_sitemap(self, url: Url) -> BinaryIO:
        for _ in range(MAX_REDIRECTS + 1):
            response = self._get(url)
            if not response.location:
                return response.body
            response.body.close()
            url = self._on_site(response.location, url)
            if not self._rules.allow(url):
                raise SourceError("unauthorized", f"robots.txt does not allow the sitemap {url.path}.")
        raise SourceError("unreachable", f"{url.host} redirects in a circle, or too often.")

    def _get(
        self,
        url: Url,
        *,
        headers: Mapping[str, str] | None = None,
        wants: Callable[[httpx.Headers], bool] | None = None,
    ) -> Response:
        time.sleep(max(0.0, self._next_request - time.monotonic()))
        try:
            return self._client.get(str(url), headers=headers, redirects=0, wants=wants)
        finally:
            self._rest()

    def _rest(self) -> None:
        self._next_request = time.monotonic() + self._delay
