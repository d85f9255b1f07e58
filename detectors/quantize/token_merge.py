"""Token merging (Bolya et al. 2022, arXiv 2210.09461): after each attention the tokens that are most alike become one.

Bipartite soft matching, section 3 of the paper: the patches are two sets in turn, each of the first is compared with
all of the second by the mean of its keys over the heads, and the most similar pairs become their mean. A token knows
how many patches it stands for: the mean is weighed by that, and so is attention, by its logarithm among the scores.
Tokens that are no patches are never merged. Nothing is trained.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from detectors.models import MODEL_FILE
from detectors.quantize.token_axes import TokenGraph

PREFIX = "merge/"  # of the names of all nodes that are added: quantizers leave them as they are
THRESHOLD = PREFIX + "similarity"  # the input of a probe
END = np.iinfo(np.int64).max


def write_merged(source: Path, folder: Path, graph: TokenGraph, counts: Sequence[int]) -> None:
    """Write an fp32 folder's graph with so many tokens merged in each layer that can, and copy all else but its sums.

    Weights in a file of their own are copied as they are.
    """
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file() and path.name not in (MODEL_FILE, "manifest.json"):
            shutil.copyfile(path, folder / path.name)
    onnx.save_model(merge(graph, counts), folder / MODEL_FILE)


def merge(graph: TokenGraph, counts: Sequence[int]) -> onnx.ModelProto:
    """Return the graph with so many tokens merged in each layer that can; all shapes are fixed."""
    return _Merge(graph).model(counts)


def probe(graph: TokenGraph) -> onnx.ModelProto:
    """Return the graph with a second input, the similarity from which on pairs are merged in each layer.

    Its outputs are how many these are in each layer, of this one picture.
    """
    return _Merge(graph).model(None)


def count_name(number: int) -> str:
    """Return the name of a probe's output: the pairs that the layer of this number has merged."""
    return f"{PREFIX}{number}/count"


class _Merge:
    """The nodes that are added to a graph.

    They work on the tokens as rows, as there is one picture: (tokens, size), and their sizes (tokens, 1).
    """

    def __init__(self, graph: TokenGraph) -> None:
        self._graph = graph
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._where = ""
        self._left = graph.tokens  # so many tokens, as far as is known
        self._sizes = self._constant("ones", np.ones((graph.tokens, 1), np.float32))
        self._logarithm: str | None = None  # of the sizes; None: all are 1

    def model(self, counts: Sequence[int] | None) -> onnx.ModelProto:
        graph = self._graph
        numbers = {layer.tokens: number for number, layer in enumerate(graph.merging)}
        attentions = {layer.softmax for layer in graph.layers}
        renamed: dict[str, str] = {}
        made: list[str] = []
        for original in graph.model.graph.node:
            node = onnx.NodeProto()
            node.CopyFrom(original)
            node.input[:] = [renamed.get(name, name) for name in node.input]
            self._where = node.name
            if node.name in attentions and self._logarithm is not None:
                node.input[0] = self._node("Add", [node.input[0], self._logarithm])
            if node.name in graph.means and self._logarithm is not None:
                self._weigh(node)
                continue
            self._nodes.append(node)
            output = node.output[0]
            number = numbers.get(output)
            if number is not None and (counts is None or counts[number]):
                self._where = str(number)
                keys = graph.merging[number].keys
                renamed[output] = self._merge(output, keys, None if counts is None else counts[number])
                made.append(count_name(number))
        return self._finished(made if counts is None else None)

    def _merge(self, tokens: str, keys: str, count: int | None) -> str:
        """Merge so many pairs, or all that are as similar as is asked; return the tokens that are left."""
        specials, size = self._graph.specials, self._graph.size
        compared = self._node("LpNormalization", [self._reduced("ReduceMean", keys, 2)], axis=-1, p=2)
        compared = self._node("Squeeze", [compared, self._numbers(0)])
        ours, theirs = self._slice(compared, specials, END, 2), self._slice(compared, specials + 1, END, 2)
        scores = self._node("MatMul", [ours, self._node("Transpose", [theirs], perm=[1, 0])])
        similarity = self._reduced("ReduceMax", scores, 1)
        partners = self._node("ArgMax", [scores], axis=1, keepdims=0)
        pairs = self._numbers((self._left - specials + 1) // 2) if count is not None else self._shape(similarity)
        order = self._node("TopK", [similarity, pairs], 2, axis=0)
        number = self._numbers(count) if count is not None else self._alike(similarity, theirs)
        first, rest = self._slice(order, 0, number), self._slice(order, number, END)
        targets = self._reshape(self._node("Gather", [partners, first]), [-1, 1])
        moved, receiving, *others = self._shared_out(self._reshape(tokens, [-1, size]), first, rest)
        moved_sizes, receiving_sizes, *other_sizes = self._shared_out(self._sizes, first, rest)
        weighed = [self._node("Mul", pair) for pair in ((receiving, receiving_sizes), (moved, moved_sizes))]
        sums = self._node("ScatterND", [weighed[0], targets, weighed[1]], reduction="add")
        sizes = self._node("ScatterND", [receiving_sizes, targets, moved_sizes], reduction="add")
        merged = self._node("Concat", [*others, self._node("Div", [sums, sizes])], axis=0)
        self._sizes = self._node("Concat", [*other_sizes, sizes], axis=0)
        self._logarithm = self._reshape(self._node("Log", [self._sizes]), [1, 1, 1, -1])
        self._left -= count or 0
        return self._reshape(merged, [1, -1, size])

    def _shared_out(self, rows: str, first: str, rest: str) -> list[str]:
        """Return the rows of the first set that go, of the second set; then of the specials, and of those that stay."""
        specials = self._graph.specials
        ours, theirs = self._slice(rows, specials, END, 2), self._slice(rows, specials + 1, END, 2)
        others = [self._slice(rows, 0, specials)] if specials else []
        return [self._node("Gather", [ours, first]), theirs, *others, self._node("Gather", [ours, rest])]

    def _alike(self, similarity: str, theirs: str) -> str:
        """Count the pairs from the similarity on that is asked for: at most half of the patches, and two stay."""
        alike = self._node("GreaterOrEqual", [similarity, THRESHOLD])
        number = self._node("Cast", [alike], to=TensorProto.INT64)
        number = self._node("ReduceSum", [number, self._numbers(0)], keepdims=1)
        half = self._node("Slice", [self._shape(theirs), *map(self._numbers, (0, 1))])
        both = self._node("Add", [self._shape(similarity), half])
        most = self._node("Min", [half, self._node("Sub", [both, self._numbers(2)])])
        name = count_name(int(self._where))
        self._nodes.append(helper.make_node("Min", [number, most], [name], name=f"{name}/Min"))
        return name

    def _weigh(self, mean: onnx.NodeProto) -> None:
        """Take a mean of tokens as that of the patches which they stand for."""
        graph = self._graph
        sizes = self._slice(self._sizes, graph.specials, END)
        weighed = self._node("Mul", [mean.input[0], sizes])
        keep = next((one.i for one in mean.attribute if one.name == "keepdims"), 1)
        total = self._node("ReduceSum", [weighed, self._numbers(1)], keepdims=keep)
        patches = self._constant("patches", np.array(graph.tokens - graph.specials, np.float32))
        self._nodes.append(helper.make_node("Div", [total, patches], list(mean.output), name=PREFIX + mean.name))

    def _finished(self, counts: list[str] | None) -> onnx.ModelProto:
        found = onnx.ModelProto()
        found.CopyFrom(self._graph.model)
        graph = found.graph
        del graph.node[:]
        del graph.value_info[:]
        graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        # Whatever else the library finds in a graph it warns of, in the middle of a progress bar.
        kept = [value for value in graph.initializer if value.name in used]
        del graph.initializer[:]
        graph.initializer.extend([*kept, *(value for name, value in self._constants.items() if name in used)])
        if counts is not None:
            graph.input.append(helper.make_tensor_value_info(THRESHOLD, TensorProto.FLOAT, []))
            del graph.output[:]
            graph.output.extend(helper.make_tensor_value_info(name, TensorProto.INT64, [1]) for name in counts)
        return found

    def _node(self, operator: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> str:
        """Add a node; return the last of its outputs, which is that of interest."""
        name = f"{PREFIX}{self._where}/{operator}_{len(self._nodes)}"
        made = [f"{name}:{number}" for number in range(outputs)]
        self._nodes.append(helper.make_node(operator, inputs, made, name=name, **attributes))
        return made[-1]

    def _reduced(self, operator: str, value: str, axis: int) -> str:
        return self._node(operator, [value, self._numbers(axis)], keepdims=0)

    def _reshape(self, value: str, shape: Sequence[int]) -> str:
        return self._node("Reshape", [value, self._numbers(*shape)])

    def _shape(self, value: str) -> str:
        return self._node("Shape", [value])

    def _slice(self, value: str, start: int | str, end: int | str, step: int = 1) -> str:
        """Return every so manieth row from a first one on."""
        bounds = [self._numbers(bound) if isinstance(bound, int) else bound for bound in (start, end)]
        return self._node("Slice", [value, *bounds, self._numbers(0), self._numbers(step)])

    def _numbers(self, *values: int) -> str:
        return self._constant(" ".join(map(str, values)), np.array(values, np.int64))

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        name = f"{PREFIX}constant {name}"
        self._constants.setdefault(name, numpy_helper.from_array(value, name))
        return name
