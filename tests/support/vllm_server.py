"""A vLLM server on this machine's processors, for as long as a program runs that finds it in LLM_URL.

It is started as those in containers are, by deploy/vllm/serve.sh.
`python -m tests.support.vllm_server PROGRAM...`; `make test-vllm` runs pytest so. What it needs is made by make before.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from .processes import ROOT, free_port, wait_for

HOME = ROOT / ".venv-vllm"
LOG = HOME / "server.log"
SECONDS = 300  # to start; 30 to 60 on two processors
CONTEXT = 8_192
ARGUMENTS = (
    *("--served-model-name", "tiny", "--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager"),
    # A request with a seed and a temperature can kill the engine when prompts are read in chunks.
    "--no-enable-chunked-prefill",
    *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
)
ENVIRONMENT = {
    "PATH": f"{HOME / 'bin'}:{os.environ['PATH']}",
    "LLM_CONTEXT_TOKENS": str(CONTEXT),
    # Of the parsers one that leaves the grammar of a tool's arguments to the line above: noise has no other end.
    "VLLM_TOOL_PARSER": "xlam",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_NO_USAGE_STATS": "1",
}


@contextmanager
def vllm_server(model: Path = HOME / "tiny-llama") -> Iterator[str]:
    """Its URL, which ends in /v1. Raises AssertionError when it does not start; LOG says why."""
    port = free_port()
    with LOG.open("wb") as log:
        server = subprocess.Popen(
            ["sh", ROOT / "deploy/vllm/serve.sh", "--port", str(port), *ARGUMENTS],
            env=os.environ | ENVIRONMENT | {"LLM_MODEL": str(model)},
            stdout=log,
            stderr=log,
            start_new_session=True,  # it starts others, who end with it
        )
    url = f"http://127.0.0.1:{port}"

    def healthy() -> bool:
        assert server.poll() is None, f"vLLM has ended; see {LOG}"
        with suppress(httpx.HTTPError):
            return httpx.get(f"{url}/health", timeout=5).status_code == 200
        return False

    try:
        wait_for(healthy, seconds=SECONDS, what=f"vLLM; see {LOG}", every=0.5)
        yield f"{url}/v1"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # or nothing would stop the server
    with vllm_server() as running:
        ended = subprocess.run(sys.argv[1:], env=os.environ | {"LLM_URL": running}, check=False)
    sys.exit(ended.returncode)
