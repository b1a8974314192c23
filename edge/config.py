"""The device config: one TOML file, read once, frozen; each room is handed its own section.

Nothing else in the product reads settings, and nothing reads the environment. Secrets are paths
of files. The JSON Schema in `device_configs/schema.json` is generated from these models.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge.errors import ConfigError

Port = Annotated[int, Field(ge=1, le=65_535)]
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DeviceSection(Section):
    """Who this box is."""

    id: str = Field("box1", pattern=_NAME, description="Name of this device; part of its topics.")
    description: str = Field("", max_length=200, description="Free text for people.")


class TlsSection(Section):
    """TLS to the broker."""

    ca_file: Path = Field(description="PEM file of the authorities that may sign the broker.")
    certificate_file: Path | None = Field(None, description="PEM client certificate.")
    key_file: Path | None = Field(None, description="PEM key of the client certificate.")


class BrokerSection(Section):
    """The MQTT broker."""

    host: str = Field("127.0.0.1", min_length=1, max_length=255, description="Name or address.")
    port: Port = Field(1883, description="TCP port.")
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        "auto", description="MQTT version; auto tries 5, then 3.1.1."
    )
    connect_timeout_s: float = Field(
        5.0, gt=0, le=60, description="Seconds to wait for the broker's answer to CONNECT."
    )
    keepalive_s: int = Field(15, ge=5, le=600, description="Seconds between signs of life.")
    session_expiry_s: int = Field(
        86_400, ge=0, le=0xFFFFFFFE, description="Seconds the broker keeps our session (MQTT 5)."
    )
    client_id: str = Field(
        "", max_length=64, description="MQTT client id; default edge-{device.id}."
    )
    username: str = Field("", max_length=128, description="User name, with password_file.")
    password_file: Path | None = Field(None, description="File whose first line is the password.")
    tls: TlsSection | None = Field(None, description="TLS; absent means plain TCP.")
    max_packet_bytes: int = Field(
        16 << 20, ge=1 << 10, le=256 << 20, description="Largest MQTT packet accepted, bytes."
    )
    max_outgoing: int = Field(
        1_000, ge=10, le=100_000, description="Publications kept while the broker is away."
    )


class StorageSection(Section):
    """Durable state."""

    path: Path = Field(
        Path("/var/lib/edge"), description="Folder for compiled guests and state; made if absent."
    )


class InferenceSection(Section):
    """Where models run."""

    provider: Literal["cpu", "cuda", "tensorrt", "openvino"] = Field(
        "cpu", description="Execution provider of ONNX Runtime."
    )
    require: bool = Field(
        True, description="Not READY unless exactly this provider runs the model."
    )
    threads: int = Field(1, ge=1, le=64, description="Intra-op threads of each worker.")
    options: dict[str, str] = Field(
        default_factory=dict, description="Provider options, as ONNX Runtime names them."
    )


class ClockSection(Section):
    """When a camera's `captured-at` is believed."""

    max_future_ms: int = Field(
        50, ge=0, le=60_000, description="Milliseconds a capture may lie ahead of this clock."
    )
    max_age_s: int = Field(
        86_400, ge=1, le=31_536_000, description="Seconds; an older capture time is not believed."
    )


class LimitsSection(Section):
    """Bounds on what comes in."""

    max_payload_bytes: int = Field(
        8 << 20, ge=1 << 10, le=256 << 20, description="Largest frame or reference payload, bytes."
    )
    reference_bytes: int = Field(
        64 << 20, ge=1 << 20, le=4 << 30, description="Encoded references kept, bytes in all."
    )
    remembered_frames: int = Field(
        20_000, ge=100, le=1_000_000, description="Frame ids whose verdict is kept for redelivery."
    )
    signal_history: int = Field(
        1_024, ge=1, le=1_000_000, description="Values kept for each signal."
    )
    signal_payload_bytes: int = Field(
        64 << 10, ge=16, le=1 << 20, description="Largest signal payload, bytes."
    )


class DeadlineSection(Section):
    """How the supervisor keeps deadlines."""

    margin_ms: int = Field(
        15,
        ge=1,
        le=1_000,
        description="Milliseconds before a deadline at which the fail-safe goes out.",
    )
    hang_ms: int = Field(
        2_000,
        ge=50,
        le=60_000,
        description="Milliseconds past a deadline after which a silent worker is replaced.",
    )
    drain_ms: int = Field(
        5_000, ge=0, le=60_000, description="Milliseconds that SIGTERM leaves for frames in flight."
    )
    start_ms: int = Field(
        60_000,
        ge=1_000,
        le=600_000,
        description="Milliseconds a worker has to load and pass its probe.",
    )


class StatusSection(Section):
    """The retained status message."""

    interval_s: float = Field(5.0, ge=0.2, le=3_600, description="Seconds between status messages.")


class LogSection(Section):
    """The log on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity."
    )
    format: Literal["auto", "text", "json"] = Field(
        "auto", description="auto: text on a terminal, JSON lines otherwise."
    )


class Binding(Section):
    """A logical name of a deployment, bound to an MQTT topic."""

    topic: str = Field(
        min_length=1,
        max_length=512,
        description="Topic, or filter for inputs; {part_id} and the like are one level.",
    )
    qos: Literal[0, 1] = Field(1, description="Quality of service.")
    pointer: str = Field(
        "",
        max_length=256,
        description="Signals: JSON pointer (RFC 6901) to the value; empty: the whole payload.",
    )
    time_pointer: str = Field(
        "",
        max_length=256,
        description="Signals: JSON pointer to the time, UTC ns or s; empty: arrival time.",
    )
    share: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_-]{0,64}$",
        description="Cameras: shared subscription group, for several boxes on one line.",
    )

    @model_validator(mode="before")
    @classmethod
    def _topic_alone(cls, value: Any) -> Any:
        return {"topic": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _placeholders(self) -> Self:
        for level in self.topic.split("/"):
            names = _PLACEHOLDER.findall(level)
            if "{" in level and (len(names) != 1 or level != f"{{{names[0]}}}"):
                raise ValueError(f"{level!r}: a placeholder must be a whole topic level")
            if names and names[0] not in ("part_id", "reference_id", "frame_id"):
                raise ValueError(
                    f"{level!r}: known placeholders are part_id, reference_id, frame_id"
                )
            if ("+" in level and level != "+") or ("#" in level and level != "#"):
                raise ValueError(f"{level!r}: a wildcard must be a whole topic level")
        return self


class BindingsSection(Section):
    """Logical names to topics, by kind: `camera.top` is `bindings.camera.top`."""

    camera: dict[str, Binding] = Field(default_factory=dict, description="Frames in.")
    reference: dict[str, Binding] = Field(default_factory=dict, description="Reference images in.")
    signal: dict[str, Binding] = Field(default_factory=dict, description="Signals in.")
    action: dict[str, Binding] = Field(default_factory=dict, description="Actions out.")

    def find(self, name: str) -> Binding | None:
        """Return the binding of a logical name such as `camera.top`, or None."""
        kind, _, rest = name.partition(".")
        if kind not in type(self).model_fields:
            return None
        table: dict[str, Binding] = getattr(self, kind)
        return table.get(rest)


class DeviceConfig(Section):
    """The whole device config."""

    device: DeviceSection = Field(default_factory=DeviceSection)
    broker: BrokerSection = Field(default_factory=BrokerSection)
    storage: StorageSection = Field(default_factory=StorageSection)
    inference: InferenceSection = Field(default_factory=InferenceSection)
    clock: ClockSection = Field(default_factory=ClockSection)
    limits: LimitsSection = Field(default_factory=LimitsSection)
    deadlines: DeadlineSection = Field(default_factory=DeadlineSection)
    status: StatusSection = Field(default_factory=StatusSection)
    log: LogSection = Field(default_factory=LogSection)
    bindings: BindingsSection = Field(default_factory=BindingsSection)


def load(path: Path, overrides: tuple[str, ...] = ()) -> DeviceConfig:
    """Read a device config and lay `--set key.path=value` overrides over it.

    Args:
        path: The TOML file.
        overrides: Each `key.path=value`; the value is TOML, or else taken as a string.

    Raises:
        ConfigError: The file cannot be read, is not TOML, or a key is unknown or out of range.
    """
    return parse(_read_toml(path), str(path), overrides)


def parse(document: dict[str, Any], where: str, overrides: tuple[str, ...] = ()) -> DeviceConfig:
    """Validate a config that is already a dictionary; `where` names it in errors.

    Raises:
        ConfigError: A key is unknown, missing or out of range, or an override is not `key=value`.
    """
    for override in overrides:
        _lay_over(document, override)
    try:
        return DeviceConfig.model_validate(document)
    except ValidationError as invalid:
        raise ConfigError(
            where, explain(invalid), "see `edge check --config` and docs/configuration.md"
        ) from None


def explain(invalid: ValidationError) -> str:
    """Say every finding of a validation on one line each: key, problem, what was found."""
    findings = []
    for error in invalid.errors(include_url=False):
        key = ".".join(str(part) for part in error["loc"]) or "(file)"
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = "unknown key"
        found = "" if error["type"] == "missing" else f", found {str(error['input'])[:80]!r}"
        findings.append(f"{key}: {message}{found}")
    return "; ".join(findings)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode()
    except OSError as failed:
        raise ConfigError(path, f"cannot be read: {failed.strerror}", "check --config") from failed
    except UnicodeDecodeError as failed:
        raise ConfigError(path, f"is not UTF-8: {failed}") from failed
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as failed:
        raise ConfigError(path, f"is not TOML: {failed}") from failed


def _lay_over(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError("--set", f"{override!r} is not of the form key.path=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    table = document
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError("--set", f"{key!r}: {parent!r} is not a table")
    table[last] = value
