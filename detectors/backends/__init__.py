"""What runs a graph, and the names of the files in a model folder."""

MODEL_FILE = "model.onnx"
IR_FILE = "model.xml"  # OpenVINO's own format, with its weights in model.bin
MANIFEST_FILE = "manifest.json"
