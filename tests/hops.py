"""The hops of four things: `python -m tests.hops [model training setting request]` counts them by tracing.

A file is a hop when a function of it runs on the thing's way and handles the thing: it configures, finds, checks, makes
or passes it on. Functions that an import calls don't count. Nor do helpers: files that are given a value, hand one
back, and know nothing of the thing (`HELPERS`, and for each way what is on it for another thing). They are printed too.
"""

import asyncio
import base64
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import numpy as np
from PIL import Image

from detectors.base import RunOptions
from detectors.load import load_detector
from detectors.models.config import read_config
from detectors.photos.synthetic import known_picture
from miner.cli import main as command
from miner.inference.loader import ModelLoader
from miner.inference.plan import Plan
from miner.inference.queue import Queue
from miner.inference.service import Picture
from miner.settings.settings import Settings
from tests.house import PACKAGES, ROOT
from tests.models import make_vit
from tests.photos import fill
from tests.unit.miner.axon.wire_in_process import Port

Holds = Callable[[FrameType], bool]
# Names to classes, documents to values, errors, consoles, atomic writes, facts of the machine.
HELPERS = (
    "detectors/console", "detectors/errors", "detectors/files", "detectors/machine", "detectors/models/documents",
    "detectors/redact", "detectors/registry", "miner/cli/__init__", "miner/cli/common",
    "miner/cli/flags", "miner/cli/group", "miner/errors", "miner/formats",
)  # fmt: skip
# What runs on a way, but for another thing than the one that goes it.
OTHERS = {
    "model": ("detectors/photos/",),  # the known picture, which warms it up
    # Figures from labels and answers; the memory's share, in bytes; what is told meanwhile; pictures that are drawn.
    "training": (
        "detectors/evaluation/",
        "detectors/training/budget",
        "detectors/training/progress",
        "detectors/photos/synthetic",
    ),
    "setting": ("detectors/load", "detectors/network", "detectors/backends/"),  # the split's other way, to the threads
    "request": ("detectors/photos/", "detectors/preprocess"),  # a picture in, an array out
}
MOST = {"model": 12, "training": 36, "setting": 6, "request": 7}  # the builders of a graph are five of a training's
SLOTS = 7  # a number that nothing else is


class Trace:
    """The product's files of which functions ran, in this process and in the order of their first."""

    def __init__(self, holds: Holds) -> None:
        self.files: dict[str, None] = {}
        self.is_over = False
        self._holds = holds
        self._here = {f"{ROOT / package}/": package for package in PACKAGES}

    def see(self, frame: FrameType, event: str, _: object) -> None:
        """Note a call or a return: the profiler's hook."""
        if self.is_over or event not in ("call", "return"):
            return
        name = frame.f_code.co_filename
        if not name.startswith(tuple(self._here)) or frame.f_code.co_name == "<module>":
            return
        file = str(Path(name).relative_to(ROOT).with_suffix(""))
        if file not in self.files and not _is_imported(frame) and self._holds(frame):
            self.files[file] = None
        if event == "return" and file == "detectors/training/run" and frame.f_code.co_name == "_export":
            self.is_over = True  # what judges the exported model comes behind it


def _is_imported(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__", "").startswith(PACKAGES):
            return True
        frame = frame.f_back
    return False


@contextmanager
def traced(holds: Holds = lambda _: True) -> Iterator[Trace]:
    """Trace this thread and those that are started meanwhile."""
    trace = Trace(holds)
    threading.setprofile(trace.see)
    sys.setprofile(trace.see)
    try:
        yield trace
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def model(folder: Path) -> Trace:
    """A YAML file to a warm session."""
    load_detector("ViT", read_config("starter.yaml"), folder, "onnx", RunOptions())  # its imports, and its graph
    with traced() as trace:
        load_detector("ViT", read_config("starter.yaml"), folder, "onnx", RunOptions()).verify()
    return trace


def training(folder: Path) -> Trace:
    """A folder of photos to a trained, exported model."""
    photos = fill(folder / "photos")
    vit = make_vit(folder / "vit", hidden_size=16, num_hidden_layers=1)
    options = ["--model", vit, "--epochs", 1, "--out", folder / "run", "--cache", folder / "cache"]
    sys.argv = ["roadwork-miner", "train", *map(str, [photos, *options])]
    with traced() as trace, suppress(SystemExit):
        command()
    assert trace.is_over
    return trace


def setting(folder: Path) -> Trace:
    """`INFERENCE_SLOTS` to the scheduler's queue: the files that hold the number, or the split that it is part of."""

    def holds(frame: FrameType) -> bool:
        return any(map(is_it, [*frame.f_locals.values()]))

    def is_it(value: object) -> bool:
        if isinstance(value, Settings):
            return getattr(value, "inference_slots", None) == SLOTS
        return getattr(value, "slots", None) == SLOTS if isinstance(value, Plan | RunOptions) else value is SLOTS

    with traced(holds) as trace:
        settings = Settings.load(inference_slots=str(SLOTS), models_dir=str(folder), state_dir=str(folder))
        loader = ModelLoader(settings)
        asyncio.run(loader.load())
        trace.files["miner/app"] = None  # which builds the queue, in the middle of a start
        assert Queue(loader.split.slots, 1.0).slots == SLOTS
    return trace


def request(folder: Path) -> Trace:
    """A request's image from the axon to the model and back."""
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(folder / "photo.jpg")
    photo = (folder / "photo.jpg").read_bytes()
    detector = load_detector("ViT", read_config("starter.yaml"), folder, "onnx", RunOptions())
    detector.predict(known_picture())

    def is_image(value: object) -> bool:
        is_photo = isinstance(value, bytes) and value == photo
        return is_photo or isinstance(value, Picture | Image.Image | np.ndarray)

    with traced(lambda frame: any(map(is_image, [*frame.f_locals.values()]))) as trace:
        port = Port(folder)
        port.listeners.clear()  # who are told afterwards
        port.service.replace(detector, 0.1)
        body = json.dumps({"image": base64.b64encode(photo).decode()}).encode()
        ((status, _),) = port.feed([port.request("dendrite", body)])
        port.close()
    assert status == 200, status
    return trace


def hops(name: str) -> tuple[list[str], list[str]]:
    """Return the files that count on a way, and the others that ran."""
    with tempfile.TemporaryDirectory() as folder:
        files = list(WAYS[name](Path(folder)).files)
    passed = [file for file in files if not file.startswith((*HELPERS, *OTHERS[name]))]
    return passed, [file for file in files if file not in passed]


WAYS = {"model": model, "training": training, "setting": setting, "request": request}

if __name__ == "__main__":
    for way in sys.argv[1:] or list(WAYS):
        counted, helpers = hops(way)
        print(f"{way}: {len(counted)}, at most {MOST[way]}: {', '.join(counted)}", flush=True)
        print(f"  helpers: {', '.join(helpers)}", flush=True)
