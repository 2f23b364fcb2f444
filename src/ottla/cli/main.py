"""`ottla`: finds the command, runs it, and turns what it raises into a text and an exit code.

A command is imported when it is called, so that none pays for the others.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import Any

import click

from ottla._version import VERSION

COMMANDS = {
    "fsck": "Check a store that nobody has open, and repair it.",
    "groups": "List, describe, reset and delete consumer groups.",
    "read": "Print the records of a topic.",
    "send": "Send records to a topic, and see them stored.",
    "serve": "Serve a store to Kafka clients.",
    "topics": "List, create, describe and delete topics.",
}

_OBJECTS_MADE = 10_000
"""So many objects are made before garbage is looked for: imports make many, and leave none."""


class _Commands(click.Group):
    """Loads a command when it is called, and only its one-line help before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"ottla.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from ottla._compiled import MODULES, is_compiled

    form = "compiled" if all(map(is_compiled, MODULES)) else "pure Python, on purpose"
    click.echo(f"ottla {VERSION} ({form})")
    ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    callback=_print_version,
    expose_value=False,
    is_eager=True,
    help="Print the version and leave.",
)
def ottla() -> None:
    """Kafka for Python, without the cluster."""


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line and leave with its exit code."""
    gc.set_threshold(_OBJECTS_MADE)
    from ottla.cli.outcome import exit_code_of

    try:
        result = ottla.main(args=arguments, prog_name="ottla", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except click.UsageError as error:
        error.show()
        code = 2
    except click.exceptions.Exit as error:
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 1
    except Exception as error:
        code = exit_code_of(error)
        click.echo(f"ottla: {error}", err=True)
    sys.exit(code)
