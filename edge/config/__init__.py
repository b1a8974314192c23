"""The device config: one TOML file, read once, frozen; each room is handed its own section.

Nothing else in the product reads settings, and nothing reads the environment. Secrets are paths of
files.
"""

from edge.config.reading import MAX_FILE_BYTES, explain, lay_over, load, load_as, parse
from edge.config.sections import (
    PROVIDERS,
    Binding,
    BindingsSection,
    BrokerSection,
    ClockSection,
    DeadlineSection,
    DeviceConfig,
    File,
    InferenceSection,
    KeptFramesSection,
    LedgerSection,
    LogSection,
    Section,
    StorageSection,
    TlsSection,
    TracesSection,
    UpdateSection,
    is_group,
)

__all__ = [
    "MAX_FILE_BYTES",
    "PROVIDERS",
    "Binding",
    "BindingsSection",
    "BrokerSection",
    "ClockSection",
    "DeadlineSection",
    "DeviceConfig",
    "File",
    "InferenceSection",
    "KeptFramesSection",
    "LedgerSection",
    "LogSection",
    "Section",
    "StorageSection",
    "TlsSection",
    "TracesSection",
    "UpdateSection",
    "explain",
    "is_group",
    "lay_over",
    "load",
    "load_as",
    "parse",
]
