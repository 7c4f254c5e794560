#!/usr/bin/env python
"""The command line: Django's, with the embedded servers running whenever a command needs them."""

from __future__ import annotations

import os
import sys

#: Commands that never ask the database, or only with an option (ASKING). `up` starts the servers itself, as a step the
#: user can see.
WITHOUT_SERVERS = {
    *("help", "version", "up", "check", "makemigrations", "spectacular", "collectstatic"),
    *("makemessages", "compilemessages", "diffsettings", "capacity"),
}
#: With an option that begins so, they do.
ASKING = {"check": "--database", "capacity": "--from"}
#: What PostgreSQL says of a table and of a column that are not there.
OTHER_TABLES = ("42P01", "42703")


def asks_for_help(arguments: list[str]) -> bool:
    """Whether the command line (without the program's name) only wants to be told something."""
    return not arguments or arguments[0].startswith("-") or bool({"-h", "--help"} & set(arguments))


def data_dir_option(arguments: list[str]) -> str | None:
    """The value of `--data-dir`, which must be known before the settings compute the servers' addresses."""
    for position, argument in enumerate(arguments):
        if argument.startswith("--data-dir="):
            return argument.partition("=")[2]
        if argument == "--data-dir" and position + 1 < len(arguments):
            return arguments[position + 1]
    return None


def needs_servers(arguments: list[str]) -> bool:
    """Whether the command will talk to the servers, and finds them running only if they are started first."""
    if asks_for_help(arguments):
        return False
    asking = ASKING.get(arguments[0])
    asks_database = asking is not None and any(a.startswith(asking) for a in arguments)
    return arguments[0] not in WITHOUT_SERVERS or asks_database


def main(arguments: list[str]) -> None:
    """Run one management command. A bad setting, an unavailable server and a database without tables are one line and
    exit status 1."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ragsite.settings")
    if arguments[:1] == ["up"] and (chosen := data_dir_option(arguments)):
        os.environ["RAGSITE_DATA_DIR"] = os.path.abspath(os.path.expanduser(chosen))

    # Imported only now: importing the site may read its settings, and they the directory chosen above.
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db import ProgrammingError

    try:
        from ragsite import embedded
    except ImproperlyConfigured as error:
        sys.exit(f"ragsite: {error}")
    try:
        if arguments[:1] == ["up"] and not asks_for_help(arguments):
            embedded.prepare()
        if needs_servers(arguments):
            embedded.attach()
        execute_from_command_line([sys.argv[0], *arguments])
    except (ImproperlyConfigured, embedded.EmbeddedError) as error:
        if "--traceback" in arguments:
            raise
        sys.exit(f"ragsite: {error}")
    except ProgrammingError as error:
        if "--traceback" in arguments or getattr(error.__cause__, "sqlstate", "") not in OTHER_TABLES:
            raise
        sys.exit("ragsite: the database's tables are not those of this version: run `manage.py migrate` first.")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
