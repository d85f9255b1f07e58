"""Features of photos and of their changed views, from a frozen network; computed once, then read from the cache."""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detectors.console import Screen, duration
from detectors.photos.labelled import Photo
from detectors.preprocess import Preprocessing
from detectors.training.budget import Probe, is_out_of_memory
from detectors.training.cache import FeatureCache, Key, Row
from detectors.training.config import TrainConfig
from detectors.training.examples import load_pixels
from detectors.training.hf_model import head_of
from detectors.training.views import PLAIN, VERSION, Views


def cache_for(
    config: TrainConfig, model: nn.Module, preprocessing: Preprocessing, folder: Path, screen: Screen
) -> FeatureCache:
    """Open the cache for this network, preprocessing and kind of view."""
    key = Key(_weights_sum(model), repr(preprocessing), VERSION, config.augment, config.seed)
    name = Path(config.model).name or "model"
    return FeatureCache(key.folder(folder, name), screen.warn)


def rows_of(photos: Sequence[Photo], views: int) -> list[Row]:
    """Return the rows of photos: each as it is, and in so many changed views."""
    return [(photo.digest, view) for photo in photos for view in range(PLAIN, views + 1)]


class ViewPixels:
    """Views of photos as the network takes them."""

    def __init__(
        self, photos: Sequence[Photo], rows: Sequence[Row], views: Views, preprocessing: Preprocessing
    ) -> None:
        self._by_digest = {photo.digest: photo for photo in photos}
        self.rows, self._views, self._preprocessing = rows, views, preprocessing

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Tensor:
        digest, view = self.rows[number]
        return load_pixels(self._by_digest[digest], view, self._views, self._preprocessing)

    def after(self, done: int) -> "ViewPixels":
        """Return those that are left."""
        return ViewPixels(list(self._by_digest.values()), self.rows[done:], self._views, self._preprocessing)


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
    model.eval().to(device)
    seen: list[Tensor] = []
    hook = head_of(model).register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    began, done = time.monotonic(), 0
    try:
        with screen.bar("features", len(wanted)) as bar, torch.inference_mode():
            while done < len(wanted):
                loader = DataLoader(wanted.after(done), micro_batch, num_workers=workers)
                try:
                    for pixels in loader:
                        seen.clear()
                        model(pixels.to(device))
                        cache.add(wanted.rows[done : done + len(pixels)], seen[0].float().cpu().numpy())
                        done += len(pixels)
                        left = (len(wanted) - done) * (time.monotonic() - began) / done
                        bar(done, f"{duration(left)} left")
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
