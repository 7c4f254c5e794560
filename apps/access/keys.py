"""API keys and tenants as verbs: make, recognise, revoke."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import connection
from django.utils import timezone

from . import tenancy
from .models import ApiKey, Scope, Tenant
from .recent import Recent
from .sql import execute

KEY_PREFIX = "rs_"
RECOGNISE = (
    "SELECT id, tenant_id, name, scopes, requests_per_minute, tokens_per_minute FROM access_recognise(%(digest)s)"
)

_recent: Recent[tuple[Any, ...]] = Recent(entries=1_000, bytes=2**20, seconds=600)  # rows of RECOGNISE, by digest


@dataclass(frozen=True, slots=True)
class Caller:
    """A recognised API key: who asks, for which tenant, with which scopes."""

    key_id: UUID
    tenant_id: UUID
    name: str
    scopes: frozenset[str]
    requests_per_minute: int | None
    tokens_per_minute: int | None = None

    @property
    def is_authenticated(self) -> bool:
        return True


def ensure_tenant(*, slug: str, name: str | None = None) -> Tenant:
    """The tenant with this slug, made if new. Raises ValidationError on a bad slug."""
    tenant = Tenant(id=tenancy.tenant_id_for(slug), slug=slug, name=name or slug)
    tenant.clean_fields(exclude=["id"])
    with tenancy.scope(tenant.id):
        return Tenant.objects.get_or_create(id=tenant.id, defaults={"slug": slug, "name": tenant.name})[0]


def create_key(
    *,
    tenant_id: UUID,
    name: str,
    scopes: Collection[str],
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its secret text, which is shown once and never stored.

    Raises ValidationError when a scope is unknown, the name is empty or too long, or a limit is none.
    """
    unknown = sorted(set(scopes) - set(Scope.values))
    if unknown or not scopes:
        raise ValidationError(f"scopes are {', '.join(Scope.values)}; got {', '.join(unknown) or 'none'}")
    if not name.strip():
        raise ValidationError("a key needs a name")
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(
        tenant_id=tenant_id,
        name=name.strip(),
        prefix=secret[: len(KEY_PREFIX) + 6],
        sha256=_digest(secret),
        scopes=sorted(set(scopes)),
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        expires_at=expires_at,
    )
    key.clean_fields(exclude=["tenant"])
    with tenancy.scope(tenant_id):
        key.save(force_insert=True)
    return key, secret


def recognise(secret: str) -> Caller | None:
    """The caller behind a key's text, or None when it is unknown, expired or revoked.

    A key has 256 bits of entropy, so one SHA-256 is enough: there is nothing to brute-force.
    """
    digest = _digest(secret)
    row = execute(RECOGNISE, {"digest": digest}).fetchone()
    if row is None:
        _recent.drop(digest)
        return None
    _recent.keep(digest, row, bytes=1_000)
    return _caller(row)


@contextmanager
def recognising(secret: str) -> Iterator[Caller | None]:
    """For a block that reads in one snapshot at least: the caller as last recognised, to be recognised again in that
    snapshot, without a round trip of its own. None where that cannot be done: nobody remembered, one with a limit
    (whose requests count before they read), a cluster.

    Raises tenancy.Unexpected where the caller is not who it was any more, in place of what the block raises: what it
    has found must not be used then. (A model may have embedded its query.)
    """
    digest = _digest(secret)
    row = None if tenancy.is_clustered(connection) else _recent.get(digest)
    caller = _caller(row) if row else None
    if row is None or caller is None or caller.requests_per_minute is not None:
        yield None
        return
    with tenancy.expecting(RECOGNISE, {"digest": digest}, row):
        yield caller


def _caller(row: tuple[Any, ...]) -> Caller:
    return Caller(row[0], row[1], row[2], frozenset(row[3]), row[4], row[5])


def revoke_key(*, key: ApiKey) -> None:
    """End a key at once; revoking twice keeps the first time."""
    ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=timezone.now())


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
