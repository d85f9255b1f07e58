"""From an fp32 folder to a faster one: every recipe is tried, the gate judges, measurement chooses."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from detectors.backends import MODEL_FILE
from detectors.backends.ort_cache import ensure_graph
from detectors.base import ModelFiles
from detectors.errors import InferenceError, ModelError, library_errors
from detectors.files import move_into_place, package_versions
from detectors.models.manifest import Gate, Manifest, Precision, sha256
from detectors.models.sources import variant_folder
from detectors.network import Network
from detectors.photos.image import decode
from detectors.photos.synthetic import known_picture
from detectors.quantize import Recipe, gate
from detectors.quantize.order import Order
from detectors.quantize.photos import Photos
from detectors.quantize.sensitivity import most_sensitive_layers
from detectors.quantize.timing import interleaved
from detectors.registry import backend_class, network_class, recipes

KEEP = (0, 2, 4, 8, 16)  # layers left in fp32, tried in turn


@dataclass(slots=True)
class Candidate:
    """A faster graph in a folder of its own that has passed the gate."""

    detector: Network
    folder: Path
    gate: Gate


def make_faster(folder: Path, order: Order) -> Path:
    """Make the faster variant of an fp32 model folder for one backend; return its folder.

    Raises:
        ModelError: there is no recipe, or no graph gets through the gate.
    """
    manifest = Manifest.read(folder)
    # They are measured in turn: threads that wait for one graph's next run would keep the next graph's from working.
    order = replace(order, options=replace(order.options, shared=True))
    precision, backend = order.precision, order.backend
    found = recipes(precision, backend)
    if not found:
        raise ModelError(f"there is no {precision} for the backend {backend!r}")
    fp32 = network_class(manifest.detector)(ModelFiles(folder, manifest, None), backend_class("onnx"), order.options)
    target = variant_folder(manifest, order.models_dir, precision, backend)
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        trial = _Trial(fp32, folder, partial, order)
        passed = [candidate for name, recipe in found.items() if (candidate := trial.attempt(name, recipe)) is not None]
        if not passed:
            raise ModelError(
                f"no {precision} graph for {backend} gets through the gate (at most {order.max_flips:.1%} of the "
                f"pictures on the other side of the threshold): {'; '.join(trial.refusals)}"
            )
        order.progress("measuring")
        chosen = _choose(passed, fp32)
        _finish(chosen, manifest, precision, backend)
        move_into_place(chosen.folder, target)
    except OSError as error:
        raise ModelError(f"{target} can't be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if backend == "onnx":
        ensure_graph(target, Manifest.read(target))
    return target


class _Trial:
    """One model's attempts at a precision."""

    def __init__(self, fp32: Network, source: Path, partial: Path, order: Order) -> None:
        self.fp32, self.source, self.partial, self.order = fp32, source, partial, order
        calibration, self.photos = order.photos.split()
        self.refusals: list[str] = []
        order.progress(f"fp32 answers to {len(self.photos.data)} pictures")
        self.expected = _probabilities(fp32, self.photos)
        self.inputs = [fp32.preprocessing(decode(data)) for data in calibration.data]
        self._ranked: dict[tuple[str, ...], list[str]] = {}

    def attempt(self, name: str, recipe: Recipe) -> Candidate | None:
        """Try a recipe with more and more layers left in fp32, until it passes."""
        for count in KEEP:
            keep = self._sensitive(count, recipe.layers)
            self.order.progress(f"{name}{f', {count} layers in fp32' if keep else ''}")
            folder = self.partial / f"{name}-{count}"
            folder.mkdir(parents=True)
            try:
                with library_errors(f"it can't be made or run by {self.order.backend}", "another backend may"):
                    recipe.write(self.source, folder, self.inputs, keep)
                    candidate = self._judge(name, folder, keep)
            except ModuleNotFoundError as error:
                self.refusals.append(f"{name}: needs the package {error.name!r}; `make setup-all` installs it")
                return None
            except (ModelError, InferenceError) as error:
                self.refusals.append(f"{name}: {error}")
                return None
            if candidate.gate.flips <= self.order.max_flips:
                return candidate
            self.refusals.append(f"{name} with {len(keep)} layers in fp32: {candidate.gate.flips:.1%}")
            shutil.rmtree(folder)
        return None

    def _judge(self, name: str, folder: Path, keep: Sequence[str]) -> Candidate:
        for path in self.source.glob("*.json"):
            if path.name != "manifest.json":
                shutil.copyfile(path, folder / path.name)
        order = self.order
        draft = self.fp32.manifest.model_copy(update={"precision": order.precision, "backend": order.backend})
        files = ModelFiles(folder, draft, None)
        detector = network_class(draft.detector)(files, backend_class(order.backend), order.options)
        answers = _probabilities(detector, self.photos)
        largest, mean = gate.differences(self.expected, answers)
        threshold = draft.threshold
        judged = Gate(
            recipe=name,
            kept_fp32=list(keep),
            pictures=len(answers),
            max_difference=largest,
            mean_difference=mean,
            flips=gate.flips(self.expected, answers, threshold),
            seconds=0.0,
            seconds_fp32=0.0,
            labelled=gate.labelled(self.expected, answers, self.photos.labels, threshold),
            made_pictures=self.photos.made,
            answers=(float(self.expected.min()), float(self.expected.max())),
        )
        return Candidate(detector, folder, judged)

    def _sensitive(self, count: int, layers: tuple[str, ...]) -> list[str]:
        if not count:
            return []
        if layers not in self._ranked:
            self.order.progress("looking for the most sensitive layers")
            self._ranked[layers] = most_sensitive_layers(self.source / MODEL_FILE, self.inputs, layers)
        return self._ranked[layers][:count]


def _choose(passed: list[Candidate], fp32: Network) -> Candidate:
    """Measure all in turn, and take the fastest, or a more faithful one that is nearly as fast."""
    array = fp32.preprocessing(decode(known_picture()))
    timed = interleaved([fp32.backend, *(candidate.detector.backend for candidate in passed)], array)
    seconds_fp32, *seconds = timed.seconds
    for candidate, mine in zip(passed, seconds, strict=True):
        update = {"seconds": mine, "seconds_fp32": seconds_fp32, "others": timed.others}
        candidate.gate = candidate.gate.model_copy(update=update)
    by_recipe = {candidate.gate.recipe: candidate for candidate in passed}
    return by_recipe[gate.best({name: candidate.gate for name, candidate in by_recipe.items()})]


def _finish(chosen: Candidate, fp32: Manifest, precision: Precision, backend: str) -> None:
    files = {path.name: sha256(path) for path in sorted(chosen.folder.iterdir())}
    packages = {"onnx": ("onnxruntime", "onnx"), "openvino": ("openvino", "nncf")}[backend]
    fp32.model_copy(
        update={
            "precision": precision,
            "backend": backend,
            "files": files,
            "known_answer": chosen.detector.judge(decode(known_picture())).probability,
            "calibration": None,  # the fp32 folder's counts, whenever it was made
            "gate": chosen.gate,
            "made_with": fp32.made_with | package_versions(packages),
        }
    ).write(chosen.folder)


def _probabilities(detector: Network, photos: Photos) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.array([detector.predict(data).probability for data in photos.data])
