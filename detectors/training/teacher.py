"""The teacher of a training: a model that serves judges photos, and the student learns from its probabilities.

It judges each photo once, as it is, and the photo's changed views keep that target. What is on the street stays the
same however a photo is sent, and the teacher itself is worse on changed ones: asked about each view, it would hand its
mistakes on, and take as many times as long.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from detectors.base import RunOptions
from detectors.console import Steps
from detectors.errors import DetectorConfigError, about
from detectors.export.export import prepare
from detectors.files import write_safely
from detectors.load import PreparedModel, is_prepared, load_detector
from detectors.models.config import DetectorConfig
from detectors.models.sources import named_model
from detectors.photos.labelled import UNLABELLED, Photo, groups, photos_below, read_unlabelled
from detectors.registry import DEFAULT
from detectors.training.config import TrainConfig
from detectors.training.data import QUICK_PHOTOS
from detectors.training.dataset import UNCHANGED_VIEW, DataSet
from detectors.training.features import FeatureCache
from detectors.training.job import Job, StoppedEarly, StopSignal

RECORD_FILE = "teacher.json"  # in the run's folder: who teaches, written once the unlabelled photos are there
PHOTOS = "unlabelled"  # likewise: photos that a recorder may remove meanwhile
MODELS = "models"  # in the cache, where no other place is named


@dataclass(frozen=True, slots=True)
class TeacherRecord:
    """Who taught, and what: for the run's folder, its card and its results.

    Attributes:
        name: of the YAML file or the folder.
        revision: SHA-256 of what its answers depend on.
        share: of a labelled photo's target that is the teacher's.
        labelled: photos with a label.
        unlabelled: photos that it alone judged.
    """

    name: str
    revision: str
    share: float
    labelled: int
    unlabelled: int

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    @property
    def facts(self) -> dict[str, str]:
        """What the card says, in few words."""
        return {
            "teacher": f"{self.name} ({self.revision[:12]})",
            "taught": f"{self.share:g} of {self.labelled} labels, {self.unlabelled} photos without",
        }


def taught(job: Job, data: DataSet, stopping: StopSignal) -> tuple[DataSet, TeacherRecord]:
    """Add the unlabelled photos, have the teacher judge all that is learnt from, and set the targets.

    Raises:
        DetectorConfigError: there is no such teacher, or it is another one than when the run was started.
        ModelError: it can't be prepared, loaded or asked.
        StoppedEarly: time was over, or a signal came, before it had judged every photo; what it said is kept.
    """
    config = job.config
    assert config.teacher is not None
    with about(f"teacher={config.teacher}"):
        model = _find(job, named_model(config.teacher))
    revision = _revision(model)
    path = job.run / RECORD_FILE
    known = json.loads(path.read_bytes()) if job.resume and path.is_file() else None
    if known is not None and known["revision"] != revision:
        raise DetectorConfigError(
            f"teacher={config.teacher}: it answers otherwise than when {job.run} was started; start another run"
        )
    labelled = len(data.train)
    data = _with_unlabelled(job, data, known is not None)
    record = TeacherRecord(
        Path(config.teacher).name, revision, config.teacher_share, labelled, len(data.train) - labelled
    )
    write_safely(path, json.dumps(record.plain(), indent=2).encode())
    asked = [photo for photo in data.train if photo.label == UNLABELLED or config.teacher_share]
    said = _said(job, model, revision, asked, stopping)
    sure = [photo for photo in data.train if photo.label != UNLABELLED or is_sure(said[photo.digest], config)]
    if len(sure) < len(data.train):
        job.screen.say(f"teacher: not sure of {len(data.train) - len(sure)} photos, which are left out")
        data, record = replace(data, train=sure), replace(record, unlabelled=len(sure) - labelled)
        write_safely(path, json.dumps(record.plain(), indent=2).encode())
    return replace(data, targets={photo.digest: target(photo, said, config) for photo in data.train}), record


def is_sure(probability: float, config: TrainConfig) -> bool:
    """Return whether a teacher's answer is sure enough to be learnt, whichever it is."""
    return max(probability, 1 - probability) >= config.teacher_confidence


def target(photo: Photo, said: Mapping[str, float], config: TrainConfig) -> float:
    """Return the probability of roadwork that a student should give: the teacher's, or mixed with the label.

    Smoothing is of the label alone: the teacher's probability says how sure it is.
    """
    if photo.label == UNLABELLED:
        return said[photo.digest]
    label = photo.label * (1 - config.smoothing) + config.smoothing / 2
    share = config.teacher_share
    return (1 - share) * label + (share * said[photo.digest] if share else 0.0)


def _find(job: Job, config: DetectorConfig) -> PreparedModel:
    """Return the model, prepared if it was not."""
    models = job.models or job.cache / MODELS
    if config.model_folder is None and not is_prepared(config, models):
        prepare(config.detector, config, models, force=False, progress=Steps(job.screen.say))
    return PreparedModel.find(config, models, ())


def _revision(model: PreparedModel) -> str:
    """Return the sum of what answers depend on, wherever the files lie: graphs, maps, views, fusion and stages."""
    facts: list[object] = [
        [
            manifest.detector, sorted(manifest.files.items()), manifest.output.model_dump(), manifest.threshold,
            manifest.calibration and manifest.calibration.model_dump(), manifest.seen, manifest.head,
        ]
        for _, manifest in model.folders()
    ]  # fmt: skip
    joint = [model.config.fusion, *model.config.stages]
    facts.append([fusion and fusion.model_dump(mode="json", exclude={"measured"}) for fusion in joint])
    return hashlib.sha256(json.dumps([list(model.branches), *facts]).encode()).hexdigest()


def _with_unlabelled(job: Job, data: DataSet, kept: bool) -> DataSet:
    """Add the unlabelled photos to those that are learnt from, each content once, none alike to one kept back.

    Args:
        job: names their folders.
        data: the labelled photos.
        kept: whether the run's folder has them already: a recorder's come and go.
    """
    config, home, screen = job.config, job.run / PHOTOS, job.screen
    folders = [home] if kept else [Path(folder).expanduser() for folder in config.unlabelled]
    if not config.unlabelled or (kept and not photos_below(home)):
        return data
    with screen.bar("reading unlabelled photos") as bar:
        try:
            found = read_unlabelled(folders, lambda done, of: bar(done, total=of), job.machine.cores)
        except DetectorConfigError as error:
            raise DetectorConfigError(f"unlabelled={error}") from error
    for line in found.skipped:
        screen.warn(f"left out: {line}")
    back = [*data.val, *data.test]
    known = {photo.digest for photo in (*data.train, *back)}
    fresh = [photo for photo in found.photos if photo.digest not in known]
    group = groups([photo.thumbnail for photo in (*back, *fresh)])
    held = set(group[: len(back)].tolist())
    numbered = list(zip(fresh, group[len(back) :].tolist(), strict=True))
    apart = [photo for photo, number in numbered if number not in held]
    alike = [f"{photo.name}: alike to a photo kept back" for photo, number in numbered if number in held]
    photos = apart[: 2 * QUICK_PHOTOS["train"]] if config.quick else apart
    if not kept:
        photos = [mine for photo in photos if (mine := _kept(photo, home)) is not None]
    screen.say(
        f"unlabelled: {len(photos)} photos; left out: {len(found.photos) - len(fresh)} that are there already, "
        f"{len(alike)} alike to photos kept back"
    )
    return replace(data, train=[*data.train, *photos], alike=[*data.alike, *alike])


def _kept(photo: Photo, home: Path) -> Photo | None:
    """Give the run a photo of its own, by a link where the disk allows it; None: it has gone meanwhile."""
    mine = home / f"{photo.digest}{photo.path.suffix.lower()}"
    home.mkdir(exist_ok=True)
    try:
        if not mine.exists():
            try:
                os.link(photo.path.resolve(), mine)
            except FileNotFoundError:
                return None
            except OSError:
                write_safely(mine, photo.path.read_bytes())
    except FileNotFoundError:
        return None
    return replace(photo, path=mine)


def _said(
    job: Job, model: PreparedModel, revision: str, photos: Sequence[Photo], stopping: StopSignal
) -> dict[str, float]:
    """Return what the teacher says of each photo, by digest; the cache has it, or gets it."""
    screen = job.screen
    cache = FeatureCache(job.cache / f"teacher-{Path(job.config.teacher or '').stem}-{revision[:12]}", screen.warn)
    rows = [(photo.digest, UNCHANGED_VIEW) for photo in photos]
    missing = set(cache.missing(rows))
    screen.say(f"teacher: {len(rows) - len(missing)} of {len(rows)} photos are judged already, in {cache.folder}")
    if missing:
        _ask(job, model, cache, [photo for photo, row in zip(photos, rows, strict=True) if row in missing], stopping)
    if not rows:
        return {}
    return {digest: float(value) for (digest, _), value in zip(rows, cache.matrix(rows)[:, 0], strict=True)}


def _ask(job: Job, model: PreparedModel, cache: FeatureCache, photos: Sequence[Photo], stopping: StopSignal) -> None:
    """Ask the teacher as it serves, photo by photo; a kill costs a minute of answers at most."""
    config, meant = model.config, f"teacher={job.config.teacher}"
    with about(meant):
        detector = load_detector(config.detector, config, model.models_dir, DEFAULT, RunOptions(1, job.threads))
    try:
        with about(meant):
            detector.verify()
        with stopping, job.screen.bar("teacher", len(photos)) as bar:
            for done, photo in enumerate(photos, 1):
                with about(f"{meant}: {photo.name}"):
                    said = detector.predict(photo.path.read_bytes()).probability
                cache.add([(photo.digest, UNCHANGED_VIEW)], np.array([[said]], dtype=np.float32))
                bar(done)
                if done < len(photos) and (why := stopping.reason) is not None:
                    raise StoppedEarly(f"{why}: the teacher has not judged {len(photos) - done} photos yet")
    finally:
        cache.flush()
        detector.close()
