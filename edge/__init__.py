"""An edge-device inference runtime: frames in over MQTT, verdicts out in time."""

__version__ = "0.1.0"
