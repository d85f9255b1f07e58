"""Faster precisions of an ensemble: each branch's own, and one gate for their combined answer."""

import shutil
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from detectors.backends.ort_cache import ensure_graph
from detectors.base import Judgement, Way
from detectors.errors import ModelError, NotPrepared
from detectors.evaluation.answers import FP32, BranchAnswers, EnsembleAnswers, key_of, sum_of
from detectors.load import PreparedModel, load_branches
from detectors.machine import others, spent
from detectors.models import MODEL_FILE
from detectors.models.config import DetectorConfig
from detectors.models.manifest import NAME, Gate, Manifest, branch_model, is_outdated
from detectors.models.store import move_into_place
from detectors.photos.image import decode
from detectors.photos.synthetic import known_picture
from detectors.quantize.gate import judged_variant
from detectors.quantize.quantize import CalibrationPhotos, PrecisionRequest, make_faster, stays, was_judged_on_photos
from detectors.quantize.token_axes import NoTokens, read_tokens
from detectors.registry import BACKENDS, DEFAULT, MERGED


def make_faster_ensemble(config: DetectorConfig, order: PrecisionRequest) -> Path:
    """Make the faster variant of every branch and judge their fused answers; return the folder of the judgement.

    What each branch says of the photos is kept, so that any combination of their variants can be judged by it. A
    branch whose tokens can't be merged, as it has none, stays dense in this variant: the others gain nonetheless. Its
    graph is copied where it is there already.
    What an operator's photos have judged is not made anew by made pictures.

    Raises:
        ModelError: a branch has no such variant, no branch has tokens, or too many of the fused answers change sides.
    """
    precision, backend = order.precision, order.backend
    plain = next((one for one, merged in MERGED.items() if merged == precision), precision)
    model = PreparedModel.find(config, order.models_dir, [(precision, backend), (plain, backend)])
    manifest, target = model.manifest, model.variant_folder(precision, backend)
    if order.photos.made and was_judged_on_photos(target, manifest):
        with suppress(NotPrepared):  # a branch is another one by now
            judged_variant(model, precision, backend)
            order.progress(stays(target))
            return target
    (target / NAME).unlink(missing_ok=True)  # of other variants than those that come now
    dense = _dense_branches(model) if order.merge is not None else {}
    made_of = set[Path]()  # branches may be one model in several views
    for name, branch in model.branches.items():
        if branch.folder in made_of:
            continue
        made_of.add(branch.folder)
        order.progress(f"branch {name}{f' stays dense: {dense[name]}' if name in dense else ''}")
        if name in dense and (there := _dense_variant(model, name, plain, order)) is not None:
            order.progress(f"{there.name} was judged on these photos and is copied")
            _copy_variant(there, branch.variant_folder(precision, backend), order)
            continue
        merge = None if name in dense else order.merge
        # Together they have a threshold, and each has views of its own.
        make_faster(branch.folder, replace(order, merge=merge, threshold=None, views=branch.config.pooled_views))
    model = PreparedModel.find(config, order.models_dir, [(precision, backend)])
    order.progress("what the branches say together")
    judged, known_answer = _judge(model, order)
    made = manifest.model_copy(
        update={
            "precision": precision,
            "backend": backend,
            "files": {},
            "known_answer": known_answer,
            "views": {},
            "calibration": None,  # the fp32 folder's counts, whenever it was made
            "gate": judged,
            "branches": model.branch_models(precision, backend),
        }
    )
    _put(made, target)
    return target


def word_of_answers(
    config: DetectorConfig, models_dir: Path, photos: CalibrationPhotos, precision: str, backends: Sequence[str]
) -> str:
    """Say what these photos change in which variants of an ensemble's branches may be combined; empty: nothing.

    Args:
        config: of the ensemble.
        models_dir: holds the folders of models.
        photos: to judge by.
        precision: that is made with them.
        backends: for which it is.
    """
    try:
        known = EnsembleAnswers.read(PreparedModel.find(config, models_dir, ()).folder)
    except NotPrepared:
        return ""
    _, judged = photos.split()
    if known.is_of(sum_of(judged.data), judged.labels):
        return ""
    made = {key_of(precision, backend) for backend in backends}
    if photos.made and not known.made_pictures:
        alone = ", ".join(sorted(made - known.variants))
        return alone and (
            f"no photos: what the branches said of yours stays, and {alone} is combined with none of "
            f"{', '.join(sorted(known.variants))} until --pictures FOLDER judges all by the same photos"
        )
    again = [variant.rpartition("-") for variant in sorted(known.variants - made)]
    commands = ", ".join(
        f"`roadwork-miner export --precision {kind} --backend {backend} --pictures FOLDER`"
        for kind, _, backend in again
    )
    return "other photos than before: what the branches said of those goes" + (
        f"; to be combined with what is made now, the others are judged again by {commands}" if again else ""
    )


def _dense_branches(model: PreparedModel) -> dict[str, str]:
    """Return the branches whose tokens can't be merged, with the reason.

    Raises:
        NoTokens: that are all of them.
    """
    found = {}
    for name, branch in model.branches.items():
        try:
            read_tokens(branch.folder / MODEL_FILE, branch.manifest)
        except NoTokens as error:
            found[name] = str(error)
    if len(found) == len(model.branches):
        raise NoTokens("; ".join(found.values()))
    return found


def _dense_variant(model: PreparedModel, name: str, precision: str, order: PrecisionRequest) -> Path | None:
    """Return the folder of a branch's variant without merged tokens that would be made again; None: there is none.

    It was judged on the same photos, beside the same fp32 graph, at the same threshold, and is whole.
    """
    branch, (_, photos) = model.branches[name], order.photos.split()
    try:
        folder, manifest = branch.variant(precision, order.backend)
        known = EnsembleAnswers.read(model.folder)
        manifest.verify(folder)
    except ModelError:
        return None
    said, judged = known.branches.get(name, {}), manifest.gate
    models = {FP32: branch_model(branch.manifest), key_of(precision, order.backend): branch_model(manifest)}
    is_same = all(key in said and said[key].model.is_same(one) for key, one in models.items())
    if judged is None or not is_same or not known.is_of(sum_of(photos.data), photos.labels):
        return None
    now, then = branch.manifest, (judged.threshold, judged.views)
    is_admitted = judged.flips <= order.max_flips and then == (now.decides_at, now.seen)
    return folder if is_admitted and not is_outdated(manifest, folder) else None


def _copy_variant(folder: Path, target: Path, order: PrecisionRequest) -> None:
    manifest, partial = Manifest.read(folder), target.with_name(target.name + ".partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        for name in manifest.files:
            shutil.copyfile(folder / name, partial / name)
        _put(manifest.model_copy(update={"precision": order.precision}), target)
    except OSError as error:
        raise ModelError(f"{target} can't be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if BACKENDS[order.backend].onnxruntime:
        ensure_graph(target, Manifest.read(target))


def _judge(model: PreparedModel, order: PrecisionRequest) -> tuple[Gate, float]:
    """Ask the branches in fp32 and faster about the photos, in turn; keep and compare what they say.

    Returns:
        The judgement, and what the faster ones say together of the known picture.
    """
    fusion, faster = model.config.fusion, Way(order.precision, order.backend)
    assert fusion is not None
    _, photos = order.photos.split()  # not those that the branches are calibrated on
    asked = {
        way: load_branches(model.branches, dict.fromkeys(model.branches, way), order.options)
        for way in (Way("fp32", DEFAULT), faster)
    }
    said: dict[Way, dict[str, list[Judgement]]] = {way: {name: [] for name in model.branches} for way in asked}
    before = spent(())
    for data in order.progress.each(photos.data):
        picture = decode(data)
        for way, branches in asked.items():
            for name, branch in branches.items():
                said[way][name].append(branch.judge(picture))
    busy = others(before, spent(()))
    models = {
        name: {key_of(*way.variant): branch_model(branch.variant(*way.variant)[1]) for way in asked}
        for name, branch in model.branches.items()
    }
    answers = EnsembleAnswers(
        photos=sum_of(photos.data),
        labels=None if photos.labels is None else list(photos.labels),
        made_pictures=photos.made,
        max_flips=order.max_flips,
        branches={
            name: {
                key_of(*way.variant): BranchAnswers(
                    model=models[name][key_of(*way.variant)],
                    probabilities=[one.probability for one in said[way][name]],
                    known=branches[name].judge(decode(known_picture())).probability,
                )
                for way, branches in asked.items()
            }
            for name in model.branches
        },
    )
    try:
        answers.add_to(model.folder)
    except OSError as error:
        raise ModelError(f"{model.folder} can't be written: {error.strerror or error}") from error
    try:
        ways = dict.fromkeys(model.branches, faster)
        judged = answers.admit(answers.compare(ways, models, model.manifest, fusion, model.config.stages))
    except ModelError as error:
        raise ModelError(f"{order.precision} for {order.backend}: {error}") from error
    gates = [(name, branch.manifest.gate) for name, branch in asked[faster].items() if branch.manifest.gate is not None]
    seconds_fp32, seconds = (_seconds(said[way]) for way in asked)
    known = {name: each[key_of(*faster.variant)].known or 0.0 for name, each in answers.branches.items()}
    gate = judged.model_copy(
        update={
            "recipe": " + ".join(_recipe(one, is_merged=order.merge is not None) for _, one in gates),
            "kept_fp32": [f"{name}: {layer}" for name, one in gates for layer in one.kept_fp32],
            "seconds": seconds,
            "seconds_fp32": seconds_fp32,
            "others": busy,
        }
    )
    return gate, float(fusion(known))


def _recipe(gate: Gate, *, is_merged: bool) -> str:
    """Say how a branch was made; where others merge tokens, also what became of its own."""
    if not is_merged:
        return gate.recipe
    return f"{gate.recipe} ({gate.merging.words if gate.merging is not None else 'dense'})"


def _seconds(said: Mapping[str, Sequence[Judgement]]) -> float:
    """Return the median of what all graphs take for a photo."""
    sums: list[float] = [sum(one.infer for one in row) for row in zip(*said.values(), strict=True)]
    return statistics.median(sums)


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
