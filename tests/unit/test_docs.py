"""The documentation names what exists, and what exists is documented."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class
from django.urls import URLPattern, URLResolver, get_resolver
from drf_spectacular.generators import SchemaGenerator
from prometheus_client.registry import REGISTRY

from apps.documents.parsing import ParseError
from apps.documents.parsing.formats import FORMATS

ROOT = Path(__file__).resolve().parents[2]
README, ARCHITECTURE = (ROOT / "README.md").read_text(), (ROOT / "ARCHITECTURE.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")]
#: Pages for people, or about the API itself: no part of the OpenAPI document.
NOT_IN_SCHEMA = {"/api/schema/", "/", "/healthz", "/readyz", "/metrics", "/api/docs/"}
METRIC_KINDS = {"Counter", "Gauge", "Histogram", "Summary", "GaugeMetricFamily"}
OUR_METRICS = ("rag_", "vector_search_", "llm_")


def file_map() -> list[str]:
    """The paths of the README's map, put together from its indentation; folders end in a slash."""
    block = README.split("## File map")[1].split("```text\n")[1].split("```")[0]
    paths: list[str] = []
    above: list[str] = []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        above = above[:depth]
        paths.append("".join(above) + name)
        if name.endswith("/"):
            above.append(name)
    return paths


def modules() -> list[str]:
    """Every module of the product that someone may look for."""
    found = [path for room in ("apps", "ragsite") for path in (ROOT / room).rglob("*.py")]
    names = [path.relative_to(ROOT).as_posix() for path in found if path.name != "__init__.py"]
    return sorted(name for name in names if "/migrations/" not in name)


def test_every_path_of_the_file_map_exists() -> None:
    assert [path for path in file_map() if not (ROOT / path).exists()] == []


def test_every_module_is_in_the_file_map() -> None:
    """By its own line, or as part of a folder whose line stands for all in it."""
    listed = set(file_map())
    whole = tuple(
        path for path in listed if path.endswith("/") and not any(p != path and p.startswith(path) for p in listed)
    )
    missing = [
        name for name in modules() if name not in listed and not name.startswith(whole) and name not in ARCHITECTURE
    ]
    assert missing == []


def test_everything_at_the_top_is_in_the_file_map() -> None:
    listed = {path.split("/")[0] for path in file_map()}
    ignored = {line.strip().strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    there = {path.name for path in ROOT.iterdir()} - ignored - {".git", ".env"}
    assert there - listed == set()


def test_files_named_by_the_architecture_exist() -> None:
    named = re.findall(r"`((?:apps|ragsite|docs|tests|deploy)/[\w./-]+?\.\w+)(?:::\w+)?`", ARCHITECTURE)
    assert len(named) > 30
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_functions_named_by_the_architecture_exist() -> None:
    defined = {(Path(name).stem, symbol) for name in modules() for symbol in _symbols(ROOT / name)}
    defined |= {
        (path.parent.name, symbol)
        for room in ("apps", "ragsite")
        for path in (ROOT / room).rglob("__init__.py")
        for symbol in _symbols(path)
    }
    stems = {stem for stem, _ in defined}
    named = [pair for pair in re.findall(r"`(\w+)\.(\w+)`", ARCHITECTURE) if pair[0] in stems]
    assert len(named) > 20
    assert [pair for pair in named if pair not in defined] == []


def test_every_invariant_has_tests_that_exist() -> None:
    rows = re.findall(r"^\| (I\d) \| .+? \| (.+) \|$", ARCHITECTURE, re.MULTILINE)
    assert [name for name, _ in rows] == [f"I{number}" for number in range(1, 10)]
    for name, cell in rows:
        tests = re.findall(r"`([\w/]+\.py)::(\w+)`", cell)
        assert tests, f"{name} names no test"
        missing = [(path, test) for path, test in tests if test not in _symbols(ROOT / path)]
        assert missing == [], f"{name}: {missing}"


def _symbols(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }


def registered_metrics() -> Iterator[str]:
    """The names of our metrics as Prometheus shows them."""
    for path in (ROOT / "apps").glob("*/metrics.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id in METRIC_KINDS:
                name = ast.literal_eval(node.args[0])
                yield name if node.func.id != "Counter" or name.endswith("_total") else f"{name}_total"


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    page = (ROOT / "docs" / "howto" / "operate.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \| (?:counter|gauge|histogram)", page, re.MULTILINE)
    found = list(registered_metrics())
    assert sorted(documented) == sorted(found)
    promised = {
        "rag_query_latency_seconds",
        "vector_search_success_total",
        "rag_ingest_lag_seconds",
        "rag_queue_depth",
        "llm_requests_total",
    }
    assert promised <= set(documented)


def test_metrics_registered_at_run_time_are_the_ones_in_the_modules() -> None:
    names = {name.removesuffix("_total") for name in registered_metrics()}
    counted = {metric.name for metric in REGISTRY.collect() if metric.name.startswith(OUR_METRICS)}
    assert counted - names == set()


def routes(patterns: list[URLPattern | URLResolver], prefix: str = "/") -> Iterator[str]:
    """Every URL in OpenAPI's form."""
    for entry in patterns:
        path = prefix + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", str(entry.pattern))
        if isinstance(entry, URLResolver):
            if entry.app_name != "admin":
                yield from routes(entry.url_patterns, path)
        else:
            yield path


def test_every_route_is_in_the_openapi_document_or_excepted() -> None:
    schema = set(SchemaGenerator().get_schema(request=None, public=True)["paths"])
    found = set(routes(get_resolver().url_patterns))
    assert found - schema == NOT_IN_SCHEMA
    assert schema - found == set()


def test_every_route_named_by_a_page_exists() -> None:
    known = {re.sub(r"\{\w+\}", "*", path) for path in routes(get_resolver().url_patterns)}
    for page in PAGES:
        for path in re.findall(
            r"(?:GET|POST|DELETE|PATCH) \"?(/(?:api/)?v1/(?:[\w/{}-]|\$\([^)]*\)|\$)+)", page.read_text()
        ):
            plain = re.sub(r"\{\w+\}|\$\([^)]*\)|\$\w+|(?<=/collections/)[\w-]+", "*", path)
            assert plain in known, f"{page.name}: {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.name}: {target}"


def test_every_command_of_ours_is_in_the_readme() -> None:
    ours = sorted(name for name, app in get_commands().items() if str(app).startswith(("apps.", "ragsite")))
    assert ours
    assert [name for name in ours if f"`manage.py {name}" not in README] == []


def test_the_options_of_up_are_in_the_readme() -> None:
    parser = load_command_class("ragsite", "up").create_parser("manage.py", "up")
    row = next(line for line in README.splitlines() if line.startswith("| `manage.py up "))
    shared = {
        "--version",
        "--verbosity",
        "--settings",
        "--pythonpath",
        "--traceback",
        "--no-color",
        "--force-color",
        "--skip-checks",
        "--help",
    }
    options = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    assert set(re.findall(r"--[a-z-]+", row)) == options - shared


def test_the_two_commands_come_first() -> None:
    start = README.split("## Start")[1].split("\n## ")[0]
    assert "$ make up" in start and "$ make test" in start
    assert README.index("## Start") < README.index("## A five-minute tour") < README.index("## Commands")


def test_the_openapi_document_lists_the_query_parameters_that_are_taken() -> None:
    checked = 0
    generator = SchemaGenerator()
    schema = generator.get_schema(request=None, public=True)["paths"]
    for path, _, method, view in generator._get_paths_and_endpoints():
        taken = getattr(view, "query_names", None)
        if taken is None:
            continue
        listed = {each["name"] for each in schema[path][method.lower()].get("parameters", ()) if each["in"] == "query"}
        assert listed == {name for name in taken.get(method, ()) if not name.endswith(".*")}, f"{method} {path}"
        checked += 1
    assert checked > 20


def test_the_openapi_document_says_what_every_operation_does_and_needs() -> None:
    schema = SchemaGenerator().get_schema(request=None, public=True)
    shown = [tag["name"] for tag in schema["tags"]]
    operations = [(path, of) for path, methods in schema["paths"].items() for of in methods.values()]
    assert len(operations) > 20
    for path, operation in operations:
        assert operation["summary"] and not operation["summary"].endswith("."), path
        assert "Needs a key with the scope `" in operation["description"], path
        assert "tenant's scope" not in operation["description"], path  # what is told to those who change the code
        assert operation["tags"] and set(operation["tags"]) <= set(shown), path


def test_every_format_and_every_reason_not_to_read_one_is_documented() -> None:
    page = (ROOT / "docs" / "formats.md").read_text()
    rows = re.findall(r"^\| ([^|`]+?) \|", page, re.MULTILINE)
    assert {fmt.label for fmt in FORMATS} <= set(rows)
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == ParseError.CODES
