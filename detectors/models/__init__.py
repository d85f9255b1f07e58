"""Model files: configuration, manifest, original weights and class labels."""

MODEL_FILE = "model.onnx"
IR_FILE = "model.xml"  # OpenVINO's own format, with its weights in model.bin
MANIFEST_FILE = "manifest.json"
