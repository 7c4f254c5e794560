"""Parsing in a warm, resource-limited child process. The parent never dies, hangs or believes blindly.

1. A child is started, locks itself in (`isolate`), imports the parsers and says hello.
2. For each document it gets a request, and the parent waits for the answer until the wall-clock limit.
3. An answer that is late, cut short or wrong ends the child's whole process group, and the next document
   gets a fresh child. A child is also replaced after `Limits.documents` documents.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from django.conf import settings

from apps.documents.parsing import parse_simple, wire
from apps.documents.parsing.types import Parsed, ParseError

_ROOT = Path(__file__).resolve().parents[3]
_START_SECONDS = 30.0  # a cold disk and a busy machine; a warm start is about 0.3 s


@dataclass(frozen=True, slots=True)
class Limits:
    """What one document may use, and how long a child lives."""

    wall_seconds: float = 60.0
    reading_seconds: float = 1800.0  # for all pictures of a document, each of which may take wall_seconds
    cpu_seconds: int = 60
    memory_bytes: int = 2 * 1024**3  # address space of the child
    input_bytes: int = 128 * 1024**2
    output_bytes: int = 512 * 1024**2
    open_files: int = 64
    documents: int = 200
    languages: str = "eng"  # of text in pictures, as tesseract calls them: "eng+deu"


class Sandbox:
    """One warm child. Thread-safe: calls from several threads take turns.

    `parser` names the function the child calls ("module:function"), with `python_path` prepended to the
    child's import path: the seam through which tests bring in parsers that hang, leak or crash.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        parser: str = "apps.documents.parsing:parse",
        python_path: Sequence[str] = (),
    ) -> None:
        self.limits = limits or Limits()
        self.isolation: dict[str, str] = {}
        self.started = 0  # children so far
        self._parser = parser
        self._python_path = [*python_path, str(_ROOT)]
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch: Path | None = None
        self._served = 0

    def parse(self, data: bytes, *, media_type: str | None = None, filename: str | None = None) -> Parsed:
        """`apps.documents.parsing.parse` in the child. Raises ParseError, whatever the child does."""
        if len(data) > self.limits.input_bytes:
            raise ParseError("too_large", f"The file is larger than {self.limits.input_bytes} bytes.")
        if not data:
            raise ParseError("empty", "The file is empty.")
        meta = {"media_type": media_type and media_type[:255], "filename": filename and filename[-255:]}
        with self._lock:
            try:
                answer, body = self._converse(meta, data)
            except BaseException:
                self._stop()
                raise
            finally:
                self._sweep()
            if answer.get("fatal") or self._served >= self.limits.documents:
                self._stop()
            if not answer.get("ok"):
                raise wire.decode_error(answer)
        return wire.decode_parsed(answer, body)

    def warm(self) -> None:
        """Start the child now rather than with the first document."""
        with self._lock:
            self._start()

    def close(self) -> None:
        """End the child. The next `parse` would start another."""
        with self._lock:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _converse(self, meta: wire.Meta, data: bytes) -> tuple[wire.Meta, bytes]:
        if self._process is not None and not self._alive():
            self._stop()  # died while idle: nothing to do with this document
        process, scratch = self._start()
        started = time.monotonic()
        try:
            meta, inline = wire.spill(meta, data, scratch / "request")
        except OSError:
            raise ParseError("unavailable", "No room for the document in the temporary directory.") from None
        assert process.stdin is not None
        try:
            process.stdin.write(wire.pack(meta, inline))
            process.stdin.flush()
        except OSError:
            raise self._death() from None
        self._served += 1
        answer, body = self._read(process, started + self.limits.wall_seconds)
        while answer.get("going_on"):
            latest = started + self.limits.reading_seconds
            answer, body = self._read(process, min(time.monotonic() + self.limits.wall_seconds, latest))
        if answer.get("file"):
            body = self._read_file(scratch)
        return answer, body

    def _read(self, process: subprocess.Popen[bytes], deadline: float) -> tuple[wire.Meta, bytes]:
        """One message before `deadline` (monotonic seconds)."""
        head = self._read_exactly(process, wire.HEAD.size, deadline)
        meta_length, body_length = wire.HEAD.unpack(head)
        if meta_length > wire.MAX_META or body_length > wire.INLINE:
            raise ParseError("crashed", "The sandboxed parser gave an invalid answer.")
        payload = self._read_exactly(process, meta_length + body_length, deadline)
        try:
            meta = json.loads(payload[:meta_length])
        except ValueError:
            meta = None
        if not isinstance(meta, dict):
            raise ParseError("crashed", "The sandboxed parser gave an invalid answer.")
        return meta, payload[meta_length:]

    def _read_exactly(self, process: subprocess.Popen[bytes], size: int, deadline: float) -> bytes:
        assert process.stdout is not None
        fd = process.stdout.fileno()
        received = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            while len(received) < size:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not selector.select(remaining):
                    raise ParseError("timeout", "Parsing took too long.")
                piece = os.read(fd, size - len(received))
                if not piece:
                    raise self._death()
                received += piece
        return bytes(received)

    def _read_file(self, scratch: Path) -> bytes:
        """The child's answer file; O_NOFOLLOW because a subverted child could leave a link there."""
        try:
            fd = os.open(scratch / "answer", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(fd, "rb") as file:
                return file.read(self.limits.output_bytes + 1)
        except OSError:
            raise ParseError("crashed", "The sandboxed parser gave an invalid answer.") from None

    def _death(self) -> ParseError:
        """Why the child is gone. Its group is killed before it is reaped, so its id cannot be reused yet."""
        status = self._stop()
        if status == -signal.SIGXCPU:
            return ParseError("timeout", f"Parsing used more than {self.limits.cpu_seconds} CPU seconds.")
        return ParseError("crashed", "The parser died on this document.")

    def _alive(self) -> bool:
        assert self._process is not None
        return self._process.poll() is None

    def _start(self) -> tuple[subprocess.Popen[bytes], Path]:
        if self._process is not None and self._scratch is not None:
            return self._process, self._scratch
        try:
            self._scratch = Path(tempfile.mkdtemp(prefix="ragsite-parse-"))
            settings = {
                **asdict(self.limits),
                "parent": os.getpid(),
                "parser": self._parser,
                "scratch": str(self._scratch),
            }
            self._process = _spawner().submit(self._spawn, json.dumps(settings), self._scratch).result()
            hello, _ = self._read(self._process, time.monotonic() + _START_SECONDS)
        except (OSError, RuntimeError, ParseError) as error:
            self._stop()
            raise ParseError("unavailable", "No sandboxed parser could be started.") from error
        self.isolation = {str(key): str(value) for key, value in hello.get("isolation", {}).items()}
        self.started += 1
        self._served = 0
        return self._process, self._scratch

    def _spawn(self, settings: str, scratch: Path) -> subprocess.Popen[bytes]:
        # A bare environment: the child has no use for the parent's passwords and tokens.
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "OCR_LANGUAGES": self.limits.languages,
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join(self._python_path),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONNOUSERSITE": "1",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "apps.documents.parsing.child", settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=scratch,
            env=environment,
            start_new_session=True,
        )

    def _stop(self) -> int | None:
        """Kill the child's process group, reap it, drop its scratch directory; returns its exit status."""
        process, self._process = self._process, None
        scratch, self._scratch = self._scratch, None
        status = None
        if process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(timeout=10)
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    if stream is not None:
                        stream.close()
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        return status

    def _sweep(self) -> None:
        """No document stays on disk between two requests."""
        if self._scratch is not None:
            for name in ("request", "answer"):
                with contextlib.suppress(OSError):
                    (self._scratch / name).unlink(missing_ok=True)


class Pool:
    """A few sandboxes shared by all threads of a process; the most recently used one first."""

    def __init__(self, size: int = 2, limits: Limits | None = None) -> None:
        self._sandboxes = [Sandbox(limits) for _ in range(size)]
        self._idle: queue.LifoQueue[Sandbox] = queue.LifoQueue()
        for sandbox in self._sandboxes:
            self._idle.put(sandbox)

    def parse(self, data: bytes, *, media_type: str | None = None, filename: str | None = None) -> Parsed:
        """`Sandbox.parse` on the next free sandbox; waits for one while all are busy."""
        sandbox = self._idle.get()
        try:
            return sandbox.parse(data, media_type=media_type, filename=filename)
        finally:
            self._idle.put(sandbox)

    def close(self) -> None:
        """End all children."""
        for sandbox in self._sandboxes:
            sandbox.close()


_guard = threading.Lock()
_pool: Pool | None = None
_spawn_thread: ThreadPoolExecutor | None = None


def parse_sandboxed(data: bytes, *, media_type: str | None = None, filename: str | None = None) -> Parsed:
    """Parse one document in this process's pool of two warm children, started on first use; plain text and code here.

    Raises ParseError; its codes are listed in `ParseError.CODES`.
    """
    global _pool
    if simple := parse_simple(data, media_type=media_type, filename=filename):
        return simple
    with _guard:
        if _pool is None:
            _pool = Pool(limits=Limits(languages=settings.OCR_LANGUAGES))
        pool = _pool
    return pool.parse(data, media_type=media_type, filename=filename)


def _spawner() -> ThreadPoolExecutor:
    """One long-lived thread that starts all children.

    The kernel sends a child its parent-death signal when the *thread* that started it ends, so a child
    started from a request thread would die with that request.
    """
    global _spawn_thread
    with _guard:
        if _spawn_thread is None:
            _spawn_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="parse-spawner")
        return _spawn_thread


def close_pool() -> None:
    """End this process's children; the next `parse_sandboxed` starts new ones."""
    global _pool
    with _guard:
        pool, _pool = _pool, None
    if pool is not None:
        pool.close()


def _forget_after_fork() -> None:
    """A forked process must not speak to its parent's children, nor wait on a thread it does not have."""
    global _guard, _pool, _spawn_thread
    _guard, _pool, _spawn_thread = threading.Lock(), None, None


atexit.register(close_pool)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
