"""`roadwork-miner improve`: from labels to a better model, in one night."""

import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

import typer

from detectors.models.config import read_config
from detectors.training.config import NAMED_MODELS
from miner.cli.common import EnvFile, Json, Service, file_of, load_settings, read_settings, unit_settings
from miner.cli.reload import reload_running
from miner.cli.training import make_screen, need_packages, training_errors
from miner.errors import ConfigurationError, CouldNotStart
from miner.feedback.improvement.promotion import ReloadEnd, SettingsPlace, file_to_edit, serving
from miner.feedback.improvement.report import write_report
from miner.feedback.improvement.run import REPORT, ImprovementRun, Workplace
from miner.feedback.improvement.state import NAMES, Improvement, ImprovementOptions, improving, prune, runs_in
from miner.feedback.improvement.worker import Children
from miner.lock import holder
from miner.settings.origins import origins
from miner.settings.settings import Settings, environment_of

RELOAD_SECONDS, SHADOW_SECONDS, LOOK_SECONDS = 900.0, 20.0, 0.5  # a busy miner leaves its shadow no time to load


def improve(
    data: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Own photos in roadwork and no_roadwork, too; may be repeated."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="What a head is trained on, as for `train` (lite2).")] = None,
    values: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting of `train --print-config`.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Features of frozen networks, as for `train`.")] = None,
    max_hours: Annotated[
        float | None, typer.Option(min=0.01, help="Stop the training cleanly, so that all takes about so long.")
    ] = None,
    self_train: Annotated[
        bool,
        typer.Option("--self-train", help="Learn a teacher's sure answers to unlabelled photos, if the tenth agrees."),
    ] = False,
    teacher: Annotated[
        str | None, typer.Option(metavar="YAML|FOLDER", help="For --self-train; default: the ensemble that serves.")
    ] = None,
    promotes: Annotated[
        bool, typer.Option("--promote", help="Make a better one serve: the last that waits, else this night's.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Have serve again what did before the last promotion.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Begin anew, whatever is unfinished or unchanged.")] = False,
    priority: Annotated[
        Literal["idle", "low", "normal"],
        typer.Option(help="idle: only what nobody else wants of the machine; a busy one may need low."),
    ] = "idle",
    env_file: EnvFile = None,
    service: Service = None,
    as_json: Json = False,
) -> None:
    """Make a better model of labelled photos, put it beside what serves, and say whether to promote it.

    Kill it at any moment: the next call goes on. Its steps are commands of their own, which are printed, and stand back
    for the miner. No model is judged by photos that it has learnt from.
    """
    settings = load_settings(env_file, None, service)
    if not undo:
        need_packages("improve", "train")
    options = ImprovementOptions(
        data=[str(one.expanduser().absolute()) for one in data or []],
        model=_full(model, NAMED_MODELS),
        settings=values or [],
        cache=str(cache.expanduser().absolute()) if cache is not None else None,
        self_train=self_train,
        teacher=_full(teacher),
    )
    if undo and (promotes or new or options != ImprovementOptions()):
        raise ConfigurationError("--undo: goes alone")
    if teacher is not None and not self_train:
        raise ConfigurationError(f"--teacher={teacher}: goes with --self-train")
    screen = make_screen()
    with training_errors(), Children(environment_of(settings), priority) as children:
        place, file = _place(settings, env_file, service), file_of(env_file, service)
        work = Workplace(
            settings, file, place, children, screen, max_hours, write_report,
            lambda: serving(read_settings(env_file, None, service) if place.file is not None else settings),
        )  # fmt: skip
        if self_train and teacher is None and not read_config(settings.detector_config).branches:
            raise ConfigurationError("--self-train: what serves is one model; name a dearer one as --teacher")
        with improving(work.home):
            folder, state, words = _undo(work) if undo else _improve(work, options, promotes=promotes, new=new)
    if as_json:
        print(json.dumps({"folder": str(folder), **state.model_dump()}))
        return
    for line in words:
        print(line)


def _full(name: str | None, others: Collection[str] = ()) -> str | None:
    """Return the full path of what lies on this disk, which a run that goes on elsewhere needs; else the name."""
    if name is None or name in others:
        return name
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


def _place(settings: Settings, env_file: Path | None, service: str | None) -> SettingsPlace:
    unit = unit_settings(service) if service is not None else {}
    file = file_of(env_file, service)
    file, why = file_to_edit(file, origins(file, {}, unit))
    return SettingsPlace(file, why, lambda: _reload(settings))


def _reload(settings: Settings) -> ReloadEnd | None:
    """Reload the running miner, and look at what serves then, and whether a shadow has come up."""
    if holder(settings.state_dir) is None:
        return None
    after = reload_running(settings, RELOAD_SECONDS)
    assert after.reload is not None
    if not after.reload.ok:
        return ReloadEnd(False, after.reload.text)
    import httpx

    from miner.cli.top import ANSWER_SECONDS, fetch

    until = time.monotonic() + SHADOW_SECONDS
    with httpx.Client(base_url=settings.status_address, timeout=ANSWER_SECONDS, trust_env=False) as client:
        while after.shadow is not None and after.shadow.name is None and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
            after = fetch(client)
    assert after.reload is not None
    shadow = after.shadow.config if after.shadow is not None and after.shadow.name is not None else ""
    return ReloadEnd(True, after.reload.text, after.model.hash if after.model is not None else "", shadow)


def _improve(
    work: Workplace, options: ImprovementOptions, *, promotes: bool, new: bool
) -> tuple[Path, Improvement, list[str]]:
    runs = runs_in(work.home)
    last = next(iter(runs), None)
    if not new and last is not None:
        state = runs[last]
        if state.ended is None or state.promoting:
            if options not in (ImprovementOptions(), state.options):
                raise ConfigurationError(f"{last}: is unfinished, with other options; --new begins anew")
            work.screen.say(f"{last}: goes on; {', '.join(state.steps) or 'no step'} done")
            return _finish(last, state, work, promotes=promotes)
        if promotes and state.may_be_promoted:
            return _finish(last, state, work, promotes=True)
    folder, state = _begin(work.home, options)
    before = runs[last] if last is not None else None
    return _finish(folder, state, work, promotes=promotes, before=None if new else before)


def _begin(home: Path, options: ImprovementOptions) -> tuple[Path, Improvement]:
    """Make the folder of a new run, which is named by the minute; a second one within it waits for the next name."""
    started = time.time()
    while (folder := home / time.strftime(NAMES, time.localtime(started))).exists():
        started += 60
    folder.mkdir(mode=0o755)
    state = Improvement(options=options, started=started)
    state.write(folder)
    return folder, state


def _finish(
    folder: Path, state: Improvement, work: Workplace, *, promotes: bool, before: Improvement | None = None
) -> tuple[Path, Improvement, list[str]]:
    run = ImprovementRun(folder, state, work)
    run.run(promotes=promotes, before=before)
    for name in prune(work.home, work.settings, folder):
        work.screen.say(f"removed: {name}, an old run that nothing serves")
    return run.folder, run.state, _last_lines(run.folder, run.state)


def _last_lines(folder: Path, state: Improvement) -> list[str]:
    judged = state.steps["judge"].facts["words"]
    match state:
        case Improvement(promoted=True):
            serves = f"{state.steps['promote'].facts['words']}; `roadwork-miner improve --undo` takes it back"
        case Improvement(verdict="better"):
            serves = "make it serve with `roadwork-miner improve --promote`"
        case Improvement(shadowed=True):
            serves = "it stays beside what serves; more labels make the next night surer"
        case _:
            serves = "what serves stays"
    together = state.steps["judge"].facts.get("together")  # a run of an earlier version has none
    return [f"report: {folder / REPORT}", *([together] if together else []), f"{judged}: {serves}"]


def _undo(work: Workplace) -> tuple[Path, Improvement, list[str]]:
    for folder, state in runs_in(work.home).items():
        if state.promoted or state.promoting:  # a kill may have left the candidate in the settings file
            words = ImprovementRun(folder, state, work).undo()
            return folder, state, [f"undone: {folder.name} serves no more; {words}"]
    raise CouldNotStart(f"{work.home}: no promotion that could be undone")
