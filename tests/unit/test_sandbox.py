"""The parent survives whatever a parser does, and the next document is parsed as if nothing had been."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.documents.parsing import sandbox as sandbox_module
from apps.documents.parsing.sandbox import Limits, Pool, Sandbox, close_pool, parse_sandboxed
from apps.documents.parsing.types import ParseError

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "tests" / "samples"


def hostile(**limits: float) -> Sandbox:
    settings = {"wall_seconds": 5.0, "memory_bytes": 512 * 1024**2, **limits}
    return Sandbox(Limits(**settings), parser="hostile_parsers:act", python_path=[str(SAMPLES)])  # type: ignore[arg-type]


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with hostile() as made:
        yield made


def code_of(box: Sandbox, data: bytes) -> ParseError:
    with pytest.raises(ParseError) as caught:
        box.parse(data)
    return caught.value


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except ProcessLookupError:
        return False
    except OSError:  # gone between the two lines, or no /proc
        return sys.platform != "linux"
    return state != "Z"  # in a container nobody may reap it


def test_a_document_parsed_in_the_sandbox_equals_the_one_parsed_in_process() -> None:
    from apps.documents.parsing import parse

    with Sandbox() as box:
        for path in sorted(SAMPLES.glob("sample.*")):
            data = path.read_bytes()
            assert box.parse(data, filename=path.name) == parse(data, filename=path.name)


def test_a_warm_child_adds_little_to_a_small_document() -> None:
    with Sandbox() as box:
        box.parse(b"warm", filename="a.txt")
        times = []
        for _ in range(50):
            started = time.perf_counter()
            box.parse(b"small text", filename="a.txt")
            times.append(time.perf_counter() - started)
    # Typically 0.5 ms; the bound leaves room for a busy machine.
    assert sorted(times)[25] < 0.02


def test_a_hanging_parser_is_killed_and_the_next_document_is_parsed() -> None:
    with hostile(wall_seconds=0.5) as box:
        box.warm()
        started = time.monotonic()
        assert code_of(box, b"hang").code == "timeout"
        assert time.monotonic() - started < 3
        assert box.parse(b"pid").text.startswith("pid")
        assert box.started == 2


def test_a_spinning_parser_runs_out_of_cpu_time() -> None:
    with hostile(wall_seconds=30, cpu_seconds=1) as box:
        error = code_of(box, b"spin")
    assert error.code == "timeout" and "CPU" in error.detail


def test_cpu_time_is_counted_per_document() -> None:
    with hostile(cpu_seconds=1) as box:
        pids = {box.parse(b"pid").text for _ in range(20)}
    assert len(pids) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not enforce RLIMIT_AS")
def test_a_memory_bomb_is_too_large(box: Sandbox) -> None:
    assert code_of(box, b"memory").code == "too_large"
    assert box.parse(b"pid").text.startswith("pid")


@pytest.mark.parametrize("word", [b"segfault", b"exit", b"raise", b"lie", b"garbage"])
def test_a_crashing_or_lying_parser_is_reported_as_crashed(box: Sandbox, word: bytes) -> None:
    error = code_of(box, word)
    assert error.code == "crashed"
    assert "/" not in error.detail and "Traceback" not in error.detail
    assert box.parse(b"pid").text.startswith("pid")


def test_what_a_parser_prints_does_not_reach_the_answer(box: Sandbox) -> None:
    assert box.parse(b"print").text.startswith("pid")


def test_a_timeout_kills_the_whole_process_group() -> None:
    with hostile(wall_seconds=0.5) as box:
        box.warm()
        assert box._process is not None
        group = box._process.pid
        assert code_of(box, b"orphan").code == "timeout"
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                os.killpg(group, 0)
            except (ProcessLookupError, PermissionError):
                break
            time.sleep(0.05)
        else:
            pytest.fail("a grandchild is still alive")


def test_input_and_output_are_bounded() -> None:
    with hostile(input_bytes=1000, output_bytes=200_000) as box:
        assert code_of(box, b"x" * 1001).code == "too_large"
        assert len(box.parse(b"flood 150000").text) == 150_000
        assert code_of(box, b"flood 300000").code == "too_large"
        assert box.parse(b"pid").text.startswith("pid")


def test_a_large_document_travels_through_files_and_leaves_none_behind(box: Sandbox) -> None:
    assert box.parse(b"flood 3000000").text == "x" * 3_000_000
    assert box._scratch is not None and list(box._scratch.iterdir()) == []
    scratch = box._scratch
    assert box.parse(b"pid " + b"y" * 3_000_000).text.startswith("pid")
    assert list(scratch.iterdir()) == []
    box.close()
    assert not scratch.exists()


def test_a_child_is_replaced_after_its_share_of_documents() -> None:
    with hostile(documents=3) as box:
        pids = [box.parse(b"pid").text for _ in range(7)]
    assert [pids.index(pid) for pid in pids] == [0, 0, 0, 3, 3, 3, 6]


def test_a_child_that_died_while_idle_is_replaced_silently(box: Sandbox) -> None:
    pid = int(box.parse(b"pid").text.split()[1])
    os.kill(pid, 9)
    time.sleep(0.1)
    assert box.parse(b"pid").text != f"pid {pid}"


def test_a_parser_that_cannot_be_imported_is_unavailable_not_a_broken_document() -> None:
    with Sandbox(parser="no_such_module:parse") as box:
        assert code_of(box, b"text").code == "unavailable"


def test_the_child_sees_no_secret_of_the_environment(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD_FOR_TEST", "x")
    assert "DATABASE_PASSWORD_FOR_TEST" not in box.parse(b"environment").text


def test_the_child_imports_neither_django_nor_numpy() -> None:
    with Sandbox(parser="hostile_parsers:act", python_path=[str(SAMPLES)]) as box:
        loaded = set(box.parse(b"modules").text.split())
    assert "apps.documents.parsing.pdf.document" in loaded
    assert not {"django", "numpy", "celery"} & loaded


def test_no_file_outside_the_scratch_directory_can_be_read(box: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    box.warm()
    if box.isolation["filesystem"] != "scratch":
        pytest.skip("this kernel has no Landlock")
    for path in (str(secret), "/etc/passwd", "/proc/self/environ"):
        assert code_of(box, b"read " + path.encode()).code == "crashed"


def test_no_socket_reaches_the_host(box: Sandbox) -> None:
    box.warm()
    if box.isolation["network"] == "inherited":
        pytest.skip("this container allows neither unshare nor Landlock")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ParseError):
            box.parse(b"connect %d" % port)


def test_children_die_with_their_parent() -> None:
    program = (
        "from apps.documents.parsing.sandbox import Sandbox\n"
        "import os, time\n"
        "box = Sandbox(); box.warm(); print(box._process.pid, flush=True); time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def test_a_child_outlives_the_thread_that_asked_for_it(box: Sandbox) -> None:
    pids: list[str] = []
    for _ in range(3):
        thread = threading.Thread(target=lambda: pids.append(box.parse(b"pid").text))
        thread.start()
        thread.join()
    assert len(pids) == 3 and len(set(pids)) == 1


def test_many_threads_share_the_pool() -> None:
    pool = Pool(size=2)
    results: list[str] = []
    try:
        threads = [
            threading.Thread(target=lambda n=n: results.append(pool.parse(b"text %d" % n, filename="a.txt").text))
            for n in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    finally:
        pool.close()
    assert sorted(results) == sorted(f"text {n}" for n in range(20))


def test_a_forked_process_gets_its_own_children() -> None:
    assert parse_sandboxed(b"parent", filename="a.txt").text == "parent"
    before = sandbox_module._pool
    pid = os.fork()
    if pid == 0:
        ok = sandbox_module._pool is None and parse_sandboxed(b"forked", filename="a.txt").text == "forked"
        close_pool()
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert sandbox_module._pool is before
    assert parse_sandboxed(b"parent again", filename="a.txt").text == "parent again"
    close_pool()
