"""The improvement: a night's steps from labels to a model beside the one that serves, each resumable.

A folder holds a run, and `state.json` in it what is done. A step that a kill has ended is begun again: each makes its
result aside and puts it into place as a whole, or goes on where it was, as a training does. Heavy steps are commands of
this program in processes of their own, whose command lines are kept: every step can be done by hand.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import join
from typing import Any, ClassVar, get_args

import numpy as np

from detectors.console import Screen
from detectors.evaluation.branch_file import BranchFile
from detectors.files import write_safely
from detectors.models.config import find_config, read_config
from detectors.photos.eras import eras_in
from miner.errors import ConfigurationError, CouldNotStart
from miner.feedback import FOLDER, IMPROVEMENTS
from miner.feedback.improvement.judgement import is_kept, read_answers
from miner.feedback.improvement.partition import (
    FINAL,
    FOLDS,
    PartPhoto,
    Place,
    facts_of,
    lay_out,
    learnt_in,
    read_photo_table,
    refuse_too_few,
    unlabelled,
)
from miner.feedback.improvement.promotion import (
    MODEL,
    SHADOW,
    ChosenModel,
    Lines,
    SettingsPlace,
    promote,
    put_back,
    refuse_gone,
    serving,
    set_shadow,
    whole_teacher,
)
from miner.feedback.improvement.state import (
    ANSWERS,
    PHOTOS,
    SERVED,
    GainFigures,
    Improvement,
    Step,
    StepRecord,
    candidate_name,
    yaml_of,
)
from miner.feedback.improvement.together import judge_run
from miner.feedback.improvement.worker import Children, await_end
from miner.feedback.labels import Labels
from miner.feedback.traffic import read_traffic
from miner.recorder import FOLDER as RECORDER
from miner.recorder.records import IMAGES
from miner.settings.settings import Settings

REPORT = "report.html"
UNLABELLED, TAUGHT_ANSWERS = "unlabelled", "taught-answers"
RESULTS = "results.json"  # of a training that came to an end
CONFIDENCE = 0.95  # of a teacher, below which its answer is not learnt
CALIBRATION_FOLDS = 5  # of `calibrate`: fewer scenes of a class can't be split
VAL_SHARE = 0.1  # that a training only watches; more would be lost to it


@dataclass(frozen=True, slots=True)
class Workplace:
    """What the steps are given.

    Attributes:
        settings: of the miner.
        env_file: that they are from; None: none.
        place: where its model is set.
        children: run commands.
        screen: is told.
        hours: that this call may take; None: as many as it likes.
        render: writes the report.
        serves: says what serves by the settings as they are by now.
    """

    settings: Settings
    env_file: Path | None
    place: SettingsPlace
    children: Children
    screen: Screen
    hours: float | None
    render: Callable[[Path, Improvement], None]
    serves: Callable[[], ChosenModel]

    @property
    def settings_flags(self) -> tuple[str, ...]:
        """The flags that have a command read the same settings."""
        return ("--env-file", str(self.env_file.absolute())) if self.env_file is not None else ("--no-env-file",)

    @property
    def home(self) -> Path:
        """The folder of all runs."""
        return self.settings.state_dir.absolute() / IMPROVEMENTS


class ImprovementRun:
    """The steps of one run, in their order."""

    steps: ClassVar[Sequence[Step]] = get_args(Step)

    def __init__(self, folder: Path, state: Improvement, workplace: Workplace) -> None:
        self.folder, self.state, self.work = folder, state, workplace
        self._trained = candidate_name(folder)  # the trainings are called like the models that they make
        self._taught = f"{self._trained}-taught"
        self._began = time.monotonic()

    def run(self, *, promotes: bool, before: Improvement | None = None) -> None:
        """Do what is not done yet, and end it.

        Args:
            promotes: whether a better one is to serve.
            before: the run before; where nothing has changed since, this one comes to nothing.

        Raises:
            ConfigurationError: there are too few photos, none is new, or what was asked for is wrong.
            CouldNotStart: a step has failed, or a signal came; the next call goes on.
        """
        promotes = self.state.promoting or (promotes and not (self.state.promoted or self.state.undone))
        for step in self.steps:
            if step in self.state.steps or (step == "teach" and not self.state.options.self_train):
                continue
            if step == "promote" and not (promotes and self.state.verdict == "better"):
                continue
            self.work.children.refuse_stopped()
            try:
                self._do(step)
                if step == "collect" and before is not None:
                    self._refuse_unchanged(before)
            except ConfigurationError:
                if set(self.state.steps) <= {"collect"} and not self._outcome(_fold(0)):  # nothing to go on with
                    shutil.rmtree(self.folder)
                raise
        self.state.ended = self.state.ended or time.time()
        self._save()
        self._report()

    def _refuse_unchanged(self, before: Improvement) -> None:
        old, new = before.steps.get("collect"), self._facts("collect")
        serves = serving(self.work.settings)
        if (
            before.options == self.state.options and old is not None and old.facts["sum"] == new["sum"]
            and before.serves == [serves.detector, serves.config]
        ):  # fmt: skip
            raise ConfigurationError("no photo was labelled since the last run, which ended; --new runs all the same")

    def _do(self, step: Step) -> None:
        self.work.screen.say(f"step {step}")
        began = time.monotonic()
        facts = self._ask_all() if step == "ask" else getattr(self, f"_{step}")()
        seconds, commands = round(time.monotonic() - began, 1), self.state.commands
        self.state.steps[step] = StepRecord(ended=time.time(), seconds=seconds, commands=commands, facts=facts)
        self.state.commands = []
        self._save()

    def _save(self) -> None:
        self.state.write(self.folder)

    def _facts(self, step: Step) -> Mapping[str, Any]:
        return self.state.steps[step].facts

    def _call(self, out: str, *arguments: str) -> int:
        """Run a command of this program; its output lies in the run's folder."""
        line = join(["roadwork-miner", *arguments])
        self.work.screen.say(line)
        if line not in self.state.commands:  # before a kill, which the line that goes on says little of
            self.state.commands.append(line)
            self._save()
        return self.work.children.run(arguments, self.folder / out)

    def _demand(self, out: str, *arguments: str) -> None:
        if code := self._call(out, *arguments):
            words = f"`{arguments[0]}` has ended with exit code {code}"
            if code == ConfigurationError.exit_code:
                raise ConfigurationError(f"{words}; --new begins anew, with other options")
            raise CouldNotStart(f"{words}; the next call tries it again, --new begins anew")

    def _collect(self) -> dict[str, Any]:
        options, settings = self.state.options, self.work.settings
        labels, serves = Labels(settings.state_dir / FOLDER), serving(settings)
        before = find_config(serves.config).parent  # a run's folder, where an improvement serves
        learnt = learnt_in(before / PHOTOS) if before.parent == self.work.home else frozenset()
        place, own, work = self.folder / PHOTOS, [Path(one) for one in options.data], self.work.children
        photos = work.compute(lay_out, place, labels, own, learnt)
        refuse_too_few(photos)
        self.state.serves = [serves.detector, serves.config]
        facts = facts_of(photos)
        if options.self_train:
            traffic = read_traffic(settings.state_dir / RECORDER)
            facts["unlabelled"] = work.compute(unlabelled, self.folder / UNLABELLED, labels, traffic)
        return facts

    def _folds(self) -> dict[str, Any]:
        """Train a model of each fold's others, which judges the fold."""
        trainings = FOLDS + 1 + self.state.options.self_train
        for number in range(FOLDS):
            self._training(_fold(number), str(number), 1 / (trainings - number))
            write_safely(self.folder / f"{_fold(number)}.yaml", _document(_fold(number)))
        return {"folds": FOLDS}

    def _train(self) -> dict[str, Any]:
        self._training(self._trained, FINAL, 0.5 if self.state.options.self_train else 1.0)
        write_safely(yaml_of(self.folder), _document(self._trained))
        return self._outcome(self._trained)

    def _teach(self) -> dict[str, Any]:
        """Train once more, with what a teacher says of unlabelled photos; keep it if the random tenth says so."""
        if not self._facts("collect")["unlabelled"]:
            return {"kept": False, "why": "no photo was recorded that the teacher could judge"}
        teacher = self.state.options.teacher or str(whole_teacher(self.work.settings, self.folder))
        tenth = self.folder / PHOTOS / "judge" / "traffic" / FINAL
        if not tenth.is_dir():
            return {"kept": False, "why": "no photo of the random tenth is labelled, and only these may say so"}
        self._training(
            self._taught, FINAL, 1.0, "--teacher", teacher, "--unlabelled", str(self.folder / UNLABELLED), "--set",
            "teacher_share=0", "--set", f"teacher_confidence={CONFIDENCE}",
        )  # fmt: skip
        facts = self._outcome(self._taught)
        links = {name: self.folder / f"{name}.yaml" for name in (self._trained, self._taught)}
        for name, link in links.items():
            write_safely(link, _document(name))
        self._ask(Path(TAUGHT_ANSWERS) / "tenth.json", tenth, links[self._trained], links[self._taught])
        answers = read_answers(self.folder / TAUGHT_ANSWERS, self._photos)
        facts["kept"] = self.work.children.compute(is_kept, answers)
        facts["why"] = "the random tenth says so" if facts["kept"] else "the random tenth does not say so beyond chance"
        write_safely(yaml_of(self.folder), _document(self._taught if facts["kept"] else self._trained))
        return facts

    @property
    def _photos(self) -> list[PartPhoto]:
        return read_photo_table(self.folder / PHOTOS)

    def _training(self, name: str, learns: str, share: float, *more: str) -> None:
        """Train into a folder of the run, or go on with it; one that its time has ended is not begun again.

        Args:
            name: of the folder.
            learns: the folder of photos, below `learn`.
            share: of the time that is left.
            more: arguments.
        """
        run, options = self.folder / name, self.state.options
        if self._outcome(name).get("ended") not in (None, "stopped by a signal"):
            return
        if (run / "config.yaml").is_file():
            await_end(run)
            self._demand(f"{name}.txt", "train", "--resume", str(run))
            return
        repeats = self._facts("collect")["repeats"]
        arguments = ["train", str(self.folder / PHOTOS / "learn" / learns), "--out", str(run)]
        arguments += ["--set", "test_share=0", "--set", f"val_share={VAL_SHARE}"]
        arguments += ["--set", f"repeats={{traffic: {repeats}}}"] if repeats > 1 else []
        if (left := self._hours_left) is not None:
            arguments += ["--max-hours", f"{left * share:.4f}"]
        for flag, value in (("--model", options.model), ("--cache", options.cache)):
            arguments += [flag, value] if value is not None else []
        for value in options.settings:
            arguments += ["--set", value]
        self._demand(f"{name}.txt", *arguments, *more)

    @property
    def _hours_left(self) -> float | None:
        if self.work.hours is None:
            return None
        return max(self.work.hours - (time.monotonic() - self._began) / 3600, 1 / 3600)

    def _outcome(self, name: str) -> dict[str, Any]:
        """Return what a training came to; nothing where it has not ended."""
        with suppress(FileNotFoundError):
            told = json.loads((self.folder / name / RESULTS).read_bytes())
            return {key: told[key] for key in ("ended", "epochs", "seconds", "detector", "teacher")}
        return {}

    def _ask_all(self) -> dict[str, Any]:
        """Ask what serves and who has not learnt from them about all photos; the models of the folds then go."""
        serves = self.work.serves()
        if self.state.serves != [serves.detector, serves.config]:
            raise CouldNotStart(f"{serves.words} serves meanwhile: `improve --new` begins anew beside it")
        models = {str(number): self.folder / f"{_fold(number)}.yaml" for number in range(FOLDS)}
        models[FINAL] = yaml_of(self.folder)
        eras = eras_in(self.work.settings.state_dir / RECORDER / IMAGES)
        for place in get_args(Place):
            # Recorded photos are as they were sent: to prepare them once more would be none of the eras.
            era = ("--era", "recorded") if eras and place == "own" else ()
            for name, model in models.items():
                judged = self.folder / PHOTOS / "judge" / place / name
                if judged.is_dir():
                    self._ask(Path(ANSWERS) / f"{place}-{name}.json", judged, find_config(serves.config), model, *era)
        for number in range(FOLDS):
            shutil.rmtree(self.folder / _fold(number), ignore_errors=True)
        return {"eras": sorted({*eras})}

    def _ask(self, out: Path, photos: Path, first: Path, second: Path, *more: str) -> None:
        """Ask two models about photos, once."""
        (self.folder / out).parent.mkdir(exist_ok=True)
        if not (self.folder / out).is_file():
            models = ("--model", str(first), "--model", str(second))
            self._demand(str(out), "evaluate", str(photos), *models, *more, *self.work.settings_flags, "--json")

    def _calibrate(self) -> dict[str, Any]:
        """Move the decision to where it earns most by the folds' answers, if `calibrate` finds that it is no chance."""
        # Nothing is learnt of the tenth, not even this; what serves may know the others, and the folds don't.
        photos = [replace(one, is_known=one.source in ("random", "chosen")) for one in self._photos]
        answers = read_answers(self.folder / ANSWERS, photos)
        labels, scenes = np.array([one.is_roadwork for one in answers]), np.array([one.scene for one in answers])
        least = min(len({*scenes[labels == kind].tolist()}) for kind in (True, False))
        if least < CALIBRATION_FOLDS:
            return {"written": False, "why": f"{least} scenes of a class are too few for {CALIBRATION_FOLDS} folds"}
        table = self.folder / "answers.npz"
        BranchFile(labels, {"candidate": np.array([one.after for one in answers])}, groups=scenes).write(table)
        code = self._call("calibration.json", "calibrate", str(table), "--model", str(yaml_of(self.folder)), "--json")
        if code > 1:
            return {"written": False, "why": f"`calibrate` has ended with exit code {code}"}
        told = json.loads((self.folder / "calibration.json").read_bytes())
        why = "the gain is beyond chance" if told["written"] else "the gain may be chance"
        return {"written": told["written"], "why": why, "gain": told["gain"]}

    def _judge(self) -> dict[str, Any]:
        both, models_dir = (ChosenModel(*self.state.serves), self.candidate), self.work.settings.models_dir
        judgement, together = self.work.children.compute(judge_run, self.folder, both, models_dir)
        self.state.verdict, self.state.gain = judgement.outcome, GainFigures(**asdict(judgement.gain))
        return judgement.plain() | {"together": together}

    def _report(self) -> dict[str, Any]:
        self.work.children.compute(self.work.render, self.folder, self.state)
        return {"file": REPORT}

    def _shadow(self) -> dict[str, Any]:
        if self.state.verdict == "worse":
            return {"set": False, "words": "not put beside what serves, as it is worse"}
        is_set, words = set_shadow(self.work.place, self.candidate, self._keep)
        self.state.shadowed |= is_set
        self.work.screen.say(f"shadow: {words}")
        return {"set": is_set, "words": words}

    @property
    def candidate(self) -> ChosenModel:
        """The model that this run has made."""
        return ChosenModel(self._facts("train")["detector"], str(yaml_of(self.folder)))

    def _keep(self, before: Lines) -> None:
        """Keep the lines of the settings file as they were before this run changed any."""
        self.state.before = {**before, **self.state.before}
        self._save()

    def _promote(self) -> dict[str, Any]:
        now, judged = self.work.serves(), ChosenModel(*self.state.serves)
        if self.state.promoting:  # a kill came in between: from the lines before, which a failure has to put back
            put_back(self.work.place, {name: value for name, value in self.state.before.items() if name in MODEL})
        elif now != judged:
            raise CouldNotStart(f"{now.words} serves, which it was not judged beside: `improve --new` judges anew")
        lines = self.candidate.lines(MODEL) | judged.lines(SHADOW)
        self.state.promoting = True
        try:
            words = promote(self.work.place, lines, read_config(str(yaml_of(self.folder))).model_folder, self._keep)
            self.state.promoted = True
        finally:
            self.state.promoting = False
            self._save()
        return {"words": words}

    def undo(self) -> str:
        """Have serve again what did before this run.

        Raises:
            CouldNotStart, ModelError: the miner does not take it, or it is gone.
        """
        refuse_gone(self.state.before)
        words = promote(self.work.place, dict(self.state.before), None, lambda _: None)
        self.state.promoted, self.state.promoting, self.state.undone = False, False, True
        self._save()
        self._report()
        return words


def _fold(number: int) -> str:
    return f"fold{number}"


def _document(training: str) -> bytes:
    return f"model_folder: {training}/{SERVED}\n".encode()
