"""Signing in across the wall."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.db import connection
from django.http import HttpRequest

from . import tenancy
from .models import User


class TenantModelBackend(ModelBackend):
    """Django's own backend; finding the user also sets its tenant for the rest of the request's transaction
    (opened by CuratorTenantMiddleware)."""

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> User | None:
        user = super().authenticate(request, username=username, password=password, **kwargs)
        if user is None and connection.in_atomic_block:
            # Looking a name up enters its tenant, and a savepoint's end does not leave it: whoever gave a wrong
            # password must not see the rest of this request from inside.
            tenancy.enter("")
        return user if isinstance(user, User) else None

    def get_user(self, user_id: int) -> User | None:
        tenant_id = tenancy.tenant_of_user(user_id=user_id)
        if tenant_id is None:
            return None
        _enter_if_in_request(tenant_id)
        with tenancy.scope(tenant_id):
            user = super().get_user(user_id)
        return user if isinstance(user, User) else None

    def user_can_authenticate(self, user: User | None) -> bool:  # type: ignore[override]
        allowed = super().user_can_authenticate(user)
        if allowed and user is not None:
            _enter_if_in_request(user.tenant_id)
        return allowed


def _enter_if_in_request(tenant_id: object) -> None:
    if connection.in_atomic_block:
        tenancy.enter(str(tenant_id))
