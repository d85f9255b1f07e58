"""The YAML file of an ensemble, as `fuse` writes it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from detectors.errors import DetectorConfigError
from detectors.files import write_safely
from detectors.models.documents import read_yaml
from detectors.models.fusion import Fusion


def write_ensemble(
    path: Path, fusion: Fusion, fallbacks: Sequence[Fusion], sources: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write a fusion into an ensemble's YAML file, beside the branches that are there or that the sources name.

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
    values["fusion"] = _plain(fusion)
    values["fallbacks"] = [_plain(fallback) for fallback in fallbacks]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safely(path, yaml.safe_dump(values, sort_keys=False).encode())


def _plain(fusion: Fusion) -> dict[str, Any]:
    return {key: value for key, value in fusion.model_dump().items() if value not in (None, [], 0.0)}
