"""Where PostgreSQL and Redis come from when DATABASE_URL and REDIS_URL are unset.

Any number of processes may use one data directory at once; the first starts the servers, the last stops them.

1. Every start and stop happens under an exclusive lock on `run/start.lock`, so two never overlap.
2. A process that uses the servers holds a *shared* lock on `run/holders.lock` until it ends. The kernel
   releases it, so a killed process is never counted.
3. At exit a process tries to make its lock exclusive. Whoever succeeds was the last, and stops the servers.
4. A *janitor* process, one per data directory, sleeps until no holder is left, and stops the servers if the
   last one was killed before it could do step 3. It sleeps on a lock of its own, `run/watched.lock`, held by
   the same processes: waiting on the other it could snatch it from the holder that is just doing step 3.

The children of `up` hold no lock: they die with their supervisor, which holds it for them.
"""

from __future__ import annotations

from .bootstrap import bootstrap
from .holders import attach, ensure_running, managed, prepare, stop
from .paths import (
    APP_ROLE,
    OWNER_ROLE,
    EmbeddedError,
    app_url,
    data_dir,
    log_dir,
    owner_url,
    redis_socket,
    redis_url,
    run_dir,
    socket_dir,
    superuser_url,
)

__all__ = [
    "APP_ROLE",
    "OWNER_ROLE",
    "EmbeddedError",
    "app_url",
    "attach",
    "bootstrap",
    "data_dir",
    "ensure_running",
    "log_dir",
    "managed",
    "owner_url",
    "prepare",
    "redis_socket",
    "redis_url",
    "run_dir",
    "socket_dir",
    "stop",
    "superuser_url",
]
