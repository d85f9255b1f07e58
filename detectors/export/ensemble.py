"""The export of an ensemble: every branch in a folder of its own, and a manifest that lists them."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from detectors.base import Detector, RunOptions, Way
from detectors.console import NO_STEPS, Steps
from detectors.ensemble import Ensemble
from detectors.evaluation.answers import take_over
from detectors.load import PreparedModel, is_prepared, load_branches
from detectors.models.config import DetectorConfig
from detectors.models.manifest import Manifest, Output, Parity, Source, branch_model, sha256
from detectors.models.sources import model_folder, model_name
from detectors.models.store import keep_calibration, move_into_place, package_versions
from detectors.photos.image import decode
from detectors.photos.synthetic import known_picture
from detectors.registry import DEFAULT, FUSED

FUSION_FILE = "fusion.json"

Prepare = Callable[[str, DetectorConfig], Path]


def prepare_ensemble(
    config: DetectorConfig,
    models_dir: Path,
    prepare: Prepare,
    *,
    force: bool = False,
    progress: Steps = NO_STEPS,
) -> Path:
    """Prepare the branches that are not there yet (all, with `force`), and write the ensemble's own folder.

    Args:
        config: with branches.
        models_dir: holds `<name>/<revision>/`.
        prepare: makes the folder of one branch, from its detector's name and its configuration.
        force: also branches that are there already.
        progress: told each step in words.

    Returns:
        The ensemble's folder.

    Raises:
        ModelError: a branch can't be prepared, or fails on the known picture.
    """
    assert config.branches is not None
    assert config.fusion is not None
    for name, branch in config.branches.items():
        # An exported folder can't be made again from itself.
        if (force and branch.model_folder is None) or not is_prepared(branch, models_dir):
            progress(f"branch {name}")
            prepare(branch.detector, branch)
    progress(config.fusion.words)
    # Asked for only now: a branch's revision may be known only once it was fetched.
    folder = model_folder(config, models_dir)
    models = {name: PreparedModel.find(branch, models_dir, ()) for name, branch in config.branches.items()}
    manifests = {name: model.manifest for name, model in models.items()}
    branches = load_branches(models, dict.fromkeys(models, Way("fp32", DEFAULT)), RunOptions())
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        facts = {
            "branches": {name: branch_model(manifest).model_dump() for name, manifest in manifests.items()},
            "fusion": config.fusion.model_dump(),
            "fallbacks": [fallback.model_dump() for fallback in config.fallbacks],
        }
        (partial / FUSION_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        draft = Manifest(
            name=model_name(config),
            revision=folder.name,
            detector=FUSED,
            source=Source(origin=config.path.name, revision=folder.name),
            output=Output(index=1, labels=["None", "Roadwork"], activation="none"),
            files={FUSION_FILE: sha256(partial / FUSION_FILE)},
            known_answer=0.0,
            parity=_worst([manifest.parity for manifest in manifests.values()]),
            branches={name: branch_model(manifest) for name, manifest in manifests.items()},
            made_with=package_versions(("onnxruntime",)),
        )
        known = _answer(draft, branches, config)
        draft.model_copy(update={"known_answer": known}).write(partial)
        keep_calibration(folder, partial)
        take_over(folder, partial)
        move_into_place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _answer(draft: Manifest, branches: dict[str, Detector], config: DetectorConfig) -> float:
    assert config.fusion is not None
    ensemble = Ensemble(draft, branches, config.fusion, (), RunOptions())
    return ensemble.judge(decode(known_picture())).probability


def _worst(parities: Sequence[Parity]) -> Parity:
    return Parity(
        reference="each branch's own",
        pictures=min(parity.pictures for parity in parities),
        max_difference=max(parity.max_difference for parity in parities),
        mean_difference=max(parity.mean_difference for parity in parities),
    )
