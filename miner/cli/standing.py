"""`roadwork-miner standing`: how right the model is on what validators send."""

import json
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Annotated

import typer

from detectors.base import Detector
from detectors.evaluation.reward import promised_accuracy
from detectors.load import PreparedModel, is_prepared
from detectors.models.config import DetectorConfig
from detectors.models.manifest import Precision
from miner.cli.common import EnvFile, Json, Service, Set, load_settings
from miner.cli.standing_output import JudgedModel, StandingReport, print_report
from miner.cli.training import find_models, open_model, progress_bar, say_left_out, training_errors
from miner.feedback import FOLDER
from miner.feedback.answers import AnswerCache, TrafficSample, answers_to, prepared_fingerprint
from miner.feedback.figures import LEAST, ThresholdError, compare_on_traffic, figures_of, narrower, threshold_error
from miner.feedback.labels import Labels
from miner.feedback.standing import ModelStanding, StandingView, standing_now
from miner.settings.settings import Settings
from miner.settings.validators import AUTO

PLAIN = "fp32"
# Why the line of the threshold is left out.
WITHOUT_SCIKIT_LEARN = "needs scikit-learn (extra `eval`, `make setup-eval`)"
WITH_STAGES = "the model has stages with their own, which `fuse --stages` fits"


def standing(
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="YAML|FOLDER", help="Another model beside what serves; may be repeated."),
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="Precision of what serves. Default: IMAGE_DETECTOR_PRECISION, else fp32.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of folds and resamples.")] = 0,
    env_file: EnvFile = None,
    service: Service = None,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Say how right the model is on what validators send, by the labelled photos of the random tenth.

    What serves is asked about them as they were sent, once each, and so is its shadow. It also says how many more
    labels would settle a question, and what `calibrate --recorded` would bring. The miner's page shows the figures.
    """
    settings = load_settings(env_file, set_, service)
    with training_errors():
        labels = Labels(settings.state_dir / FOLDER)
        with progress_bar("reading photos", 1) as done:
            sample = TrafficSample.read(labels)
            done()
        say_left_out(sample.left_out)
        judged = _judge(settings, sample, models or [], precision, seed) if sample.photos else []
        report = _report(settings, labels, sample, judged, seed)
        _keep(settings, sample, report.view)
    if as_json:
        print(json.dumps(report.plain()))
    else:
        print_report(report)


def _judge(
    settings: Settings, sample: TrafficSample, others: Sequence[str], precision: Precision | None, seed: int
) -> list[JudgedModel]:
    """Ask what serves, its shadow and the others, and measure them; what serves comes first.

    Raises:
        DetectorError: one is not there, or has no answer.
    """
    live, shadow = settings.detector_config, settings.shadow_detector_config
    shadows = [shadow] if shadow and shadow not in (live, *others) and _is_there(settings, shadow) else []
    configured = settings.image_detector_precision
    served = precision or (PLAIN if configured == AUTO else configured)
    judged: list[JudgedModel] = []
    for given, (name, config) in zip(
        (live, *shadows, *others), find_models(settings, [live, *shadows, *others]).items(), strict=True
    ):
        model, answers = _answers(settings, sample, name, config, PLAIN if judged else served)
        said = answers_to(answers.said, sample.photos)
        figures = figures_of(sample.labels, said, sample.groups, seed)
        promised = promised_accuracy(model.manifest, config.fusion)
        standing = ModelStanding.of(answers.file, figures, promised)
        judged.append(JudgedModel(standing, figures, said, is_shadow=given in shadows, has_stages=bool(config.stages)))
    return judged


def _is_there(settings: Settings, given: str) -> bool:
    """Return whether a shadow is prepared; one that is not serves nobody yet."""
    ((_, config),) = find_models(settings, [given]).items()
    return is_prepared(config, settings.models_dir)


def _answers(
    settings: Settings, sample: TrafficSample, name: str, config: DetectorConfig, precision: str
) -> tuple[PreparedModel, AnswerCache]:
    """Return a model and its answers to all photos; it is loaded only where it has not said them before."""
    detector: Detector | None = None
    if not is_prepared(config, settings.models_dir):
        detector = open_model(settings, config, precision)
    model = PreparedModel.find(config, settings.models_dir, ())
    answers = AnswerCache(sample.folder, name, prepared_fingerprint(model), precision)
    if missing := answers.missing(sample.photos):
        detector = detector or open_model(settings, config, precision)
        with progress_bar(f"asking {name}", len(missing)) as tell:
            try:
                answers.ask(detector, missing, tell)
            except OSError as error:
                if answers.missing(missing):
                    raise
                print(f"{answers.path}: can't be written, so it will be asked again: {error}", file=sys.stderr)
    if detector is not None:
        detector.close()
    return model, answers


def _report(
    settings: Settings, labels: Labels, sample: TrafficSample, judged: Sequence[JudgedModel], seed: int
) -> StandingReport:
    """Put together what is said."""
    view = standing_now(settings.state_dir, labels, judged[0].standing if judged else None, time.time())
    if not judged:
        before = StandingView.read(settings.state_dir)
        return StandingReport(view.model_copy(update={"model": before.model if before is not None else None}), sample)
    live = judged[0]
    return StandingReport(
        view,
        sample,
        judged,
        narrower(live.figures),
        _threshold(live, sample, seed),
        {other.name: compare_on_traffic(sample.labels, live.said, other.said, sample.groups, seed)
         for other in judged[1:]},
    )  # fmt: skip


def _threshold(live: JudgedModel, sample: TrafficSample, seed: int) -> ThresholdError | str:
    """Return what another threshold would bring, or why that line is left out."""
    if live.figures.photos < LEAST:
        return live.figures.lack
    if live.has_stages:
        return WITH_STAGES
    if find_spec("sklearn") is None:
        return WITHOUT_SCIKIT_LEARN
    return threshold_error(sample.labels, live.said, sample.groups, seed)


def _keep(settings: Settings, sample: TrafficSample, view: StandingView) -> None:
    """Leave the figures to the page; a disk that takes none is said, and what was asked is told all the same."""
    if not sample.folder.is_dir():
        return
    try:
        sample.keep()
        view.write(settings.state_dir)
    except OSError as error:
        print(f"{sample.folder}: can't be written, so the page does not show it: {error}", file=sys.stderr)
