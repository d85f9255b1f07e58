"""What runs a graph."""

MODEL_FILE = "model.onnx"
