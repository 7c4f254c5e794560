#!/usr/bin/env python
"""The command line: Django's, with the embedded servers running whenever a command needs them."""

from __future__ import annotations

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line

from ragsite import embedded

#: Commands that never ask the database. `up` starts the servers itself, as a step the user can see.
WITHOUT_SERVERS = {
    *("help", "version", "up", "check", "makemigrations", "spectacular", "collectstatic"),
    *("makemessages", "compilemessages", "diffsettings"),
}


def data_dir_option(arguments: list[str]) -> str | None:
    """The value of `--data-dir`, which must be known before the settings compute the servers' addresses."""
    for position, argument in enumerate(arguments):
        if argument.startswith("--data-dir="):
            return argument.partition("=")[2]
        if argument == "--data-dir" and position + 1 < len(arguments):
            return arguments[position + 1]
    return None


def needs_servers(arguments: list[str]) -> bool:
    """Whether the command line `arguments` (without the program's name) will talk to the servers."""
    if not arguments or arguments[0].startswith("-") or {"-h", "--help"} & set(arguments):
        return False
    asks_database = arguments[0] == "check" and any(a.startswith("--database") for a in arguments)
    return arguments[0] not in WITHOUT_SERVERS or asks_database


def main(arguments: list[str]) -> None:
    """Run one management command. An EmbeddedError is one line on stderr and exit status 1."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ragsite.settings")
    if arguments[:1] == ["up"] and (chosen := data_dir_option(arguments)):
        os.environ["RAGSITE_DATA_DIR"] = os.path.abspath(os.path.expanduser(chosen))
    try:
        if arguments[:1] == ["up"] and not {"-h", "--help"} & set(arguments):
            embedded.prepare()  # The settings keep a secret there, and would fail less clearly.
        if needs_servers(arguments):
            embedded.attach()
        execute_from_command_line([sys.argv[0], *arguments])
    except ImproperlyConfigured as error:
        # A value of the environment, and the message says which: the stack would tell less.
        if "--traceback" in arguments:
            raise
        sys.exit(f"ragsite: {error}")
    except embedded.EmbeddedError as error:
        sys.exit(f"ragsite: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main(sys.argv[1:])
