"""PyTorch, the reference backend, on the original weights.

It says what an export ought to say, before and after the move to another backend.
"""

import logging
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from detectors.base import ModelFiles, RunOptions
from detectors.errors import ModelError, library_errors
from detectors.models.checkpoint import (
    ADAPTER_CONFIG,
    WEIGHTS_FILE,
    inspect,
    model_type,
    network_name,
    refuse_missing,
    refuse_unfinished,
    stored_names,
    weight_files,
)
from detectors.models.documents import read_json, some
from detectors.models.hf_config import CONFIG_FILE, ModelConfig, timm_config
from detectors.registry import DETECTORS

Network = Callable[[Any], Any]

WAY_OUT = "the folder has to load with AutoModelForImageClassification of transformers 4.57"
COUNTERS = "num_batches_tracked"  # of batch norms, which no answer depends on
WINDOWED = {"swin"}  # whose constants transformers 5 leaves out
TABLE, INDEX = "relative_position_bias_table", "relative_position_index"


class TorchBackend:
    """The original network in eager fp32, as the reference miner runs it."""

    name = "torch"

    def __init__(self, files: ModelFiles, shape: tuple[int, int, int, int], options: RunOptions) -> None:
        if files.original is None:
            raise ModelError(f"the torch backend needs the original weights of {files.manifest.name}")
        self._network = LOADERS[DETECTORS[files.manifest.detector].library](files.original)
        # After loading: Ultralytics sets a thread count of its own.
        torch.set_num_threads(options.cores)

    def run(self, array: NDArray[np.float32], deadline: float | None = None) -> NDArray[np.float32]:
        """Run the network once."""
        with torch.inference_mode():
            scores: NDArray[np.float32] = self._network(torch.from_numpy(array)).numpy()
        return scores


def load_transformers(folder: Path) -> Network:
    """Load an image classifier that returns logits of shape (1, classes)."""
    if timm_config(folder) is not None:
        return cast("Network", load_timm(folder))
    model = load_model(folder)
    return lambda pixels: model(pixel_values=pixels).logits


def load_ultralytics(path: Path) -> Network:
    """Load a `-cls` network that returns probabilities of shape (1, classes)."""
    model = load_yolo(path).model.eval().float()
    return lambda pixels: model(pixels)[0]


LOADERS: dict[str, Callable[[Path], Network]] = {"transformers": load_transformers, "ultralytics": load_ultralytics}


def load_model(folder: Path, **options: Any) -> Any:
    """Return the network, ready to answer.

    In fp32 whatever the file or config.json says: what it is compared with is in fp32 too.

    Raises:
        ModelError: the weights can't be read, don't fit, lack something, or hold what is no number.
    """
    inspect(folder)
    ensure_torchvision()
    with ExitStack() as stack, library_errors(f"a {model_type(folder)} can't be loaded by transformers", WAY_OUT):
        from transformers import AutoModelForImageClassification

        folder = stack.enter_context(older_folder(folder))
        model, found = AutoModelForImageClassification.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
        named = [*model.named_parameters(), *model.named_buffers()]
        unfinished = [name for name, value in named if value.is_floating_point() and not value.isfinite().all()]
    refuse_missing(sorted(name for name in found["missing_keys"] if not name.endswith(COUNTERS)))
    refuse_unfinished(unfinished)
    return model.eval()


def load_timm(folder: Path) -> Any:
    """Return a network of timm, ready to answer; only safetensors are opened.

    transformers has a wrapper for it, for which the `model_args` that timm 1.0.31 writes are too many; and timm can't
    read the `null` that transformers writes there.

    Raises:
        ModelError: the weights can't be read, are not those of this architecture, or hold what is no number.
    """
    inspect(folder)
    config = ModelConfig.read(folder)
    ensure_torchvision()
    import timm
    from safetensors.torch import load_file

    with library_errors(f"a {model_type(folder)} can't be loaded by timm", "an architecture that it knows is needed"):
        # Named one by one, so that no file can point to a pickle or another address.
        model = timm.create_model(
            config.architecture, pretrained=False, checkpoint_path="", num_classes=len(config.labels),
            pretrained_cfg=read_json(folder / CONFIG_FILE)["pretrained_cfg"],
            **{key: value for key, value in (config.model_args or {}).items() if key != "num_classes"},
        )  # fmt: skip
        tensors = {
            network_name(name): value for path in weight_files(folder) for name, value in load_file(path).items()
        }
        found = model.load_state_dict(tensors, strict=False)
    refuse_missing(sorted(name for name in found.missing_keys if not name.endswith(COUNTERS)))
    if found.unexpected_keys:
        raise ModelError(
            f"the weights hold {some(found.unexpected_keys)}, which a {model_type(folder)} does not have: they are of "
            "another architecture, or of another size, than config.json says (architecture, model_args)"
        )
    values = model.state_dict()
    refuse_unfinished(
        [name for name, value in values.items() if value.is_floating_point() and not value.isfinite().all()]
    )
    return model.eval().float()


@contextmanager
def older_folder(folder: Path) -> Iterator[Path]:
    """Give a folder whose weights transformers 4.57 finds: the same, or a copy with its names for what 5 has saved.

    transformers' own renaming comes too late for what a wrapper has put before the names; and beside an adapter's
    configuration it would read the adapter's base in place of the weights, where peft is there.
    """
    stored = stored_names(folder)
    kind = model_type(folder)
    renamed = {name: _older_name(name, kind) for name in stored}
    tables = [name for name in renamed.values() if name.endswith(TABLE) and kind in WINDOWED]
    indices = {f"{table.removesuffix(TABLE)}{INDEX}" for table in tables}
    is_named = renamed.keys() == set(renamed.values()) and indices <= stored
    if is_named and not (folder / ADAPTER_CONFIG).is_file():
        yield folder
        return
    from safetensors.torch import load_file, save_file

    tensors = {renamed[name]: value for path in weight_files(folder) for name, value in load_file(path).items()}
    for table in tables:
        tensors.setdefault(f"{table.removesuffix(TABLE)}{INDEX}", _index(len(tensors[table])))
    with tempfile.TemporaryDirectory() as copy:
        save_file(tensors, Path(copy) / WEIGHTS_FILE, metadata={"format": "pt"})
        shutil.copyfile(folder / CONFIG_FILE, Path(copy) / CONFIG_FILE)
        yield Path(copy)


def _older_name(name: str, kind: str) -> str:
    """Return what 4.57 calls a weight; of a ViT-MSN transformers 5 leaves the network's own name out."""
    name = network_name(name)
    return f"vit.{name}" if kind == "vit_msn" and name.startswith("encoder.layer.") else name


def _index(rows: int) -> torch.Tensor:
    """Return which row of a Swin's table of relative positions each pair of places in a window takes.

    transformers 5 saves no such constants, and 4.57 takes what it finds in memory where a file lacks them.
    """
    span = math.isqrt(rows)  # places apart, both ways
    places = torch.cartesian_prod(*[torch.arange((span + 1) // 2)] * 2)
    apart = places[:, None] - places[None] + span // 2
    return apart[..., 0] * span + apart[..., 1]


def import_yolo() -> Any:
    """Return the class `ultralytics.YOLO`, kept from installing packages and from writing into the home folder."""
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())
    ensure_torchvision()
    from ultralytics import YOLO

    logging.getLogger("ultralytics").setLevel(logging.ERROR)
    return YOLO


def load_yolo(path: Path) -> Any:
    """Load a `-cls` checkpoint as `ultralytics.YOLO`.

    Raises:
        ModelError: it is not a `.pt` file, can't be read, or is not a classifier.
    """
    if path.suffix != ".pt" or not path.is_file():
        raise ModelError(f"{path} is not an Ultralytics .pt file (weights_path)")
    with library_errors(f"{path} can't be read by ultralytics", "a -cls checkpoint that it has written is needed"):
        model = import_yolo()(path)
    if model.task != "classify":
        raise ModelError(f"{path} is a YOLO network for the task {model.task!r}; a classifier (-cls) is needed")
    return model


# The wheel of torchvision in the public package index is built for CUDA. Beside a CPU torch its operators don't load,
# `import torchvision` fails with "operator torchvision::nms does not exist", and transformers and ultralytics, which
# import it, fail with it. Classification uses none of those operators, so declaring their schemas is enough.
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
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in SCHEMAS:
            library.define(schema)
        _libraries.append(library)
        import torchvision  # noqa: F401
