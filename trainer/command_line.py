"""How the project's commands end: what the user can put right is one line and exit status 2, what
did not come out as it should is 3."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import click

WRONG_INPUT, OTHER_OUTCOME, INTERRUPTED = 2, 3, 130


def run_command(
    command: click.Command,
    arguments: Sequence[str] | None = None,
    *,
    check: Callable[[Sequence[str]], None] = lambda arguments: None,
) -> NoReturn:
    """Run a command line, this process's unless arguments are given, and exit with its status.

    `check` gets the arguments before anything else does, and may raise ValueError.
    """
    given = sys.argv[1:] if arguments is None else arguments
    try:
        check(given)
        status = command.main(list(given), standalone_mode=False)
    except click.ClickException as error:
        _end(error.format_message(), error.exit_code)
    except (ValueError, OSError) as error:
        _end(str(error), WRONG_INPUT)
    except (click.Abort, KeyboardInterrupt):
        _end("interrupted", INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


def parse_settings(settings: tuple[str, ...]) -> dict[str, object]:
    """Return dotted fields of `field=JSON` texts; what is not JSON is taken as a string."""
    fields: dict[str, object] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            shown = setting if setting.isprintable() else ascii(setting)
            raise ValueError(f"--set {shown}; must be FIELD=JSON, such as optimizer.lr=1e-3")
        try:
            fields[name] = json.loads(text)
        except (ValueError, RecursionError):  # also a number of too many digits, deep nesting
            fields[name] = text
    return fields


def _end(message: str, status: int) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(status)
