"""Faster precisions of an ensemble: each branch's own, and one gate for their combined answer."""

import shutil
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from detectors.base import Detector, RunOptions
from detectors.ensemble import Ensemble
from detectors.errors import ModelError
from detectors.load import PreparedModel, load_branches
from detectors.machine import others, spent
from detectors.models import MODEL_FILE
from detectors.models.config import DetectorConfig
from detectors.models.manifest import NAME, Gate, Manifest
from detectors.models.store import move_into_place
from detectors.quantize import gate
from detectors.quantize.quantize import CalibrationPhotos, PrecisionRequest, make_faster
from detectors.quantize.token_axes import NoTokens, read_tokens
from detectors.registry import DEFAULT


def make_faster_ensemble(config: DetectorConfig, order: PrecisionRequest) -> Path:
    """Make the faster variant of every branch and judge their fused answers; return the folder of the judgement.

    A branch whose tokens can't be merged, as it has none, stays dense in this variant: the others gain nonetheless.

    Raises:
        ModelError: a branch has no such variant, no branch has tokens, or too many of the fused answers change sides.
    """
    precision, backend, options = order.precision, order.backend, order.options
    model = PreparedModel.find(config, order.models_dir, ())
    manifest, target = model.manifest, model.variant_folder(precision, backend)
    (target / NAME).unlink(missing_ok=True)  # of other variants than those that come now
    dense = _dense_branches(model) if order.merge is not None else {}
    for name, branch in model.branches.items():
        order.progress(f"branch {name}{f' stays dense: {dense[name]}' if name in dense else ''}")
        make_faster(branch.folder, replace(order, merge=None) if name in dense else order)
    model = PreparedModel.find(config, order.models_dir, [(precision, backend)])
    order.progress("what the branches say together")
    plain = load_branches(model.branches, DEFAULT, options)
    faster = load_branches(model.branches, backend, options, precision)
    _, photos = order.photos.split()  # not those that the branches are calibrated on
    judged = _judge(config, manifest, plain, faster, photos)
    if judged.flips > order.max_flips:
        raise ModelError(
            f"{precision} for {backend}: {judged.flips:.1%} of the pictures are on the other side of the threshold "
            f"once the branches are fused, and at most {order.max_flips:.1%} may be"
        )
    made = manifest.model_copy(
        update={
            "precision": precision,
            "backend": backend,
            "files": {},
            "known_answer": _known_answer(config, faster),
            "calibration": None,  # the fp32 folder's counts, whenever it was made
            "gate": judged,
            "branches": model.branch_models(precision, backend),
        }
    )
    _put(made, target)
    return target


def _dense_branches(model: PreparedModel) -> dict[str, str]:
    """Return the branches whose tokens can't be merged, with the reason.

    Raises:
        NoTokens: that are all of them.
    """
    found = {}
    for name, branch in model.branches.items():
        try:
            read_tokens(branch.folder / MODEL_FILE, branch.manifest.name)
        except NoTokens as error:
            found[name] = str(error)
    if len(found) == len(model.branches):
        raise NoTokens("; ".join(found.values()))
    return found


def _judge(
    config: DetectorConfig,
    manifest: Manifest,
    plain: Mapping[str, Detector],
    faster: Mapping[str, Detector],
    photos: CalibrationPhotos,
) -> Gate:
    """Compare the fused answers, mapped as they will be sent."""
    assert config.fusion is not None
    ensembles = [Ensemble(manifest, branches, config.fusion, (), RunOptions()) for branches in (plain, faster)]
    before = spent(())
    said = [[ensemble.predict(data) for ensemble in ensembles] for data in photos.data]
    busy = others(before, spent(()))
    answers = np.array([[prediction.probability for prediction in row] for row in said])
    seconds = [statistics.median(row[number].infer for row in said) for number in (0, 1)]
    gates = {name: branch.manifest.gate for name, branch in faster.items()}
    largest, mean = gate.differences(answers[:, 0], answers[:, 1])
    return Gate(
        recipe=" + ".join(one.recipe for one in gates.values() if one is not None),
        kept_fp32=[f"{name}: {layer}" for name, one in gates.items() if one is not None for layer in one.kept_fp32],
        pictures=len(answers),
        max_difference=largest,
        mean_difference=mean,
        flips=gate.flips(answers[:, 0], answers[:, 1], manifest.threshold),
        seconds=seconds[1],
        seconds_fp32=seconds[0],
        labelled=gate.labelled(answers[:, 0], answers[:, 1], photos.labels, manifest.threshold),
        made_pictures=photos.made,
        answers=(float(answers[:, 0].min()), float(answers[:, 0].max())),
        others=busy,
    )


def _known_answer(config: DetectorConfig, branches: Mapping[str, Detector]) -> float:
    assert config.fusion is not None
    return float(config.fusion({name: branch.manifest.known_answer for name, branch in branches.items()}))


def _put(manifest: Manifest, target: Path) -> None:
    partial = target.with_name(target.name + ".partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        manifest.write(partial)
        move_into_place(partial, target)
    except OSError as error:
        raise ModelError(f"{target} can't be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
