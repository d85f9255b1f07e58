"""The exporter of an ONNX file of one's own: checked, and brought to one picture, its channels first, in fp32."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.tools.onnx_model_utils import make_input_shape_fixed

from detectors.errors import DetectorConfigError, ModelError, library_errors
from detectors.export.export import MAX_DIFFERENCE, Exporter
from detectors.models import MODEL_FILE
from detectors.models.config import usable
from detectors.models.documents import LFS_POINTER, shown, some
from detectors.models.hf_config import MAX_SIDE, PROCESSOR_FILE
from detectors.models.labels import refuse_constant
from detectors.models.manifest import NO_REFERENCE, Output, Parity
from detectors.models.processors import ULTRALYTICS
from detectors.models.store import write_graph
from detectors.network import Network
from detectors.photos.image import decode

MOST_BYTES = 2**31 - 1  # bytes that protobuf reads
KNOWN_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}  # of operators that onnxruntime brings
SUMS_TO = 1e-3  # from 1
SHAPERS = {
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "Cast",
    "Transpose",
}  # no number is another by them
LINEAR = {"Gemm", "MatMul", "Conv"}  # a network's last layer, before its bias
HALF_DIFFERENCE = 10 * MAX_DIFFERENCE  # of a graph in 16 bits, which is served in 32
AGAIN = "export it again, with an opset that this onnxruntime knows and without operators of your own"
Array = NDArray[np.float32]


class OnnxFileExporter(Exporter):
    """A graph that is taken as it is, but for its shape, the order of its channels and 16 bits."""

    @property
    def kind(self) -> str:
        """What it is called in messages."""
        return "ONNX file"

    @property
    def packages(self) -> tuple[str, ...]:
        """Nothing but what serves."""
        return ("onnx",)

    @property
    def reference_name(self) -> str:
        """There is none."""
        return NO_REFERENCE

    def reference(self) -> Callable[[bytes], float]:
        """Refuse: what made the graph is not known."""
        raise ModelError(f"{self.original.name}: an ONNX file has no library to be compared with")

    def write(self, folder: Path) -> Output:
        """Write the graph for one picture, and its preprocessing."""
        labels = self.config.labels or []
        is_single, is_done = len(labels) == 1, self.config.output == "probability"
        output = self.output(
            dict(enumerate(labels)),
            ("probability" if is_done else "sigmoid") if is_single else "none" if is_done else "softmax",
        )
        model = _read(self.original)
        name, size = self._input(model.graph)
        (folder / PROCESSOR_FILE).write_text(json.dumps(self._processor(*size), indent=2) + "\n", encoding="utf-8")
        shape = (1, 3, *size)
        what = f"{self.original.name} can't be run with one picture of {size[0]} × {size[1]} pixels"
        with library_errors(what, "input_size may be another one, or the graph is bound to other sizes"):
            outputs = self._run(np.zeros(shape, np.float32))
        chosen = self._output_of(model.graph, outputs)
        _load_weights(model, self.original.parent)
        make_input_shape_fixed(model.graph, name, (1, *size, 3) if self._is_nhwc else shape)
        _widen(model)
        if self._is_nhwc:
            _put_channels_first(model.graph, name, shape)
        _keep_output(model.graph, chosen, outputs[chosen], len(labels))
        write_graph(model, folder / MODEL_FILE)
        return output

    def compare(self, exported: Network, photos: Sequence[bytes]) -> Parity:
        """Compare with the file as it was, and look whether its numbers can be what `output` says."""
        arrays = [exported.preprocessing(decode(photo)) for photo in photos]
        ours = [exported.backend.run(array) for array in arrays]
        graph = _read(self.original).graph
        chosen = self._output_of(graph, self._run(arrays[0]))
        self._check_values(np.concatenate(ours).astype(np.float64), _last_operator(graph, chosen))
        theirs = [self._run(array)[chosen].astype(np.float32).reshape(1, -1) for array in arrays]
        pairs = zip(ours, theirs, strict=True)
        differences = [abs(exported.probability(one) - exported.probability(other)) for one, other in pairs]
        allowed = HALF_DIFFERENCE if self._is_half else MAX_DIFFERENCE
        if not max(differences) <= allowed:
            raise ModelError(
                f"{self.original.name} answers otherwise for one picture in fp32: by up to {max(differences):.2g}, "
                f"and at most {allowed} is allowed"
            )
        return Parity(
            reference=NO_REFERENCE,
            pictures=len(photos),
            max_difference=max(differences),
            mean_difference=sum(differences) / len(differences),
        )

    def _check_values(self, rows: NDArray[np.float64], last: str) -> None:
        """Refuse numbers that are not what `output` says, on any of the pictures.

        A single number may lie within 0 and 1 by chance: what the graph ends in decides then.
        """
        if not np.isfinite(rows).all():
            raise ModelError(f"{self.original.name} has no number for a picture: its output is not finite")
        is_single = rows.shape[1] == 1
        sums = rows.sum(axis=1)
        within = bool((rows >= -SUMS_TO).all() and (rows <= 1 + SUMS_TO).all())
        are_shares = within and (is_single or bool(np.abs(sums - 1).max() <= SUMS_TO))
        said = f"its outputs are from {rows.min():.4g} to {rows.max():.4g}"
        if not is_single:
            said += f" and add up to {sums.min():.4g} to {sums.max():.4g}"
        if self.config.output == "probability" and not are_shares:
            raise DetectorConfigError(
                f"output=probability: {said}, and probabilities are from 0 to 1 and add up to 1: "
                f"output: logits is right where the graph ends before its softmax or sigmoid"
            )
        if self.config.output == "logits" and are_shares and not (is_single and last in LINEAR):
            raise DetectorConfigError(
                f"output=logits: {said}, as probabilities do, and the graph ends in {last}: output: probability is "
                f"right where that is its softmax or sigmoid"
                + ("; of logits that lie there by chance, let the graph end in a Sigmoid" if is_single else "")
            )
        if self.config.output == "probability" and is_single and last in LINEAR:
            raise DetectorConfigError(
                f"output=probability: {said}, but the graph ends in {last}, without a sigmoid: output: logits is right"
            )
        if is_single and self.config.output == "probability" and (rows == 1).all():
            refuse_constant(self.config.labels or [], "softmax")

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        with library_errors(f"{self.original.name} can't be run by onnxruntime {onnxruntime.__version__}", AGAIN):
            return onnxruntime.InferenceSession(str(self.original), options, providers=["CPUExecutionProvider"])

    def _run(self, array: Array) -> list[NDArray[Any]]:
        (given,) = self._session.get_inputs()
        turned = array.transpose(0, 2, 3, 1) if self._is_nhwc else array
        return list(self._session.run(None, {given.name: turned.astype(np.float16 if self._is_half else np.float32)}))

    @property
    def _is_half(self) -> bool:
        return bool(self._session.get_inputs()[0].type == "tensor(float16)")

    @property
    def _is_nhwc(self) -> bool:
        dimensions = self._session.get_inputs()[0].shape
        return bool(dimensions[1] != 3 and dimensions[3] == 3)

    def _input(self, graph: Any) -> tuple[str, tuple[int, int]]:
        """Return the name of the input, and the height and width of a picture."""
        inputs, path = self._session.get_inputs(), self.original.name
        if len(inputs) != 1:
            raise ModelError(f"{path} has {len(inputs)} inputs ({some([one.name for one in inputs])}); one is allowed")
        (given,) = inputs
        dimensions = given.shape
        words = f"{path}: its input {shown(given.name)} is {given.type} {list(dimensions)}"
        if given.type not in ("tensor(float)", "tensor(float16)"):
            raise ModelError(f"{words}: float32 or float16 is allowed, without a normalisation of its own")
        if len(dimensions) != 4 or dimensions[0] not in (1, None) and not isinstance(dimensions[0], str):  # noqa: RUF021
            raise ModelError(f"{words}: one picture is needed, 1 × 3 × height × width, or any number of them")
        channels, sides = (dimensions[3], dimensions[1:3]) if self._is_nhwc else (dimensions[1], dimensions[2:])
        if isinstance(channels, int) and channels != 3:
            raise ModelError(f"{words}: three channels are needed, red, green and blue")
        # An input with a value of its own is none that anybody gives.
        constants = {tensor.name for tensor in graph.initializer}
        kept = [one for one in graph.input if one.name not in constants]
        del graph.input[:]
        graph.input.extend(kept)
        asked = self.config.input_size
        open_ = [side for side in sides if not isinstance(side, int)]
        if asked is None and open_:
            raise DetectorConfigError(f"{words}: it takes any size: input_size is needed, N or [height, width]")
        size = asked or (sides[0], sides[1])
        if any(isinstance(side, int) and side != wanted for side, wanted in zip(sides, size, strict=True)):
            raise DetectorConfigError(f"input_size={list(size)}: {words}")
        return given.name, size

    def _output_of(self, graph: Any, outputs: Sequence[NDArray[Any]]) -> int:
        """Return which output has one number for each label."""
        count = len(self.config.labels or [])
        arrays = {number: one for number, one in enumerate(outputs) if isinstance(one, np.ndarray)}
        found = [number for number, one in arrays.items() if one.dtype.kind == "f" and _is_row(one.shape, count)]
        others = [one for number, one in enumerate(self._session.get_outputs()) if number not in arrays]
        if not found and others:
            raise DetectorConfigError(
                f"{self.original.name}: its output {shown(others[0].name)} is {others[0].type}, as scikit-learn's "
                f"ZipMap makes it, and an array with a number for each label is needed: export it without: "
                f"options={{'zipmap': False}} of skl2onnx's to_onnx, zipmap=False of onnxmltools"
            )
        if len(found) != 1:
            names = [f"{graph.output[number].name} {list(one.shape)}" for number, one in arrays.items()]
            raise DetectorConfigError(
                f"labels={shown(self.config.labels)}: {len(found) or 'no'} outputs of {self.original.name} have "
                f"{count} numbers; one is needed: its outputs are {some(names)}"
            )
        return found[0]

    def _processor(self, height: int, width: int) -> dict[str, Any]:
        """Return the preprocessing in a Hugging Face model's words; torchvision's steps on Pillow's pictures."""
        config = self.config
        mean, std = config.mean, config.std
        assert isinstance(mean, list)  # one number is made three, and both are needed
        assert isinstance(std, list)
        try:
            white = unit(mean, std)
        except ValueError as error:
            raise DetectorConfigError(f"{config.path.name}: mean={shown(mean)}, std={shown(std)}: {error}") from error
        size = {"height": height, "width": width}
        resized: dict[str, int] = size
        if config.crop is not None:
            if config.crop <= 1 and height != width:
                raise DetectorConfigError(
                    f"crop={config.crop:g}: of an input of {height} × {width} pixels, what the shorter side is resized "
                    f"to before the crop is needed (pixels)"
                )
            edge = int(height / config.crop) if config.crop <= 1 else int(config.crop)
            if edge > MAX_SIDE:
                raise DetectorConfigError(
                    f"crop={config.crop:g}: the shorter side would be resized to {edge} pixels before the crop, and "
                    f"{MAX_SIDE} are allowed: a share of {height / MAX_SIDE:.3g} to 1 of an input of {height}"
                )
            if edge < max(height, width):
                raise DetectorConfigError(f"crop={config.crop:g}: an input of {height} × {width} pixels is larger")
            resized = {"shortest_edge": edge}
        return {
            "image_processor_type": ULTRALYTICS,
            "size": resized,
            "resample": config.resample,
            "do_center_crop": config.crop is not None,
            "crop_size": size,
            "image_mean": [value / white for value in mean],
            "image_std": [value / white for value in std],
        } | ({"letterbox": True} if config.letterbox else {})


def unit(mean: Sequence[float], std: Sequence[float]) -> float:
    """Return what a white pixel counts as where mean and deviation were taken: 1, or 255 if a number is above 1.

    Raises:
        ValueError: one of them is of 0 to 1, and the other of 0 to 255.
    """
    above = [max(values) > 1 for values in (mean, std)]
    if above[0] and min(std) < 1:
        raise ValueError("mean is of pixels from 0 to 255, and std of pixels from 0 to 1")
    if above[1] and 0 < max(mean) <= 1:
        raise ValueError("mean is of pixels from 0 to 1, and std of pixels from 0 to 255")
    return 255.0 if any(above) else 1.0


def _read(path: Path) -> Any:
    """Read a graph without the weights beside it, and refuse what can't be one."""
    if not path.is_file():
        raise ModelError(f"{path} is no file (onnx_path)")
    if path.stat().st_size > MOST_BYTES:
        raise ModelError(f"{path} has more than 2 GB, which no ONNX file can: save it with its weights beside it")
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ModelError(f"{path} is a git-LFS pointer, not the file: fetch it with `git lfs pull`")
    with library_errors(f"{path} is no ONNX file", "the file that torch.onnx.export or the like has written is needed"):
        model = onnx.load(path, load_external_data=False)
    if not model.graph.node:
        raise ModelError(f"{path} is no ONNX file: there is no graph in it")
    own = {function.domain for function in model.functions}
    nodes = [one for one in _messages(model) if isinstance(one, onnx.NodeProto)]
    custom = sorted({f"{one.domain}:{one.op_type}" for one in nodes if one.domain not in KNOWN_DOMAINS | own})
    if custom:
        raise ModelError(f"{path} has operators that are not ONNX's: {some(custom)}: {AGAIN}")
    for tensor in [one for one in _messages(model) if isinstance(one, TensorProto) and one.external_data]:
        names = [pair.value for pair in tensor.external_data if pair.key == "location"]
        name = names[0] if len(names) == 1 else ""
        # A hub's cache has links beside each other, and all files in another folder: as onnxruntime allows it.
        folders = (path.parent.resolve(), path.resolve().parent)
        with usable(f"{path} names weights in {shown(name)}"):
            beside = (path.parent / name).resolve()
            if Path(name).is_absolute() or not any(beside.is_relative_to(folder) for folder in folders):
                raise ModelError(f"{path} names weights in {shown(name)}: files of its own folder are allowed")
            if not beside.is_file():
                raise ModelError(f"{path} has weights in {shown(name)}, which is not beside it")
    return model


def _load_weights(model: Any, folder: Path) -> None:
    """Load the weights beside a graph; onnx's own function follows no link."""
    for tensor in [one for one in _messages(model) if isinstance(one, TensorProto) and one.external_data]:
        (location,) = (pair for pair in tensor.external_data if pair.key == "location")
        file = (folder / location.value).resolve()
        location.value = file.name
        onnx.external_data_helper.load_external_data_for_tensor(tensor, str(file.parent))
        tensor.data_location = TensorProto.DEFAULT  # older onnx leave that to the caller
        del tensor.external_data[:]


def _messages(message: Any) -> Iterator[Any]:
    """Yield a protobuf message and all that are within it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in [value] if hasattr(value, "ListFields") else list(value):
                yield from _messages(one)


def _widen(model: Any) -> None:
    """Make 16 bits 32, in weights, casts and declarations: what is compared and quantised is in fp32."""
    for one in list(_messages(model)):
        if isinstance(one, TensorProto) and one.data_type == TensorProto.FLOAT16:
            one.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(one).astype(np.float32), one.name))
        elif isinstance(one, onnx.TypeProto.Tensor) and one.elem_type == TensorProto.FLOAT16:
            one.elem_type = TensorProto.FLOAT
        elif isinstance(one, onnx.AttributeProto) and one.name in ("to", "dtype") and one.i == TensorProto.FLOAT16:
            one.i = TensorProto.FLOAT


def _put_channels_first(graph: Any, name: str, shape: Sequence[int]) -> None:
    turned = helper.make_node("Transpose", [f"{name}_channels_first"], [name], perm=[0, 2, 3, 1])
    graph.node.insert(0, turned)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(turned.input[0], TensorProto.FLOAT, shape))


def _keep_output(graph: Any, number: int, value: NDArray[Any], count: int) -> None:
    """Keep one output, of shape (1, classes), in fp32."""
    name = graph.output[number].name
    if value.dtype == np.float64:
        graph.node.append(helper.make_node("Cast", [name], [f"{name}_fp32"], to=TensorProto.FLOAT))
        name = f"{name}_fp32"
    if value.shape != (1, count):
        row = f"{name}_row"
        graph.initializer.append(numpy_helper.from_array(np.array([1, count], np.int64), f"{row}_shape"))
        graph.node.append(helper.make_node("Reshape", [name, f"{row}_shape"], [row]))
        name = row
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, count]))


def _last_operator(graph: Any, number: int) -> str:
    """Return the operator that an output's numbers are from, a bias apart; the sum of two results is none."""
    makers = {name: node for node in graph.node for name in node.output}
    constants = {one.name for one in graph.initializer}
    constants |= {name for name, node in makers.items() if node.op_type == "Constant"}
    node = makers.get(graph.output[number].name)
    while node is not None:
        computed = [name for name in node.input if name not in constants]
        if node.op_type not in SHAPERS and not (node.op_type == "Add" and len(computed) == 1):
            return str(node.op_type)
        node = makers.get(computed[0]) if computed else None
    return "no operator"


def _is_row(shape: Sequence[int], count: int) -> bool:
    return [side for side in shape if side != 1] == [count] * (count != 1)
