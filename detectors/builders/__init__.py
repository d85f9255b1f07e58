"""Builders: a model's config.json and safetensors come in, an ONNX graph made without torch goes out.

Each also runs its network in numpy, which the graph is compared with where there is no torch.
"""
