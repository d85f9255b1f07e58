"""An image classifier as transformers loads it: always in fp32, from whole weights, or not at all."""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from detectors.errors import library_errors
from detectors.models.checkpoint import (
    SINGLE,
    inspect,
    model_type,
    refuse_missing,
    refuse_unfinished,
    unwrapped,
    weight_files,
)
from detectors.models.model_config import CONFIG_FILE
from detectors.torch_compat import ensure_torchvision

WAY_OUT = "the folder has to load with AutoModelForImageClassification of transformers 4.57"
COUNTERS = "num_batches_tracked"  # of batch norms, which no answer depends on


def load_model(folder: Path, **options: Any) -> Any:
    """Return the network, ready to answer.

    In fp32 whatever the file or config.json says: what it is compared with is in fp32 too.

    Raises:
        ModelError: the weights can't be read, don't fit, lack something, or hold what is no number.
    """
    wrapped = bool(inspect(folder).wrappers)
    ensure_torchvision()
    with ExitStack() as stack, library_errors(f"a {model_type(folder)} can't be loaded by transformers", WAY_OUT):
        import torch
        from transformers import AutoModelForImageClassification

        if wrapped:
            folder = _unwrapped_copy(folder, Path(stack.enter_context(tempfile.TemporaryDirectory())))
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


def _unwrapped_copy(folder: Path, copy: Path) -> Path:
    """Write the weights by the names that the network has for them; transformers' own renaming comes too late."""
    from safetensors.torch import load_file, save_file

    tensors = {unwrapped(name): value for path in weight_files(folder) for name, value in load_file(path).items()}
    save_file(tensors, copy / SINGLE, metadata={"format": "pt"})
    shutil.copyfile(folder / CONFIG_FILE, copy / CONFIG_FILE)
    return copy
