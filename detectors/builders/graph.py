"""The graph under construction: nodes and initializers by their names."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from detectors.builders.numeric import Array
from detectors.errors import ModelError

OPSET = 20  # the first with Gelu
IR_VERSION = 10
PIXELS, LOGITS = "pixel_values", "logits"


class GraphBuilder:
    """Collects nodes and initializers for one graph; every method that adds a node returns the name of its output."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, NDArray[Any]] = {}

    def model(self, name: str, height: int, width: int, classes: int) -> onnx.ModelProto:
        """Return the whole: `pixel_values` (1, 3, height, width) to `logits` (1, classes)."""
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, [1, 3, height, width])],
            [helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [1, classes])],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="roadwork-miner")
        model.ir_version = IR_VERSION
        for initializer in list(self.initializers):  # taken out one at a time, so that none is in memory twice
            model.graph.initializer.append(numpy_helper.from_array(self.initializers.pop(initializer), initializer))
        return model

    def linear(
        self, name: str, value: str, scale: float | Array = 1.0, output: str | None = None, *, has_bias: bool = True
    ) -> str:
        """Add a product with the weights of a layer, and its bias; `scale` is of all outputs or each."""
        kernel = self.weight(name + ".weight")
        weight = self.constant(name + ".weight", np.ascontiguousarray(kernel.T * np.float32(scale)))
        if not has_bias:
            return self.node("MatMul", [value, weight], output=output)
        product = self.node("MatMul", [value, weight])
        bias = self.weight(name + ".bias", kernel.shape[:1])
        return self.node("Add", [product, self.constant(name + ".bias", bias * np.float32(scale))], output=output)

    def norm(self, name: str, value: str, eps: float) -> str:
        """Add a layer normalization along the last axis."""
        gain = self.weight(name + ".weight")
        bias = self.weight(name + ".bias", gain.shape)
        names = [self.constant(f"{name}.{part}", one) for part, one in (("weight", gain), ("bias", bias))]
        return self.node("LayerNormalization", [value, *names], axis=-1, epsilon=eps)

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        """Add a reshape; -1 is what is left."""
        return self.node("Reshape", [value, self.constant(f"shape {list(shape)}", np.array(shape, np.int64))])

    def token(self, tokens: str, place: int) -> str:
        """Add the choice of one token: (1, tokens, size) to (1, size)."""
        return self.node("Gather", [tokens, self.constant(f"place {place}", np.array(place))], axis=1)

    def part(self, value: str, start: int, stop: int | None, axis: int) -> str:
        """Add a slice along an axis; no `stop` is its end."""
        last = np.iinfo(np.int64).max if stop is None else stop
        bounds = [self.constant(f"bound {bound}", np.array([bound])) for bound in (start, last, axis)]
        return self.node("Slice", [value, *bounds])

    def mean(self, tokens: str) -> str:
        """Add the mean of tokens: (1, tokens, size) to (1, size)."""
        return self.node("ReduceMean", [tokens, self.constant("axis 1", np.array([1]))], keepdims=0)

    def node(self, operator: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        """Add a node of one output."""
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output or name], name=name, **attributes))
        return output or name

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add an initializer, once for each name."""
        if name not in self.initializers:
            self.initializers[name] = value
        return name

    def weight(self, name: str, shape: tuple[int, ...] | None = None) -> Array:
        """Return a weight of the checkpoint.

        Raises:
            ModelError: it has another shape than the one that is given, which would be stretched in silence.
        """
        found = self.weights[name]
        if shape is not None and found.shape != shape:
            raise ModelError(f"{name} has the shape {found.shape}, {shape} is needed")
        return found
