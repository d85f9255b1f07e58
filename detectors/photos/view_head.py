"""The head of a model that judges several views of a picture: one layer, learned on the features of all of them.

Whoever trains one and whoever serves it pool the views' features by the same lines. No library but numpy is needed.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from detectors.errors import DetectorConfigError, InferenceError, ModelFileError
from detectors.photos.views import Array, Pool, PooledViews, parse, views_of

HEAD_FILE = "view_head.json"  # beside the weights, and in an exported folder
HEAD: Pool = "head"


@dataclass(frozen=True, slots=True)
class ViewHead:
    """A linear layer on the pooled features of views.

    Attributes:
        views: of a picture, in the order in which their features come.
        weight: shape (classes, features of a view).
        bias: shape (classes,).
    """

    views: PooledViews
    weight: Array
    bias: Array

    @property
    def width(self) -> int:
        """How many features a view has."""
        return int(self.weight.shape[1])

    def __call__(self, features: Sequence[Array]) -> Array:
        """Return the logits, shape (1, classes), of each view's features, shape (1, width).

        Raises:
            InferenceError: they have another shape.
        """
        for one in features:
            if one.shape != (1, self.width):
                raise InferenceError(f"the model's features have shape {one.shape}, not (1, {self.width})")
        pooled = pool(np.concatenate(features))
        return np.asarray((self.weight @ pooled + self.bias)[None], dtype=np.float32)

    def write(self, folder: Path) -> None:
        """Write it beside the weights."""
        values = {"views": self.views.parts, "weight": self.weight.tolist(), "bias": self.bias.tolist()}
        (folder / HEAD_FILE).write_text(json.dumps(values) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the head of a folder, if it has one.

        Raises:
            ModelFileError: it is damaged.
        """
        path = folder / HEAD_FILE
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_bytes())
            views = views_of(parse(values["views"]), HEAD)
            weight, bias = (np.array(values[name], dtype=np.float32) for name in ("weight", "bias"))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ModelFileError(f"{path}: can't be read as a head: {error}") from error
        is_sound = (
            views is not None
            and weight.ndim == 2
            and bias.shape == weight.shape[:1]
            and weight.shape[1] > 0
            and bool(np.isfinite(weight).all() and np.isfinite(bias).all())
        )
        if views is None or not is_sound:
            raise ModelFileError(
                f"{path}: views={values['views']}, weight of shape {weight.shape}, bias of shape {bias.shape}: "
                "several views and finite numbers are needed, a row and a bias for each class"
            )
        return cls(views, weight, bias)


def head_views(value: object) -> PooledViews:
    """Return the views that a head is to be learned on.

    Raises:
        ValueError: they are none, or the whole picture alone, for which no head of its own is needed.
    """
    views = views_of(parse(value), HEAD)
    if views is None:
        raise ValueError("several views are needed, such as whole,tiles:2x3: of the whole alone any head is learned")
    return views


def pool(features: Array) -> Array:
    """Return what the head looks at of the views' features, shape (views, width): the largest of each.

    A far cone is in one view: their mean, or the whole's own features beside the largest, found fewer of such.
    """
    return np.asarray(features.max(axis=0), dtype=np.float32)


def check_views(learned: str, parts: Sequence[str], wanted: Pool | None, where: str) -> None:
    """See that a YAML file's views are those of the model's head, which it need not name.

    Args:
        learned: the views of the model's head, in words; nothing: it has none.
        parts: of the file.
        wanted: its `pool`.
        where: the name of the file.

    Raises:
        DetectorConfigError: they are others, or there is no head.
    """
    if not learned:
        if wanted == HEAD:
            raise DetectorConfigError(
                f"{where}: pool={HEAD}: the model has no head for views: `roadwork-miner train --views` learns one; "
                "mean and max pool what any model says"
            )
        return
    if parts and str(PooledViews(tuple(parts), wanted or "mean")) != learned:
        raise DetectorConfigError(
            f"{where}: views={list(parts)}, pool={wanted or 'mean'}: the model's head was learned on {learned}: "
            "remove both keys, or train another head"
        )
