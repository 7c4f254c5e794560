"""URLs in one spelling, and which network addresses may be connected to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import quote, unquote_to_bytes, urljoin, urlsplit

import idna

from .types import SourceError

MAX_URL = 2_048  # characters
PORTS = {"http": 80, "https": 443}

Address = IPv4Address | IPv6Address

# IANA IPv4 Special-Purpose Address Registry (RFC 6890), with multicast, the retired 6to4 relays, and Azure's host
# agent, which answers at a public address from within a machine.
_SPECIAL_4 = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24
    203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 168.63.129.16/32
"""
_NOT_PUBLIC_4 = tuple(IPv4Network(each) for each in _SPECIAL_4.split())
# RFC 4291: global unicast is 2000::/3 so far. Mapped, compatible, NAT64, unique local and link-local addresses are
# outside of it; Teredo (in 2001::/23), documentation and 6to4 are within.
_GLOBAL_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    IPv6Network(each) for each in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
_HOST = re.compile(r"(?=.{1,253}\Z)(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")  # URL Standard, "ends in a number checker"
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH_SAFE, _QUERY_SAFE = "/%:@!$&'()*+,;=~-._", "/?%:@!$&'()*+,;=~-._"


@dataclass(frozen=True, slots=True)
class Url:
    """An http or https URL in its one spelling: see `parse`."""

    scheme: str
    host: str  # lower case, IDNA; an IPv6 address without brackets
    port: int
    path: str  # with its first slash
    query: str = ""  # without "?"

    @property
    def netloc(self) -> str:
        """Host, and the port where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def site(self) -> str:
        """Scheme, host and port: "https://example.org"."""
        return f"{self.scheme}://{self.netloc}"

    @property
    def target(self) -> str:
        """Path and query, as a request names them."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def __str__(self) -> str:
        return self.site + self.target


def parse(text: str, base: str = "") -> Url:
    """The URL, taken relative to `base`, without fragment, default port and dot segments; a query keeps its order.

    Raises SourceError("invalid") for anything but http and https, for user names and passwords, host names that
    cannot be, and more than MAX_URL characters; "forbidden_address" for numbers that only some read as an address.
    """
    if len(text) > MAX_URL:
        raise SourceError("invalid", f"The address is longer than {MAX_URL} characters.")
    text = re.sub(r"[\t\r\n]", "", text.strip("\x00\x20\t\r\n\f"))
    try:
        parts = urlsplit(urljoin(base, text) if base else text)
        scheme, name, port = parts.scheme.lower(), parts.hostname or "", parts.port
    except ValueError:
        raise SourceError("invalid", "The address is not a URL.") from None
    if scheme not in PORTS:
        raise SourceError("invalid", "The address must start with http:// or https://.")
    if "@" in parts.netloc:
        raise SourceError("invalid", "The address must not contain a user name or password.")
    url = Url(
        scheme, _host(name), port or PORTS[scheme], _dotless(_quoted(parts.path, _PATH_SAFE)),
        _quoted(parts.query, _QUERY_SAFE),
    )  # fmt: skip
    if len(str(url)) > MAX_URL:
        raise SourceError("invalid", f"The address is longer than {MAX_URL} characters.")
    return url


def _host(name: str) -> str:
    if ":" in name and "%" not in name:  # a zone is of one machine alone
        try:
            return str(IPv6Address(name))
        except ValueError:
            raise SourceError("invalid", "The address has a host that is not one.") from None
    try:
        host = name if name.isascii() else idna.encode(name, uts46=True).decode()
    except UnicodeError:
        host = ""
    host = host.lower().removesuffix(".")
    if not host or not _HOST.fullmatch(host):
        raise SourceError("invalid", "The address has a host that is not one.")
    if _NUMERIC.fullmatch(host):
        try:
            return str(IPv4Address(host))
        except ValueError:
            # 2130706433, 0x7f.1 and 0177.0.0.1 are 127.0.0.1 to a C library, and something else to others.
            raise SourceError("forbidden_address", "An IP address must be written as four decimal numbers.") from None
    return host


def _quoted(text: str, safe: str) -> str:
    """Each character that needs an escape has one, no other has."""
    text = _ESCAPE.sub(lambda found: _escape(found.group()), text)
    return quote(re.sub(r"%(?![0-9A-F]{2})", "%25", text), safe=safe, errors="replace")


def _escape(escape: str) -> str:
    character = unquote_to_bytes(escape).decode("latin-1")
    return character if character in _UNRESERVED else escape.upper()


def _dotless(path: str) -> str:
    """RFC 3986, section 5.2.4."""
    kept: list[str] = []
    segments = path.removeprefix("/").split("/")
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def is_public(address: Address) -> bool:
    """Is it a global unicast address, and no wrapping of another address?"""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    return address in _GLOBAL_6 and not any(address in network for network in _NOT_PUBLIC_6)


class Allowed:
    """Which hosts and networks may be reached although they are not public.

    entries: addresses and CIDR networks ("10.0.0.0/8"), host names, and either with a port ("wiki.local:8080").
    Raises SourceError("invalid") for an entry that is none of these.
    """

    def __init__(self, entries: Sequence[str] = ()) -> None:
        self._networks: list[tuple[IPv4Network | IPv6Network, int]] = []
        self._names: set[tuple[str, int]] = set()
        for entry in entries:
            self._add(entry.strip())

    def _add(self, entry: str) -> None:
        try:
            self._networks.append((ip_network(entry), 0))
            return
        except ValueError:
            pass
        try:
            parts = urlsplit(f"//{entry}")
            port, host = parts.port or 0, _host(parts.hostname or "")
            if parts.path or parts.query or parts.fragment or "@" in parts.netloc:
                raise ValueError
        except (ValueError, SourceError):
            raise SourceError("invalid", f"{entry!r} is no host, host:port or network.") from None
        try:
            self._networks.append((ip_network(host), port))
        except ValueError:
            self._names.add((host, port))

    def __call__(self, host: str, port: int, address: str) -> bool:
        """May `host`, which has this address, be connected to at this port?"""
        if {(host, 0), (host, port)} & self._names:
            return True
        try:
            found = ip_address(address)
        except ValueError:  # an address with a zone: link-local
            return False
        if any(found in network for network, only in self._networks if only in (0, port)):
            return True
        return is_public(found)
