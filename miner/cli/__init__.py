"""The command line: one small file for each command."""

import typer

from miner.cli import (
    bench,
    calibrate,
    doctor,
    evaluate,
    export,
    fuse,
    models,
    precompute,
    query,
    reload,
    report,
    run,
    simulate,
    top,
    train,
    tune,
)
from miner.cli.ending import errors_told
from miner.cli.group import Command, Group, open_closed_streams, print_any_character

app = typer.Typer(
    cls=Group,
    name="roadwork-miner",
    help="A CPU miner for NATIX StreetVision: answers validators on time, or refuses at once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run", cls=Command)(run.run)
app.command("query", cls=Command)(query.query)
app.command("reload", cls=Command)(reload.reload)
app.command("top", cls=Command)(top.top)
app.command("doctor", cls=Command)(doctor.doctor)
app.command("bench", cls=Command)(bench.bench)
app.command("export", cls=Command)(export.export)
app.command("tune", cls=Command)(tune.tune)
app.command("simulate", cls=Command)(simulate.simulate)
app.command("report", cls=Command)(report.report)
app.command("train", cls=Command)(train.train)
app.command("evaluate", cls=Command)(evaluate.evaluate)
app.command("calibrate", cls=Command)(calibrate.calibrate)
app.command("fuse", cls=Command)(fuse.fuse)
app.add_typer(precompute.app, name="precompute")
app.add_typer(models.app, name="models")


def main() -> None:
    """Run a command."""
    open_closed_streams()
    print_any_character()
    with errors_told():
        app()
