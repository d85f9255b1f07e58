"""`roadwork-miner simulate`: what a subnet would make of a miner."""

import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from miner.bench.output import check_plot
from miner.cli.common import Config, Detector, EnvFile, Json, Set, end_in_order_on_sigterm, load_settings
from miner.cli.training import read_labelled, say_left_out
from miner.errors import ConfigurationError
from miner.recorder.records import Wire
from miner.settings.settings import Settings
from miner.settings.validators import VALIDATORS_WAIT
from miner.simulate.comparison import stages_of
from miner.simulate.comparison_output import compare_through, comparison_in_json, draw_comparison, show_comparison
from miner.simulate.miners import WIRES, own_miner, running_miner
from miner.simulate.output import draw, in_json, play_through, send_again, show
from miner.simulate.replay import callers, recorded_photos
from miner.simulate.run import SimulatedPhoto, SimulationPlan, labelled_photos, made_photos
from miner.simulate.schedule import SimulatedSubnet

ROUNDS = 100
COMPARED_ROUNDS = 25  # for three miners, one after the other
EVERY = 60.0  # seconds
COMPARED_BURST, COMPARED_EVERY = 60, 10.0  # seconds; the longest patience, and a pause
MOST_VALIDATORS = 256
# What a recording has settled.
RECORDED = (
    "data", "era", "validators", "miners", "rounds", "interval", "organic", "burst", "every", "duration", "seed",
    "plot",
)  # fmt: skip


def simulate(
    context: typer.Context,
    env_file: EnvFile = None,
    detector: Detector = None,
    config: Config = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Photos in subfolders roadwork and no_roadwork; default: synthetic."),
    ] = None,
    era: Annotated[
        Literal["letterbox", "native", "augmented"],
        typer.Option(help="How validators prepare them: 224×224 between black bars, as they are, or distorted."),
    ] = "letterbox",
    wire: Annotated[
        Literal["dendrite", "btauth", "both"], typer.Option(help="SDK 9 and 10, SDK 11, or in turn.")
    ] = "both",
    validators: Annotated[
        int, typer.Option(min=1, max=MOST_VALIDATORS, help="Validators; each scores over a history of its own.")
    ] = 8,
    miners: Annotated[int, typer.Option(min=10, max=4096, help="Miners of the subnet; each round asks ten.")] = 10,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds in which each validator asks this miner; default: 100.")
    ] = None,
    interval: Annotated[float, typer.Option(min=1, help="Seconds between two rounds of a validator.")] = 60.0,
    organic: Annotated[float, typer.Option(min=0, max=0.9, help="Share of organic tasks, which come in bursts.")] = 0.1,
    burst: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_VALIDATORS, help="Validators who ask at once again and again; with --compare 60."),
    ] = None,
    every: Annotated[
        float | None, typer.Option(min=1, help="Seconds from burst to burst; default: 60, with --compare 10.")
    ] = None,
    is_compared: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Compare INFERENCE_STAGES=cheapest, all and adaptive on a quiet subnet and in bursts; needs stages.",
        ),
    ] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that validators wait.")] = VALIDATORS_WAIT,
    speed: Annotated[
        float | None,
        typer.Option(min=0.01, help="Times a subnet's pace; default: what keeps this miner busy a fifth of the time."),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=1, help="Seconds of this clock in which requests are begun.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of images, labels and their order.")] = 0,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A miner that runs; default: one is started for this.")
    ] = None,
    hotkey: Annotated[str | None, typer.Option(help="Its hotkey; default: this machine's miner.")] = None,
    wallet: Annotated[
        list[str] | None, typer.Option(metavar="NAME/HOTKEY", help="Who signs, in turn; default: throwaway validators.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Send again what a recorder wrote (RECORDER=images).")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Also draw the figures.")] = None,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Play a subnet's validators against a miner, and say what it would earn.

    Exit code 1 if nothing was answered.
    """
    settings = load_settings(env_file, set_, image_detector=detector, image_detector_config=config)
    if hotkey is not None and address is None:
        raise ConfigurationError(f"--hotkey={hotkey}: goes with --address only")
    if address is not None and (detector or config):
        raise ConfigurationError(f"--address={address}: without --detector and --config; that miner has its own model")
    if wallet and address is None:
        raise ConfigurationError(f"--wallet={wallet[0]}: goes with --address only")
    if replay is not None:
        _refuse_what_is_recorded(context, replay)
    if is_compared:
        _refuse_with_compare(address, replay)
    if every is not None and burst is None and not is_compared:
        raise ConfigurationError(f"--every={every:g}: goes with --burst or --compare")
    if plot is not None:
        check_plot(plot)

    recorded, without = recorded_photos(replay) if replay is not None else ([], 0)
    if recorded:
        validators = min(MOST_VALIDATORS, callers(recorded))
    most = rounds or ((COMPARED_ROUNDS if is_compared else ROUNDS) if duration is None else 10**6)
    subnet = SimulatedSubnet(validators, miners, most, interval, organic, burst=burst or 0, every=every or EVERY)
    if is_compared:
        subnet = replace(subnet, burst=burst or COMPARED_BURST, every=every or COMPARED_EVERY)
        stages_of(settings)  # before photos are read
    what = SimulationPlan(subnet, [] if recorded else _photos(data, quiet=as_json), era, seed, speed, duration)
    end_in_order_on_sigterm()
    logging.getLogger("miner.chain.standalone").setLevel(logging.WARNING)  # throwaway keys are no news here
    if is_compared:
        _compare(what, settings, WIRES[wire], timeout, plot, as_json=as_json)
        return
    with ExitStack() as stack:
        if address is None:
            target, told = stack.enter_context(own_miner(settings, subnet.callers)), False
        else:
            target, told = running_miner(settings, address, hotkey, wallet or [], subnet.callers)
        clients = target.clients(WIRES[wire], timeout)
        if recorded:
            found = send_again(recorded, without, clients, speed or 1.0, told=told, as_json=as_json)
            raise typer.Exit(0 if found else 1)
        played = play_through(what, target, clients, told=told)
    say_left_out(played.unread)
    if as_json:
        print(json.dumps(in_json(what, played, target)))
    else:
        show(played, target)
    if plot is not None:
        draw(played.report, played.requests, played.answers, timeout, plot)
    if not played.report.outcomes["answered"]:
        raise typer.Exit(1)


def _compare(
    what: SimulationPlan, settings: Settings, wires: Sequence[Wire], timeout: float, plot: Path | None, *, as_json: bool
) -> None:
    found = compare_through(what, settings, wires, timeout)
    say_left_out(found.unread)
    if as_json:
        print(json.dumps(comparison_in_json(what, found)))
    else:
        show_comparison(found)
    if plot is not None:
        draw_comparison(found, timeout, plot)
    if not found.answered:
        raise typer.Exit(1)


def _refuse_with_compare(address: str | None, replay: Path | None) -> None:
    if address is not None:
        raise ConfigurationError(f"--address={address}: without --compare, which starts its own miners")
    if replay is not None:
        raise ConfigurationError(f"--replay={replay}: without --compare; who asks what and when is as it was recorded")


def _refuse_what_is_recorded(context: typer.Context, replay: Path) -> None:
    given = [f"--{name}" for name in RECORDED if _is_given(context, name)]
    if given:
        raise ConfigurationError(
            f"--replay={replay}: without {', '.join(given)}; who asks what and when is as it was recorded"
        )


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _photos(data: Path | None, *, quiet: bool) -> "list[SimulatedPhoto]":

    if data is not None:
        return labelled_photos(read_labelled(data, "--data"))
    if not quiet:
        print("made pictures: their times count, their accuracy does not; --data FOLDER takes labelled photos")
    return made_photos()
