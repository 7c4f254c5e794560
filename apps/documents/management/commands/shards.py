"""`manage.py shards status|add-node|rebalance`: the nodes of a Citus cluster; an operator's act."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from apps.documents import shards
from apps.documents.management.table import aligned

HEADINGS = ("node", "role", "shards", "size", "PostgreSQL", "Citus", "pgvector", "state")
RIGHT = ("shards", "size")


class Command(BaseCommand):
    help = "Show the nodes of a Citus cluster, add one, or move shards so that each has its share."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        status = verbs.add_parser("status", help="the nodes: what they have and whether they answer; running moves")
        status.add_argument("--json", action="store_true", help="with bytes in full")
        add = verbs.add_parser("add-node", help="prepare a server and make it a node; nothing is moved to it yet")
        add.add_argument("address", metavar="HOST:PORT", help="as the other nodes reach it")
        add.add_argument(
            "--superuser-url",
            metavar="URL",
            default=os.environ.get("DATABASE_SUPERUSER_URL", ""),
            help="a superuser's URL of the coordinator, who can sign in to the new server too;"
            " or in the variable DATABASE_SUPERUSER_URL",
        )
        rebalance = verbs.add_parser("rebalance", help="move shards while they are searched and written to; waits")
        rebalance.add_argument(
            "--block-writes",
            action="store_true",
            help="where wal_level is not logical: nobody writes to a moving shard",
        )
        rebalance.add_argument("--stop", action="store_true", help="end the one that runs")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["verb"] == "status":
                self._status(as_json=options["json"])
            elif options["verb"] == "add-node":
                host, _, port = options["address"].rpartition(":")
                if not host or not port.isdigit():
                    raise CommandError(f"{options['address']!r} is no HOST:PORT")
                if not options["superuser_url"]:
                    raise CommandError("Citus lets only a superuser add a node: give --superuser-url")
                shards.add_node(host.strip("[]"), int(port), superuser_url=options["superuser_url"], told=self._tell)
            elif options["stop"]:
                shards.stop()
            else:
                moves = shards.rebalance(block_writes=options["block_writes"], told=self._tell)
                self.stdout.write(f"done after {moves} moves")
        except shards.NotPossible as error:
            raise CommandError(str(error))
        except DatabaseError as error:  # nothing to stop, another operator's rebalance, a coordinator that is away
            raise CommandError(str(error).strip())
        except KeyboardInterrupt:
            raise CommandError("it goes on without this command; `shards rebalance` waits for it again, --stop ends it")

    def _status(self, *, as_json: bool) -> None:
        nodes, job = shards.status(), shards.moving()
        if as_json:
            self.stdout.write(json.dumps({"nodes": [asdict(node) for node in nodes], "rebalance": job}, indent=2))
            return
        self.stdout.write("\n".join(aligned(HEADINGS, [_row(node) for node in nodes], right=RIGHT)))
        if job and job["state"] in ("scheduled", "running"):
            self.stdout.write(f"rebalance {job['state']}: {shards.told_of(job)}")

    def _tell(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()  # for whoever reads a pipe


def _row(node: shards.NodeStatus) -> tuple[str, ...]:
    role = "coordinator" if node.is_coordinator else "worker"
    state = node.problem or ("ok" if node.is_active else "not active")
    if not (node.problem or node.takes_shards or node.is_coordinator):
        state += ", takes no shards"
    size = "" if node.problem else f"{node.bytes / 2**20:,.1f} MB"
    return f"{node.host}:{node.port}", role, str(node.shards), size, node.postgres, node.citus, node.vector, state
