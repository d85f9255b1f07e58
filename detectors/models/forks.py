"""The YAML file of a fork's `InceptionFusion`, said in our keys.

That detector asks a ViT, a YOLO classifier and a third network in Keras or torch, and fuses the three answers with a
small network of its own; the last two are pickles or programs for which there is no reader here.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from detectors.models.documents import shown

VIT, YOLO, THIRD, KERAS = "vit_config", "yolo_weights_path", "googlenet_fusion_path", "use_keras"
FUSION_KEYS = {VIT, YOLO, THIRD, KERAS}
INDEX = "roadwork_class_index"  # of its YOLO branch
LONGEST = 2000  # characters of what is to be pasted
DEFAULTS = {VIT: "ViT_roadwork.yaml", YOLO: "best.pt"}


def translated(path: Path, values: Mapping[str, Any], shipped: Path) -> str:
    """Return what to write in place of such a file.

    Args:
        path: of the file.
        values: what is in it.
        shipped: the folder of our own YAML files, whose names its `vit_config` may use.
    """
    yolo: dict[str, Any] = {"detector": "YOLOClassifier", "weights_path": str(values.get(YOLO) or DEFAULTS[YOLO])}
    if values.get(INDEX) is not None:
        yolo[INDEX] = values[INDEX]
    branches = {"vit": {"detector": "ViT", **_vit(path, str(values.get(VIT) or DEFAULTS[VIT]), shipped)}, "yolo": yolo}
    ours = {"branches": branches, "fusion": {"kind": "mean", "branches": list(branches)}}
    third = f"{THIRD}={shown(values[THIRD])} " if values.get(THIRD) else ""
    return (
        f"{path.name}: {', '.join(sorted(FUSION_KEYS & values.keys()))}: an InceptionFusion of a fork, which is an "
        f"Ensemble here. Its third network and its fusion {third}are not read; `roadwork-miner fuse` fits a fusion of "
        f"these two. Set IMAGE_DETECTOR=Ensemble, and write into {path.name}: {_on_one_line(ours)}"
    )


def _on_one_line(values: Mapping[str, Any]) -> str:
    """Return the values as YAML that is pasted as it stands, unless nobody could mean it."""
    text = yaml.safe_dump(values, sort_keys=False, default_flow_style=True, width=math.inf).rstrip()
    return text if len(text) <= LONGEST else shown(text)


def _vit(path: Path, name: str, shipped: Path) -> dict[str, Any]:
    """Return the keys of the ViT: the file that is named, or what is in ours of that name."""
    if not (path.parent / name).is_file() and (shipped / name).is_file():
        found: dict[str, Any] = yaml.safe_load((shipped / name).read_text(encoding="utf-8"))
        return found
    return {"config": name}
