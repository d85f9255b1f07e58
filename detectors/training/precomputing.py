"""The features of a whole data set, so that a head trains from them alone: here, or on another machine."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from detectors.errors import DetectorConfigError
from detectors.preprocess import Preprocessing
from detectors.training import hf_model, sources
from detectors.training.cache import FeatureCache, Row
from detectors.training.dataset import DataSet
from detectors.training.features import ViewPixels, cache_for, precompute, rows_of
from detectors.training.job import Job
from detectors.training.resources import ResourceLog
from detectors.training.stopping import SIGNALLED, StoppedEarly, Stopping
from detectors.training.trial import choose_for_features
from detectors.training.views import PLAIN, Views
from detectors.vit import ViT

RESOURCES = "resources.csv"
SHARE = 0.9  # of the time, for the features: what is left is ample for a last layer


class Features(NamedTuple):
    """Features of each part, shape (photos, views, width), and how many changed views those to learn from have."""

    parts: list[NDArray[np.float32]]
    views: int


@dataclass(frozen=True, slots=True)
class Filled:
    """A cache, how many of its rows are new, how many are still missing, and why it stopped."""

    cache: FeatureCache
    fresh: int
    missing: int
    why: str | None


def fill_cache(job: Job, device: str = "cpu") -> Filled:
    """Compute what the cache lacks for this training.

    Args:
        job: names the photos, the network, the views and the cache; its run's folder holds no more than a log.
        device: of torch: `cpu`, or `cuda` where there is one.

    Raises:
        DetectorConfigError: the photos are wrong, or there is no such device.
        ModelError: the network can't be found or loaded.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise DetectorConfigError("--device=cuda: torch finds no GPU that it can use here")
    job.config.check_places()
    stopping = Stopping(job.config.max_hours, job.screen)
    source = hf_model.find_folder(job.config)
    data = sources.read(job.config, job.cache / "photos", job.screen, job.machine.cores)
    model = hf_model.load(source.path, job.config.seed)
    job.cache.mkdir(parents=True, exist_ok=True)
    return _fill(job, model, ViT.read_preprocessing(source.path), data, job.config.views, stopping, 1.0, device)


def features_of(
    job: Job, model: nn.Module, preprocessing: Preprocessing, data: DataSet, stopping: Stopping, views: int
) -> Features:
    """Return the features of each part; the cache has them, or gets them.

    Where time ends before all views are there, it is those of which every photo's is; none is lost for the next run.

    Raises:
        StoppedEarly: not even the photos as they are have features yet, or a signal came.
    """
    filled = _fill(job, model, preprocessing, data, views, stopping, SHARE)
    while views >= PLAIN and filled.cache.missing(_rows(data, views)):
        views -= 1
    if filled.missing and (views < PLAIN or filled.why == SIGNALLED):
        raise StoppedEarly(f"{filled.why}: {filled.missing} features are missing yet; those there are kept")
    if filled.missing:
        job.screen.warn(f"{filled.why} for features: going on with {views} of {job.config.views} changed views")
    nothing = np.empty((0, 1, 1), np.float32)
    parts = [
        filled.cache.matrix(rows_of(part, count)).reshape(len(part), count + 1, -1) if part else nothing
        for part, count in ((data.train, views), (data.val, 0), (data.test, 0))
    ]
    return Features(parts, views)


def _rows(data: DataSet, views: int) -> list[Row]:
    """Return what a training needs: all photos as they are first, then view by view, so that fewer views may do."""
    return [
        *((photo.digest, PLAIN) for part in (data.train, data.val, data.test) for photo in part),
        *((photo.digest, view) for view in range(PLAIN + 1, views + 1) for photo in data.train),
    ]


def _fill(
    job: Job, model: nn.Module, preprocessing: Preprocessing, data: DataSet, views: int, stopping: Stopping,
    share: float, device: str = "cpu",
) -> Filled:  # fmt: skip
    config = job.config
    cache = cache_for(config, model, preprocessing, job.cache, job.screen)
    rows = list(dict.fromkeys(_rows(data, views)))
    missing = cache.missing(rows)
    job.screen.say(f"features: {len(rows) - len(missing)} of {len(rows)} are cached in {cache.folder}")
    if not missing:
        return Filled(cache, 0, 0, None)
    photos = [*data.train, *data.val, *data.test]
    wanted = ViewPixels(photos, missing, Views(config.augment, config.seed), preprocessing)
    with stopping, ResourceLog(job.run / RESOURCES, job.probe, job.screen):
        micro_batch, workers = choose_for_features(job, model, wanted, preprocessing.shape[1:], device)
        done = precompute(
            model, wanted, cache, job.screen, job.probe, micro_batch, workers, device,
            lambda: stopping.reason_within(share),
        )  # fmt: skip
    return Filled(cache, done, len(missing) - done, stopping.reason_within(share))
