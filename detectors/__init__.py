"""Photos and models, from a photo's bytes to a probability.

They know nothing of validators, metrics or the chain, so that they can be used and tested without them.
"""

import os

# Some libraries report to their makers unless they are told not to before they are imported: what models are made of
# and how fast they run, with an identifier that they write into the home folder. Who sets one of these is obeyed.
for _name, _value in {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime, from 1.29 on; also a thread and 2 MB less
    "NNCF_CI": "1",  # its only switch
    "YOLO_OFFLINE": "true",  # of Ultralytics
    "HF_HUB_DISABLE_TELEMETRY": "1",
}.items():
    os.environ.setdefault(_name, _value)
