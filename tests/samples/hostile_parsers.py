"""Parsers that misbehave, for the sandbox to contain. Only ever called inside a sandboxed child."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

from apps.documents.parsing.types import Block, Parsed


def _parsed(text: str) -> Parsed:
    return Parsed(text=text, blocks=[Block("paragraph", 0, len(text))], parser="hostile/1")


def act(data: bytes, *, media_type: str | None, filename: str | None) -> Parsed:
    """Do what the document's first word says."""
    word, _, rest = data.decode().partition(" ")
    if word == "hang":
        time.sleep(600)
    elif word == "spin":
        while True:
            pass
    elif word == "memory":
        held = []
        while True:
            held.append(bytearray(64 * 1024**2))
    elif word == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif word == "exit":
        os._exit(0)
    elif word == "raise":
        raise RuntimeError("/secret/path in a traceback")
    elif word == "print":
        print("noise" * 1000, flush=True)
        os.write(2, b"noise")
    elif word == "orphan":
        if os.fork() == 0:
            time.sleep(600)
        time.sleep(600)
    elif word == "flood":
        return _parsed("x" * int(rest))
    elif word == "lie":
        parsed = _parsed("short")
        parsed.blocks = [Block("paragraph", 0, 5000)]
        return parsed
    elif word == "garbage":
        for fd in range(3, 64):
            try:
                os.write(fd, b"\xff" * 64)
            except OSError:
                continue
        time.sleep(600)
    elif word == "read":
        return _parsed(Path(rest).read_text())
    elif word == "connect":
        port = int(rest)
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return _parsed("connected")
    elif word == "environment":
        return _parsed(" ".join(sorted(os.environ)))
    elif word == "modules":
        return _parsed(" ".join(sorted(sys.modules)))
    return _parsed(f"pid {os.getpid()}")
