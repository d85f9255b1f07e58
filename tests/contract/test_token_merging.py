"""Merged tokens: the graph against the paper's algorithm, what the gate lets through, and what has no tokens."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from numpy.typing import NDArray

from detectors import registry
from detectors.base import RunOptions
from detectors.builders.numeric import patches, softmax
from detectors.builders.transformer import ACTIVATIONS, VisionTransformer
from detectors.errors import ModelError
from detectors.export.export import prepare
from detectors.load import load_detector
from detectors.models import IR_FILE, MODEL_FILE, store
from detectors.models.config import DetectorConfig
from detectors.models.manifest import MAKE_ANEW, Manifest, Precision
from detectors.models.sources import model_folder
from detectors.photos.synthetic import many_pictures
from detectors.quantize.quantize import CalibrationPhotos, PrecisionRequest, make_faster
from detectors.quantize.schedule import LEAST_PHOTOS, possible, schedules
from detectors.quantize.token_axes import NoTokens, TokenGraph, read_tokens
from detectors.quantize.token_merge import PREFIX, merge, write_merged
from tests.contract.test_built_transformers import INNER, Kind, make, network_of
from tests.models import make_vit

Array = NDArray[np.float32]
Built = tuple[VisionTransformer, Path]
STARTER = Path(__file__).resolve().parents[2] / "detectors" / "starter"
LAYERS = 4


def paper_matching(keys: Array, count: int, specials: int) -> list[tuple[int, int]]:
    """Section 3 of arXiv 2210.09461: two sets in turn, an edge from each of A to its most similar of B, the best stay.

    Written from the paper for tokens one by one, with nothing of the graph's. Returns (from, to), as rows.
    """
    first, second = range(specials, len(keys), 2), range(specials + 1, len(keys), 2)

    def cosine(a: int, b: int) -> float:
        one, other = keys[a].astype(np.float64), keys[b].astype(np.float64)
        return float(one @ other / np.sqrt((one @ one) * (other @ other)))

    edges = []
    for a in first:
        score, b = max((cosine(a, b), b) for b in second)
        edges.append((score, a, b))
    return [(a, b) for _, a, b in sorted(edges, reverse=True)[:count]]


def paper_merge(tokens: Array, sizes: Array, edges: Sequence[tuple[int, int]], specials: int) -> tuple[Array, Array]:
    """Average the connected tokens by their sizes, and put both sets together again, the most similar of A first."""
    groups = {row: [row] for row in range(len(tokens))}
    for a, b in edges:
        groups[b] += groups.pop(a)
    rows = [groups[row] for row in sorted(groups)]
    mean = [np.average(tokens[members], axis=0, weights=sizes[members]) for members in rows]
    return np.array(mean, np.float32), np.array([sizes[members].sum() for members in rows], np.float32)


def paper_forward(network: VisionTransformer, pixels: Array, counts: Sequence[int]) -> tuple[Array, Array]:
    """A network whose tokens are merged after each attention, in numpy: its logits, and the sizes at the end.

    The order within a set is another one than the graph's, which the next matching would see: so the second set is
    told by numbers that go with the tokens.
    """
    weights, names, config = network.weights, network.names, network.config
    patch = names.encoder + names.patch

    def split(value: Array) -> Array:
        return value.reshape(len(value), config.num_attention_heads, -1).swapaxes(0, 1)

    def scaled(layer: str, part: int, value: Array) -> Array:
        return value * weights[layer + names.scales[part]] if names.scales else value

    embedded = patches(pixels, weights[patch + ".weight"], weights[patch + ".bias"])
    front = [weights[names.encoder + name].reshape(-1, config.hidden_size) for name in names.tokens]
    specials = sum(map(len, front))
    tokens = np.concatenate([*front, embedded])
    tokens = tokens + network.positions(pixels.shape[1] // config.patch_size, pixels.shape[2] // config.patch_size)
    sizes = np.ones(len(tokens), np.float32)
    for number in range(config.num_hidden_layers):
        layer = f"{names.encoder}{names.layer}.{number}."
        before = network.norm(layer + names.norms[0], tokens)
        query, key, value = (
            split(network.linear(layer + name, before)) for name in (names.query, names.key, names.value)
        )
        scores = query @ key.swapaxes(1, 2) / np.float32(np.sqrt(query.shape[-1])) + np.log(sizes)
        mixed = (softmax(scores) @ value).swapaxes(0, 1).reshape(tokens.shape)
        tokens = tokens + scaled(layer, 0, network.linear(layer + names.mixed, mixed))
        keys = key.mean(axis=0)
        edges = paper_matching(keys, counts[number], specials) if number < len(counts) else []
        tokens, sizes = reordered(tokens, sizes, edges, keys, specials)
        hidden = network.linear(layer + names.up, network.norm(layer + names.norms[1], tokens))
        hidden = ACTIVATIONS[config.activation](hidden)
        tokens = tokens + scaled(layer, 1, network.linear(layer + names.down, hidden))
    tokens = network.norm(names.encoder + names.norm, tokens)
    # A head that takes the mean of the patches takes it over patches, not over tokens.
    rows = np.repeat(np.arange(len(tokens)), sizes.astype(int))
    return network.head(tokens[rows])[None], sizes


def reordered(
    tokens: Array, sizes: Array, edges: Sequence[tuple[int, int]], keys: Array, specials: int
) -> tuple[Array, Array]:
    """Merge, and lay the tokens of no patch, what is left of A (the most similar first), and B in a row."""
    if not edges:
        return tokens, sizes
    ranked = [a for a, _ in paper_matching(keys, len(keys), specials)]
    gone = {a for a, _ in edges}
    order = [*range(specials), *(a for a in ranked if a not in gone), *range(specials + 1, len(tokens), 2)]
    kept = sorted(set(range(len(tokens))) - gone)
    merged, counted = paper_merge(tokens, sizes, edges, specials)
    places = [kept.index(row) for row in order]
    return merged[places], counted[places]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vit(tmp_path_factory.mktemp("original"), num_hidden_layers=LAYERS)


SMALL = INNER | {"num_hidden_layers": LAYERS}
# An even or an odd number of patches, square or not; and what else has patches.
FAMILY = {
    "vit of 12": Kind("ViT", SMALL | {"image_size": [64, 48]}, 64, 48),
    "vit of 15": Kind("ViT", SMALL | {"image_size": [80, 48]}, 80, 48),
    "vit of 49": Kind("ViT", SMALL | {"image_size": 112}, 112, 112),
    "deit": Kind("DeiT", SMALL | {"image_size": 64}, 64, 64),
    "distilled deit": Kind("DeiT WithTeacher", SMALL | {"image_size": 64}, 64, 64),
    "dinov2": Kind("Dinov2", SMALL | {"image_size": 56, "patch_size": 14}, 56, 70),
    "giant dinov2": Kind("Dinov2", SMALL | {"image_size": 70, "patch_size": 14, "use_swiglu_ffn": True}, 70, 70),
    "registers": Kind("Dinov2WithRegisters", SMALL | {"image_size": 56, "patch_size": 14}, 56, 56),
}


@pytest.fixture(scope="module", params=FAMILY)
def vit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Return a network and its graph, everything in it drawn at random: else all keys would be nearly alike."""
    kind = FAMILY[request.param]
    network = network_of(make(kind, tmp_path_factory.mktemp("made") / "model"))
    assert isinstance(network, VisionTransformer)
    path = tmp_path_factory.mktemp("graph") / MODEL_FILE
    onnx.save_model(network.build(kind.height, kind.width), path)
    return network, path


def run(model: onnx.ModelProto, pixels: Array, *outputs: str) -> list[Array]:
    kind = onnx.TensorProto.FLOAT
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, kind, None) for name in outputs)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[Array] = session.run(None, {"pixel_values": pixels})
    return found


def picture(graph: TokenGraph, seed: int = 0) -> Array:
    shape = [axis.dim_value for axis in graph.model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("rate", [1, 2, 5, 100])
def test_the_graph_is_the_papers_algorithm(vit: Built, rate: int) -> None:
    network, path = vit
    graph = read_tokens(path)
    # Where the last layer computes no patch there is nothing to merge in it.
    assert len(graph.merging) == (LAYERS if network.asked is None else LAYERS - 1)
    counts = list(possible([rate] * len(graph.merging), graph.tokens - graph.specials))
    for seed in range(3):
        pixels = picture(graph, seed)
        (said,) = run(merge(graph, counts), pixels)
        expected, sizes = paper_forward(network, pixels[0], counts)
        assert np.allclose(said, expected, atol=1e-5)
        assert len(sizes) == graph.tokens - sum(counts)
        assert sum(sizes) == graph.tokens
        assert set(sizes[: graph.specials]) == {1}  # tokens of no patch
    (dense,) = run(merge(graph, [0] * len(counts)), picture(graph))
    assert not np.allclose(run(merge(graph, counts), picture(graph))[0], dense, atol=1e-5)


def test_merging_none_is_the_dense_graph(vit: Built) -> None:
    _, path = vit
    graph = read_tokens(path)
    found = merge(graph, [0] * len(graph.merging))
    assert found.SerializeToString() == graph.model.SerializeToString()


def test_sizes_count_every_token_and_all_shapes_are_fixed(vit: Built) -> None:
    _, path = vit
    graph = read_tokens(path)
    counts = list(possible([3] * len(graph.merging), graph.tokens - graph.specials))
    model = merge(graph, counts)
    shapes = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph.value_info
    assert all(axis.HasField("dim_value") for value in shapes for axis in value.type.tensor_type.shape.dim)
    last = [node.input[0] for node in model.graph.node if node.op_type == "Log"][-1]
    *_, sizes = run(model, picture(graph), last)
    assert sizes.shape == (graph.tokens - sum(counts), 1)
    assert sizes.sum() == graph.tokens
    assert sizes[0] == 1
    used = {name for node in model.graph.node for name in node.input}
    assert used >= {value.name for value in model.graph.initializer}  # the library warns of others


@pytest.mark.parametrize(
    ("wanted", "patches", "merged"),
    [([3, 3], 12, [3, 3]), ([9, 9, 9], 13, [6, 3, 2]), ([5, 5], 2, [0, 0]), ([5, 5], 3, [1, 0]), ([0, 4], 9, [0, 4])],
)
def test_half_of_the_patches_is_the_most_that_a_layer_merges(
    wanted: list[int], patches: int, merged: list[int]
) -> None:
    assert list(possible(wanted, patches)) == merged


@pytest.mark.parametrize("vit", [name for name in FAMILY if name.startswith("vit")], indirect=True)
def test_more_is_merged_where_tokens_are_alike(vit: Built) -> None:
    """As in a letterbox: bars of one colour, a row of patches each."""
    _, path = vit
    graph = read_tokens(path)
    bar = 16
    barred = []
    for seed in range(4):
        pixels = picture(graph, seed)
        pixels[:, :, :bar], pixels[:, :, -bar:] = -1, -1
        barred.append(pixels)

    def totals(pictures: list[Array]) -> list[int]:
        try:
            return [sum(one.merged) for one in schedules(graph, "auto", pictures)]
        except NoTokens:  # no two of noise are
            return [0]

    plain = totals([picture(graph, seed) for seed in range(4)])
    with_bars = totals(barred)
    assert with_bars[0] >= plain[0]
    assert sum(with_bars) > sum(plain)
    assert with_bars == sorted(with_bars, reverse=True), "the boldest first"


@pytest.mark.parametrize("vit", ["vit of 49"], indirect=True)
def test_weights_in_a_file_of_their_own_are_found(vit: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of every model of full size are."""
    network, path = vit
    monkeypatch.setattr(store, "LARGE_GRAPH_BYTES", 1000)
    store.write_graph(network.build(112, 112), tmp_path / MODEL_FILE)
    assert (tmp_path / f"{MODEL_FILE}.data").is_file()
    pictures = [picture(read_tokens(path))]
    beside, within = (
        [one.merged for one in schedules(read_tokens(place), "auto", pictures)]
        for place in (tmp_path / MODEL_FILE, path)
    )
    assert beside == within


LITTLE = CalibrationPhotos(many_pictures(12))


@pytest.fixture(scope="module")
def prepared(original: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[DetectorConfig, Path]:
    """Return a ViT's configuration, and the models folder with its fp32."""
    models = tmp_path_factory.mktemp("models")
    config = DetectorConfig(hf_repo=str(original), path=original / "vit.yaml")
    prepare("ViT", config, models)
    return config, models


@pytest.fixture(scope="module")
def photos() -> CalibrationPhotos:
    """Return as many as are asked for: a dozen, again and again."""
    return CalibrationPhotos([*LITTLE.data] * (LEAST_PHOTOS // len(LITTLE.data) + 1))


MERGED = [variant for variant in registry.VARIANTS if variant[0] in registry.MERGED.values()]


@pytest.mark.parametrize(
    ("precision", "backend", "rate"), [*((*variant, 13) for variant in MERGED), ("int8-merged", "onnx", "auto")]
)
def test_a_merged_graph_serves_with_what_was_measured_on_it(
    prepared: tuple[DetectorConfig, Path], photos: CalibrationPhotos, precision: Precision, backend: str, rate: Any
) -> None:
    config, models = prepared
    order = PrecisionRequest(precision, backend, models, RunOptions(), photos, 0.5, merge=rate)
    manifest = Manifest.read(make_faster(model_folder(config, models), order))
    assert (manifest.precision, manifest.backend) == (precision, backend)
    gate = manifest.gate
    assert gate is not None
    assert gate.merging is not None
    assert gate.merging.tokens == 197
    if rate == 13:
        assert gate.merging.merged == [13] * (LAYERS - 1)
        assert gate.merging.words == "R = 13: 197 → 158 tokens"
    assert gate.max_difference > 0
    assert gate.recipe == "fp32" or precision == "int8-merged"
    detector = load_detector("ViT", config, models, backend, RunOptions(), precision)
    assert detector.verify() > 0
    fp32 = load_detector("ViT", config, models, "onnx", RunOptions())
    difference = detector.predict(LITTLE.data[1]).probability - fp32.predict(LITTLE.data[1]).probability
    assert abs(difference) <= gate.max_difference + 1e-6


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_eight_bits_leave_the_matching_alone(
    prepared: tuple[DetectorConfig, Path], tmp_path: Path, backend: str
) -> None:
    """Pairs that are nearly as similar would be taken one for the other."""
    config, models = prepared
    source, target = tmp_path / "merged", tmp_path / "int8"
    graph = read_tokens(model_folder(config, models) / MODEL_FILE)
    write_merged(model_folder(config, models), source, graph, [13] * (LAYERS - 1))
    for name, recipe in registry.recipes("int8-merged", backend).items():
        folder = target / name
        folder.mkdir(parents=True)
        recipe.write(source, folder, [picture(graph, seed) for seed in range(3)], ())
        if backend == "onnx":
            nodes = onnx.load(folder / MODEL_FILE).graph.node
            makers = {output: node.op_type for node in nodes for output in node.output}
            products = [node for node in nodes if node.name.startswith(PREFIX) and node.op_type == "MatMul"]
            assert len(products) == LAYERS - 1
            assert "DequantizeLinear" not in {makers[value] for node in products for value in node.input}
        else:
            operations = openvino.Core().read_model(folder / IR_FILE).get_ops()
            named = [one for one in operations if one.get_friendly_name().startswith(PREFIX)]
            assert any(one.get_type_name() == "MatMul" for one in named)
            assert not any(one.get_type_name() == "FakeQuantize" for one in named)


def test_too_few_photos_and_made_ones_are_refused(prepared: tuple[DetectorConfig, Path]) -> None:
    config, models = prepared
    order = PrecisionRequest("merged", "onnx", models, RunOptions(), merge=13)
    for photos in (LITTLE, CalibrationPhotos([LITTLE.data[0]] * 300, made=True)):
        with pytest.raises(ModelError, match=str(LEAST_PHOTOS)):
            make_faster(model_folder(config, models), replace(order, photos=photos))


def test_more_answers_on_the_other_side_than_allowed_are_refused(
    original: Path, tmp_path: Path, photos: CalibrationPhotos
) -> None:
    """A threshold between what the dense graph and the merged one say of a picture."""
    config = DetectorConfig(hf_repo=str(original), path=original / "vit.yaml")
    folder = prepare("ViT", config, tmp_path)
    order = PrecisionRequest("merged", "onnx", tmp_path, RunOptions(), photos, merge=90)
    make_faster(folder, replace(order, max_flips=1.0))
    said = [
        load_detector("ViT", config, tmp_path, "onnx", RunOptions(), precision).predict(LITTLE.data[1]).probability
        for precision in ("fp32", "merged")
    ]
    assert said[0] != said[1]
    manifest = Manifest.read(folder)
    manifest.model_copy(update={"threshold": sum(said) / 2}).write(folder)
    with pytest.raises(ModelError, match=r"merged.*gate"):
        make_faster(folder, order)


def test_a_network_without_tokens_is_refused_by_its_reason(tmp_path: Path, photos: CalibrationPhotos) -> None:
    with pytest.raises(NoTokens, match="no attention"):
        read_tokens(STARTER / MODEL_FILE)
    with pytest.raises(NoTokens):
        make_faster(STARTER, PrecisionRequest("int8-merged", "onnx", tmp_path, RunOptions(), photos, merge="auto"))
    assert not list(tmp_path.rglob("*.partial"))


def broken(graph: onnx.GraphProto, kind: str) -> None:
    """Put into a ViT's graph what merging would break."""
    (softmax, *_) = (node for node in graph.node if node.op_type == "Softmax")
    helper, constant = onnx.helper, onnx.numpy_helper.from_array
    if kind == "positions":
        graph.initializer.append(constant(np.zeros((1, 1, 1, 197), np.float32), "bias"))
        graph.node.insert(
            [*graph.node].index(softmax), helper.make_node("Add", [softmax.input[0], "bias"], ["biased"], name="biased")
        )
        softmax.input[0] = "biased"
    elif kind == "along":
        norm = [node for node in graph.node if node.op_type == "LayerNormalization"][3]
        graph.initializer.append(constant(np.ones((1, 197, 64), np.float32), "every"))
        graph.node.insert(
            [*graph.node].index(norm), helper.make_node("Mul", [norm.input[0], "every"], ["scaled"], name="scaled")
        )
        norm.input[0] = "scaled"
    else:
        for tensor in graph.initializer:
            if tensor.name == "shape [1, -1, 2, 32]":
                tensor.CopyFrom(constant(np.array([1, 197, 2, 32]), tensor.name))


@pytest.mark.parametrize(
    ("kind", "reason"), [("positions", "positions among"), ("along", "scaled .*along"), ("fixed", "fixed number")]
)
def test_what_merging_would_break_is_refused_by_its_reason(
    prepared: tuple[DetectorConfig, Path], tmp_path: Path, kind: str, reason: str
) -> None:
    config, models = prepared
    model = onnx.load(model_folder(config, models) / MODEL_FILE)
    broken(model.graph, kind)
    onnx.save_model(model, tmp_path / MODEL_FILE)
    shutil.copyfile(model_folder(config, models) / "config.json", tmp_path / "config.json")
    manifest = Manifest.read(model_folder(config, models))
    for made_with, is_cured in ((manifest.made_with, False), ({"optimum": "2.1.0"}, True)):
        with pytest.raises(NoTokens, match=reason) as caught:
            read_tokens(tmp_path / MODEL_FILE, manifest.model_copy(update={"made_with": made_with}))
        assert (MAKE_ANEW in str(caught.value)) == is_cured
