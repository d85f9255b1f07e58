"""Both models together: what an ensemble of the candidate and what serves would earn, judged as the candidate is.

Models that are wrong on different photos are right more often together. That costs the time and memory of both, of
which nine seconds leave plenty, and no further question: it is the mean of the log-odds that both have said already.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from detectors.evaluation.branch_file import write_ensemble
from detectors.load import PreparedModel
from detectors.models.calibration import Calibration, Fusion, log_odds, logistic
from detectors.models.config import find_config, read_config
from miner.feedback.improvement.judgement import JudgedAnswer, PairedVerdict, judge, judged_answers, signed
from miner.feedback.improvement.promotion import MODEL, ChosenModel

FILE = "together.yaml"
BRANCHES = ("served", "candidate")


def judge_run(
    folder: Path, models: tuple[ChosenModel, ChosenModel], models_dir: Path
) -> tuple[PairedVerdict, str | None]:
    """Judge a run by its answers: the candidate, and what is to be said of both together.

    Raises:
        CouldNotStart: the answers are of one class.
        ModelError: a model's folder is gone.
        OSError: the disk does not take the file.
    """
    answers = judged_answers(folder)
    return judge(answers), offer_together(folder, answers, models, models_dir)


def together(answers: Sequence[JudgedAnswer]) -> list[JudgedAnswer]:
    """Return the answers with what both say together in the candidate's place."""
    return [replace(one, after=float(logistic((log_odds(one.before) + log_odds(one.after)) / 2))) for one in answers]


def judge_together(answers: Sequence[JudgedAnswer]) -> PairedVerdict | None:
    """Return the verdict on both models together; None: they are no better than the better one of them.

    It takes the candidate's place where that is not better than what serves, or loses to both by more than chance.

    Raises:
        CouldNotStart: the answers are of one class.
    """
    both = together(answers)
    found = judge(both)
    if found.outcome != "better":
        return None
    if judge(answers).outcome == "better":
        beside = [replace(one, before=alone.after) for one, alone in zip(both, answers, strict=True)]
        if judge(beside).outcome != "better":
            return None
    return found


def mean_of(calibrations: Sequence[Calibration]) -> Fusion:
    """Return the mean of calibrated log-odds as a line over what the branches say, which nothing calibrates there."""
    share = 1 / len(calibrations)
    return Fusion(
        kind="logistic",
        branches=list(BRANCHES),
        weights=[share / one.temperature for one in calibrations],
        bias=-sum(share * float(log_odds(one.threshold)) / one.temperature for one in calibrations),
    )


def offer_together(
    folder: Path, answers: Sequence[JudgedAnswer], models: tuple[ChosenModel, ChosenModel], models_dir: Path
) -> str | None:
    """Write the file of an ensemble of both where it is better; return what is to be said, None: nothing.

    An ensemble that serves can't be a branch of another one: `fuse` makes one of all of them.

    Args:
        folder: gets the file.
        answers: of both, each calibrated as it serves.
        models: what serves, and the candidate.
        models_dir: holds what is exported.

    Raises:
        ModelError: a model's folder is gone.
        OSError: the disk does not take the file.
    """
    path = folder / FILE
    is_ensemble = bool(read_config(models[0].config).branches)
    path.unlink(missing_ok=True)  # of a try that a kill has ended
    if is_ensemble or (verdict := judge_together(answers)) is None:
        return None
    configs = [find_config(one.config).absolute() for one in models]
    sources = {
        name: {"detector": one.detector, "config": str(config), "threshold": None}  # the line below has it
        for name, one, config in zip(BRANCHES, models, configs, strict=True)
    }
    prepared = [PreparedModel.find(read_config(str(config)), models_dir, ()) for config in configs]
    fusion = mean_of([one.manifest.calibration or Calibration(temperature=1.0) for one in prepared])
    write_ensemble(path, fusion, (), sources)
    side = verdict.sides[verdict.by]
    return (
        f"both together are better than what serves now: {signed(verdict.gain)} of reward on the {side.photos} photos "
        f"that judge, for the time and memory of both: {ChosenModel('Ensemble', str(path)).assignments(MODEL)}"
    )
