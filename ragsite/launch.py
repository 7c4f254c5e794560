"""Run a program that may not outlive its parent: `python launch.py PARENT_PID program argument...`.

A supervisor that is killed cannot stop its children, so the kernel does (Linux), or this process stays
between the two and watches (elsewhere). A process of its own rather than code between fork and exec, where a
lock held by another thread of the parent would hang the child. Standard library only: it runs before every
child.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_WATCH_S = 0.5


def die_with_parent() -> bool:
    """Ask the kernel to kill this process when its parent ends; it survives exec. False where it cannot."""
    if not sys.platform.startswith("linux"):
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0)


def watch(parent: int, program: list[str]) -> int:
    """Run `program`, kill it when `parent` is gone, hand signals on to it; its exit status."""
    child = subprocess.Popen(program)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    while child.poll() is None:
        if os.getppid() != parent:
            child.kill()
        time.sleep(_WATCH_S)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def main() -> None:
    """Become the program (Linux) or its keeper (elsewhere)."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if not die_with_parent():
        sys.exit(watch(parent, program))
    if os.getppid() != parent:  # It died before the kernel was told.
        sys.exit(1)
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
