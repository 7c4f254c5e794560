"""Where the embedded servers live and how they are addressed: everything follows from the data directory.

    <data_dir>/postgres   the cluster           <data_dir>/run    sockets, locks, pid files (0700)
    <data_dir>/redis      Redis' directory      <data_dir>/logs   one bounded log per process

No address is ever written down or negotiated: any process that knows the data directory computes the same
URLs, so a worker started by hand finds the servers that `up` started. Only Unix sockets are used, so no port
can be taken and nothing listens on the network.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import quote

REPOSITORY = Path(__file__).resolve().parents[2]
DATABASE = "ragsite"
OWNER_ROLE = "ragsite_owner"
APP_ROLE = "ragsite_app"
SUPERUSER = "postgres"
PORT = 5432

# sun_path holds 108 bytes on Linux and 104 on macOS and the BSDs, the closing NUL included.
_LONGEST_SOCKET = 103
_SOCKET_FILE = f".s.PGSQL.{PORT}"
# A comma separates hosts in libpq, and other signs are read differently by the clients' URL parsers.
_PLAIN = re.compile(r"[A-Za-z0-9_./+@=~-]+")
# Not tempfile.gettempdir(): it follows TMPDIR, and two processes must agree whatever their environment says.
_SHORT_ROOT = Path("/tmp")


class EmbeddedError(RuntimeError):
    """An embedded server cannot be provided; the message is one line for the operator."""


def data_dir() -> Path:
    """The data directory, absolute: RAGSITE_DATA_DIR, else `.data` beside manage.py. Not made here."""
    raw = os.environ.get("RAGSITE_DATA_DIR", "").strip()
    return Path(raw).expanduser().resolve() if raw else REPOSITORY / ".data"


def run_dir(data_dir: Path) -> Path:
    """Locks and pid files, and the sockets where the path is short enough."""
    return data_dir / "run"


def log_dir(data_dir: Path) -> Path:
    """One log per process: `postgres.log`, `redis.log`, and those of the processes `up` starts."""
    return data_dir / "logs"


def socket_dir(data_dir: Path) -> Path:
    """Where both servers' sockets are: `<data_dir>/run`, or a short stand-in named by the path's hash."""
    usual = run_dir(data_dir)
    path = str(usual / _SOCKET_FILE)
    if len(os.fsencode(path)) <= _LONGEST_SOCKET and _PLAIN.fullmatch(path):
        return usual
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return _SHORT_ROOT / f"ragsite-{digest}"


def owner_url(data_dir: Path) -> str:
    """The database as the role that owns the tables: migrations and operators' acts."""
    return _database_url(data_dir, OWNER_ROLE, DATABASE)


def app_url(data_dir: Path) -> str:
    """The database as the role the application serves with: owns nothing, row-level security binds it."""
    return _database_url(data_dir, APP_ROLE, DATABASE)


def superuser_url(data_dir: Path) -> str:
    """The maintenance database as the superuser: for `bootstrap` and tests alone."""
    return _database_url(data_dir, SUPERUSER, "postgres")


def redis_socket(data_dir: Path) -> Path:
    """Redis' Unix socket."""
    return socket_dir(data_dir) / "redis.sock"


def redis_url(data_dir: Path) -> str:
    """Redis' database 0 over its Unix socket, in redis-py's form: `unix:///path?db=0`."""
    return f"unix://{quote(str(redis_socket(data_dir)))}?db=0"


def _database_url(data_dir: Path, role: str, database: str) -> str:
    # The port is spelled out because libpq would otherwise take it from a stray PGPORT.
    host = quote(str(socket_dir(data_dir)), safe="")
    return f"postgresql://{role}@/{database}?host={host}&port={PORT}"
