"""`ottla fsck`: checks a store that nobody has open, and repairs it if that is wanted."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from ottla.broker.fsck import check
from ottla.cli.outcome import FAILED, json_option
from ottla.log.files import OsFiles
from ottla.log.fsck.findings import Report, Severity

JSON_VERSION = 1


@click.command()
@click.argument("folder", metavar="[DIR]", default="./ottla-data")
@click.option("--repair", is_flag=True, help="Repair what can be; without this nothing is changed.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A broker config that the store is served with; repeatable.",
)
@json_option
def command(folder: str, repair: bool, settings: tuple[str, ...], as_json: bool) -> int:
    """Check the store in DIR (./ottla-data): every batch, and all that is beside.

    Prints a line for each finding: "note" is harmless, "problem" means that something does not
    work, "loss" that records are lost. Ends with 0 where nothing is wrong or all was repaired, and
    with 1 where problems are left.
    """
    given = dict(_parse_setting(text) for text in settings)
    report = check(OsFiles(read_only=not repair), folder, repair=repair, settings=given)
    if as_json:
        click.echo(json.dumps(_to_dict(report)))
    else:
        for finding in report.findings:
            click.echo(str(finding))
        click.echo(_summary(report))
    sys.stdout.flush()
    _tell_next_step(report, repair=repair)
    return 0 if report.is_well else FAILED


def _parse_setting(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise click.UsageError(f"a broker config is NAME=VALUE, not {text!r}")
    return name, value


def _problems(report: Report) -> int:
    return report.number(Severity.PROBLEM, Severity.LOSS)


def _repaired(report: Report) -> int:
    return sum(each.is_repaired and each.severity != Severity.NOTE for each in report.findings)


def _summary(report: Report) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in asdict(report.counts).items())
    problems = _problems(report)
    told = "no problems" if not problems else f"{problems} problem{'s'[: problems > 1]}"
    if _repaired(report):
        told += f", {_repaired(report)} repaired"
    stop = "after a clean stop" if report.was_clean else "after a stop that was not clean"
    return f"{report.path}: checked {counts}, {stop}: {told}"


def _tell_next_step(report: Report, *, repair: bool) -> None:
    if report.is_well:
        return
    if any(each.repair for each in report.findings if each.is_open) and not repair:
        click.echo("Nothing was changed. What is intact can be read meanwhile.", err=True)
        click.echo("Put it right:  the same command with --repair", err=True)
    else:
        click.echo("What is left --repair cannot put right: its lines say what to do.", err=True)


def _to_dict(report: Report) -> dict[str, object]:
    return {
        "version": JSON_VERSION,
        "store": report.path,
        "was_clean": report.was_clean,
        "checked": asdict(report.counts),
        "problems": _problems(report),
        "repaired": _repaired(report),
        "is_well": report.is_well,
        "findings": [each.to_dict() for each in report.findings],
    }
