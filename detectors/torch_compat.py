"""Makes a CUDA build of torchvision importable beside a CPU build of torch.

The wheel of torchvision in the public package index is built for CUDA. Beside a CPU torch its compiled operators don't
load, `import torchvision` fails with "operator torchvision::nms does not exist", and transformers and ultralytics,
which import it, fail with it. Classification uses none of those operators, so declaring their schemas is enough.
"""

import sys
from importlib.util import find_spec
from typing import Any

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[Any] = []  # a torch.library.Library takes its schemas with it when it is collected


def ensure_torchvision() -> None:
    """Import torchvision if it is installed, declaring the missing operators where its own build can't."""
    if "torchvision" in sys.modules or find_spec("torchvision") is None:
        return
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        import torch

        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in SCHEMAS:
            library.define(schema)
        _libraries.append(library)
        import torchvision  # noqa: F401
