"""docs/settings.md lists what the settings read, no more and no less; a bad value stops the start by name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE, COMPOSE = "Read outside the settings", "Only in docker-compose.yml"
_ROW = re.compile(r"^\| `([A-Z_0-9]+)` \| ([^|]+) \|[^|]*\| [^|]+ \|$", re.MULTILINE)
_PRINT_READ = "import json; from ragsite import env, settings; print(json.dumps(env.READ))"


def run(*arguments: str, data_dir: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments and an environment of these variables only."""
    environment = {
        "PATH": os.environ["PATH"],
        "RAGSITE_DATA_DIR": str(data_dir),
        "SECRET_KEY": "test",
        **variables,
    }
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )


def documented() -> dict[str, dict[str, str]]:
    """The page's tables: {heading: {variable: default}}."""
    sections = re.split(r"^## ", (ROOT / "docs/settings.md").read_text(), flags=re.MULTILINE)[1:]
    return {text.partition("\n")[0]: {row[0]: row[1] for row in _ROW.findall(text)} for text in sections}


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the settings read, with its defaults, in a clean environment."""
    data_dir = tmp_path_factory.mktemp("data")
    done = run("-c", _PRINT_READ, data_dir=data_dir)
    assert done.returncode == 0, done.stderr
    return {
        name: value.replace(str(data_dir.resolve()), "<data directory>")
        for name, value in json.loads(done.stdout).items()
    }


def test_every_row_of_the_page_is_understood_here() -> None:
    rows = re.findall(r"^\| `", (ROOT / "docs/settings.md").read_text(), flags=re.MULTILINE)
    assert len(rows) == sum(len(section) for section in documented().values())


def test_every_setting_is_documented_and_nothing_else_is(read: dict[str, str]) -> None:
    sections = documented()
    names = {name for heading in sections.keys() - {ELSEWHERE, COMPOSE} for name in sections[heading]}
    assert names == read.keys()


def test_documented_defaults_are_the_real_ones(read: dict[str, str]) -> None:
    sections = documented()
    defaults = {
        name: "" if cell == "unset" else cell.strip("`")
        for heading in sections.keys() - {ELSEWHERE, COMPOSE}
        for name, cell in sections[heading].items()
    }
    assert defaults == read


def test_variables_read_outside_the_settings_exist() -> None:
    sources = [path.read_text() for room in ("apps", "ragsite") for path in (ROOT / room).rglob("*.py")]
    sources.append((ROOT / "pyproject.toml").read_text())
    unknown = [name for name in documented()[ELSEWHERE] if not any(name in source for source in sources)]
    assert not unknown


def test_every_variable_of_the_compose_file_is_documented(read: dict[str, str]) -> None:
    text = (ROOT / "docker-compose.yml").read_text() + (ROOT / "docker-compose.citus.yml").read_text()
    used = set(re.findall(r"\$\{([A-Z_0-9]+)", text))
    assert used - read.keys() == documented()[COMPOSE].keys()


def test_the_example_environment_names_known_variables_and_every_required_one(read: dict[str, str]) -> None:
    text = (ROOT / ".env.example").read_text()
    named = set(re.findall(r"^#?([A-Z_0-9]+)=", text, flags=re.MULTILINE))
    assert named <= read.keys() | documented()[COMPOSE].keys() | {"COMPOSE_PROFILES"}
    active = set(re.findall(r"^([A-Z_0-9]+)=$", text, flags=re.MULTILINE))
    required = set(re.findall(r"\$\{([A-Z_0-9]+):\?", (ROOT / "docker-compose.yml").read_text()))
    assert active == required


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        pytest.param("LOG_LEVEL", "LOUD", "must be one of DEBUG, ERROR, INFO, WARNING", id="choice"),
        pytest.param("JOB_MAX_ATTEMPTS", "five", "must be a whole number", id="integer"),
        pytest.param("JOB_LEASE_SECONDS", "0", "must be at least 1", id="integer-too-small"),
        pytest.param("LLM_TIMEOUT_SECONDS", "soon", "must be a number", id="decimal"),
        pytest.param("REPLICA_MAX_LAG_SECONDS", "14.9", "must be at least 15", id="decimal-too-small"),
        pytest.param("DEBUG", "perhaps", "must be true or false", id="boolean"),
        pytest.param("DATABASE_URL", "mysql://h/d", "must start with postgresql://", id="database-scheme"),
        pytest.param("DATABASE_URL", "postgresql://h:p/d", "port that is not a number", id="database-port"),
        pytest.param("DATABASE_APP_URL", "postgresql://h/", "must name a database", id="database-name"),
        pytest.param("DATABASE_REPLICA_URLS", "postgresql://h/d,mysql://h/d", "must start with", id="replica-scheme"),
        pytest.param("DATABASE_REPLICA_URLS", "postgresql://root@h/d", "have the role ragsite_app", id="replica-role"),
        pytest.param("LLM_URL", "", "must be set", id="needed-by-another"),
        *(
            pytest.param("LLM_LARGE_URL", value, "begins with http:// or https://", id=f"address-{value}")
            for value in ("llm", "ftp://h/v1", "http://", "http://h:99999/v1", "http://h:0/v1", "http://[h/v1")
        ),
        pytest.param("LLM_CONTEXT_TOKENS", "2047", "must be at least 2048", id="no-room-for-a-passage"),
        pytest.param("LLM_TIMEOUT_SECONDS", "0", "must be at least", id="no-time"),
        pytest.param("QUERY_MAX_WAIT_SECONDS", "-1", "must be at least 0", id="negative-wait"),
        pytest.param("ANSWER_RETENTION_DAYS", "99999999", "must be at most 36500", id="integer-too-large"),
    ],
)
def test_a_bad_value_stops_the_start_and_names_its_variable(
    tmp_path: Path, variable: str, value: str, why: str
) -> None:
    others = {"LLM_BACKEND": "openai"} if variable == "LLM_URL" else {}
    done = run("-c", "import ragsite.settings", data_dir=tmp_path, **others, **{variable: value})
    assert done.returncode != 0
    message = done.stderr.splitlines()[-1].removeprefix("django.core.exceptions.ImproperlyConfigured: ")
    assert message.startswith(f"{variable} ") and why in message


@pytest.mark.parametrize("variable", ["LLM_LARGE_URL", "LLM_LARGE_MODEL"])
def test_a_large_model_without_a_fast_one_is_no_setting(tmp_path: Path, variable: str) -> None:
    done = run("-c", "import ragsite.settings", data_dir=tmp_path, LLM_URL="", **{variable: "http://h/v1"})
    assert f"LLM_URL must be set where {variable} is" in done.stderr.splitlines()[-1]


def test_without_a_secret_and_a_place_to_keep_one_the_start_stops(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("-c", "import ragsite.settings", data_dir=tmp_path / "file" / "below", SECRET_KEY="")
    assert done.returncode != 0
    assert "ImproperlyConfigured: SECRET_KEY is unset" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", ["check", "migrate", "up"])
def test_the_command_line_says_it_in_one_line(tmp_path: Path, command: str) -> None:
    done = run(
        "manage.py",
        command,
        data_dir=tmp_path,
        LOG_LEVEL="LOUD",
        DATABASE_URL="postgresql://h/d",
        REDIS_URL="x",
    )
    assert done.returncode == 1
    assert done.stderr == "ragsite: LOG_LEVEL must be one of DEBUG, ERROR, INFO, WARNING; it is 'LOUD'\n"


def test_a_made_secret_is_kept_and_private(tmp_path: Path) -> None:
    show = ("-c", "from ragsite import settings; print(settings.SECRET_KEY)")
    first, second = (run(*show, data_dir=tmp_path, SECRET_KEY="") for _ in range(2))
    assert len(first.stdout) > 50
    assert first.stdout == second.stdout
    assert (tmp_path / "secret_key").stat().st_mode & 0o077 == 0
