"""The exporter of Hugging Face image classifiers: plain ViTs are built here, the others by optimum's ONNX exporter.

A plain ViT (Dosovitskiy et al. 2020, arXiv 2010.11929, with the names of transformers) becomes a graph straight from
its safetensors file: a small server never needs torch's two gigabytes, and the graph runs as fast as an exporter's.
"""

import logging
import math
import shutil
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from detectors.errors import DetectorConfigError, ModelError
from detectors.export.export import Exporter
from detectors.models import MODEL_FILE
from detectors.models.checkpoint import (
    inspect,
    model_type,
    read_weights,
    refuse_missing,
)
from detectors.models.hf_config import CONFIG_FILE, PROCESSOR_FILE, PROCESSORS, ModelConfig, ProcessorConfig, ViTConfig
from detectors.models.manifest import CURRENT_BUILDERS, NUMPY, Output
from detectors.photos.image import decode
from detectors.preprocess import Preprocessing, from_processor_config

log = logging.getLogger(__name__)


class ViTExporter(Exporter):
    """`AutoModelForImageClassification` to an ONNX graph with a fixed input shape."""

    @property
    def kind(self) -> str:
        """The model's type, as config.json has it."""
        return model_type(self.original)

    @property
    def packages(self) -> tuple[str, ...]:
        """The plain graph needs neither torch nor optimum."""
        return ("onnx",) if self._config.is_plain_vit else ("torch", "transformers", "optimum", "onnx")

    @property
    def own_versions(self) -> dict[str, str]:
        """The plain graph is ours."""
        return CURRENT_BUILDERS if self._config.is_plain_vit else {}

    @property
    def reference_name(self) -> str:
        """The library's own pipeline, or numpy where there is no torch."""
        return NUMPY if self._without_torch else "transformers.pipeline"

    def write(self, folder: Path) -> Output:
        """Write `model.onnx`, `config.json` and `preprocessor_config.json`."""
        for name in (CONFIG_FILE, PROCESSOR_FILE):
            if not (self.original / name).is_file():
                raise ModelError(f"{self.original} holds no {name}")
            shutil.copyfile(self.original / name, folder / name)
        for note in inspect(self.original).notes:
            log.warning("%s: %s", self.original, note)
        output = self._output
        *_, height, width = from_processor_config(self._processor).shape
        if self._config.is_plain_vit:
            onnx.save_model(build_graph(self.original, height, width), folder / MODEL_FILE)
        else:
            self._export_with_optimum(folder, height, width)
        # After optimum, which writes one of its own.
        self._processor.write(folder)
        return output

    def reference(self) -> Callable[[bytes], float]:
        """Return `transformers.pipeline("image-classification")`, read as the reference miner reads it."""
        output = self._output
        if self._without_torch:
            preprocessing, multiple = from_processor_config(self._processor), output.activation == "sigmoid"
            return numpy_reference(self.original, preprocessing, output.index, multiple)
        from detectors.backends.torch import load_model

        model = load_model(self.original)
        from transformers import pipeline

        classify = pipeline(
            "image-classification", model=model, image_processor=self._image_processor() or str(self.original),
            device="cpu", top_k=model.config.num_labels,  # None means five
        )  # fmt: skip
        number = str(output.index)  # labels may not tell the outputs apart
        classify.model.config.id2label = {index: str(index) for index in range(len(output.labels))}
        preprocessing = from_processor_config(self._processor)
        if self.config.letterbox:  # which takes the place of both
            classify.image_processor.do_resize = classify.image_processor.do_center_crop = False

        def probability(data: bytes) -> float:
            scores = {row["label"]: row["score"] for row in classify(self.squared(data, preprocessing))}
            return float(scores[number])

        return probability

    def _image_processor(self) -> Any:
        """Return the slow processor that a name of transformers 5 means; None leaves it to the pipeline."""
        name, variant = self._processor.kind
        if variant != "pil":
            return None
        import transformers

        values = self._processor.values()
        return getattr(transformers, name)(**{key: values[key] for key in PROCESSORS[name]})

    def _export_with_optimum(self, folder: Path, height: int, width: int) -> None:
        from detectors.backends.torch import load_model

        model = load_model(self.original, attn_implementation="eager")  # sdpa's guards cost 9 % of the graph's time
        from optimum.exporters.onnx import onnx_export_from_model

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracer warnings: the shape is fixed on purpose
            configs = fixed_size(model, height, width)
            onnx_export_from_model(
                model, folder, task="image-classification", do_validation=False, no_dynamic_axes=True,
                batch_size=1, height=height, width=width, custom_onnx_configs=configs,
            )  # fmt: skip
        if not (folder / MODEL_FILE).is_file():
            raise ModelError(f"the exporter wrote no {MODEL_FILE}")

    @cached_property
    def _processor(self) -> ProcessorConfig:
        """The published file, with the word for our letterbox if the configuration asks for it."""
        published = ProcessorConfig.read(self.original)
        return published.with_letterbox() if self.config.letterbox else published

    @cached_property
    def _config(self) -> ModelConfig:
        return ModelConfig.read(self.original)

    @property
    def _output(self) -> Output:
        """Which output counts; a sigmoid where transformers' ImageClassificationPipeline takes one.

        Of a single output it takes one whatever that was trained for: a single class is always 1, and a regression's
        value is no logit, so that its sigmoid would lie above 0.5 for every picture.
        """
        problem, is_single = self._config.problem_type, len(self._config.labels) == 1
        if is_single and problem == "regression":
            raise DetectorConfigError(
                "the network has one output and config.json says problem_type='regression': its value is no "
                "probability; 'multi_label_classification' is right for one that was trained with a sigmoid"
            )
        is_sigmoid = problem == "multi_label_classification" or (is_single and problem is None)
        return self.output(self._config.labels, "sigmoid" if is_sigmoid else "softmax")

    @property
    def _without_torch(self) -> bool:
        return self._config.is_plain_vit and (find_spec("torch") is None or find_spec("transformers") is None)


def fixed_size(model: Any, height: int, width: int) -> dict[str, Any] | None:
    """Settle a network on pictures of one size, and say how optimum is to export it where it does not know.

    A DINOv2 stretches its learnt positions to the picture at every run, in a way that ONNX can't express for those with
    registers; for one size they are constants.
    """
    if hasattr(model.config, "image_size"):
        model.config.image_size = height if height == width else (height, width)
    if not model.config.model_type.startswith("dinov2"):
        return None
    import torch
    from optimum.exporters.onnx.model_configs import Dinov2OnnxConfig

    embeddings = model.base_model.embeddings
    rows, columns = (side // model.config.patch_size for side in (height, width))
    with torch.no_grad():
        tokens = torch.zeros(1, rows * columns + 1, model.config.hidden_size)
        positions = embeddings.interpolate_pos_encoding(tokens, height, width).clone()
    embeddings.interpolate_pos_encoding = lambda *_: positions
    return {"model": Dinov2OnnxConfig(model.config, task="image-classification")}


OPSET = 20  # the first with Gelu
IR_VERSION = 10

Array = NDArray[np.float32]


def build_graph(folder: Path, height: int, width: int) -> onnx.ModelProto:
    """Build the graph: `pixel_values` (1, 3, height, width) to `logits` (1, classes).

    Raises:
        ModelError: a weight is missing, or has another shape than `config.json` says.
    """
    config = ViTConfig.read(folder)
    builder = _Builder(read_weights(folder))
    tokens = builder.embeddings(height // config.patch_size, width // config.patch_size)
    heads, eps = config.num_attention_heads, config.layer_norm_eps
    last = config.num_hidden_layers - 1
    for layer in range(last + 1):
        tokens = builder.layer(f"vit.encoder.layer.{layer}.", tokens, heads, eps, only_first=layer == last)
    logits = builder.linear(
        "classifier", builder.norm("vit.layernorm", builder.reshape(tokens, [1, -1]), eps), output="logits"
    )
    classes = builder.weight("classifier.weight").shape[0]
    graph = helper.make_graph(
        builder.nodes,
        "vit",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [1, 3, height, width])],
        [helper.make_tensor_value_info(logits, TensorProto.FLOAT, [1, classes])],
        builder.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="roadwork-miner")
    model.ir_version = IR_VERSION
    return model


class _Builder:
    """Collects nodes and initializers; every method returns the name of its output."""

    def __init__(self, weights: dict[str, Array]) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def embeddings(self, rows: int, columns: int) -> str:
        projection = "vit.embeddings.patch_embeddings.projection"
        kernel = self.weight(projection + ".weight")
        size, patch = kernel.shape[0], list(kernel.shape[2:])
        position = self.weight("vit.embeddings.position_embeddings")
        if position.shape != (1, rows * columns + 1, size):
            raise ModelError(
                f"the preprocessing gives {rows}×{columns} patches; the model has positions for {position.shape[1] - 1}"
            )
        names = [
            "pixel_values",
            self.constant("patch.weight", kernel),
            self.constant("patch.bias", self.weight(projection + ".bias")),
        ]
        patches = self.node("Conv", names, kernel_shape=patch, strides=patch)
        flat = self.reshape(patches, [1, size, rows * columns])
        sequence = self.node("Transpose", [flat], perm=[0, 2, 1])
        token = self.constant("cls_token", self.weight("vit.embeddings.cls_token"))
        tokens = self.node("Concat", [token, sequence], axis=1)
        return self.node("Add", [tokens, self.constant("position", position)])

    def layer(self, prefix: str, tokens: str, heads: int, eps: float, *, only_first: bool) -> str:
        """Add a layer; of the last one only the first token is asked for, which saves 7 % of a ViT-base's work."""
        known = self.norm(prefix + "layernorm_before", tokens, eps)
        queries, tokens = (self.first(known), self.first(tokens)) if only_first else (known, tokens)
        tokens = self.node("Add", [self.attention(prefix + "attention.", queries, known, heads), tokens])
        hidden = self.linear(prefix + "intermediate.dense", self.norm(prefix + "layernorm_after", tokens, eps))
        return self.node("Add", [self.linear(prefix + "output.dense", self.node("Gelu", [hidden])), tokens])

    def first(self, tokens: str) -> str:
        return self.node("Gather", [tokens, self.constant("zero", np.array([0], np.int64))], axis=1)

    def attention(self, prefix: str, queries: str, known: str, heads: int) -> str:
        size = self.weight(prefix + "attention.query.weight").shape[0]
        depth = size // heads
        query = self.linear(prefix + "attention.query", queries, scale=1 / math.sqrt(depth))
        key = self.linear(prefix + "attention.key", known)
        value = self.linear(prefix + "attention.value", known)
        split = [1, -1, heads, depth]
        query = self.node("Transpose", [self.reshape(query, split)], perm=[0, 2, 1, 3])
        key = self.node("Transpose", [self.reshape(key, split)], perm=[0, 2, 3, 1])
        value = self.node("Transpose", [self.reshape(value, split)], perm=[0, 2, 1, 3])
        scores = self.node("Softmax", [self.node("MatMul", [query, key])], axis=-1)
        mixed = self.node("Transpose", [self.node("MatMul", [scores, value])], perm=[0, 2, 1, 3])
        return self.linear(prefix + "output.dense", self.reshape(mixed, [1, -1, size]))

    def linear(self, name: str, value: str, scale: float = 1.0, output: str | None = None) -> str:
        weight = self.constant(
            name + ".weight", np.ascontiguousarray(self.weight(name + ".weight").T * np.float32(scale))
        )
        product = self.node("MatMul", [value, weight])
        if name + ".bias" not in self.weights:  # qkv_bias: false
            return product
        bias = self.constant(name + ".bias", self.weight(name + ".bias") * np.float32(scale))
        return self.node("Add", [product, bias], output=output)

    def norm(self, name: str, value: str, eps: float) -> str:
        names = [self.constant(f"{name}.{part}", self.weight(f"{name}.{part}")) for part in ("weight", "bias")]
        return self.node("LayerNormalization", [value, *names], axis=-1, epsilon=eps)

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        return self.node("Reshape", [value, self.constant(f"shape {list(shape)}", np.array(shape, np.int64))])

    def node(self, operator: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output or name], name=name, **attributes))
        return output or name

    def constant(self, name: str, value: NDArray[Any]) -> str:
        if all(tensor.name != name for tensor in self.initializers):
            self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, name: str) -> Array:
        refuse_missing([name] if name not in self.weights else [])
        return self.weights[name]


def numpy_reference(folder: Path, preprocessing: Preprocessing, index: int, multiple: bool) -> Callable[[bytes], float]:
    """Return the model as a function from an encoded photo to the probability of output `index`."""
    config = ViTConfig.read(folder)
    weights = read_weights(folder)

    def probability(data: bytes) -> float:
        logits = forward(weights, config, preprocessing(decode(data))[0]).astype(np.float64)
        if multiple:
            return float(1 / (1 + np.exp(-logits[index])))
        powers = np.exp(logits - logits.max())
        return float(powers[index] / powers.sum())

    return probability


def forward(weights: dict[str, Array], config: ViTConfig, pixels: Array) -> Array:
    """Return the logits, shape (classes,), of pixels of shape (3, height, width)."""
    heads, eps = config.num_attention_heads, config.layer_norm_eps

    def linear(name: str, value: Array) -> Array:
        product: Array = value @ weights[name + ".weight"].T
        return product + weights[name + ".bias"] if name + ".bias" in weights else product

    def norm(name: str, value: Array) -> Array:
        centred = value - value.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(eps))
        return np.asarray(scaled * weights[name + ".weight"] + weights[name + ".bias"], dtype=np.float32)

    def split(value: Array) -> Array:
        return value.reshape(len(value), heads, -1).swapaxes(0, 1)

    tokens = _patches(weights, pixels)
    for layer in range(config.num_hidden_layers):
        name = f"vit.encoder.layer.{layer}."
        before = norm(name + "layernorm_before", tokens)
        query, key, value = (
            split(linear(f"{name}attention.attention.{part}", before)) for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / np.float32(np.sqrt(query.shape[-1]))
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (powers / powers.sum(-1, keepdims=True)) @ value
        tokens = tokens + linear(name + "attention.output.dense", mixed.swapaxes(0, 1).reshape(tokens.shape))
        hidden = linear(name + "intermediate.dense", norm(name + "layernorm_after", tokens))
        tokens = tokens + linear(name + "output.dense", _gelu(hidden))
    logits: Array = linear("classifier", norm("vit.layernorm", tokens[:1]))[0]
    return logits


def _patches(weights: dict[str, Array], pixels: Array) -> Array:
    """Return the tokens, shape (patches + 1, size), before the first layer."""
    kernel = weights["vit.embeddings.patch_embeddings.projection.weight"]
    size, channels, patch, _ = kernel.shape
    rows, columns = pixels.shape[1] // patch, pixels.shape[2] // patch
    squares = pixels[:, : rows * patch, : columns * patch].reshape(channels, rows, patch, columns, patch)
    flat = squares.transpose(1, 3, 0, 2, 4).reshape(rows * columns, -1)
    embedded = flat @ kernel.reshape(size, -1).T + weights["vit.embeddings.patch_embeddings.projection.bias"]
    tokens = np.concatenate([weights["vit.embeddings.cls_token"][0], embedded])
    return np.asarray(tokens + weights["vit.embeddings.position_embeddings"][0], dtype=np.float32)


def _gelu(value: Array) -> Array:
    """The exact form; erf by Abramowitz and Stegun 7.1.26, whose error of 1.5e-7 is below float32's own."""
    x = np.abs(value) / np.float32(np.sqrt(2))
    t = 1 / (1 + np.float32(0.3275911) * x)
    terms = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
    polynomial = sum(np.float32(a) * t**power for power, a in enumerate(terms, start=1))
    erf = np.sign(value) * (1 - polynomial * np.exp(-x * x))
    return np.asarray(0.5 * value * (1 + erf), dtype=np.float32)
