"""The features of a whole data set, so that a head trains from them alone: here, or on another machine."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from detectors.preprocess import Preprocessing
from detectors.training import classifier, sources
from detectors.training.features import cache_for, precompute, rows_of
from detectors.training.folder import DataSet
from detectors.training.job import Job
from detectors.training.machine import first_micro_batch
from detectors.training.resources import ResourceLog
from detectors.training.views import Views
from detectors.vit import ViT

RESOURCES = "resources.csv"


def fill_cache(job: Job, device: str = "cpu") -> tuple[Path, int, int]:
    """Compute what the cache lacks for this training; return its folder, the rows it has, and how many are new.

    Args:
        job: names the photos, the network, the views and the cache; its run's folder holds no more than a log.
        device: of torch: `cpu`, or `cuda` where there is one.

    Raises:
        DetectorConfigError: the photos are wrong.
        ModelError: the network can't be found or loaded.
    """
    source = classifier.find_folder(job.config)
    data = sources.read(job.config, job.cache / "photos", job.screen, job.machine.cores)
    model = classifier.load(source, job.config.seed)
    preprocessing = ViT.read_preprocessing(source)
    before = cache_for(job.config, model, preprocessing, job.cache, job.screen)
    job.cache.mkdir(parents=True, exist_ok=True)
    features_of(job, model, preprocessing, data, device)
    after = cache_for(job.config, model, preprocessing, job.cache, job.screen)
    return after.folder, len(after), len(after) - len(before)


def features_of(
    job: Job, model: nn.Module, preprocessing: Preprocessing, data: DataSet, device: str = "cpu"
) -> list[NDArray[np.float32]]:
    """Return the features of each part, shape (photos, views, width); the cache has them, or gets them."""
    config = job.config
    views = Views(config.augment, config.seed)
    cache = cache_for(config, model, preprocessing, job.cache, job.screen)
    wanted = [(data.train, config.views), (data.val, 0), (data.test, 0)]
    rows = [row for part, count in wanted for row in rows_of(part, count)]
    job.screen.say(f"features: {len(rows) - len(cache.missing(rows))} of {len(rows)} are cached in {cache.folder}")
    micro_batch = config.micro_batch or first_micro_batch(job.machine.available, config.batch_size, full=False)
    photos = [*data.train, *data.val, *data.test]
    with ResourceLog(job.run / RESOURCES, job.probe, job.screen):
        precompute(
            model, preprocessing, photos, rows, views, cache, job.screen, job.probe, micro_batch,
            config.workers or 0, device,
        )  # fmt: skip
    nothing = np.empty((0, 1, 1), np.float32)
    return [
        cache.matrix(rows_of(part, count)).reshape(len(part), count + 1, -1) if part else nothing
        for part, count in wanted
    ]
