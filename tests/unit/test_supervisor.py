"""The supervisor keeps real processes alive, tells of it once, and takes them down with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ragsite import supervisor
from ragsite.supervisor import Child, Supervisor

REPOSITORY = Path(__file__).resolve().parents[2]
FOREVER = "import time; time.sleep(600)"


def until(condition: Callable[[], object], tick: Callable[[], None] = lambda: None, seconds: float = 10.0) -> None:
    """Tick until `condition` holds; fail after `seconds`."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        tick()
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervise(tmp_path: Path, said: list[str]) -> Iterator[Callable[..., Supervisor]]:
    """Start a supervisor of Python one-liners: supervise(name=code, ...); stopped after the test."""
    started: list[Supervisor] = []

    def start(
        stages: dict[str, int] | None = None, echo: Callable[[str], None] | None = None, **code: str
    ) -> Supervisor:
        children = [
            Child(
                name,
                [sys.executable, "-c", source],
                tmp_path / f"{name}.log",
                stage=(stages or {}).get(name, 0),
            )
            for name, source in code.items()
        ]
        started.append(Supervisor(children, say=said.append, echo=echo))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.stop()


def test_a_killed_child_is_started_again_within_a_second(supervise, said):
    one = supervise(worker=FOREVER)
    first = one.pids()["worker"]
    os.kill(first, signal.SIGKILL)
    killed_at = time.monotonic()
    until(lambda: one.pids().get("worker", first) != first, one.tick)
    assert time.monotonic() - killed_at < 1.0
    assert said == ["worker died (SIGKILL), starting it again"]


def test_a_crash_loop_is_told_once_with_the_last_line_of_the_log(supervise, said, tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "_DELAYS_S", (0.0,))
    monkeypatch.setattr(supervisor, "LOOP_PACE_S", 0.1)
    code = f"open({str(tmp_path / 'starts')!r}, 'a').write('.'); raise SystemExit('no such model')"
    one = supervise(worker=code)
    until(
        lambda: len((tmp_path / "starts").read_text()) >= 9 if (tmp_path / "starts").exists() else False,
        one.tick,
    )
    loops = [line for line in said if "keeps dying" in line]
    assert len(loops) == 1
    assert loops[0].endswith(f"{tmp_path / 'worker.log'}: no such model")
    assert "\n" not in loops[0]
    assert len(said) == 5, "four single deaths, then the loop, then silence"


def test_a_looping_child_is_tried_at_a_slower_pace_and_forgiven_when_it_lives(tmp_path, said):
    clock = 0.0
    flag = tmp_path / "healthy"
    code = f"import os, time\nwhile os.path.exists({str(flag)!r}): time.sleep(0.05)"
    child = Child("worker", [sys.executable, "-c", code], tmp_path / "worker.log")
    one = Supervisor([child], say=said.append, now=lambda: clock)
    one.start()
    for _ in range(5):
        until(lambda: not one.pids())
        one.tick()  # buries
        clock += 2.0
        one.tick()  # starts
    assert "keeps dying" in said[-1]
    assert not one.pids(), "two seconds are not enough any more"
    flag.touch()
    clock += supervisor.LOOP_PACE_S
    one.tick()
    assert one.pids()
    clock += supervisor.LOOP_WINDOW_S + 1
    one.tick()
    assert said[-1] == "worker is well again"
    one.kill()
    one.stop()


def test_stopping_goes_stage_by_stage_and_kills_what_does_not_listen(supervise, tmp_path):
    order = tmp_path / "order"

    def polite(name: str) -> str:
        return (
            "import signal, sys, time\n"
            f"def end(*_): time.sleep(0.2); open({str(order)!r}, 'a').write('{name} '); sys.exit()\n"
            f"signal.signal(signal.SIGTERM, end); open({str(tmp_path / name)!r}, 'w'); time.sleep(600)"
        )

    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(tmp_path / 'deaf')!r}, 'w'); time.sleep(600)"
    )
    one = supervise({"web": 2, "beat": 1}, worker=polite("worker"), deaf=deaf, beat=polite("beat"), web=polite("web"))
    pids = one.pids()
    until(lambda: all((tmp_path / name).exists() for name in pids))
    began = time.monotonic()
    one.stop(patience_s=1.0)
    assert order.read_text().split() == ["web", "beat", "worker"]
    assert time.monotonic() - began < 3.0
    assert all(gone(pid) for pid in pids.values())


def test_what_a_child_had_started_ends_with_it(supervise, tmp_path):
    code = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-c', {FOREVER!r}])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(f'{{p.pid}}\\n'); time.sleep(600)"
    )
    one = supervise(worker=code)
    pid_file = tmp_path / "pid"
    until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
    os.kill(one.pids()["worker"], signal.SIGKILL)
    until(lambda: gone(int(pid_file.read_text())), one.tick)


def test_the_children_die_with_a_killed_supervisor(tmp_path):
    script = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        from ragsite.supervisor import Child, Supervisor
        one = Supervisor(
            [Child(n, [sys.executable, "-c", {FOREVER!r}], Path({str(tmp_path)!r}) / n) for n in "ab"],
            say=print,
        )
        one.start()
        print(*one.pids().values(), flush=True)
        while True:
            one.tick(); time.sleep(0.1)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    until(lambda: all(psutil.Process(pid).cmdline()[1] == "-c" for pid in pids))  # past the launcher
    process.kill()
    process.communicate()
    until(lambda: all(gone(pid) for pid in pids), seconds=2.0)


def test_output_is_kept_in_a_bounded_log_and_echoed_line_by_line(supervise, tmp_path, monkeypatch):
    echoed: list[str] = []
    one = supervise(echo=echoed.append, web="print('serving\\nrequests', flush=True); import time; time.sleep(600)")
    until(lambda: len(echoed) == 2, one.tick)
    assert echoed == ["     web | serving", "     web | requests"]
    log = tmp_path / "web.log"
    assert log.stat().st_mode & 0o077 == 0
    with log.open("ab") as file:
        file.write(b"x" * (supervisor.system.LOG_LIMIT + 1))
    one.tick()
    assert log.stat().st_size == 0
    assert (tmp_path / "web.log.1").stat().st_size > supervisor.system.LOG_LIMIT
