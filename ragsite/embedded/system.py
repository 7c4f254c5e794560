"""What the operating system is asked for: directories, the user the servers run as, processes, memory, logs.

PostgreSQL refuses to run as root. When this process is root, both servers run as a system user of their own,
and the least is done to let that user in: search permission on the directories above, nothing listed, nothing
owned.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from .paths import EmbeddedError

SERVICE_USER = "ragsite_postgres"
LOG_LIMIT = 10 * 1024 * 1024  # bytes kept in a log before it becomes `<name>.1`


def service_user(cluster: Path) -> pwd.struct_passwd:
    """Who the servers run as: the cluster's owner, else this user, else (as root) a system user made on
    demand.

    Raises EmbeddedError if the cluster is another user's, or the system user cannot be made.
    """
    owner = cluster.stat().st_uid if cluster.exists() else None
    me = os.geteuid()
    if me != 0:
        if owner not in (None, me):
            raise EmbeddedError(
                f"{cluster.parent} belongs to user {_name(owner)}; run as that user or set RAGSITE_DATA_DIR"
            )
        return _entry(me)
    if owner:
        return _entry(owner)
    try:
        return pwd.getpwnam(SERVICE_USER)
    except KeyError:
        pass
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "useradd"
    command = [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SERVICE_USER]
    try:
        made = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        why = made.stderr.strip()
    except OSError as error:
        why = str(error)
    # Asked again even after a failure: of two roots at once one fails, and the user exists all the same.
    try:
        return pwd.getpwnam(SERVICE_USER)
    except KeyError:
        raise EmbeddedError(
            f"PostgreSQL does not run as root and the user {SERVICE_USER} cannot be made ({why}): "
            "run as another user, or set DATABASE_URL and REDIS_URL"
        )


def as_user(user: pwd.struct_passwd) -> dict[str, Any]:
    """subprocess arguments that start a program as `user`, away from the terminal, in a clean environment.

    Its own session: Ctrl-C in the terminal stops the product, which then stops its servers in order. libpq
    and the server read PG* variables and the locale; neither may depend on who happened to start them.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG", "TZ"))}
    options: dict[str, Any] = {
        "env": environment | {"LC_ALL": "C", "HOME": user.pw_dir, "USER": user.pw_name},
        "cwd": "/",
        "stdin": subprocess.DEVNULL,
        "start_new_session": True,
        "umask": 0o077,
    }
    if os.geteuid() == 0:
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    return options


def make_dir(path: Path, user: pwd.struct_passwd | None = None, mode: int = 0o755) -> None:
    """Make `path`; with `user`, theirs alone. EmbeddedError names the first directory that refuses."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if user is not None:
            found = path.lstat()
            # In a shared /tmp someone else may have been there first, or have left a link to elsewhere.
            if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (user.pw_uid, os.geteuid()):
                raise EmbeddedError(f"{path} is not a directory of user {user.pw_name}: remove it")
            if os.geteuid() == 0 and found.st_uid != user.pw_uid:
                os.chown(path, user.pw_uid, user.pw_gid)
            if stat.S_IMODE(found.st_mode) != mode:
                path.chmod(mode)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise EmbeddedError(f"{path} cannot be written ({error.strerror}): choose another RAGSITE_DATA_DIR")


def let_through(path: Path, user: pwd.struct_passwd) -> None:
    """As root, let `user` pass to `path`: search permission (o+x) on each directory above that lacks it."""
    if os.geteuid() != 0:
        return
    for parent in path.resolve().parents:
        found = parent.stat()
        if found.st_uid == user.pw_uid and found.st_mode & stat.S_IXUSR:
            continue
        if not found.st_mode & stat.S_IXOTH:
            parent.chmod(stat.S_IMODE(found.st_mode) | stat.S_IXOTH)


def let_read(tree: Path, user: pwd.struct_passwd) -> None:
    """As root, let `user` read a tree that was installed under a strict umask, and run what root can run."""
    if os.geteuid() != 0 or not tree.exists():
        return
    let_through(tree, user)
    for path in [tree, *tree.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        wanted = mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
        if wanted != mode and not path.is_symlink():
            path.chmod(wanted)


def processes_in(directory: Path) -> Iterator[psutil.Process]:
    """Live processes whose working directory is `directory`; a PostgreSQL process works in its cluster."""
    wanted = str(directory.resolve())
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == wanted:
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue


def package_dir(name: str) -> Path | None:
    """The directory of an installed package, without importing it: some warn and register exit handlers."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def memory_bytes() -> int:
    """The memory this process may use: the machine's, or the container's limit where that is smaller."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):
            continue
    return total


def free_bytes(directory: str) -> int:
    """Free space of the file system at `directory`; 0 if there is none."""
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return 0


def bound_log(path: Path, limit: int = LOG_LIMIT) -> None:
    """Keep `path` at about `limit` bytes: copy it to `<name>.1` and cut it.

    Cut, not renamed: the writers hold the file open, in append mode, and go on at its new end. Lines written
    between copy and cut are lost.
    """
    try:
        if path.stat().st_size > limit:
            shutil.copyfile(path, path.with_name(path.name + ".1"))
            os.truncate(path, 0)
    except FileNotFoundError:
        pass


def open_log(path: Path) -> BinaryIO:
    """Open a log for appending, bounded, readable by its directory's owner alone (errors quote data)."""
    bound_log(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    give_to_owner(descriptor, path.parent)
    return os.fdopen(descriptor, "ab", buffering=0)


def give_to_owner(descriptor: int, directory: Path) -> None:
    """As root, give a file to `directory`'s owner: what root leaves behind must not lock that user out."""
    if os.geteuid() == 0:
        owner = directory.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def last_line(path: Path, wanted: Sequence[str] = ()) -> str:
    """The last line of a log that contains one of `wanted`, else its last line; "" if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 65536))
            lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return ""
    telling = [line for line in lines if any(word in line for word in wanted)]
    return (telling or lines or [""])[-1]


def _entry(uid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedError(
            f"user {uid} has no entry in the password database, which PostgreSQL needs: "
            "add one, or set DATABASE_URL and REDIS_URL"
        )


def _name(uid: int | None) -> str:
    try:
        return pwd.getpwuid(uid or 0).pw_name
    except KeyError:
        return str(uid)
