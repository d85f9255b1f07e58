"""The loading of a detector, from its configuration on disk to its right answer for the known picture."""

import dataclasses
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

from detectors.backends.ort_cache import cached_graph, ensure_graph
from detectors.base import Detector, ModelFiles, RunOptions, Way, Ways
from detectors.errors import DetectorConfigError, ModelError, NotPrepared
from detectors.files import FolderLocks
from detectors.models import MODEL_FILE
from detectors.models.config import DetectorConfig
from detectors.models.labels import check_class, class_doubt
from detectors.models.manifest import (
    MAKE_ANEW,
    NAME,
    NO_REFERENCE,
    BranchModel,
    Manifest,
    as_served,
    branch_model,
    same_branches,
    variant_as_served,
)
from detectors.models.sources import find_original, model_folder, variant_folder
from detectors.photos.view_head import check_views
from detectors.registry import BACKENDS, DEFAULT, FUSED, VARIANTS, backend_class, detector_class, network_class

if TYPE_CHECKING:
    from detectors.network import Network

log = logging.getLogger(__name__)

Sums = list[tuple[str, list[tuple[str, str]]]]  # of files, by folder


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """A configuration, the folder it means, and what the manifests there say.

    Attributes:
        config: from the YAML file.
        models_dir: holds the folders of models.
        folder: of the model in fp32.
        manifest: of that folder.
        variants: the manifests of its faster variants, by precision and backend.
        branches: an ensemble's models; of any other model none.
    """

    config: DetectorConfig
    models_dir: Path
    folder: Path
    manifest: Manifest
    variants: Mapping[tuple[str, str], Manifest]
    branches: "Mapping[str, PreparedModel]"

    @classmethod
    def find(
        cls, config: DetectorConfig, models_dir: Path, wanted: Collection[tuple[str, str]] = tuple(VARIANTS)
    ) -> Self:
        """Find a model and read its manifests, and those of the faster variants that are wanted and there.

        Raises:
            NotPrepared: the model, or a branch of it, is not on this disk yet.
            ModelError: a manifest can't be read.
            DetectorConfigError: its views are to be pooled in a way that it can't.
        """
        folder = model_folder(config, models_dir)
        manifest = as_served(Manifest.read(folder), config.threshold, config.pooled_views)
        check_views(manifest.head, config.views, config.pool, config.path.name)
        variants = {}
        for precision, backend in wanted:
            with suppress(NotPrepared):
                variants[precision, backend] = Manifest.read(variant_folder(manifest, models_dir, precision, backend))
        branches = {name: cls.find(one, models_dir, wanted) for name, one in (config.branches or {}).items()}
        return cls(config, models_dir, folder, manifest, variants, branches)

    @property
    def roadwork(self) -> str:
        """Which class counts as roadwork, in words; of an ensemble, which of each branch."""
        if not self.branches:
            return self.manifest.output.words
        return "; ".join(f"{name}: {branch.roadwork}" for name, branch in self.branches.items())

    @property
    def sums(self) -> Sums:
        """The sums of the files and of those of the faster variants, by folder; of an ensemble, of its branches too."""
        return [
            (f"{manifest.name} {folder.name}", sorted(manifest.files.items())) for folder, manifest in self.folders()
        ]

    def folders(self) -> Iterator[tuple[Path, Manifest]]:
        """Yield the folder and those of the faster variants, with their manifests; then those of the branches."""
        yield self.folder, self.manifest
        for (precision, backend), manifest in self.variants.items():
            yield self.variant_folder(precision, backend), manifest
        for branch in self.branches.values():
            yield from branch.folders()

    def variant_folder(self, precision: str, backend: str) -> Path:
        """Say where a faster variant is, or will be."""
        return variant_folder(self.manifest, self.models_dir, precision, backend)

    def variant(self, precision: str, backend: str) -> tuple[Path, Manifest]:
        """Return the folder and manifest of a precision, with what the fp32 folder knows by now.

        Raises:
            DetectorConfigError: the backend has no such precision.
            NotPrepared: it is not there, or another class counted when it was made.
        """
        if precision == "fp32":
            return self.folder, self.manifest
        if (precision, backend) not in VARIANTS:
            raise DetectorConfigError(f"the backend {backend!r} has no {precision}")
        folder, manifest = self.variant_folder(precision, backend), self.variants.get((precision, backend))
        if manifest is None:
            raise NotPrepared(f"{folder} holds no {NAME}")
        if manifest.output.index != self.manifest.output.index:
            raise NotPrepared(f"{folder} was made while another class counted as roadwork: make it again")
        return folder, variant_as_served(manifest, self.manifest)

    def has(self, precision: str, backend: str) -> bool:
        """Return whether this precision is there for this backend.

        Of an ensemble: every branch has it, and what these say together was judged.
        """
        if precision == "fp32":
            return True
        if (precision, backend) not in VARIANTS:
            return False
        if self.branches:
            return self.has_fused(dict.fromkeys(self.branches, Way(precision, backend)))
        try:
            self.variant(precision, backend)
        except NotPrepared:
            return False
        return True

    def is_whole(self, precision: str = "fp32", backend: str = "any") -> bool:
        """Return whether an ensemble's branches are those that it was made with; any other model is whole.

        Raises:
            NotPrepared: this precision is not there.
        """
        _, manifest = self.variant(precision, backend)
        return not self.branches or same_branches(manifest.branches, self.branch_models(precision, backend))

    def fused(self, ways: Ways) -> Manifest:
        """Return the manifest of an ensemble whose branches run in these ways.

        What the branches said of the gate's photos judges it, at today's threshold and fusion. Where that was not kept,
        the judgement counts that was made with a precision for all of them.

        Raises:
            DetectorConfigError: the branches have other names, or a backend has no such precision.
            NotPrepared: a branch is not there in its way, or what they say together was not judged.
            ModelError: too much of it is on the other side of the threshold.
        """
        if ways.keys() != self.branches.keys():
            raise DetectorConfigError(f"{self.manifest.name} has the branches {', '.join(self.branches)}, not {ways}")
        variants = {name: way.variant for name, way in ways.items()}
        manifests = {name: self.branches[name].variant(*variant)[1] for name, variant in variants.items()}
        precisions = {precision for precision, _ in variants.values()}
        if precisions == {"fp32"}:  # not to be judged
            return self._whole("fp32", DEFAULT)
        stored, lack = None, None
        if len(set(variants.values())) == 1:
            try:
                stored = self._whole(*next(iter(variants.values())))
            except NotPrepared as error:
                lack = error
        from detectors.evaluation.answers import judge_again

        assert self.config.fusion is not None
        plain = {name: branch.manifest for name, branch in self.branches.items()}
        try:
            return judge_again(
                self.folder, ways, plain, manifests, self.manifest, self.config.fusion, stored, self.config.stages
            )
        except NotPrepared as error:
            if stored is not None:
                return stored
            raise lack or error from error

    def _whole(self, precision: str, backend: str) -> Manifest:
        """Return the manifest of an ensemble in a precision for all its branches as made, or raise NotPrepared."""
        if self.is_whole(precision, backend):
            return self.variant(precision, backend)[1]
        folder = self.variant_folder(precision, backend) if precision != "fp32" else self.folder
        raise NotPrepared(f"a branch of {folder} is not the one that it was judged with")

    def has_fused(self, ways: Ways) -> bool:
        """Return whether an ensemble's branches may run in these ways."""
        try:
            self.fused(ways)
        except (DetectorConfigError, ModelError):
            return False
        return True

    def branch_models(self, precision: str, backend: str) -> dict[str, BranchModel]:
        """Return what an ensemble remembers of its branches, or of their faster variants.

        Raises:
            NotPrepared: one is not there.
        """
        return {name: branch_model(branch.variant(precision, backend)[1]) for name, branch in self.branches.items()}


def load_detector(
    name: str,
    config: DetectorConfig,
    models_dir: Path,
    backend: str,
    options: RunOptions,
    precision: str = "fp32",
    ways: Ways | None = None,
) -> Detector:
    """Find a configured model and load it; raises as `load_model` does."""
    _check_kind(name, config)
    asked = {(precision, backend), *(way.variant for way in (ways or {}).values())}
    wanted = [variant for variant in VARIANTS if variant in asked]
    return load_model(name, PreparedModel.find(config, models_dir, wanted), backend, options, precision, ways)


def load_model(
    name: str,
    model: PreparedModel,
    backend: str,
    options: RunOptions,
    precision: str = "fp32",
    ways: Ways | None = None,
    graph: Detector | None = None,
) -> Detector:
    """Lock a model's folders, verify the sums of its files and load it; `Detector.verify` is the caller's next step.

    Args:
        name: of the detector.
        model: what is there of it.
        backend: runs the graph; of an ensemble, all of them.
        options: what may be used of the machine.
        precision: of the graph, or of all.
        ways: of an ensemble's branches, where they are not all alike or run side by side.
        graph: the same model as it was loaded before, for other views of a picture.

    Raises:
        NotPrepared: the precision is not there yet.
        ModelError: a file is damaged or can't be loaded.
        DetectorConfigError: an unknown name, or a model of another kind.
    """
    locks = FolderLocks(model.folder, model.variant_folder(precision, backend))
    detector = _load(name, model, backend, options, precision, ways or {}, cast("Network | None", graph))
    detector.locks = locks
    return detector


def _load(
    name: str, model: PreparedModel, backend: str, options: RunOptions, precision: str, ways: Ways,
    graph: "Network | None",
) -> Detector:  # fmt: skip
    config, folder, manifest = model.config, model.folder, model.manifest
    _check_kind(name, config)
    if manifest.detector != name:
        raise DetectorConfigError(f"{config.path.name} holds a model for {manifest.detector}, not for {name}")
    if config.branches is not None:
        every = Way(precision, backend)
        return _load_ensemble(model, ways or dict.fromkeys(model.branches, every), options)
    check_class(config, manifest)
    for doubt in filter(None, (class_doubt(config, manifest), manifest.judged_doubt)):
        log.warning("%s: roadwork = %s, but %s: its answers are likely reversed; %s",
                    folder, manifest.output.words, doubt, remedy(config))  # fmt: skip
    if manifest.parity.reference == NO_REFERENCE:
        log.info("%s: %s", folder, manifest.parity.caveat)
    if config.threshold is not None:
        log.info("%s: what the model says counts as roadwork above %g (threshold)", config.path.name, config.threshold)
    views = config.pooled_views
    if views is not None:
        log.info("%s: each picture is judged in %d views: %s", config.path.name, views.count, views)
    folder, manifest = model.variant(precision, backend)
    if graph is not None:
        return graph.viewed(manifest, views)
    original = None
    if manifest.head and (BACKENDS[backend].original or options.engine is not None):
        raise ModelError(
            f"the {backend} backend can't serve {manifest.name}, whose head was learned on {manifest.head}: onnx and "
            "openvino can"
        )
    if BACKENDS[backend].original:
        if config.model_folder is not None or config.onnx_path is not None:
            raise ModelError(
                f"the {backend} backend needs the original weights (hf_repo or weights_path), "
                f"and {config.path.name} names {'an exported model' if config.onnx_path is None else 'an ONNX file'}"
            )
        original = find_original(config, manifest.revision).path
    runs_here = backend if options.engine is None else options.engine.fallback

    def opened(optimized: Path | None) -> Detector:
        # The optimised graph has sums of its own, and the one it was made from is then not read at all; neither is a
        # graph that runs elsewhere.
        manifest.verify(folder, but=MODEL_FILE if optimized is not None or runs_here is None else None)
        files = ModelFiles(folder, manifest, original, optimized)
        network = network_class(name)(files, backend_class(backend), options)
        return network if views is None else network.viewed(manifest, views)

    if runs_here is None or not BACKENDS[runs_here].onnxruntime:
        return opened(None)
    return _opened_from_cache(folder, manifest, opened) or opened(ensure_graph(folder, manifest))


def _opened_from_cache(folder: Path, manifest: Manifest, opened: Callable[[Path], Detector]) -> Detector | None:
    """Return the detector of a graph that is optimised already, if it is whole.

    The sum of a large graph's weights takes as long as loading them: side by side, and known before anything is asked.
    """
    graph = cached_graph(folder, manifest, weights=False)
    if graph is None:
        return None
    with ThreadPoolExecutor(1) as beside:
        whole = beside.submit(cached_graph, folder, manifest)
        try:
            detector = opened(graph)
        except ModelError:
            if whole.result() is None:  # so it was no wonder
                return None
            raise
        if whole.result() is None:
            detector.close()
            return None
        return detector


def _check_kind(name: str, config: DetectorConfig) -> None:
    detector_class(name)  # an unknown name first
    if (name == FUSED) != (config.branches is not None):
        has = "branches" if config.branches is not None else "no branches"
        raise DetectorConfigError(f"{config.path.name} has {has}, which is not for {name}")


def _load_ensemble(model: PreparedModel, ways: Ways, options: RunOptions) -> Detector:
    """Load every branch, and check that it is the one the ensemble was prepared with."""
    from detectors.ensemble import Ensemble

    fusion = model.config.fusion
    assert fusion is not None
    if options.engine is not None:
        raise DetectorConfigError(f"an {FUSED} runs its branches here: the backend 'remote' serves one graph")
    model.manifest.verify(model.folder)
    if not model.is_whole():
        raise NotPrepared(f"a branch of {model.manifest.name} is not the one that it was prepared with")
    if model.config.stages:  # one after the other: a lone cheap branch takes all threads
        ways = {name: dataclasses.replace(way, threads=0) for name, way in ways.items()}
    manifest = model.fused(ways)
    if model.config.stages and manifest.calibration is not None:
        raise DetectorConfigError(f"{model.config.path.name}: stages have their own thresholds: calibrate --undo first")
    if model.config.stages:  # any of which may answer: how the last one's are spread tells no drift
        manifest = manifest.model_copy(update={"predictions": None})
    if doubt := manifest.gate_doubt:
        log.warning("%s in %s was %s", manifest.name, manifest.precision, doubt)
    branches = load_branches(model.branches, ways, options)
    return Ensemble(manifest, branches, fusion, model.config.fallbacks, options, ways, model.config.stages)


def load_branches(branches: Mapping[str, PreparedModel], ways: Ways, options: RunOptions) -> dict[str, Detector]:
    """Load the models of an ensemble; raises as `load_model` does.

    They take turns on the same threads, or each has threads of its own. In turn, those of one model share its graph,
    though they judge other views of a picture.
    """
    loaded: dict[str, Detector] = {}
    graphs: dict[object, Detector] = {}
    for name, branch in branches.items():
        way = ways[name]
        mine = dataclasses.replace(options, shared=True, threads=way.threads or options.threads)
        kind, key = branch.config.detector, name if way.threads else (branch.folder, way)
        loaded[name] = load_model(kind, branch, way.backend, mine, way.precision, graph=graphs.get(key))
        graphs.setdefault(key, loaded[name])
    return loaded


def remedy(config: DetectorConfig) -> str:
    """Say how another class comes to count."""
    if config.model_folder is not None:
        return "export it again, with roadwork_label: NAME in the YAML file of its original weights"
    return f"put roadwork_label: NAME into {config.path.name}, then {MAKE_ANEW}"


def is_prepared(config: DetectorConfig, models_dir: Path) -> bool:
    """Return whether the exported model is on this disk; of an ensemble, all of them."""
    try:
        model = PreparedModel.find(config, models_dir, ())
        for one in model.branches.values() or (model,):
            check_class(one.config, one.manifest)
        return model.is_whole()
    except NotPrepared:
        return False
