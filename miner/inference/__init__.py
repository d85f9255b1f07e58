"""From an admitted photo to its probability: queue, slots, the loaded model and its health."""
