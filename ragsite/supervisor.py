"""Keeping processes alive: start them, start them again when they die, say so once, stop them in order.

Knows nothing of the product; `manage.py up` gives it the web server, the workers and beat.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ragsite.embedded import system

LOOP_DEATHS, LOOP_WINDOW_S = 5, 30.0  # that many deaths in that time are a crash loop
LOOP_PACE_S = 10.0  # between attempts once it is one
_DELAYS_S = (0.2, 0.5, 1.0, 2.0)  # before the 1st, 2nd, 3rd, every further start of a loop window
_LAUNCHER = Path(__file__).with_name("launch.py")


@dataclass(frozen=True)
class Child:
    """A process to keep alive. A higher `stage` is stopped before a lower one is told to."""

    name: str
    argv: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    stage: int = 0


class _Running:
    """One child's current process, and what is remembered of its earlier ones."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.start_at = 0.0
        self.deaths: deque[float] = deque(maxlen=LOOP_DEATHS)
        self.looping = False
        self.shown = 0  # bytes of the log already echoed


class Supervisor:
    """Runs `children`; `say` is given one line for each thing worth telling.

    Call `start`, then `tick` a few times a second, then `stop`, all from the main thread: on Linux a child
    dies with the *thread* that started it. With `echo` the children's output is copied to it as it comes.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        say: Callable[[str], None],
        echo: Callable[[str], None] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._running = [_Running(child) for child in children]
        self._say = say
        self._echo = echo
        self._now = now

    def start(self) -> None:
        """Start every child."""
        for running in self._running:
            self._spawn(running)

    def pids(self) -> dict[str, int]:
        """The process id of each child that runs."""
        return {
            r.child.name: r.process.pid for r in self._running if r.process is not None and r.process.poll() is None
        }

    def tick(self) -> None:
        """Notice deaths, start again what is due, forgive a child that lived long enough, bound the logs."""
        now = self._now()
        for running in self._running:
            if running.process is None:
                if now >= running.start_at:
                    self._spawn(running)
            elif running.process.poll() is not None:
                self._bury(running, now)
            elif running.looping and now - running.started_at > LOOP_WINDOW_S:
                running.looping = False
                self._say(f"{running.child.name} is well again")
            system.bound_log(running.child.log)
            self._show(running)

    def stop(self, patience_s: float = 10.0) -> None:
        """TERM the children stage by stage, the highest first; KILL what has not ended after `patience_s`."""
        for stage in sorted({r.child.stage for r in self._running}, reverse=True):
            leaving = [r for r in self._running if r.child.stage == stage and r.process is not None]
            for running in leaving:
                _signal(running, signal.SIGTERM)
            give_up = self._now() + patience_s
            while any(r.process and r.process.poll() is None for r in leaving):
                if self._now() > give_up:
                    for running in leaving:
                        _signal_group(running, signal.SIGKILL)
                time.sleep(0.02)
            for running in leaving:
                # Whatever a child had started and left behind goes with it.
                _signal_group(running, signal.SIGKILL)
                self._show(running)

    def kill(self) -> None:
        """KILL everything now. Safe in a signal handler; a `stop` under way then ends at once."""
        for running in self._running:
            _signal_group(running, signal.SIGKILL)

    def _spawn(self, running: _Running) -> None:
        child = running.child
        with system.open_log(child.log) as log:
            running.shown = log.seek(0, os.SEEK_END)
            # A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which stops in order.
            running.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *child.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **child.env},
                cwd=child.cwd,
                start_new_session=True,
            )
        running.started_at = self._now()

    def _bury(self, running: _Running, now: float) -> None:
        """Note a death, decide when to start again, and tell it: each alone, or the loop as a whole once."""
        child, process = running.child, running.process
        assert process is not None
        _signal_group(running, signal.SIGKILL)
        running.process = None
        running.deaths.append(now)
        recent = [death for death in running.deaths if now - death <= LOOP_WINDOW_S]
        if len(recent) >= LOOP_DEATHS and not running.looping:
            running.looping = True
            why = system.last_line(child.log) or "nothing in its log"
            span = max(1, round(recent[-1] - recent[0]))
            self._say(
                f"{child.name} keeps dying ({len(recent)} times in {span} s), "
                f"tried again every {LOOP_PACE_S:.0f} s: {child.log}: {why}"
            )
        elif not running.looping:
            self._say(f"{child.name} died ({_reason(process.returncode)}), starting it again")
        delay = LOOP_PACE_S if running.looping else _DELAYS_S[min(len(recent), len(_DELAYS_S)) - 1]
        running.start_at = now + delay

    def _show(self, running: _Running) -> None:
        if self._echo is None:
            return
        with contextlib.suppress(OSError), running.child.log.open("rb") as log:
            running.shown = min(running.shown, log.seek(0, os.SEEK_END))  # It may have been cut.
            log.seek(running.shown)
            lines = log.read().rpartition(b"\n")[0].split(b"\n")
            running.shown += sum(len(line) + 1 for line in lines) if lines != [b""] else 0
            for line in lines if lines != [b""] else []:
                self._echo(f"{running.child.name:>8} | {line.decode('utf-8', 'replace')}")


def _signal(running: _Running, number: signal.Signals) -> None:
    if running.process is not None:
        running.process.send_signal(number)


def _signal_group(running: _Running, number: signal.Signals) -> None:
    # A child leads its group, so the group's id stays its own as long as anyone is left in it.
    if running.process is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(running.process.pid, number)


def _reason(returncode: int) -> str:
    if returncode >= 0:
        return f"exit status {returncode}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-returncode).name
    return f"signal {-returncode}"
