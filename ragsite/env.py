"""Reading the environment: one typed getter per kind, every failure names its variable.

Used by settings alone. A bad value stops the process at start with one line, before anything is half-running.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

#: Every variable a process has read, with its default: docs and the compose file are checked against it.
READ: dict[str, str] = {}


def text(name: str, default: str = "", *, choices: Collection[str] = ()) -> str:
    """The variable, or `default` when it is unset or empty; one of `choices` where given."""
    READ[name] = default
    value = os.environ.get(name, "").strip() or default
    if choices and value not in choices:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(sorted(choices))}; it is {value!r}")
    return value


def url(name: str) -> str:
    """The variable as the http(s) address of a server, or empty."""
    raw = text(name)
    try:
        parts = urlsplit(raw)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none
        good = False
    if raw and not good:
        raise ImproperlyConfigured(f"{name} must be an address that begins with http:// or https://")
    return raw


def integer(name: str, default: int, *, at_least: int = 0, at_most: int | None = None) -> int:
    """The variable as a whole number not below `at_least`, nor above `at_most`."""
    raw = text(name, str(default))
    try:
        value = int(raw)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a whole number; it is {raw!r}")
    if value < at_least:
        raise ImproperlyConfigured(f"{name} must be at least {at_least}; it is {value}")
    if at_most is not None and value > at_most:
        raise ImproperlyConfigured(f"{name} must be at most {at_most}; it is {value}")
    return value


def decimal(name: str, default: float, *, at_least: float = -math.inf) -> float:
    """The variable as a number not below `at_least`."""
    raw = text(name, str(default))
    try:
        value = float(raw)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ImproperlyConfigured(f"{name} must be a number; it is {raw!r}")
    if value < at_least:
        raise ImproperlyConfigured(f"{name} must be at least {at_least:g}; it is {value:g}")
    return value


def boolean(name: str, default: bool) -> bool:
    """The variable as a yes or no: 1/0, true/false, yes/no, on/off."""
    raw = text(name, str(default)).lower()
    if raw in {"1", "true", "yes", "on"}:
        return True
    if raw in {"0", "false", "no", "off"}:
        return False
    raise ImproperlyConfigured(f"{name} must be true or false; it is {raw!r}")


def words(name: str, default: str = "") -> list[str]:
    """The variable as a comma-separated list without blanks."""
    return [word.strip() for word in text(name, default).split(",") if word.strip()]


def path(name: str, default: Path | None) -> Path | None:
    """The variable as an absolute path, `~` expanded."""
    raw = text(name, str(default) if default else "")
    return Path(raw).expanduser().resolve() if raw else None


def database(name: str, url: str) -> dict[str, object]:
    """A `postgresql://` URL as Django's connection settings.

    A host that is a directory (`?host=/run/postgresql`) is a Unix socket; other query parameters become libpq
    options such as `sslmode`.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise ImproperlyConfigured(f"{name} must start with postgresql://; it starts with {parts.scheme!r}")
    options: dict[str, object] = dict(parse_qsl(parts.query))
    try:
        port = parts.port
    except ValueError:
        raise ImproperlyConfigured(f"{name} has a port that is not a number")
    if not parts.path.strip("/"):
        raise ImproperlyConfigured(f"{name} must name a database: postgresql://user:password@host/NAME")
    return {
        "ENGINE": "ragsite.postgres",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": str(options.pop("host", "") or parts.hostname or ""),
        "PORT": str(port or options.pop("port", "")),
        "CONN_MAX_AGE": 0,
        "OPTIONS": options,
    }


def replica(name: str, url: str, primary: dict[str, Any]) -> dict[str, object]:
    """A read replica's address as Django's connection settings: for the role that the application has on the primary,
    whose password it is too where the address has none. Another role might see what that one may not."""
    found = database(name, url)
    if found["USER"] not in ("", primary["USER"]):
        raise ImproperlyConfigured(f"{name} must have the role {primary['USER']} or none; it has {found['USER']!r}")
    role = {"USER": primary["USER"], "PASSWORD": found["PASSWORD"] or primary["PASSWORD"]}
    return primary | found | role
