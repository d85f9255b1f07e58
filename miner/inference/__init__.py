"""Inference: an admitted photo comes in, its probability goes out; queue, slots, the model and its health."""
