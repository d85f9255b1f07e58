"""Features of photos and their augmented views, from a frozen network; computed once, then cached."""

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detectors.console import Screen
from detectors.errors import DetectorConfigError
from detectors.files import write_safely
from detectors.network import ViT
from detectors.photos.labelled import Photo
from detectors.photos.view_head import pool
from detectors.photos.views import PooledViews
from detectors.preprocess import Preprocessing
from detectors.training import hf_model
from detectors.training.budget import Probe, ResourceLog, is_out_of_memory
from detectors.training.config import Augment, TrainConfig
from detectors.training.data import open_dataset
from detectors.training.dataset import UNCHANGED_VIEW, VIEWS_VERSION, DataSet, Views, load_cuts, load_pixels
from detectors.training.hf_model import head_of
from detectors.training.job import RESOURCES_FILE, SIGNALLED, Job, StoppedEarly, StopSignal
from detectors.training.trainer import choose_for_features

Row = tuple[str, int]  # SHA-256 of the photo's file, number of the view
PICTURES = 4  # dimensions of pixels without cuts
SHARD = 4096  # rows in a file
SAVE_SECONDS = 60.0  # from one file to the next at most: what a kill may cost

FEATURES_SHARE = 0.9  # of the time, for the features: what is left is ample for a last layer


@dataclass(frozen=True, slots=True)
class FeatureKey:
    """What features depend on, besides the photo: the network, its preprocessing, and how views are drawn."""

    weights: str  # SHA-256 of all weights
    preprocessing: str  # in words
    views_version: int
    augment: Augment
    seed: int
    served: str = ""  # the views that a head learns on all together, in words; nothing: the whole photo

    def folder(self, cache: Path, name: str) -> Path:
        """Say where these features are: `<cache>/<name>-<sum>`."""
        facts = [self.weights, self.preprocessing, self.views_version, self.augment.model_dump(), self.seed]
        facts += [self.served] if self.served else []
        return cache / f"{name}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]}"


class FeatureCache:
    """The features of one folder, in memory."""

    def __init__(
        self, folder: Path, warn: Callable[[str], None] = lambda _: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder, self._clock, self._written = folder, clock, clock()
        self._rows: dict[Row, NDArray[np.float32]] = {}
        self._fresh: list[Row] = []
        for path in sorted(folder.glob("features-*.npz")):
            try:
                self._rows |= _read(path)
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                warn(f"{path} can't be read ({error}); what it held is calculated again")

    def __len__(self) -> int:
        return len(self._rows)

    def missing(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows that are not there, in their order."""
        return [row for row in dict.fromkeys(rows) if row not in self._rows]

    def add(self, rows: Sequence[Row], features: NDArray[np.float32]) -> None:
        """Take features in, shape (rows, width); written once they fill a file or a minute has passed."""
        self._rows.update(zip(rows, features, strict=True))
        self._fresh += rows
        if len(self._fresh) >= SHARD or self._clock() - self._written >= SAVE_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is not on disk yet."""
        self._written = self._clock()
        if not self._fresh:
            return
        buffer = io.BytesIO()
        np.savez(
            buffer,
            digests=np.array([digest for digest, _ in self._fresh]),
            views=np.array([view for _, view in self._fresh], dtype=np.int32),
            features=np.stack([self._rows[row] for row in self._fresh]),
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        data = buffer.getvalue()
        write_safely(self.folder / f"features-{hashlib.sha256(data).hexdigest()[:16]}.npz", data)
        self._fresh = []

    def matrix(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """Return features in the order of the rows, shape (rows, width)."""
        return np.stack([self._rows[row] for row in rows])


def _read(path: Path) -> dict[Row, NDArray[np.float32]]:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        features = file["features"]
        rows = zip(file["digests"].tolist(), file["views"].tolist(), strict=True)
        return {(str(digest), int(view)): row for (digest, view), row in zip(rows, features, strict=True)}


def cache_for(
    config: TrainConfig, model: nn.Module, preprocessing: Preprocessing, folder: Path, screen: Screen
) -> FeatureCache:
    """Open the cache for this network, preprocessing and kind of view."""
    served = config.head_views
    key = FeatureKey(
        _weights_sum(model), repr(preprocessing), VIEWS_VERSION, config.augment, config.seed,
        "" if served is None else str(served),
    )  # fmt: skip
    name = Path(config.model).name or "model"
    return FeatureCache(key.folder(folder, name), screen.warn)


def rows_of(photos: Sequence[Photo], views: int) -> list[Row]:
    """Return the rows of photos: each as it is, and in so many changed views."""
    return [(photo.digest, view) for photo in photos for view in range(UNCHANGED_VIEW, views + 1)]


class ViewPixels:
    """Views of photos as the network takes them; each in several cuts, where a head learns on these together."""

    def __init__(
        self,
        photos: Sequence[Photo],
        rows: Sequence[Row],
        views: Views,
        preprocessing: Preprocessing,
        served: PooledViews | None = None,
    ) -> None:
        self._by_digest = {photo.digest: photo for photo in photos}
        self.rows, self._views, self._preprocessing, self.served = rows, views, preprocessing, served

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Tensor:
        digest, view = self.rows[number]
        photo = self._by_digest[digest]
        if self.served is not None:
            return load_cuts(photo, view, self._views, self._preprocessing, self.served)
        return load_pixels(photo, view, self._views, self._preprocessing)

    def after(self, done: int) -> "ViewPixels":
        """Return those that are left."""
        photos = list(self._by_digest.values())
        return ViewPixels(photos, self.rows[done:], self._views, self._preprocessing, self.served)

    def shape(self, picture: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of what there is of a photo, by that of one picture."""
        return picture if self.served is None else (self.served.count, *picture)

    def pooled(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what is learned from, a row a photo, of the features of all cuts."""
        if self.served is None:
            return features
        each = features.reshape(-1, self.served.count, features.shape[1])
        return np.stack([pool(one) for one in each])


class CutNetwork(nn.Module):  # type: ignore[misc]
    """A network that is asked about all cuts of photos: (photos, cuts, 3, height, width), or without cuts as it is."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits, a row a cut."""
        return hf_model.logits_of(self.model, pixels.flatten(0, 1) if pixels.ndim > PICTURES else pixels)


def precompute(
    model: nn.Module,
    wanted: ViewPixels,
    cache: FeatureCache,
    screen: Screen,
    probe: Probe,
    micro_batch: int,
    workers: int = 0,
    device: str = "cpu",
    stop: Callable[[], str | None] = lambda: None,
) -> int:
    """Compute features and write them into the cache; return how many, which are fewer if it is to stop.

    So many photos are in memory at once as `micro_batch` says; half of them from where memory runs short.
    """
    network = CutNetwork(model).eval().to(device)
    seen: list[Tensor] = []
    hook = head_of(model).register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    done = 0
    try:
        with screen.bar("features", len(wanted)) as bar, torch.inference_mode():
            while done < len(wanted):
                loader = DataLoader(wanted.after(done), micro_batch, num_workers=workers)
                try:
                    for pixels in loader:
                        seen.clear()
                        network(pixels.to(device))
                        features = wanted.pooled(seen[0].float().cpu().numpy())
                        cache.add(wanted.rows[done : done + len(pixels)], features)
                        done += len(pixels)
                        bar(done)
                        if stop() is not None:
                            return done
                        if micro_batch > 1 and probe().is_short:
                            break
                    else:
                        break
                except (MemoryError, RuntimeError, OSError) as error:
                    if micro_batch == 1 or not is_out_of_memory(error):
                        raise
                micro_batch //= 2
                screen.warn(f"memory runs short: micro-batch {micro_batch} from here on")
    finally:
        hook.remove()
        cache.flush()
    return done


def _weights_sum(model: nn.Module) -> str:
    """Return the SHA-256 of the weights but the last layer's, which is what gets trained."""
    head = set(head_of(model).state_dict(keep_vars=True).values())
    total = hashlib.sha256()
    for name, value in sorted(model.state_dict(keep_vars=True).items()):
        if value not in head:
            total.update(name.encode())
            total.update(value.detach().contiguous().numpy().tobytes())
    return total.hexdigest()


class Features(NamedTuple):
    """Features of photos to learn from and to validate, shape (photos, views, width); how many views are changed."""

    train: NDArray[np.float32]
    val: NDArray[np.float32]
    views: int


@dataclass(frozen=True, slots=True)
class FillResult:
    """A cache, how many of its rows are new, how many are still missing, and why it stopped."""

    cache: FeatureCache
    fresh: int
    missing: int
    why: str | None


def fill_cache(job: Job, device: str = "cpu") -> FillResult:
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
    torch.set_num_threads(job.threads)
    stopping = StopSignal(job.config.hours, job.screen)
    source = hf_model.find_folder(job.config, job.cache)
    data = open_dataset(job.config, job.cache / "photos", job.screen, job.machine.cores)
    model = hf_model.load(source.path, job.config.seed)
    job.cache.mkdir(parents=True, exist_ok=True)
    return _fill(job, model, ViT.read_preprocessing(source.path), data, job.config.changed_views, stopping, 1.0, device)


def features_of(
    job: Job, model: nn.Module, preprocessing: Preprocessing, data: DataSet, stopping: StopSignal, views: int
) -> Features:
    """Return the features of each part; the cache has them, or gets them.

    Where time ends before all views are there, it is those of which every photo's is; none is lost for the next run.

    Raises:
        StoppedEarly: not even the photos as they are have features yet, or a signal came.
    """
    filled = _fill(job, model, preprocessing, data, views, stopping, FEATURES_SHARE)
    while views >= UNCHANGED_VIEW and filled.cache.missing(_rows(data, views)):
        views -= 1
    if filled.missing and (views < UNCHANGED_VIEW or filled.why == SIGNALLED):
        raise StoppedEarly(f"{filled.why}: {filled.missing} features are missing yet; those there are kept")
    if filled.missing:
        job.screen.warn(f"{filled.why} for features: going on with {views} of {job.config.changed_views} changed views")

    def features(photos: Sequence[Photo], views: int) -> NDArray[np.float32]:
        return filled.cache.matrix(rows_of(photos, views)).reshape(len(photos), views + 1, -1)

    return Features(features(data.train, views), features(data.val, 0), views)


def photo_features(job: Job, photos: Sequence[Photo]) -> NDArray[np.float32]:
    """Return the features of photos as they are, shape (photos, width); the cache has them, or gets them.

    Raises:
        StoppedEarly: time was over, or a signal came, before all were there; those there are kept.
    """
    torch.set_num_threads(job.threads)
    stopping = StopSignal(job.config.max_hours, job.screen)
    source = hf_model.find_folder(job.config, job.cache)
    model = hf_model.load(source.path, job.config.seed)
    job.cache.mkdir(parents=True, exist_ok=True)
    data = DataSet(list(photos), [], [], [])
    filled = _fill(job, model, ViT.read_preprocessing(source.path), data, UNCHANGED_VIEW, stopping, 1.0)
    if filled.missing:
        raise StoppedEarly(f"{filled.why}: {filled.missing} features are missing yet; the same command goes on")
    return filled.cache.matrix(rows_of(photos, UNCHANGED_VIEW))


def _rows(data: DataSet, views: int) -> list[Row]:
    """Return what a training needs: photos as they are first, then view by view, so that fewer views may do.

    Photos of the test part are judged by the model as it serves, from the pictures.
    """
    return [
        *((photo.digest, UNCHANGED_VIEW) for part in (data.train, data.val) for photo in part),
        *((photo.digest, view) for view in range(UNCHANGED_VIEW + 1, views + 1) for photo in data.train),
    ]


def _fill(
    job: Job, model: nn.Module, preprocessing: Preprocessing, data: DataSet, views: int, stopping: StopSignal,
    share: float, device: str = "cpu",
) -> FillResult:  # fmt: skip
    config = job.config
    cache = cache_for(config, model, preprocessing, job.cache, job.screen)
    rows = list(dict.fromkeys(_rows(data, views)))
    missing = cache.missing(rows)
    job.screen.say(f"features: {len(rows) - len(missing)} of {len(rows)} are cached in {cache.folder}")
    if not missing:
        return FillResult(cache, 0, 0, None)
    photos = [*data.train, *data.val]
    wanted = ViewPixels(photos, missing, Views(config.augment, config.seed), preprocessing, config.head_views)
    with stopping, ResourceLog(job.run / RESOURCES_FILE, job.probe, job.screen):
        micro_batch, workers = choose_for_features(
            job, CutNetwork(model), wanted, wanted.shape(preprocessing.shape[1:]), device
        )
        done = precompute(
            model, wanted, cache, job.screen, job.probe, micro_batch, workers, device,
            lambda: stopping.reason_within(share),
        )  # fmt: skip
    return FillResult(cache, done, len(missing) - done, stopping.reason_within(share))
