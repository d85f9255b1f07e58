"""The file that `precompute branches` writes and `fuse` and `calibrate` read: one array a branch, and the labels."""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.errors import DetectorConfigError
from detectors.files import write_safely

LABELS, SOURCES, GROUPS = "labels", "sources", "groups"
PREFIX = "p_"  # that others may put before a branch's name


@dataclass(frozen=True, slots=True)
class BranchFile:
    """Probabilities of labelled photos by each branch, before any calibration.

    Attributes:
        labels: shape (photos,); True is roadwork.
        branches: by name, each of shape (photos,).
        sources: for each branch that a model of ours made: its keys in an ensemble's YAML file.
        groups: shape (photos,); near-identical photos have the same number. None: unknown.
    """

    labels: NDArray[np.bool_]
    branches: Mapping[str, NDArray[np.float64]]
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: NDArray[np.int64] | None = None

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {name: values.astype(np.float64) for name, values in self.branches.items()}
        arrays |= {LABELS: self.labels.astype(np.int8), SOURCES: np.array(json.dumps(self.sources))}
        if self.groups is not None:
            arrays[GROUPS] = self.groups
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
        sources = json.loads(str(arrays.pop(SOURCES, "{}")))
        # Whole numbers: a branch of that name would hold fractions.
        group = arrays.pop(GROUPS) if GROUPS in arrays and np.issubdtype(arrays[GROUPS].dtype, np.integer) else None
        if labels is None or labels.ndim != 1 or set(np.unique(labels).tolist()) != {0, 1}:
            raise DetectorConfigError(f"{path}: an array `{LABELS}` of 0 and 1 is needed, with both of them")
        if group is not None and group.shape != labels.shape:
            raise DetectorConfigError(f"{path}: {GROUPS} has shape {group.shape}, not {labels.shape} as {LABELS}")
        if not arrays:
            raise DetectorConfigError(f"{path}: an array of probabilities for each branch is needed, beside `{LABELS}`")
        for name, values in arrays.items():
            if values.shape != labels.shape:
                raise DetectorConfigError(f"{path}: {name} has shape {values.shape}, not {labels.shape} as {LABELS}")
            if not (np.issubdtype(values.dtype, np.floating) and ((values >= 0) & (values <= 1)).all()):
                raise DetectorConfigError(f"{path}: {name} holds something that is not a probability from 0 to 1")
        branches = {name.removeprefix(PREFIX): values.astype(np.float64) for name, values in arrays.items()}
        return cls(labels == 1, branches, sources, group)
