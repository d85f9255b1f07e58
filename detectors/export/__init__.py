"""From original weights to an ONNX graph; each exporter also knows its library's own pipeline, to compare with."""
