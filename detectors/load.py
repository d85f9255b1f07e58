"""From a configuration on disk to a detector that has proved itself."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from detectors.backends.ort_cache import ensure_graph
from detectors.base import Detector, ModelFiles, RunOptions
from detectors.errors import DetectorConfigError, ModelError, NotPrepared
from detectors.models import MODEL_FILE
from detectors.models.config import DetectorConfig
from detectors.models.labels import LABEL_KEY, chosen_index, contradiction, is_by_name
from detectors.models.manifest import BranchModel, Manifest, is_outdated, same_branches
from detectors.models.sources import find_original, model_folder, variant_folder
from detectors.registry import FUSED, RECIPES, backend_class, detector_class, network_class

log = logging.getLogger(__name__)


def load_detector(
    name: str,
    config: DetectorConfig,
    models_dir: Path,
    backend: str,
    options: RunOptions,
    precision: str = "fp32",
) -> Detector:
    """Verify the model folder's sums and load it; `Detector.verify` is the caller's next step.

    Raises:
        NotPrepared: the folder is not there yet.
        ModelError: a file is damaged or can't be loaded.
        DetectorConfigError: an unknown name, or a model of another kind.
    """
    detector_class(name)  # an unknown name first
    if (name == FUSED) != (config.branches is not None):
        has = "branches" if config.branches is not None else "no branches"
        raise DetectorConfigError(f"{config.path.name} has {has}, which is not for {name}")
    folder = model_folder(config, models_dir)
    manifest = Manifest.read(folder)
    if manifest.detector != name:
        raise DetectorConfigError(f"{config.path.name} holds a model for {manifest.detector}, not for {name}")
    if config.branches is not None:
        return _load_ensemble(config, manifest, models_dir, backend, options, precision)
    check_class(config, manifest)
    for doubt in filter(None, (class_doubt(config, manifest), judged_doubt(manifest))):
        log.warning("%s: roadwork = %s, but %s: its answers are likely reversed; %s",
                    folder, manifest.output.words, doubt, remedy(config))  # fmt: skip
    if precision != "fp32":
        folder, manifest = _variant(manifest, models_dir, precision, backend)
    if is_outdated(manifest):
        log.info(
            "%s was made by an older exporter, whose graph is slower: export it again, and its faster precisions",
            folder,
        )
    runs_here = backend if options.engine is None else options.engine.fallback
    with ThreadPoolExecutor(1) as beside:  # a large graph's sums take as long as importing the library
        graph = beside.submit(ensure_graph, folder, manifest) if runs_here == "onnx" else None
        runs = backend_class(backend)
        optimized = graph.result() if graph is not None else None
    # The optimised graph has sums of its own, and the one it was made from is then not read at all; neither is a graph
    # that runs elsewhere.
    manifest.verify(folder, but=MODEL_FILE if optimized is not None or runs_here is None else None)
    original = None
    if backend == "torch":
        if config.model_folder is not None:
            raise ModelError(
                f"the torch backend needs the original weights (hf_repo or weights_path), "
                f"and {config.path.name} names an exported model"
            )
        original = find_original(config, manifest.revision).path
    return network_class(name)(ModelFiles(folder, manifest, original, optimized), runs, options)


def _load_ensemble(
    config: DetectorConfig, manifest: Manifest, models_dir: Path, backend: str, options: RunOptions, precision: str
) -> Detector:
    """Load every branch, and check that it is the one the ensemble was prepared with."""
    from detectors.ensemble import Ensemble

    assert config.branches is not None
    assert config.fusion is not None
    if options.engine is not None:
        raise DetectorConfigError(f"an {FUSED} runs its branches here: the backend 'remote' serves one graph")
    manifest.verify(model_folder(config, models_dir))
    if not same_branches(manifest.branches, branch_models(config.branches, models_dir)):
        raise NotPrepared(f"a branch of {manifest.name} is not the one that it was prepared with")
    if precision != "fp32":
        folder, manifest = _variant(manifest, models_dir, precision, backend)
        if not same_branches(manifest.branches, branch_models(config.branches, models_dir, precision, backend)):
            raise NotPrepared(f"a branch of {folder} is not the one that it was judged with")
    branches = load_branches(config.branches, models_dir, backend, options, precision)
    return Ensemble(manifest, branches, config.fusion, config.fallbacks, options)


def load_branches(
    branches: Mapping[str, DetectorConfig], models_dir: Path, backend: str, options: RunOptions, precision: str
) -> dict[str, Detector]:
    """Load the models of an ensemble, which take turns on the same threads; raises as `load_detector` does."""
    shared = dataclasses.replace(options, shared=True)
    return {
        name: load_detector(branch.detector, branch, models_dir, backend, shared, precision)
        for name, branch in branches.items()
    }


def branch_models(
    branches: Mapping[str, DetectorConfig], models_dir: Path, precision: str = "fp32", backend: str = "onnx"
) -> dict[str, BranchModel]:
    """Return what an ensemble remembers of its branches, or of their faster variants.

    Raises:
        NotPrepared: one is not there.
    """
    found = {name: Manifest.read(model_folder(one, models_dir)) for name, one in branches.items()}
    if precision != "fp32":
        found = {name: _variant(one, models_dir, precision, backend)[1] for name, one in found.items()}
    return {name: branch_model(manifest) for name, manifest in found.items()}


def _variant(fp32: Manifest, models_dir: Path, precision: str, backend: str) -> tuple[Path, Manifest]:
    """Return a faster variant's folder and its manifest, with what the fp32 folder knows by now."""
    if not RECIPES.get((precision, backend)):
        raise DetectorConfigError(f"the backend {backend!r} has no {precision}")
    folder = variant_folder(fp32, models_dir, precision, backend)
    variant = Manifest.read(folder)
    if variant.output.index != fp32.output.index:
        raise NotPrepared(f"{folder} was made while another class counted as roadwork: make it again")
    # The spread is that of the mapped answers: one without the other would be drift.
    update = {"calibration": fp32.calibration, "predictions": fp32.predictions}
    return folder, variant.model_copy(update=update)


def check_class(config: DetectorConfig, manifest: Manifest) -> None:
    """Compare the class that the configuration names, or that the names do where it has no key, with the exported one.

    Raises:
        NotPrepared: it is another, so that the model has to be exported again.
        DetectorConfigError: the model has no such class, or is an exported folder, which can't be exported again.
    """
    output = manifest.output
    labels = dict(enumerate(output.labels))
    wanted = chosen_index(labels, config.roadwork_label, config.roadwork_class_index)
    if wanted is None and output.named and config.model_folder is None:  # by a key that is there no more
        if fault := contradiction(labels, output.index):
            raise NotPrepared(f"{config.path.name} names no class any more ({LABEL_KEY}); exported was class {fault}")
        return
    if wanted in (None, output.index):
        return
    words = f"{config.path.name} names class {wanted} {output.labels[wanted]!r}; exported was {output.words}"
    if config.model_folder is not None:
        raise DetectorConfigError(f"{words}: export it again from the original weights")
    raise NotPrepared(words)


def class_words(config: DetectorConfig, models_dir: Path) -> str:
    """Say which class of a prepared model counts as roadwork; of an ensemble, which of each branch.

    Raises:
        NotPrepared: it is not there.
        ModelError: a manifest can't be read.
    """
    if config.branches is None:
        return Manifest.read(model_folder(config, models_dir)).output.words
    return "; ".join(f"{name}: {class_words(one, models_dir)}" for name, one in config.branches.items())


def class_doubt(config: DetectorConfig, manifest: Manifest) -> str:
    """Return why the class that counts is likely the wrong one by its name, or nothing."""
    output = manifest.output
    is_named = is_by_name(dict(enumerate(output.labels)), output.index, config.roadwork_label)
    return "" if is_named else output.doubt


def judged_doubt(manifest: Manifest) -> str:
    """Return what the labelled photos of its export say against the class that counts, or nothing."""
    judged = manifest.judged
    return f"its AUC on {judged.photos} labelled photos was {judged.auc:.3f}" if judged and judged.reversed else ""


def remedy(config: DetectorConfig) -> str:
    """Say how another class comes to count."""
    if config.model_folder is not None:
        return "export it again, with roadwork_label: NAME in the YAML file of its original weights"
    return f"put roadwork_label: NAME into {config.path.name}, then roadwork-miner models download --force"


def branch_model(manifest: Manifest) -> BranchModel:
    """Return what an ensemble remembers of a branch's model."""
    sums = hashlib.sha256(json.dumps(sorted(manifest.files.items())).encode()).hexdigest()
    return BranchModel(
        detector=manifest.detector, name=manifest.name, revision=manifest.revision, sums=sums,
        index=manifest.output.index,
    )  # fmt: skip


def is_prepared(config: DetectorConfig, models_dir: Path) -> bool:
    """Return whether the exported model is on this disk; of an ensemble, all of them."""
    try:
        manifest = Manifest.read(model_folder(config, models_dir))
        for one in (config.branches or {"": config}).values():
            check_class(one, Manifest.read(model_folder(one, models_dir)))
        return config.branches is None or same_branches(manifest.branches, branch_models(config.branches, models_dir))
    except NotPrepared:
        return False


def has_variant(config: DetectorConfig, models_dir: Path, precision: str, backend: str) -> bool:
    """Return whether a prepared model has this precision for this backend.

    Of an ensemble: every branch has it, and what these say together was judged.
    """
    if precision == "fp32":
        return True
    if not RECIPES.get((precision, backend)):
        return False
    try:
        fp32 = Manifest.read(model_folder(config, models_dir))
        _, variant = _variant(fp32, models_dir, precision, backend)
        return config.branches is None or same_branches(
            variant.branches, branch_models(config.branches, models_dir, precision, backend)
        )
    except NotPrepared:
        return False
