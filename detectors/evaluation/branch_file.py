"""The file of branch probabilities: `precompute branches` writes it, `fuse` and `calibrate` read it.

It holds one array a branch, and the labels, so that the models run once however many combinations are tried.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import PositiveFloat, TypeAdapter, ValidationError

from detectors.errors import DetectorConfigError
from detectors.files import write_safely
from detectors.models.calibration import Fusion, Stage
from detectors.models.documents import read_yaml

LABELS, SOURCES, GROUPS, SECONDS, ERAS = "labels", "sources", "groups", "seconds", "eras"
PREFIX = "p_"  # that others may put before a branch's name
Kind = TypeVar("Kind")
Sources, Seconds = TypeAdapter(dict[str, dict[str, Any]]), TypeAdapter(dict[str, PositiveFloat])


@dataclass(frozen=True, slots=True)
class BranchFile:
    """Probabilities of labelled photos by each branch, before any calibration.

    Attributes:
        labels: shape (photos,); True is roadwork.
        branches: by name, each of shape (photos,).
        sources: for each branch that a model of ours made: its keys in an ensemble's YAML file.
        groups: shape (photos,); near-identical photos have the same number. None: unknown.
        seconds: of each branch: the median of a picture, without its decoding, where it was measured.
        eras: shape (photos,); how each was sent, as `letterbox`. None: unknown.
    """

    labels: NDArray[np.bool_]
    branches: Mapping[str, NDArray[np.float64]]
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: NDArray[np.int64] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    eras: NDArray[np.str_] | None = None

    def only(self, rows: NDArray[np.int64]) -> "BranchFile":
        """Return that of some photos, by their numbers."""
        return replace(
            self,
            labels=self.labels[rows],
            branches={name: values[rows] for name, values in self.branches.items()},
            groups=None if self.groups is None else self.groups[rows],
            eras=None if self.eras is None else self.eras[rows],
        )

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {name: values.astype(np.float64) for name, values in self.branches.items()}
        arrays |= {LABELS: self.labels.astype(np.int8), SOURCES: np.array(json.dumps(self.sources))}
        if self.groups is not None:
            arrays[GROUPS] = self.groups
        if self.seconds:
            arrays[SECONDS] = np.array(json.dumps(self.seconds))
        if self.eras is not None:
            arrays[ERAS] = self.eras
        np.savez_compressed(buffer, **arrays)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_safely(path, buffer.getvalue())

    @classmethod
    def read(cls, path: Path) -> "BranchFile":
        """Read such a file, ours or anybody's.

        Raises:
            DetectorConfigError: it can't be read, or its arrays are not what they should be; the message names one.
        """
        try:
            with np.load(path, allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
        except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
            raise DetectorConfigError(f"{path} can't be read as .npz: {str(error).splitlines()[0]}") from error
        labels = arrays.pop(LABELS, None)
        sources = _read_json(path, SOURCES, arrays.pop(SOURCES, "{}"), Sources)
        # Whole numbers: a branch of that name would hold fractions.
        group = arrays.pop(GROUPS) if GROUPS in arrays and np.issubdtype(arrays[GROUPS].dtype, np.integer) else None
        # Text, likewise.
        timed = arrays.pop(SECONDS) if _is_text(arrays.get(SECONDS)) else "{}"
        seconds = _read_json(path, SECONDS, timed, Seconds)
        eras = arrays.pop(ERAS) if _is_text(arrays.get(ERAS)) else None
        if labels is None or labels.ndim != 1 or set(np.unique(labels).tolist()) != {0, 1}:
            raise DetectorConfigError(f"{path}: an array `{LABELS}` of 0 and 1 is needed, with both of them")
        for name, own in ((GROUPS, group), (ERAS, eras)):
            if own is not None and own.shape != labels.shape:
                raise DetectorConfigError(f"{path}: {name} has shape {own.shape}, not {labels.shape} as {LABELS}")
        if not arrays:
            raise DetectorConfigError(f"{path}: an array of probabilities for each branch is needed, beside `{LABELS}`")
        for name, values in arrays.items():
            if values.shape != labels.shape:
                raise DetectorConfigError(f"{path}: {name} has shape {values.shape}, not {labels.shape} as {LABELS}")
            if not (np.issubdtype(values.dtype, np.floating) and ((values >= 0) & (values <= 1)).all()):
                raise DetectorConfigError(f"{path}: {name} holds something that is not a probability from 0 to 1")
        branches = {name.removeprefix(PREFIX): values.astype(np.float64) for name, values in arrays.items()}
        return cls(labels == 1, branches, sources, group, seconds, eras)


def _read_json(path: Path, name: str, value: object, kind: TypeAdapter[Kind]) -> Kind:
    try:
        return kind.validate_json(str(value))
    except ValidationError as error:
        raise DetectorConfigError(
            f"{path}: {name} is no JSON by branch, as `precompute branches` writes it: {error.errors()[0]['msg']}"
        ) from error


def _is_text(array: NDArray[Any] | None) -> bool:
    return array is not None and array.dtype.kind == "U"


def write_ensemble(
    path: Path, fusion: Fusion, fallbacks: Sequence[Fusion], sources: Mapping[str, Mapping[str, Any]],
    stages: Sequence[Stage] = (),
) -> None:  # fmt: skip
    """Write a fusion into an ensemble's YAML file, beside the branches that are there or that the sources name.

    A threshold beside the branches goes: it was that of another fusion, and stages and fusion have their own.

    Raises:
        DetectorConfigError: a branch of the fusion is neither there nor in the sources.
    """
    values: dict[str, Any] = read_yaml(path) if path.is_file() else {}
    known: dict[str, Any] = {**sources, **(values.get("branches") or {})}
    lacking = [name for name in fusion.branches if name not in known]
    if lacking:
        raise DetectorConfigError(
            f"{path}: nothing says which model the branch {lacking[0]!r} is; name it under `branches` in that file, or "
            f"have `roadwork-miner precompute branches` write the probabilities"
        )
    values["branches"] = {name: dict(known[name]) for name in fusion.branches}
    for key in ("stages", "threshold"):  # of what the branches said together until now
        values.pop(key, None)
    if stages:
        values["stages"] = [_plain(stage) for stage in stages]
    values["fusion"] = _plain(fusion)
    values["fallbacks"] = [_plain(fallback) for fallback in fallbacks]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safely(path, yaml.safe_dump(values, sort_keys=False).encode())


def _plain(fusion: Fusion) -> dict[str, Any]:
    return {key: value for key, value in fusion.model_dump(mode="json").items() if value not in (None, [], 0.0)}
