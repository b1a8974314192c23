"""The collector's config: one TOML file, by the rules of the device config.

Frozen, unknown keys refused, secrets as paths of files. The broker's section is the device's own.
"""

from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from edge import config
from edge.config import BrokerSection, File, LogSection, Section

_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
_REMEDY: Final = "docs/fleet.md lists all keys"
SCHEMES: Final = ("sqlite", "postgresql")


class StoreSection(Section):
    """Where records are kept."""

    url: str = Field(
        "sqlite:///var/lib/edge-collect/fleet.db",
        max_length=1_000,
        description="sqlite:// and an absolute path, or postgresql://USER@HOST/DATABASE.",
    )
    password_file: File | None = Field(
        None, description="PostgreSQL: file whose first line is the password."
    )
    max_device_bytes: int = Field(
        20 << 30,
        ge=1 << 20,
        le=1 << 50,
        description="Records kept of one device, of all its ledgers, bytes.",
    )
    max_devices: int = Field(1_000, ge=1, le=100_000, description="Devices taken in.")

    @model_validator(mode="after")
    def _url_is_one_of_ours(self) -> Self:
        try:
            parts = urlsplit(self.url)
            password = parts.password
        except ValueError as wrong:
            raise ValueError(f"url: {wrong}") from None
        if parts.scheme not in SCHEMES:
            raise ValueError("url begins with sqlite:// or postgresql://")
        if password is not None:
            raise ValueError("url carries a password: put it into a file, as password_file")
        if parts.scheme == "sqlite" and (parts.netloc or not parts.path.startswith("/")):
            raise ValueError("url: sqlite:// is followed by an absolute path, with three slashes")
        return self


class CollectSection(Section):
    """How records are taken in, and what is worth an alarm."""

    name: str = Field("collect", pattern=_NAME, description="Name of this collector.")
    share: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_-]{0,64}$",
        description="Shared subscription group, where several collectors use one database.",
    )
    max_record_bytes: int = Field(
        256 << 10, ge=1 << 10, le=16 << 20, description="Largest record taken, bytes."
    )
    silent_after_s: float = Field(
        300.0, gt=0, le=86_400, description="Seconds without a sign of a device until its alarm."
    )
    gap_after_s: float = Field(
        60.0, gt=0, le=86_400, description="Seconds that a missing record may be late."
    )
    device_keys: File | None = Field(
        None, description="File of the devices' public keys (vkey), one a line."
    )
    witness_key: File | None = Field(
        None, description="Private key that cosigns checkpoints; none: nothing is cosigned."
    )
    witness_name: str = Field(
        "edge-fleet",
        pattern=r"^[!-*,-~]{1,200}$",
        description="Name of that key, the same for all collectors that have it.",
    )
    receipt_interval_s: float = Field(
        0.1, gt=0, le=60, description="Seconds between receipts to one device."
    )
    status_interval_s: float = Field(
        5.0, ge=0.1, le=3_600, description="Seconds between status messages and looks at alarms."
    )


class CollectConfig(Section):
    """The whole config of `edge fleet collect`."""

    broker: BrokerSection = Field(default_factory=BrokerSection)
    store: StoreSection = Field(default_factory=StoreSection)
    collect: CollectSection = Field(default_factory=CollectSection)
    log: LogSection = Field(default_factory=LogSection)


def load(path: Path, overrides: tuple[str, ...] = ()) -> CollectConfig:
    """Read the collector's config.

    Raises:
        ConfigError: The file cannot be read, is not TOML, or a key is unknown or out of range.
    """
    return config.load_as(CollectConfig, path, overrides, _REMEDY)
