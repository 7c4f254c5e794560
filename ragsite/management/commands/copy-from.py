"""`manage.py copy-from URL`: another installation's data into this one's database, while the other goes on serving."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from typing import Any

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connections

from apps.documents.copying import SOURCE, TARGET, rounds, standstill, threshold
from apps.documents.copying.errors import CannotCopy
from ragsite import env

NAMED = 5  # keys of a table that differ
LONGEST = 600.0  # s, for which the source's writers are stopped
WAITING = {"connect_timeout": 10}
#: What waits for a lock ends when this process has gone away, or was cut off, and does not wait on with its own locks.
NOTICING = "-c client_connection_check_interval=1s"


class Command(BaseCommand):
    help = """Copy all of another installation into the database of this one (DATABASE_URL): to a Citus cluster, to
another number of partitions, to another server. Run `migrate` here first, and nothing else.

  copy-from URL            copies what is not the same yet; again, what has changed since; as often as you like
  copy-from URL --final    stops the writers of the other database, copies the rest, and leaves them stopped; where
                           that takes longer than --max-stop-seconds (600), they may write again
  copy-from URL --verify   compares all rows of both by checksums; exit status 1 where any differ
  copy-from URL --reopen   lets the other database take writes again, where this one has taken none meanwhile
                           (with --discard-target: also where it has, and gives them up)

URL is postgresql://ROLE@HOST/DATABASE of the other database; the role must be a superuser or have BYPASSRLS."""

    def create_parser(self, *args: Any, **kwargs: Any) -> CommandParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("url", metavar="URL")
        parser.add_argument("--streams", type=int, default=4, metavar="N", help="parts copied at a time (4)")
        act = parser.add_mutually_exclusive_group()
        for name, told in (
            ("final", "stop the other's writers and copy the rest"),
            ("verify", "compare everything"),
            ("reopen", "let the other take writes again"),
        ):
            act.add_argument(f"--{name}", action="store_true", help=told)
        parser.add_argument(
            "--max-stop-seconds",
            type=float,
            metavar="N",
            help=f"with --final: when the other takes writes again if the rest is not here ({LONGEST:g})",
        )
        parser.add_argument(
            "--discard-target", action="store_true", help="with --reopen: give up what this database has taken since"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        streams = max(1, options["streams"])
        if options["discard_target"] and not options["reopen"]:
            raise CommandError("--discard-target goes with --reopen")
        longest = options["max_stop_seconds"]
        if longest is not None and not options["final"]:
            raise CommandError("--max-stop-seconds goes with --final")
        if longest is not None and not longest > 0:
            raise CommandError("--max-stop-seconds must be more than 0")
        try:
            self._connect(options["url"])
            if options["reopen"]:
                rounds.reopen(streams=streams, told=self._tell, discard=options["discard_target"])
                self._tell("the source takes writes again")
            elif options["verify"]:
                self._verify(streams)
            elif options["final"]:
                seconds = rounds.hand_over(streams=streams, told=self._tell, longest=longest or LONGEST)
                self._tell(f"everything is here; nobody could write for the last {seconds:.1f} s")
                self._tell("start the application on this database now; until then the other one answers searches")
            else:
                rounds.copy(streams=streams, told=self._tell)
        except (CannotCopy, DatabaseError, psycopg.Error) as error:
            raise CommandError(str(error).strip())
        finally:
            if SOURCE in connections.settings:
                connections[SOURCE].close()

    def _connect(self, url: str) -> None:
        try:
            found = env.database("URL", url)
        except ImproperlyConfigured as error:
            raise CommandError(str(error))
        found["OPTIONS"] = WAITING | found["OPTIONS"] | {"application_name": standstill.NAME}  # type: ignore[operator]
        made = connections.configure_settings({"default": {}, SOURCE: found})
        connections.settings[SOURCE] = made[SOURCE]
        own = connections.settings[TARGET]["OPTIONS"]  # threshold.refuse_writes is for all others
        own["options"] = f"{own.get('options', '')} -c default_transaction_read_only=off {NOTICING}".strip()
        own.setdefault("connect_timeout", WAITING["connect_timeout"])

    def _verify(self, streams: int) -> None:
        tally = rounds.verify(streams=streams, told=self._tell)
        for table, rows in sorted(tally.compared.items()):
            differing = tally.differing.get(table, [])
            named = ", ".join(map(str, differing[:NAMED])) + (", ..." if len(differing) > NAMED else "")
            self._tell(f"{table}: {rows} rows, " + (f"{len(differing)} keys differ: {named}" if differing else "equal"))
        if tally.differing:
            mark = threshold.read_mark()
            if mark and mark.handed_over:
                raise CommandError(
                    "they are not the same. To begin anew, and give up what this database has taken meanwhile:"
                    " --reopen --discard-target, then copy-from again"
                )
            raise CommandError("they are not the same; run copy-from again")

    def _tell(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()  # for whoever reads a pipe
