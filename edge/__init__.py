"""An edge-device inference runtime: frames in over MQTT, verdicts out in time."""

import os

__version__ = "0.1.0"

# ONNX Runtime 1.29 and later tell Microsoft about each session (names and digests of models among
# it), unless this stands in the environment before it is loaded. Here, so that no process of ours,
# and no child of one, is without it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
