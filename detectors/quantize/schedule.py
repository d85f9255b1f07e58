"""The schedule of a merge: how many tokens each layer merges, the same number or as many as are alike there."""

import os
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import onnxruntime

from detectors.models.manifest import TokenMerging
from detectors.quantize import CALIBRATION, Inputs
from detectors.quantize.token_axes import NoTokens, TokenGraph
from detectors.quantize.token_merge import THRESHOLD, probe

AUTO = "auto"
MergeRequest = int | Literal["auto"]  # so many tokens a layer, or as many as are alike
LEAST_JUDGED = 200  # photos, of which one may change sides: 0.5 %
LEAST_PHOTOS = LEAST_JUDGED + CALIBRATION  # as those that are calibrated on are not judged
# Cosines of two tokens' keys from which on they are merged, the boldest first.
SIMILARITIES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
QUARTILE = 0.25  # three photos in four have at least so many pairs that are alike


def why_too_few(photos: int, *, made: bool) -> str:
    """Return why these photos can't show what merging costs; empty: they can."""
    if photos >= LEAST_PHOTOS and not made:
        return ""
    return (
        f"merging tokens takes at least {LEAST_PHOTOS} of your photos, {CALIBRATION} to calibrate on and "
        f"{LEAST_JUDGED} to be judged on, and {0 if made else photos} are given"
    )


def schedules(graph: TokenGraph, request: MergeRequest, inputs: Inputs) -> Iterator[TokenMerging]:
    """Yield what is to be tried in turn: one schedule, or for `auto` several, the fastest first.

    Args:
        graph: its tokens.
        request: what was asked for.
        inputs: preprocessed photos of the operator's, which `auto` looks for tokens that are alike in.

    Raises:
        NoTokens: there are no two tokens to merge, or none that are alike.
    """
    wanted = _alike(graph, inputs) if isinstance(request, str) else iter([[request] * len(graph.merging)])
    tried: set[tuple[int, ...]] = set()
    for counts in wanted:
        merged = tuple(possible(counts, graph.tokens - graph.specials))
        if any(merged) and merged not in tried:
            tried.add(merged)
            yield TokenMerging(tokens=graph.tokens, merged=list(merged))
    if not tried:
        raise NoTokens(f"there are no two tokens that {'are alike' if request == AUTO else 'could be merged'}")


def possible(counts: Sequence[int], patches: int) -> Iterator[int]:
    """Yield the counts as far as there are pairs: at most half of the patches a layer, and two stay."""
    for count in counts:
        merged = max(0, min(count, patches // 2, patches - 2))
        patches -= merged
        yield merged


def _alike(graph: TokenGraph, inputs: Inputs) -> Iterator[list[int]]:
    """Yield for each similarity how many pairs of a layer's tokens have it, in most of the photos."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # A large graph's weights stay in their file, which is looked for beside the process otherwise.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.fspath(graph.folder))
    session = onnxruntime.InferenceSession(
        probe(graph).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    entry = session.get_inputs()[0].name
    for similarity in SIMILARITIES:
        limit = np.array(similarity, np.float32)
        found = [session.run(None, {entry: array, THRESHOLD: limit}) for array in inputs]
        counts = np.array(found).reshape(len(inputs), -1)
        yield [int(count) for count in np.quantile(counts, QUARTILE, axis=0, method="lower")]
