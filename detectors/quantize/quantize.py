"""Faster variants of an fp32 folder: each recipe is tried, the gate judges it, the fastest is kept."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from detectors.backends.ort_cache import ensure_graph
from detectors.base import ModelFiles, RunOptions
from detectors.builders.half import widened
from detectors.console import NO_STEPS, Steps
from detectors.errors import InferenceError, ModelError, library_errors
from detectors.models import MODEL_FILE
from detectors.models.manifest import Gate, Manifest, Precision, TokenMerging, as_served, sha256
from detectors.models.sources import variant_folder
from detectors.models.store import move_into_place, package_versions
from detectors.network import Network
from detectors.photos.image import decode
from detectors.photos.synthetic import known_picture, many_pictures
from detectors.photos.views import PooledViews
from detectors.quantize import CALIBRATION, WEIGHTED, Inputs, Recipe, gate
from detectors.quantize.gate import MAX_FLIPS, interleaved
from detectors.quantize.recipes import as_it_is
from detectors.quantize.schedule import AUTO, MergeRequest, schedules, why_too_few
from detectors.quantize.token_axes import read_tokens
from detectors.quantize.token_merge import write_merged
from detectors.registry import BACKENDS, DEFAULT, backend_class, how_to_install, network_class, recipes

CALIBRATION_SHARE = 3  # one of so many is calibrated on, where there are few
SYNTHETIC_PHOTOS = CALIBRATION_SHARE * CALIBRATION

SAMPLES = 4  # pictures; the order of the layers is the same with more
Array = NDArray[np.float32]
FP32_LAYERS = (0, 2, 4, 8, 16)  # layers left in fp32, tried in turn


@dataclass(frozen=True, slots=True)
class CalibrationPhotos:
    """Encoded photos for calibration and for the gate, and, if known, whether each shows roadwork."""

    data: Sequence[bytes]
    labels: Sequence[bool] | None = None
    made: bool = False  # by arithmetic

    @classmethod
    def by_arithmetic(cls) -> Self:
        """Return made ones, for want of photos."""
        return cls(many_pictures(SYNTHETIC_PHOTOS), made=True)

    def split(self) -> tuple[Self, Self]:
        """Return those to calibrate on and those to judge on; a lone one has to do for both.

        They are `CALIBRATION` of 96 or more, and all others; of fewer one in `CALIBRATION_SHARE`.
        A graph looks better on what it was calibrated on. Spread over all, which may be sorted by class.
        """
        step = max(CALIBRATION_SHARE, len(self.data) // CALIBRATION)
        chosen = range(0, len(self.data), step)[:CALIBRATION]
        others = [number for number in range(len(self.data)) if number not in chosen]
        return self._only(chosen), self._only(others or chosen)

    def _only(self, numbers: Sequence[int]) -> Self:
        labels = None if self.labels is None else [self.labels[number] for number in numbers]
        return type(self)([self.data[number] for number in numbers], labels, self.made)


def most_sensitive_layers(
    path: Path, inputs: Inputs, layers: Sequence[str] = WEIGHTED, progress: Steps = NO_STEPS
) -> list[str]:
    """Return the names of a graph's nodes of these operators that have weights, the one eight bits hurt most first.

    A layer's own error is the relative error of its output when its weights (per output channel) and its input (per
    tensor) are rounded to eight bits, and everything before it is exact.
    """
    model = onnx.load(path, load_external_data=False)  # with its weights it may be more than protobuf's 2 GB
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in layers and node.input[1] in weights]
    activations = _record(path, model, sorted({node.input[0] for node in nodes}), inputs[:SAMPLES])
    errors = {}
    for node in progress.each(nodes):
        weight = numpy_helper.to_array(weights[node.input[1]], str(path.parent)).astype(np.float32)
        axis = 0 if node.op_type == "Conv" else weight.ndim - 1
        run = _single(model, node, weights, path.parent)
        total, wrong = 0.0, 0.0
        for value in activations[node.input[0]]:
            exact = run(value, weight)
            wrong += float(np.square(exact - run(_rounded(value), _rounded(weight, axis))).sum())
            total += float(np.square(exact).sum())
        errors[node.name] = wrong / max(total, 1e-30)
    return sorted(errors, key=lambda name: -errors[name])


def _record(path: Path, model: Any, names: list[str], inputs: Inputs) -> dict[str, list[Array]]:
    """Run the graph and return what flows along the named edges, for each input."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    given = {value.name for value in probe.graph.input}
    probe.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in given
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (entry,) = (value.name for value in session.get_inputs())
    found: dict[str, list[Array]] = {name: [] for name in names}
    outputs = [name for name in names if name != entry]
    for value in inputs:
        for name, result in zip(outputs, session.run(outputs, {entry: value}), strict=True):
            found[name].append(result)
        if entry in found:
            found[entry].append(value)
    return found


def _single(model: Any, node: Any, weights: dict[str, Any], folder: Path) -> Any:
    """Return the one layer as a function of its input and its weights."""
    free = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (node.input[0], node.input[1])]
    arrays = {name: numpy_helper.to_array(weights[name], str(folder)) for name in node.input[2:] if name in weights}
    rest = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    out = [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "layer", free, out, rest)
    single = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    session = onnxruntime.InferenceSession(single.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda value, weight: session.run(None, {node.input[0]: value, node.input[1]: weight})[0]


def _rounded(value: Array, axis: int | None = None) -> Array:
    """Round to 255 symmetric steps, per slice along `axis` or over all."""
    others = tuple(number for number in range(value.ndim) if number != axis) if axis is not None else None
    step = np.maximum(np.abs(value).max(axis=others, keepdims=True), 1e-12) / 127
    return np.asarray(np.round(value / step) * step, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class PrecisionRequest:
    """A precision for a backend.

    Attributes:
        models_dir: where the variant comes to lie.
        options: threads to measure with.
        photos: to calibrate on, and others to judge on.
        max_flips: share of the pictures that may change sides.
        progress: is told each step, and how far it is.
        threshold: of the YAML file, at which sides are told apart; None: the manifest's.
        views: of the YAML file, in which each picture is judged; None: the whole, or those of its head.
            Recipes are calibrated on the whole; where there is a head, on its views in turn.
        merge: tokens a layer, for a precision that merges them; None: the network is left dense.
    """

    precision: Precision
    backend: str
    models_dir: Path
    options: RunOptions
    photos: CalibrationPhotos = field(default_factory=CalibrationPhotos.by_arithmetic)
    max_flips: float = MAX_FLIPS
    progress: Steps = NO_STEPS
    threshold: float | None = None
    views: PooledViews | None = None
    merge: MergeRequest | None = None


@dataclass(slots=True)
class Candidate:
    """A faster graph in a folder of its own that has passed the gate."""

    detector: Network
    folder: Path
    gate: Gate


def make_faster(folder: Path, order: PrecisionRequest) -> Path:
    """Make the faster variant of an fp32 model folder for one backend; return its folder.

    One that an operator's photos have judged is not made anew by made pictures.

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
    if order.merge is not None and (lack := why_too_few(len(order.photos.data), made=order.photos.made)):
        raise ModelError(lack)
    target = variant_folder(manifest, order.models_dir, precision, backend)
    if order.photos.made and was_judged_on_photos(target, manifest):
        order.progress(stays(target))
        return target
    mapped = as_served(manifest, order.threshold, order.views)
    fp32 = network_class(manifest.detector)(ModelFiles(folder, mapped, None), backend_class(DEFAULT), order.options)
    fp32 = fp32.viewed(mapped, order.views)
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        trial = _Trial(fp32, folder, partial, order)
        passed: list[Candidate] = []
        for merging in trial.schedules():
            passed = trial.attempts(found, merging)
            if passed:
                break
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
    if BACKENDS[backend].onnxruntime:
        ensure_graph(target, Manifest.read(target))
    return target


def was_judged_on_photos(folder: Path, fp32: Manifest) -> bool:
    """Return whether a faster variant is there that an operator's photos have judged."""
    try:
        made = Manifest.read(folder)
    except ModelError:
        return False
    return made.gate is not None and not made.gate.made_pictures and made.output.index == fp32.output.index


def stays(folder: Path) -> str:
    """Say that a variant is not made anew."""
    return f"{folder.name} was judged on your photos and stays: --pictures FOLDER makes it anew"


class _Trial:
    """One model's attempts at a precision."""

    def __init__(self, fp32: Network, source: Path, partial: Path, order: PrecisionRequest) -> None:
        self.fp32, self.partial, self.order = fp32, partial, order
        self.source = widened(source, MODEL_FILE, partial / "fp32")
        self.graph = read_tokens(self.source / MODEL_FILE, fp32.manifest) if order.merge is not None else None
        calibration, self.photos = order.photos.split()
        self.refusals: list[str] = []
        order.progress(f"fp32 answers to {len(self.photos.data)} pictures")
        self.expected = self._answers(fp32)
        self.inputs = [fp32.example(decode(data), number) for number, data in enumerate(calibration.data)]
        self.merging: TokenMerging | None = None
        self._ranked: dict[tuple[str, ...], list[str]] = {}

    def schedules(self) -> Iterator[TokenMerging | None]:
        """Yield the ways to merge tokens that are to be tried in turn; None: to merge none."""
        if self.graph is None or self.order.merge is None:
            yield None
            return
        if self.order.merge == AUTO:
            self.order.progress("looking for tokens that are alike")
        yield from schedules(self.graph, self.order.merge, self.order.progress.each(self.inputs))

    def attempts(self, found: Mapping[str, Recipe], merging: TokenMerging | None) -> list[Candidate]:
        """Try all recipes on the graph, its tokens merged or not."""
        self.merging, self._ranked = merging, {}
        if merging is None or self.graph is None:
            return self._passed(found)
        self.order.progress(merging.words)
        dense, self.source = self.source, self.partial / merging.words.partition(":")[0]
        try:
            write_merged(dense, self.source, self.graph, merging.merged)
            # Of several schedules only one that passes by itself is worth being quantised.
            if self.order.merge == AUTO and as_it_is not in found.values():
                alone = self.attempt("fp32", as_it_is)
                if alone is None:
                    return []
                shutil.rmtree(alone.folder)
            return self._passed(found)
        finally:
            shutil.rmtree(self.source, ignore_errors=True)
            self.source = dense

    def _passed(self, found: Mapping[str, Recipe]) -> list[Candidate]:
        tried = ((name, recipe, self.attempt(name, recipe)) for name, recipe in found.items())
        return [candidate for *_, candidate in tried if candidate is not None]

    def attempt(self, name: str, recipe: Recipe) -> Candidate | None:
        """Try a recipe with more and more layers left in fp32, until it passes."""
        words = f"{name}, {self.merging.words}" if self.merging is not None else name
        for count in FP32_LAYERS if recipe.layers else FP32_LAYERS[:1]:
            folder = self.partial / f"{name}-{count}"
            folder.mkdir(parents=True)
            try:
                with library_errors(f"it can't be made or run by {self.order.backend}", "another backend may"):
                    keep = self._sensitive(count, recipe.layers)
                    self.order.progress(f"{name}{f', {count} layers in fp32' if keep else ''}")
                    recipe.write(self.source, folder, self.order.progress.each(self.inputs), keep)
                    candidate = self._judge(name, folder, keep)
            except ModuleNotFoundError as error:
                self.refusals.append(f"{words}: needs the package {error.name!r}; {how_to_install()} installs it")
                shutil.rmtree(folder)
                return None
            except (ModelError, InferenceError) as error:
                self.refusals.append(f"{words}: {error}")
                shutil.rmtree(folder)
                return None
            if candidate.gate.flips <= self.order.max_flips:
                return candidate
            self.refusals.append(f"{words} with {len(keep)} layers in fp32: {candidate.gate.flips:.1%}")
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
        detector = detector.viewed(draft, order.views)
        answers = self._answers(detector)
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
            merging=self.merging,
            threshold=draft.decides_at,
            views=draft.seen,
        )
        return Candidate(detector, folder, judged)

    def _answers(self, detector: Network) -> NDArray[np.float64]:
        return np.array([detector.predict(data).probability for data in self.order.progress.each(self.photos.data)])

    def _sensitive(self, count: int, layers: tuple[str, ...]) -> list[str]:
        if not count:
            return []
        if layers not in self._ranked:
            self.order.progress("looking for the most sensitive layers")
            self._ranked[layers] = most_sensitive_layers(
                self.source / MODEL_FILE, self.inputs, layers, self.order.progress
            )
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
    fp32.model_copy(
        update={
            "precision": precision,
            "backend": backend,
            "files": files,
            "known_answer": chosen.detector.viewed(fp32, None).judge(decode(known_picture())).probability,
            "calibration": None,  # the fp32 folder's counts, whenever it was made
            "views": {},
            "gate": chosen.gate,
            "made_with": fp32.made_with | package_versions(BACKENDS[backend].packages),
        }
    ).write(chosen.folder)
