"""Named queries: `sql/*.sql` files beside the code that runs them, each query under a `-- name:` line."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"^-- name: (\w+)[^\n]*\n", re.MULTILINE)


def load(directory: Path) -> dict[str, str]:
    """Every named query of a directory: {name: text}. Raises ValueError when a name stands twice."""
    queries: dict[str, str] = {}
    for path in sorted(directory.glob("*.sql")):
        parts = _NAME.split(path.read_text())[1:]
        for name, body in zip(parts[::2], parts[1::2], strict=True):
            if name in queries:
                raise ValueError(f"the query {name} stands twice; again in {path.name}")
            queries[name] = body.strip().rstrip(";")
    return queries
