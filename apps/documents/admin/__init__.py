"""The curators' desk for what we know: one module per page, and the dashboard on the index."""

from __future__ import annotations

from . import collections, dashboard, documents, jobs, sources, spaces

__all__ = ["collections", "dashboard", "documents", "jobs", "sources", "spaces"]
