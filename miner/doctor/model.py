"""The check-up of the model: its folder, and its latency here, in a process of its own."""

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from detectors.errors import DetectorConfigError, DetectorError, ModelError, NotPrepared
from detectors.load import PreparedModel, remedy
from detectors.machine import allowed_cores
from detectors.models.config import read_config
from detectors.models.labels import LOOKS_REVERSED, DrawingCheck, ask_drawn, check_class, class_doubt, sorting_of
from detectors.models.manifest import MAKE_ANEW, NAME, NO_REFERENCE, Manifest, as_served
from detectors.models.sources import COMMIT, is_hub, model_folder, pins
from detectors.photos.labelled import CLASSES, pictures_of
from detectors.photos.synthetic import known_picture
from detectors.quantize.gate import renewal
from miner.doctor.findings import Finding, ok, problem, warning
from miner.errors import StartError
from miner.inference.loader import ModelLoader
from miner.inference.plan import plan_of
from miner.metrics import Metrics
from miner.settings.settings import Settings, environment_of

INFERENCES = 10
STARTER = "starter"
SLOW_DISK_HINT = (
    "is the disk of MODELS_DIR well? roadwork-miner models download compares the files for as long as it takes"
)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is there of the configured model."""

    config: str
    detector: str  # the configured one
    folder: Path | None = None
    manifest: Manifest | None = None
    fault: str = ""  # of a configuration or a folder that is there
    unchecked: str = ""  # why the files were not compared with their sums
    branch: str = ""  # the revision, where it is no commit
    pins: Sequence[str] = ()  # what makes it one
    others: Sequence[str] = ()  # revisions of the same model that are there
    roadwork: str = ""  # which class counts, in words
    runs_on: str = ""  # backend and precision that serve it, or those of each branch
    views: str = ""  # that it judges a picture in
    doubt: str = ""  # what names or labelled photos of its export say against that
    remedy: str = ""  # how another comes to count
    parts: Mapping[str, Manifest] = field(default_factory=dict)  # an ensemble's branches
    renewal: tuple[str, str] = ("", "")  # which graphs an older exporter made, and what makes them anew

    @property
    def bytes(self) -> int | None:
        """The size of its files."""
        if self.folder is None or self.manifest is None:
            return None
        files = [self.folder / name for name in self.manifest.files]
        return sum(file.stat().st_size for file in files if file.is_file())

    @property
    def is_shipped(self) -> bool:
        """Whether it is the package's own starter."""
        return self.manifest is not None and self.manifest.name == STARTER


@dataclass(frozen=True, slots=True)
class InferenceFacts:
    """Seconds of pictures from bytes to probability; `fault` says why there are none.

    `photos` are labels and answers of labelled photos in `folder`, and `unread` those that have no answer, with the
    reason; `drawn` are answers to drawn roads without cones and with them.
    """

    seconds: Sequence[float] = field(default_factory=tuple)
    fault: str = ""
    photos: Sequence[tuple[bool, float]] = field(default_factory=tuple)
    drawn: Sequence[tuple[float, float]] = field(default_factory=tuple)
    folder: str = ""
    unread: Sequence[str] = field(default_factory=tuple)


def read_model(settings: Settings) -> ModelFacts:
    """Find the model's folder."""
    name, detector = settings.detector_config, settings.image_detector
    folder = manifest = None
    fault, branch, others, pinned = "", "", [], []
    roadwork, doubts, todo, runs_on, views, outdated = "", [], "", "", "", ("", "")
    branches: dict[str, Manifest] = {}
    try:
        config = read_config(name)
        parts = (config.branches or {"": config}).values()
        branch = next((part.revision for part in parts if is_hub(part) and not COMMIT.fullmatch(part.revision)), "")
        folder = model_folder(config, settings.models_dir)
        pinned = pins(config, settings.models_dir)
        others = sorted(path.parent.name for path in folder.parent.glob(f"*/{NAME}") if path.parent != folder)
        manifest = as_served(Manifest.read(folder), config.threshold, config.pooled_views)
        if manifest.detector != detector:
            fault = f"{name} holds a model for IMAGE_DETECTOR={manifest.detector}, not for {detector}"
        model, cores = PreparedModel.find(config, settings.models_dir), allowed_cores()
        branches = {name: part.manifest for name, part in model.branches.items()}
        roadwork, todo, views = model.roadwork, remedy(config), model.manifest.view_words
        plan = plan_of(settings, model, cores)
        runs_on, outdated = plan.runs_on, renewal(model, plan.precision, plan.backend, plan.branches)
        for part in (*model.branches.values(), model):
            own = part.manifest
            check_class(part.config, own)
            doubts += [
                doubt for doubt in (class_doubt(part.config, own), own.judged_doubt) if doubt and doubt not in doubts
            ]
    except NotPrepared:
        manifest = None
    except (DetectorConfigError, ModelError) as error:
        fault = settings.why_no_model(error).partition(": ")[2]
    return ModelFacts(
        name, detector, folder, manifest, fault, branch=branch, pins=pinned, others=others,
        roadwork=roadwork, doubt="; ".join(doubts), remedy=todo, runs_on=runs_on, views=views,
        renewal=outdated, parts=branches,
    )  # fmt: skip


def check_sums(settings: Settings, facts: ModelFacts) -> ModelFacts:
    """Compare every file of a model that was found with its sum."""
    assert facts.folder is not None
    assert facts.manifest is not None
    try:
        facts.manifest.verify(facts.folder)
        for part in (read_config(facts.config).branches or {}).values():
            own = model_folder(part, settings.models_dir)
            Manifest.read(own).verify(own)
    except NotPrepared:  # a branch; the whole counts as not prepared, as it does for the daemon
        return replace(facts, manifest=None)
    except (DetectorConfigError, ModelError) as error:
        return replace(facts, fault=str(error))
    return facts


def judge_model(facts: ModelFacts, network: str) -> Finding:
    """Judge whether the miner could load it now."""
    name, key = "model", f"IMAGE_DETECTOR_CONFIG={facts.config}"
    again = f"{MAKE_ANEW} with your --env-file or --service"
    if facts.fault:
        return problem(name, f"{key}: {facts.fault}", f"correct the configuration, or make the model again: {again}")
    if facts.manifest is None and facts.unchecked:
        return warning(name, f"{key}: not looked at: {facts.unchecked}", SLOW_DISK_HINT)
    if facts.manifest is None:
        others = f"; there is {', '.join(facts.others)}" if facts.others else ""
        revision = facts.folder.name if facts.folder is not None else "?"
        return problem(
            name,
            f"{key}: revision {revision} is not prepared{others}",
            "roadwork-miner models download with your --env-file or --service; rarer architectures need torch once",
        )
    said = f"{facts.manifest.name}@{facts.manifest.revision[:12]}, {facts.runs_on or facts.manifest.precision}, "
    said += f"its sums are not checked: {facts.unchecked}" if facts.unchecked else "all sums match"
    if facts.views:
        said += f", in {facts.views}"
    if facts.manifest.branches is not None:
        said += f", {len(facts.manifest.branches)} branches"
    if facts.manifest.calibration is not None:
        said += f", calibrated ({facts.manifest.calibration.threshold:.2f} became 0.50)"
    said += f"; roadwork = {facts.roadwork}"
    if facts.unchecked:
        return warning(name, said, SLOW_DISK_HINT)
    if facts.is_shipped and network == "finney":
        return warning(name, f"{said}; the starter earns little", "set IMAGE_DETECTOR_CONFIG to a model of your own")
    doubts = []
    if facts.branch:
        doubts.append(
            (f"{facts.branch} is a branch and may move", "; ".join(facts.pins) or f"pin it in {facts.config}")
        )
    if facts.manifest.parity.reference == NO_REFERENCE:
        said += ", compared with no library"
    doubts += _doubts_of_comparison(facts, again)
    if facts.renewal[0]:
        doubts.append(facts.renewal)
    if doubts:
        words, todos = zip(*doubts, strict=True)
        return warning(name, "; ".join([said, *words]), "; ".join(dict.fromkeys(todos)))
    return ok(name, said)


def _doubts_of_comparison(facts: ModelFacts, again: str) -> Iterator[tuple[str, str]]:
    """Yield what the comparison of the model, or of each branch, can't show, and what would."""
    assert facts.manifest is not None
    photos = f"roadwork-miner export --pictures FOLDER, in {CLASSES[1]} and {CLASSES[0]}"
    for name, part in (facts.parts or {"": facts.manifest}).items():
        caveat = f"branch {name} was {part.parity.caveat}" if name else part.parity.caveat
        if part.parity.reference != NO_REFERENCE:
            if part.parity.caveat:
                yield caveat, f"make setup-all, then {again}: compares with transformers'"
        elif part.judged is None and facts.manifest.judged is None:
            yield caveat, photos


def judge_class(facts: ModelFacts, asked: InferenceFacts) -> Finding | None:
    """Judge whether the class that counts is the one that shows roadwork; None: nothing speaks for or against it.

    Labelled photos decide, those of now before those of the export; a name is a strong doubt, a drawing a weak one.
    """
    name, said = "class", f"roadwork = {facts.roadwork}"
    labels = [label for label, _ in asked.photos]
    if len(set(labels)) == 2:
        found = sorting_of(labels, [probability for _, probability in asked.photos])
        if found.is_reversed:
            return problem(name, f"{said}: {found.words}", facts.remedy)
        return ok(name, f"{said}; {found.words}")
    if facts.doubt:
        return problem(name, f"{said}, but {facts.doubt}: it {LOOKS_REVERSED}", facts.remedy)
    if asked.folder and not asked.fault:
        counts = f"{labels.count(True)} roadwork and {labels.count(False)} no_roadwork photos were answered"
        faults = f" ({len(asked.unread)} could not be: {asked.unread[0]})" if asked.unread else ""
        return warning(
            name, f"{said}, which --pictures={asked.folder} can't confirm: {counts}{faults}",
            "some photos of both classes are needed, in the subfolders roadwork and no_roadwork",
        )  # fmt: skip
    drawn = DrawingCheck(asked.drawn)
    if drawn.is_reversed:
        return warning(
            name, f"{said}, but {drawn.words}", f"doctor --pictures with labelled photos is surer; {facts.remedy}"
        )
    return None


async def read_inference(settings: Settings, seconds: float, photos: Path | None = None) -> InferenceFacts:
    """Load the model and predict as the daemon does, in a process of its own: one that memory can't hold dies alone."""
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "miner.doctor.model", str(INFERENCES), str(seconds / 2), str(photos or ""),
            env=environment_of(settings), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        return InferenceFacts(fault=f"no process can be started for it: {error.strerror}")
    try:
        async with asyncio.timeout(seconds):
            output, _ = await child.communicate()
    except TimeoutError:
        return InferenceFacts(fault=f"no answer within {seconds:g} s")
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode == -9:
        return InferenceFacts(fault="the kernel ended it, which it does when memory runs out")
    try:
        answer: dict[str, Any] = json.loads(output)
    except ValueError:
        return InferenceFacts(fault=f"it ended with exit code {child.returncode}")
    photos_said, drawn = ([tuple(pair) for pair in answer[key]] for key in ("photos", "drawn"))
    folder = str(photos) if photos is not None else ""
    return InferenceFacts(tuple(answer["seconds"]), answer["fault"], photos_said, drawn, folder, answer["unread"])


def judge_inference(facts: InferenceFacts | None, allowed: float) -> Finding:
    """Judge the slower end (p95) against the seconds an answer may take; None: there is no model."""
    name = "inference"
    if facts is None:
        return warning(name, "not measured: the model is not ready")
    if facts.fault:
        return problem(name, facts.fault, "roadwork-miner run says more; try a smaller model")
    p95 = percentile(facts.seconds, 0.95)
    said = f"p95 {_duration(p95)} over {len(facts.seconds)} pictures; {allowed:g} s are allowed"
    if p95 > allowed:
        return problem(name, said, "take a smaller model, or a faster machine")
    if p95 > allowed / 2:
        return warning(name, f"{said}: two at once would be too late", "take a smaller model, or a faster machine")
    return ok(name, said)


def percentile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that at least this part of the values does not exceed."""
    ranked = sorted(values)
    return ranked[max(0, -(-len(ranked) * round(part * 100) // 100) - 1)]


def _duration(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def measure(settings: Settings, count: int, budget: float, folder: str) -> dict[str, Any]:
    """Ask the model about pictures; once `budget` seconds have gone, no further one is begun.

    Args:
        settings: of the miner.
        count: how many pictures are timed.
        budget: seconds.
        folder: of labelled photos; empty: drawings are asked about.

    Returns:
        `seconds` of each picture, and `photos` as pairs of label and answer with those `unread` and why, or `drawn` as
        pairs of answers.

    Raises:
        StartError: the model can't be loaded, fails its checks, or is too slow.
    """
    loader = ModelLoader(settings)
    loader.show_in(Metrics())
    detector = asyncio.run(loader.load()).detector
    picture, began, seconds = known_picture(), time.monotonic(), list[float]()
    while len(seconds) < count and (not seconds or time.monotonic() - began < budget):
        started = time.perf_counter()
        detector.predict(picture)
        seconds.append(time.perf_counter() - started)
    photos, unread, drawn = list[tuple[bool, float]](), list[str](), list[tuple[float, float]]()
    labelled = _in_turn(Path(folder)) if folder else []
    for path, label in labelled:
        if time.monotonic() - began > budget:
            break
        try:
            photos.append((label, detector.predict(path.read_bytes()).probability))
        except (DetectorError, OSError) as error:
            unread.append(f"{path.name}: {getattr(error, 'strerror', None) or error}")
    if not folder and time.monotonic() - began < budget:
        drawn += ask_drawn(lambda drawing: detector.judge(drawing).probability).pairs
    detector.close()
    return {"seconds": seconds, "photos": photos, "unread": unread, "drawn": drawn, "fault": ""}


def _in_turn(folder: Path) -> list[tuple[Path, bool]]:
    """Return labelled photos, the classes in turn, so that the time is enough for some of both."""
    clear, works = (pictures_of(folder, kind)[0] for kind in CLASSES)
    both = [[(path, True) for path in works], [(path, False) for path in clear]]
    return [one for pair in zip_longest(*both) for one in pair if one is not None]


def main() -> None:
    """Print what was measured, or the fault."""
    count, budget, folder = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    try:
        answer = measure(Settings.load(), count, budget, folder)
    except StartError as error:
        answer = {"seconds": [], "photos": [], "unread": [], "drawn": [], "fault": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
