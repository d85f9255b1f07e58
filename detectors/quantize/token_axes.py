"""The token axis of a graph: where its attention is, and which nodes read along the tokens.

The pattern is that of `detectors.builders`. A graph of another one is refused with the reason, so that no node is left
that counts on a number of tokens.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from detectors.errors import ModelError
from detectors.models.manifest import MAKE_ANEW, Manifest, is_outdated

OPSET = 18  # the first whose ReduceMean takes its axes as an input, as the nodes of a merge do
KEYS_AS_COLUMNS = [0, 2, 3, 1]  # the transposition of the keys before their product with the queries
# They treat each token alone, if their other operand is no tensor of tokens.
BY_TOKEN = {"Add", "Sub", "Mul", "Div", "Erf", "Gelu", "Relu", "Sigmoid", "Tanh", "MatMul", "Identity"}


class NoTokens(ModelError):
    """A graph whose tokens can't be merged."""


class NoAttention(NoTokens):
    """A network that has none to merge."""


@dataclass(frozen=True, slots=True)
class AttentionLayer:
    """An attention: whom the tokens ask, and where they are summed up.

    Attributes:
        softmax: its node.
        keys: their tensor, shape (1, tokens, heads, depth).
        tokens: the tensor after it, shape (1, tokens, size): the input and what attention adds to it. None: not all
            tokens ask, so none is left to merge.
    """

    softmax: str
    keys: str
    tokens: str | None


@dataclass(slots=True)
class TokenGraph:
    """A graph with its attention layers in order.

    Attributes:
        folder: of the graph's file, and of that of its weights.
        model: without the weights of a file of their own.
        layers: in order.
        tokens: how many go in.
        specials: so many of them, the first, are no patches: class, distillation, registers.
        size: numbers a token.
        means: nodes that take the mean of the patches; merged ones have to count as many.
    """

    folder: Path
    model: onnx.ModelProto
    layers: list[AttentionLayer]
    tokens: int
    specials: int
    size: int
    means: list[str] = field(default_factory=list)

    @property
    def merging(self) -> list[AttentionLayer]:
        """The layers whose tokens can be merged."""
        return [layer for layer in self.layers if layer.tokens is not None]


def read_tokens(path: Path, manifest: Manifest | None = None) -> TokenGraph:
    """Find the tokens of a graph; the manifest of its model is for the reason why there are none.

    Raises:
        NoTokens: there are none, or a node reads them in a way that merging would break.
    """
    try:
        return _read(path)
    except NoTokens as error:
        is_old = manifest is not None and is_outdated(manifest, path.parent) and not isinstance(error, NoAttention)
        cure = f"; an older exporter made this graph: {MAKE_ANEW} makes it anew" if is_old else ""
        name = manifest.name if manifest is not None else "this network"
        raise NoTokens(f"the tokens of {name} can't be merged: {error}{cure}") from None


def _read(path: Path) -> TokenGraph:
    model = onnx.load(path, load_external_data=False)
    reader = _Reader(model)
    attention = [node for node in model.graph.node if reader.is_attention(node)]
    if not attention:
        raise NoAttention("it has no attention, so it has none")
    opset = next(one.version for one in model.opset_import if not one.domain)
    if opset < OPSET:
        raise NoTokens(f"its graph has opset {opset}, and {OPSET} is needed")
    layers = [reader.layer(node) for node in attention]
    first = layers[0]
    if first.tokens is None:
        raise NoTokens("its first layer asks with some of the tokens only")
    _, tokens, size = reader.shapes[first.tokens]
    graph = TokenGraph(path.parent, model, layers, tokens, reader.specials(tokens), size)
    reader.check(graph)
    return graph


class _Reader:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producers = {name: node for node in self.nodes for name in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self.shapes = {
            value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
            for value in (*inferred.input, *inferred.value_info, *inferred.output)
        }
        self.inside: dict[str, str] = {}  # nodes that are part of an attention, and what they make of the tokens

    def is_attention(self, node: onnx.NodeProto) -> bool:
        """Return whether a softmax is over the tokens, and not over the classes."""
        return node.op_type == "Softmax" and len(self.shapes.get(node.input[0], ())) > 2

    def layer(self, softmax: onnx.NodeProto) -> AttentionLayer:
        """Follow an attention upwards to its keys and downwards to its sum."""
        product = self._above(softmax, 0)
        if product.op_type in ("Add", "Where"):
            raise NoTokens("there are positions among the attention's scores, which a merged token has none of")
        self._expect(product, "MatMul")
        columns = self._expect(self._above(product, 1), "Transpose")
        rows = self._expect(self._above(product, 0), "Transpose")
        if list(_attribute(columns, "perm", ())) != KEYS_AS_COLUMNS:
            raise NoTokens("its keys are not laid out as the builders do")
        mixed = self._expect(self._below(softmax), "MatMul")
        values = self._expect(self._above(mixed, 1), "Transpose")
        split = [self._expect(self._above(node, 0), "Reshape") for node in (rows, columns, values)]
        joined = self._expect(self._below(mixed), "Transpose")
        flat = self._expect(self._below(joined), "Reshape")
        for node in (*split, flat):
            if (target := self._constant(node.input[1])) is None or target.size < 3 or target[1] != -1:
                raise NoTokens(f"its node {node.name} has a fixed number of tokens")
        node = self._below(flat)
        while self._is_weighted(node):
            node = self._below(node)
        self._expect(node, "Add")
        shapes = [self.shapes.get(name, ()) for name in (split[1].output[0], node.output[0])]
        if [len(shape) for shape in shapes] != [4, 3] or not all(map(all, shapes)):
            raise NoTokens("its attention has no fixed shapes")
        everyone = shapes[0][1] == shapes[1][1]
        parts = (softmax, product, columns, rows, mixed, values, joined, *split)
        self.inside |= {one.name: "tokens" for one in parts} | {flat.name: "tokens" if everyone else ""}
        return AttentionLayer(softmax.name, split[1].output[0], node.output[0] if everyone else None)

    def specials(self, tokens: int) -> int:
        """Return how many tokens stand before the patches."""
        squares = next((node for node in self.nodes if node.op_type == "Conv"), None)
        shape = self.shapes.get(squares.output[0], ()) if squares is not None else ()
        if len(shape) != 4:
            raise NoTokens("it has no convolution that makes the patches")
        patches = shape[2] * shape[3]
        lasts = [
            self.shapes.get(node.input[-1], (0, 0))[1]
            for node in self.nodes
            if node.op_type == "Concat" and self.shapes.get(node.output[0], (0, 0))[1] == tokens
        ]
        if patches > tokens or (patches < tokens and patches not in lasts):
            raise NoTokens(f"its {tokens} tokens are not {patches} patches behind others")
        return int(tokens - patches)

    def check(self, graph: TokenGraph) -> None:
        """Follow the tokens from the first sum to the end, and note the means of the patches.

        Raises:
            NoTokens: a node reads along the tokens.
        """
        kinds: dict[str, str] = {graph.layers[0].tokens or "": "tokens"}
        for node in self.nodes:
            reads = {kinds[name] for name in node.input if name in kinds}
            if not reads or node.output[0] in kinds:
                continue
            kind = self.inside.get(node.name)
            if kind is None:
                kind = self._kind(node, reads, graph)
            if kind == "mean":
                graph.means.append(node.name)
            elif kind:
                kinds[node.output[0]] = kind

    def _kind(self, node: onnx.NodeProto, reads: set[str], graph: TokenGraph) -> str:
        """Return what a node makes of the tokens: `tokens`, `patches`, `mean`, or nothing of them."""
        (kind, *more), specials = reads, graph.specials
        if not more:
            if node.op_type == "LayerNormalization" and _attribute(node, "axis", -1) in (-1, 2):
                return kind
            if node.op_type in BY_TOKEN and all(map(self._is_plain, node.input)):
                return kind
            if node.op_type == "Gather" and kind == "tokens" and _attribute(node, "axis", 0) == 1:
                index = self._constant(node.input[1])
                if index is not None and bool(np.all((index >= 0) & (index < specials))):
                    return ""
            if node.op_type == "Slice":
                starts, ends, along, *steps = (_list(self._constant(name)) for name in node.input[1:])
                if along in ([2], [-1]):
                    return kind
                if along == [1] and kind == "tokens" and steps in ([], [[1]]) and len(starts) == len(ends) == 1:
                    if starts[0] == specials and ends[0] >= graph.tokens:
                        return "patches"
                    if 0 <= starts[0] < ends[0] <= specials:
                        return ""
            if node.op_type == "ReduceMean" and (kind == "patches" or not specials):
                axes = self._constant(node.input[1]) if len(node.input) > 1 else None
                if _list(axes) == [1]:
                    return "mean"
        raise NoTokens(f"its node {node.name} ({node.op_type}) reads along the tokens")

    def _is_plain(self, name: str) -> bool:
        """Return whether an operand is a tensor of tokens, or a constant that is the same for each of them."""
        tensor = self.constants.get(name)
        return tensor is None or len(tensor.dims) < 2 or self._is_matrix(name) or all(n == 1 for n in tensor.dims[:-1])

    def _is_matrix(self, name: str) -> bool:
        return len(self.constants[name].dims) == 2 and all(one.op_type == "MatMul" for one in self.consumers[name])

    def _is_weighted(self, node: onnx.NodeProto) -> bool:
        """Return whether one operand of a node is a weight: a layer's, its bias or its scale."""
        return node.op_type in ("MatMul", "Add", "Mul") and any(name in self.constants for name in node.input)

    def _above(self, node: onnx.NodeProto, number: int) -> onnx.NodeProto:
        found = self.producers.get(node.input[number])
        if found is None:
            raise NoTokens(f"its node {node.name} ({node.op_type}) is no part of an attention as the builders write it")
        return found

    def _below(self, node: onnx.NodeProto) -> onnx.NodeProto:
        found = self.consumers.get(node.output[0], [])
        if len(found) != 1:
            raise NoTokens(f"the output of its node {node.name} ({node.op_type}) has {len(found)} readers, not one")
        return found[0]

    def _expect(self, node: onnx.NodeProto, operator: str) -> onnx.NodeProto:
        if node.op_type != operator:
            raise NoTokens(f"its node {node.name} is {node.op_type} where an attention has {operator}")
        return node

    def _constant(self, name: str) -> NDArray[np.int64] | None:
        tensor = self.constants.get(name)
        return None if tensor is None else np.atleast_1d(numpy_helper.to_array(tensor))


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)


def _list(value: NDArray[np.int64] | None) -> list[int]:
    return [] if value is None else [int(one) for one in value]
