"""Exporters: original weights come in, an ONNX graph goes out.

Each also knows its library's own pipeline, which the graph is compared with.
"""
