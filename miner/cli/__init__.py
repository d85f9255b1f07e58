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

app = typer.Typer(
    name="roadwork-miner",
    help="A CPU miner for NATIX StreetVision: answers validators on time, or refuses at once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("query")(query.query)
app.command("reload")(reload.reload)
app.command("top")(top.top)
app.command("doctor")(doctor.doctor)
app.command("bench")(bench.bench)
app.command("export")(export.export)
app.command("tune")(tune.tune)
app.command("simulate")(simulate.simulate)
app.command("report")(report.report)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("calibrate")(calibrate.calibrate)
app.command("fuse")(fuse.fuse)
app.add_typer(precompute.app, name="precompute")
app.add_typer(models.app, name="models")


def main() -> None:
    """Run a command."""
    with errors_told():
        app()
