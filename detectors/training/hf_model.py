"""Hugging Face classifiers of two classes: found, loaded, given adapters, saved."""

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from detectors.backends.torch import ensure_torchvision, older_folder
from detectors.errors import ModelError
from detectors.files import writing_tensors
from detectors.models.config import SHIPPED, DetectorConfig
from detectors.models.hf_config import CONFIG_FILE, NOTICE_FILE, ModelConfig, processor_file
from detectors.models.sources import Original, find_original
from detectors.training.backbones import BACKBONES, backbone_folder
from detectors.training.config import TrainConfig

ensure_torchvision()
from transformers import AutoConfig, AutoModelForImageClassification  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

LABELS = {0: "None", 1: "Roadwork"}  # as StreetVision's own model has them
ROADWORK = 1
TENSORFLOW = 0.5  # a momentum above it is TensorFlow's word: the share that is kept, where torch means the new one's
STARTER = "starter"  # what ships with the package, and its folder's name
OFFLINE = (*BACKBONES, STARTER)
SIZE_MODELS = {
    "tiny": "facebook/deit-tiny-patch16-224",  # 6 million parameters
    "small": "facebook/deit-small-patch16-224",  # 22
    "base": "google/vit-base-patch16-224",  # 87
}


def find_folder(config: TrainConfig, cache: Path) -> Original:
    """Find the folder of the model to start from; a name of a size or of a repository is fetched from the hub.

    Its revision is the commit that a branch of a repository stands for; that of any other is the configured one.

    Args:
        config: names the model.
        cache: folder of what trainings share: a backbone is written there.

    Raises:
        ModelError: it can't be found or fetched, or lacks a file.
        ModelFileError: its config.json is wrong.
    """
    local = Path(config.model).expanduser()
    if config.model in BACKBONES:
        found = Original(backbone_folder(config.model, cache), config.model, config.revision)
    elif config.model == STARTER:
        found = Original(SHIPPED.parent / STARTER, STARTER, config.revision)
    elif local.is_dir() and config.model not in SIZE_MODELS:
        found = Original(local.resolve(), local.name, config.revision)
    elif config.model.startswith(("/", ".", "~")):
        raise ModelError(f"{local} is not a folder")
    else:
        source = DetectorConfig.model_validate({"hf_repo": SIZE_MODELS.get(config.model, config.model)})
        try:
            found = find_original(source.model_copy(update={"revision": config.revision}))
        except ModelError as error:
            nor = "" if config.model in SIZE_MODELS else f"; nor is there a folder {config.model} here"
            raise ModelError(f"{error}{nor}; {', '.join(OFFLINE)} need no hub (--model)") from error
    for path in (found.path / CONFIG_FILE, processor_file(found.path)):
        if not path.is_file():
            raise ModelError(f"{found.path} holds no {path.name}")
    ModelConfig.read(found.path)  # what is wrong with it is said in our words, before transformers meets it
    return found


def pinned(config: TrainConfig, cache: Path) -> TrainConfig:
    """Return the configuration with the commit that its repository's branch has now.

    Raises:
        ModelError: the model can't be found or fetched.
    """
    return config.model_copy(update={"revision": find_folder(config, cache).revision})


def has_weights(folder: Path) -> bool:
    """Return whether there are weights; a folder with a config.json alone starts from random ones."""
    return any(folder.glob("*.safetensors"))


def load(folder: Path, seed: int) -> nn.Module:
    """Load the network with two outputs; one that has others, or none, gets a new last layer.

    Raises:
        ModelError: it can't be loaded.
    """
    torch.manual_seed(seed)
    names = {"id2label": LABELS, "label2id": {label: index for index, label in LABELS.items()}}
    try:
        if not has_weights(folder):
            config = AutoConfig.from_pretrained(folder, local_files_only=True, **names)
            model = AutoModelForImageClassification.from_config(config)
        else:
            with _quiet(), older_folder(folder) as readable:
                model = AutoModelForImageClassification.from_pretrained(
                    readable, local_files_only=True, use_safetensors=True, ignore_mismatched_sizes=True, **names
                )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"{folder} can't be loaded: {str(error).splitlines()[0]}") from error
    model.config.problem_type = "single_label_classification"
    _mend_statistics(model, fixed=has_weights(folder))
    if has_weights(folder) and ModelConfig.read(folder).id2label != LABELS:
        head_of(model).reset_parameters()  # two outputs of other meaning are no start
    trained: nn.Module = model
    return trained


def _mend_statistics(model: nn.Module, *, fixed: bool) -> None:
    """Give batch normalisation a momentum under which small parts of a batch do no harm.

    Args:
        model: the network.
        fixed: whether its statistics are kept: those of a million photos are better than those of eight. A momentum
            of 0 says so, and `set_training` minds it.
    """
    for module in model.modules():
        if isinstance(module, BatchNorm) and module.momentum is not None:
            given = module.momentum
            module.momentum = 0.0 if fixed else 1 - given if given > TENSORFLOW else given


def set_training(model: nn.Module) -> None:
    """Set a network to training, but for batch normalisation whose statistics are kept: it normalises by them."""
    model.train()
    for module in model.modules():
        if isinstance(module, BatchNorm) and module.momentum == 0:
            module.eval()


def learns_statistics(model: nn.Module) -> bool:
    """Return whether batch normalisation learns from the photos it sees together, which should be many then."""
    return any(isinstance(module, BatchNorm) and module.momentum != 0 for module in model.modules())


def is_convolutional(model: nn.Module) -> bool:
    """Return whether a network sees by convolutions; a transformer has one at most, which cuts the picture up."""
    return sum(isinstance(module, nn.Conv2d) for module in model.modules()) > 1


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back that weights of the last layer are new, and should be trained: that is what is about to happen."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def head_name(model: nn.Module) -> str:
    """Return the name of the last linear layer with one output a class: its input are the features.

    Raises:
        ModelError: there is none.
    """
    names: list[str] = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == len(LABELS)
    ]
    if not names:
        raise ModelError(f"{type(model).__name__} has no linear layer with {len(LABELS)} outputs to train")
    return names[-1]


def head_of(model: nn.Module) -> nn.Linear:
    """Return that layer."""
    layer = model.get_submodule(head_name(model))
    assert isinstance(layer, nn.Linear)
    return layer


def freeze(model: nn.Module, share: float) -> None:
    """Keep a share of the weights' tensors as they are, from the input on: edges and colours are what they were.

    Of a network of convolutions the first layers take most of the time, and nothing is sent back through them.
    """
    weights = list(model.parameters())
    for weight in weights[: int(share * len(weights))]:
        weight.requires_grad = False


def set_prior(model: nn.Module, prior: float) -> None:
    """Move the answers from an even share of roadwork to another, by Bayes' rule.

    A network that has learnt from both classes alike is too ready to say roadwork where photos are unlike those it
    learnt from (Saerens et al. 2002, doi 10.1162/089976602753284446).
    """
    with torch.no_grad():
        head_of(model).bias[ROADWORK] += log_odds(prior)


def log_odds(share: float) -> float:
    """Return what a share adds to a logit; an even one nothing."""
    return math.log(share / (1 - share))


def logits_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """Run a network of transformers, of peft, or a plain one; shape (photos, classes), fp32."""
    output = model(inputs)
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits.float()


def with_adapters(model: nn.Module, rank: int, seed: int) -> nn.Module:
    """Freeze the network and add low-rank adapters to its linear layers, or to its convolutions if it has no others."""
    from peft import LoraConfig, get_peft_model

    head = head_name(model)
    named = [(name, module) for name, module in model.named_modules() if name != head]
    targets = [name for name, module in named if isinstance(module, nn.Linear)]
    targets = targets or [name for name, module in named if isinstance(module, nn.Conv2d) and module.groups == 1]
    torch.manual_seed(seed)
    adapters = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.05, target_modules=targets, modules_to_save=[head]
    )
    adapted: nn.Module = get_peft_model(model, adapters)
    return adapted


def save(model: nn.Module, source: Path, folder: Path) -> None:
    """Write what `ViT` serves: config.json, model.safetensors, and the preprocessing of the model it came from."""
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    shutil.rmtree(folder, ignore_errors=True)
    with writing_tensors(folder):
        model.save_pretrained(folder)
    kept = (processor_file(source), source / NOTICE_FILE)
    for path in kept:
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
