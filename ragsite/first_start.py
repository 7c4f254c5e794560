"""What the very first start makes: the default tenant, one admin, one API key, the sample collection.

Each is made once and printed once; a later start finds the admin and makes nothing.
"""

from __future__ import annotations

import io
import secrets
from typing import Any, TextIO

from django.conf import settings

from apps.access import keys, tenancy
from apps.access.models import User
from apps.documents import collections
from apps.documents.accept import Submission, accept
from apps.documents.models import Collection

SAMPLE = "ragsite-docs"


def run(stdout: TextIO, sample: bool) -> dict[str, Any]:
    """{"admin": {"username", "password"} or None, "api_key": str or None}; both None when there is an admin already."""
    tenant = keys.ensure_tenant(slug=tenancy.DEFAULT_TENANT, name="Default")
    with tenancy.scope(tenant.id):
        known = User.objects.filter(is_superuser=True).exists()
    if known:
        return {"admin": None, "api_key": None}
    if sample:
        count = load_sample(tenant_id=tenant.id)
        stdout.write(f"  sample collection {SAMPLE!r}: {count} documents accepted, workers will index them\n")
    # Last, because what is made here is shown once: a start that fails before shows it the next time.
    password = secrets.token_urlsafe(12)
    User.objects.create_superuser("admin", password=password, tenant_id=tenant.id)
    _, api_key = keys.create_key(tenant_id=tenant.id, name="first key", scopes=["read", "write", "admin"])
    return {"admin": {"username": "admin", "password": password}, "api_key": api_key}


def load_sample(*, tenant_id: Any) -> int:
    """The project's own documentation, so that the product can be asked about itself. Returns how many documents."""
    with tenancy.scope(tenant_id):
        collection = Collection.objects.select_related("space").filter(slug=SAMPLE).first() or collections.create(
            tenant_id=tenant_id,
            slug=SAMPLE,
            name="About ragsite",
            description="This product's own documentation",
        )
    root = settings.BASE_DIR
    pages = [
        root / "README.md",
        root / "ARCHITECTURE.md",
        root / "CHANGELOG.md",
        *sorted(root.glob("docs/**/*.md")),
    ]
    paths = [path for path in pages if path.exists()]
    for path in paths:
        submission = Submission(
            content=io.BytesIO(path.read_bytes()),
            media_type="text/markdown",
            filename=path.name,
            source_uri=str(path.relative_to(root)),
        )
        with tenancy.scope(tenant_id):
            accept(collection=collection, submission=submission)
    return len(paths)
