"""Scopes: what a key may do."""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from .keys import Caller
from .problems import Problem

SAFE = {"GET", "HEAD", "OPTIONS"}


def needed_scope(view: Any, method: str | None) -> str:
    """The view's `scope_needed`, or else `read` for safe methods and `write` for the others."""
    return getattr(view, "scope_needed", None) or ("read" if method in SAFE else "write")


class HasScope(BasePermission):
    """A larger scope does not imply a smaller one: a key carries each scope that it was given."""

    def has_permission(self, request: Request, view: Any) -> bool:
        caller = request.user
        if not isinstance(caller, Caller):
            return False
        needed = needed_scope(view, request.method)
        if needed not in caller.scopes:
            raise Problem(403, "missing_scope", f"This key lacks the scope {needed!r}.")
        return True
