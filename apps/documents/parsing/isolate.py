"""Locks a parsing process in, from the inside, before it reads a single untrusted byte.

What is achieved, and what is not:

1. Everywhere: resource limits (`setrlimit`) on address space, CPU time, file size, open files; no core dump.
   macOS accepts but does not enforce the address-space limit.
2. Linux: `PR_SET_PDEATHSIG` (dies with its parent) and `PR_SET_NO_NEW_PRIVS` (no set-uid way up).
3. Linux, where the kernel and container allow `unshare`: an empty network namespace, so no socket reaches
   anything. Docker's default seccomp profile refuses it; then the process keeps its parent's network.
4. Linux 5.13 and newer: Landlock leaves it no file to open but its own scratch directory and, for reading,
   Python's library and this package, which late imports need, and no program to run but `tesseract` where it is
   installed, with the system's libraries and its models. Elsewhere it can read what its user can read.

The caller learns what was achieved from the returned dictionary; nothing here raises because a layer is
missing. None of this is a virtual machine: a kernel bug remains a kernel bug.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

# include/uapi/linux/prctl.h, sched.h, landlock.h; system call numbers are the same on x86_64 and aarch64.
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_CREATE_VERSION = 1
_LANDLOCK_RULE_PATH_BENEATH = 1
_ACCESS_FS_V1 = (1 << 13) - 1  # every file right of Landlock ABI 1: execute ... make_sym
_ACCESS_FS_REFER, _ACCESS_FS_TRUNCATE = 1 << 13, 1 << 14  # ABI 2, ABI 3
_ACCESS_FS_SCRATCH = (1 << 1) | (1 << 2) | (1 << 8) | (1 << 5)  # write, read, make_reg, remove_file
_ACCESS_FS_EXECUTE, _ACCESS_FS_READ = 1 << 0, 1 << 2
_ACCESS_FS_LIBRARY = _ACCESS_FS_READ | (1 << 3)  # read_file, read_dir
_ACCESS_NET = 0b11  # ABI 4: bind and connect TCP


class _RulesetAttr(ctypes.Structure):
    _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("fd", ctypes.c_int32)]


def die_with_parent(parent: int) -> None:
    """Ask for SIGKILL when the parent ends, and leave at once if it already has. Linux only."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def limit(*, memory_bytes: int, output_bytes: int, open_files: int, cpu_seconds_total: int) -> None:
    """Process-wide hard limits. CPU is given as a total here and re-armed per document by `arm_cpu`."""
    for name, value in (
        ("RLIMIT_CORE", 0),
        ("RLIMIT_FSIZE", output_bytes),
        ("RLIMIT_NOFILE", open_files),
        ("RLIMIT_AS", memory_bytes),
        ("RLIMIT_CPU", cpu_seconds_total),
    ):
        which = getattr(resource, name, None)
        if which is None:
            continue
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(which, (value, value))


def arm_cpu(seconds: int) -> None:
    """Allow `seconds` more CPU seconds from now; past them the kernel sends SIGXCPU, which kills."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = int(usage.ru_utime + usage.ru_stime)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = used + seconds + 1
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (soft if hard < 0 else min(soft, hard), hard))


def isolate(scratch: str, *, programs: Iterable[str] = (), readable: Iterable[str] = ()) -> dict[str, str]:
    """Give up privileges, network and files outside `scratch`; must run while single-threaded.

    `programs` may still be run, with the system's libraries; folders in `readable` may be read.

    Returns {"privileges": "none"|"inherited", "network": "none"|"tcp_denied"|"inherited",
    "filesystem": "scratch"|"inherited"}.
    """
    achieved = {"privileges": "inherited", "network": "inherited", "filesystem": "inherited"}
    if sys.platform != "linux":
        return achieved
    with contextlib.suppress(OSError, AttributeError):
        libc = _libc()
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
            achieved["privileges"] = "none"
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWNET) == 0:
            achieved["network"] = "none"
        allowed = {**_LIBRARIES, **dict.fromkeys(readable, _ACCESS_FS_LIBRARY)}
        for program in programs:
            allowed |= dict.fromkeys(_SYSTEM_LIBRARIES, _ACCESS_FS_LIBRARY | _ACCESS_FS_EXECUTE)
            allowed[program] = _ACCESS_FS_EXECUTE | _ACCESS_FS_READ
        abi = _landlock(libc, scratch, allowed) if platform.machine() in ("x86_64", "aarch64") else 0
        if abi:
            achieved["filesystem"] = "scratch"
        if abi >= 4 and achieved["network"] == "inherited":
            achieved["network"] = "tcp_denied"
    return achieved


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _landlock(libc: ctypes.CDLL, scratch: str, allowed: Mapping[str, int]) -> int:
    """Restrict this process to `scratch` and to the rights on paths in `allowed`.

    Returns the Landlock ABI in force, 0 when there is none.
    """
    syscall = libc.syscall
    syscall.restype = ctypes.c_long
    abi = syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_LANDLOCK_CREATE_VERSION))
    if abi < 1:
        return 0
    handled = _ACCESS_FS_V1
    handled |= _ACCESS_FS_REFER if abi >= 2 else 0
    handled |= _ACCESS_FS_TRUNCATE if abi >= 3 else 0
    attr = _RulesetAttr(handled, _ACCESS_NET if abi >= 4 else 0)
    size = ctypes.sizeof(attr) if abi >= 4 else 8
    ruleset = syscall(_LANDLOCK_CREATE, ctypes.byref(attr), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return 0
    try:
        scratch_rights = _ACCESS_FS_SCRATCH | (_ACCESS_FS_TRUNCATE if abi >= 3 else 0)
        for path, rights in [(scratch, scratch_rights), *allowed.items()]:
            if not os.path.exists(path):
                continue
            if not os.path.isdir(path):  # the kernel refuses rights of folders on files
                rights &= _ACCESS_FS_EXECUTE | _ACCESS_FS_READ
            place = os.open(path, os.O_PATH)
            try:
                rule = ctypes.byref(_PathBeneath(rights, place))
                if syscall(_LANDLOCK_ADD, ruleset, _LANDLOCK_RULE_PATH_BENEATH, rule, ctypes.c_uint32(0)):
                    return 0
            finally:
                os.close(place)
        if syscall(_LANDLOCK_RESTRICT, ruleset, ctypes.c_uint32(0)):
            return 0
    finally:
        os.close(ruleset)
    return int(abi)


def _library_paths() -> set[str]:
    """Directories that hold code and nothing else: the standard library, site-packages, this package."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return {path for path in paths if os.path.isdir(path)} | {str(Path(__file__).resolve().parent)}


_LIBRARIES = dict.fromkeys(_library_paths(), _ACCESS_FS_LIBRARY)
#: What a program is loaded with; links in them resolve to each other.
_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
