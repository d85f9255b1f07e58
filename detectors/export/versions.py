"""The versions of our own graph builders: a newer one's graph says the same, faster."""

from detectors.models.manifest import Manifest

PLAIN = "plain ViT graph"  # in a manifest's `made_with`
CURRENT = {PLAIN: "2"}  # 2: the last layer computes the first token alone


def is_outdated(manifest: Manifest) -> bool:
    """Return whether an older version than ours made this graph, or the graph that this one was made from."""
    made = manifest.made_with
    is_plain = manifest.detector == "ViT" and "onnx" in made and "optimum" not in made
    return is_plain and made.get(PLAIN) != CURRENT[PLAIN]
