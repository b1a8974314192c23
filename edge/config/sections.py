"""The keys of a device config, section by section: a table of names, units, bounds and reasons.

The JSON Schema in `device_configs/schema.json` and docs/configuration.md are generated from it.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

Port = Annotated[int, Field(ge=1, le=65_535)]
File = Annotated[Path, Field(strict=False)]
"""A path; TOML has only strings for it. A relative one is relative to the working folder."""

PROVIDERS: Final = ("cpu", "cuda", "tensorrt", "openvino")
"""Execution providers that may be part of ONNX Runtime itself."""

NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
"""Of devices, and of what a deployment or a binding is called."""
LogicalName = Annotated[str, Field(pattern=NAME)]
_TUF_ROLES: Final = ("root", "targets", "snapshot", "timestamp")
_MAX_PORT: Final = 65_535
_IPV6: Final = 6
_POINTER: Final = r"^(/.*)?$"
"""RFC 6901: empty, or parts that each begin with a slash."""
_PLACEHOLDER: Final = re.compile(r"\{([a-z_]+)\}")
_LEVEL: Final = r"[^/+#{}\x00-\x1f\x7f]+"
_EDGE_NODE: Final = re.compile(rf"spBv1\.0/{_LEVEL}/\+/{_LEVEL}(/{_LEVEL})?")
"""Sparkplug 3.0, 4.1: namespace, group, message type (each that is needed), node, device."""
_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""MQTT 5, 1.5.4: characters that a topic must or should not hold; none is published with them."""
_PLACEHOLDERS: Final = ("part_id", "reference_id", "frame_id")


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, nothing is coerced, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DeviceSection(Section):
    """Who this box is."""

    id: str = Field("box1", pattern=NAME, description="Name of this device; part of its topics.")
    description: str = Field("", max_length=200, description="Free text for people.")


class TlsSection(Section):
    """TLS to the broker."""

    ca_file: File = Field(description="PEM file of the authorities that may sign the broker.")
    certificate_file: File | None = Field(None, description="PEM client certificate.")
    key_file: File | None = Field(None, description="PEM key of the client certificate.")

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file belong together: give both or neither")
        return self


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
    password_file: File | None = Field(None, description="File whose first line is the password.")
    tls: TlsSection | None = Field(None, description="TLS; absent means plain TCP.")
    max_packet_bytes: int = Field(
        16 << 20, ge=1 << 10, le=256 << 20, description="Largest MQTT packet accepted, bytes."
    )
    max_outgoing: int = Field(
        1_000, ge=10, le=100_000, description="Publications kept while the broker is away."
    )

    @model_validator(mode="after")
    def _password_with_user(self) -> Self:
        if self.password_file is not None and not self.username:
            raise ValueError("password_file needs username: MQTT 3.1.1 knows no password alone")
        return self


class StorageSection(Section):
    """Durable state."""

    path: File = Field(
        Path("/var/lib/edge"), description="Folder for compiled guests and state; made if absent."
    )


class KeptFramesSection(Section):
    """Frames kept on disk, so that their verdicts can be computed again."""

    enabled: bool = Field(True, description="Keep every rejected and reviewed frame.")
    pass_share: float = Field(
        0.01, ge=0, le=1, description="Share of passed frames kept too, chosen by their digest."
    )
    max_bytes: int = Field(
        1 << 30, ge=1 << 20, le=1 << 44, description="What they may take, bytes; the oldest go."
    )
    max_age_days: float = Field(30.0, gt=0, le=36_500, description="Days a frame is kept.")
    min_free_bytes: int = Field(
        256 << 20,
        ge=0,
        le=1 << 44,
        description="Kept frames go, the oldest first, until the disk has so much free, bytes.",
    )


class LedgerSection(Section):
    """The durable, chained list of verdicts, and what the cloud has not receipted of it."""

    enabled: bool = Field(
        True, description="Record every verdict before its frame is acknowledged."
    )
    max_records: int = Field(
        5_000_000, ge=1_000, le=1_000_000_000, description="Receipted records kept."
    )
    max_age_days: int = Field(90, ge=1, le=36_500, description="Days a receipted record is kept.")
    max_bytes: int = Field(
        1 << 30, ge=1 << 20, le=1 << 40, description="Size the ledger's database may reach, bytes."
    )
    key: File | None = Field(
        None,
        description="Ed25519 private key (PKCS #8, PEM) that signs checkpoints; default: "
        "ledger.key in storage.path, made at the first start.",
    )
    retiring_key: File | None = Field(
        None, description="The key before it: signs too, until all who verify know the new one."
    )
    cosigners: Annotated[tuple[str, ...], Field(strict=False, max_length=16)] = Field(
        (), description="Verifier keys (vkey) of the clouds whose cosignatures are kept."
    )
    frames: KeptFramesSection = Field(
        default_factory=KeptFramesSection, description="Frames kept beside their records."
    )


def is_group(name: str) -> bool:
    """Whether a name may be a group's: a delegated role of the repository."""
    return re.fullmatch(NAME, name) is not None and name not in _TUF_ROLES


class UpdateSection(Section):
    """Where deployments come from, signed; without a repository there are no updates."""

    repository: str = Field(
        "", max_length=1_000, description="https://, http:// or file:// address; empty: no updates."
    )
    root_file: File | None = Field(
        None, description="The repository's root metadata, installed with the device."
    )
    group: str = Field("", max_length=64, description="The device's group in the repository.")
    poll_s: int = Field(
        3_600, ge=10, le=604_800, description="Seconds between two looks, jittered by a quarter."
    )
    deadline_s: int = Field(
        1_800, ge=10, le=86_400, description="Seconds that one look and its downloads may take."
    )
    least_bytes_per_s: int = Field(
        1_024, ge=1, le=1 << 30, description="A slower download is given up, and resumed later."
    )
    store_bytes: int = Field(
        2 << 30, ge=1 << 20, le=1 << 40, description="The most that fetched files may take, bytes."
    )
    tls: TlsSection | None = Field(
        None, description="Authorities and certificate for https; absent: those of the system."
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.repository:
            return self
        if "@" in self.repository.partition("://")[2].partition("/")[0]:
            raise ValueError(  # not quoted: it may be a password
                "repository carries a name or a password; a device proves who it is by "
                "tls.certificate_file"
            )
        if self.root_file is None or not self.group:
            raise ValueError("a repository needs root_file and group beside it")
        if not is_group(self.group):
            raise ValueError(f"group {self.group!r} is no name of a group")
        return self


class PluginSection(Section):
    """An execution provider that is a library of its own beside ONNX Runtime."""

    library: File = Field(description="Its shared library; it runs in the worker as native code.")
    device: Literal["", "cpu", "gpu", "npu"] = Field(
        "", description="Kind of hardware it shall use; empty: the first that it offers."
    )


class InferenceSection(Section):
    """Where models run."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"not": {"required": ["plugin"]}},
            "then": {"properties": {"provider": {"enum": list(PROVIDERS)}}},
        }
    )

    provider: str = Field(
        "cpu",
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$",
        description="Execution provider of ONNX Runtime: cpu, cuda, tensorrt or openvino; with "
        "plugin, the name of the plug-in's in small letters, without ExecutionProvider.",
    )
    plugin: PluginSection | None = Field(
        None, description="Library of the provider; absent: it is part of ONNX Runtime."
    )
    require: bool = Field(
        True, description="Not READY unless exactly this provider runs the model."
    )
    threads: int = Field(1, ge=1, le=64, description="Intra-op threads of each worker.")
    share_worker: bool = Field(
        False,
        description="Have all pipelines of a deployment in one worker: one accelerator context, "
        "and equal models once. They take turns, and are lost together.",
    )
    spinning: bool = Field(
        False, description="Let these threads spin between frames: sooner awake, a core is burnt."
    )
    options: dict[str, str] = Field(
        default_factory=dict, description="Provider options, as ONNX Runtime names them."
    )

    @model_validator(mode="after")
    def _known_or_plugged_in(self) -> Self:
        if self.plugin is None and self.provider not in PROVIDERS:
            raise ValueError(
                f"provider {self.provider!r} is none of {', '.join(PROVIDERS)}; "
                "another one needs inference.plugin with its library"
            )
        if self.plugin is not None and self.provider == "cpu":
            raise ValueError("provider 'cpu' is no plug-in: name the plug-in's, or leave it out")
        return self


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
    signals_per_s: int = Field(
        5_000,
        ge=50,
        le=1_000_000,
        description="Messages of signals read in a second, of all together; more wait, and grow "
        "stale. 5,000 take about a sixth of a core.",
    )
    signal_payload_bytes: int = Field(
        64 << 10, ge=16, le=1 << 20, description="Largest signal payload, bytes."
    )
    sparkplug_payload_bytes: int = Field(
        256 << 10,
        ge=1 << 10,
        le=1 << 20,
        description="Largest Sparkplug payload, bytes; a birth holds all metrics of a node.",
    )
    frames_per_s: float = Field(
        120.0,
        gt=0,
        le=10_000,
        description="Frames a second taken from each camera, as much again at once; the rest get "
        "`overload`. A binding may set its own.",
    )
    worker_memory_mib: int = Field(
        4_096,
        ge=128,
        le=1 << 20,
        description="Resident memory of a worker, MiB; one that takes more is replaced.",
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
        500,
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


class MetricsSection(Section):
    """Figures for Prometheus; off as long as neither `listen` nor `textfile` is set."""

    listen: str = Field(
        "",
        max_length=64,
        description="Where they can be fetched (`/metrics`): `127.0.0.1:9464`; empty: no port. "
        "Whoever reaches it can read them, so beyond loopback only by the address you write.",
    )
    textfile: File | None = Field(
        None,
        description="File for node_exporter's textfile collector, ending in `.prom`; its folder "
        "must be writable.",
    )
    interval_s: float = Field(
        15.0, ge=1, le=3_600, description="Seconds between two writings of `textfile`."
    )

    @model_validator(mode="after")
    def _an_address(self) -> Self:
        if self.textfile is not None and self.textfile.suffix != ".prom":
            raise ValueError(f"textfile {self.textfile}: node_exporter reads `.prom` files only")
        if not self.listen:
            return self
        host, _, port = self.listen.rpartition(":")
        try:
            address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        except ValueError:
            raise ValueError(
                f"listen {self.listen!r} is not of the form address:port, e.g. 127.0.0.1:9464; "
                "a name is no address"
            ) from None
        if (address.version == _IPV6) != host.startswith("["):
            raise ValueError(f"listen {self.listen!r}: an IPv6 address stands in [brackets]")
        if not (port.isascii() and port.isdigit() and 0 < int(port) <= _MAX_PORT):
            raise ValueError(f"listen {self.listen!r}: no port of 1..{_MAX_PORT}")
        return self


class TracesSection(Section):
    """Traces of single frames, sent by OTLP (HTTP, protobuf); off without an `endpoint`."""

    endpoint: str = Field(
        "",
        max_length=1_000,
        description="Where to, with its path: `http://127.0.0.1:4318/v1/traces`; empty: nowhere.",
    )
    share: float = Field(
        0.01, ge=0, le=1, description="Share of frames traced that came without a `traceparent`."
    )
    max_per_s: float = Field(
        10.0, gt=0, le=1_000, description="Frames traced in a second, whatever cameras ask for."
    )
    authorization_file: File | None = Field(
        None, description="File whose first line is sent as the Authorization header."
    )
    tls: TlsSection | None = Field(
        None, description="Authorities and certificate for https; absent: those of the system."
    )

    @model_validator(mode="after")
    def _an_address(self) -> Self:
        if self.endpoint and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"endpoint {self.endpoint!r} begins neither with http:// nor https://")
        if "@" in self.endpoint.partition("://")[2].partition("/")[0]:
            raise ValueError("endpoint holds a user or password: use authorization_file")
        return self


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
        pattern=_POINTER,
        max_length=256,
        description="Signals: JSON pointer (RFC 6901) to the value; empty: the whole payload.",
    )
    time_pointer: str = Field(
        "",
        pattern=_POINTER,
        max_length=256,
        description="Signals: JSON pointer to the time, UTC ns or s; empty: arrival time.",
    )
    metric: str = Field(
        "",
        max_length=512,
        description="Signals: Sparkplug B metric of the edge node or device in `topic`, which is "
        "`spBv1.0/GROUP/+/NODE` or `spBv1.0/GROUP/+/NODE/DEVICE`.",
    )
    rebirth: bool = Field(
        False,
        description="Signals by Sparkplug: ask the node for a birth (NCMD) where one was missed.",
    )
    share: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_-]{0,64}$",
        description="Cameras: shared subscription group, for several boxes on one line.",
    )
    frames_per_s: float | None = Field(
        None,
        gt=0,
        le=10_000,
        description="Cameras: instead of `limits.frames_per_s`, for this one.",
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Let the published schema know the short form, a topic alone."""
        return {"anyOf": [{"type": "string", "minLength": 1}, handler(core_schema)]}

    @model_validator(mode="before")
    @classmethod
    def _topic_alone(cls, value: Any) -> Any:
        return {"topic": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _placeholders(self) -> Self:
        if self.topic.startswith("$share/"):
            raise ValueError("name the group of a shared subscription by `share`, not in the topic")
        if _UNFIT.search(self.topic):
            raise ValueError(f"topic {self.topic!r} contains control characters")
        *above, last = self.topic.split("/")
        for level in (*above, last):
            names = _PLACEHOLDER.findall(level)
            if "{" in level and (len(names) != 1 or level != f"{{{names[0]}}}"):
                raise ValueError(f"{level!r}: a placeholder must be a whole topic level")
            if names and names[0] not in _PLACEHOLDERS:
                raise ValueError(f"{level!r}: known placeholders are {', '.join(_PLACEHOLDERS)}")
            if ("+" in level and level != "+") or ("#" in level and level != "#"):
                raise ValueError(f"{level!r}: a wildcard must be a whole topic level")
        named = _PLACEHOLDER.findall(self.topic)
        if len(set(named)) != len(named):
            raise ValueError(f"topic {self.topic!r}: a placeholder occurs twice")
        if "#" in above:
            raise ValueError("the wildcard # must be the last topic level")
        return self

    @model_validator(mode="after")
    def _sparkplug(self) -> Self:
        if not self.metric:
            if _EDGE_NODE.fullmatch(self.topic):
                raise ValueError(f"topic {self.topic!r} is Sparkplug's: name its `metric`")
            if self.rebirth:
                raise ValueError("rebirth is for Sparkplug: name a `metric`")
            return self
        if not _EDGE_NODE.fullmatch(self.topic):
            raise ValueError(
                f"topic {self.topic!r}: with a metric it is spBv1.0/GROUP/+/NODE or "
                "spBv1.0/GROUP/+/NODE/DEVICE, all but the + named"
            )
        if self.pointer or self.time_pointer or self.share:
            raise ValueError("a metric has no pointer, time_pointer or share: they are for JSON")
        return self


# The schema that pydantic makes of the pattern would let other names pass unchecked.
Table = Annotated[
    dict[LogicalName, Binding], Field(json_schema_extra={"additionalProperties": False})
]


class BindingsSection(Section):
    """Logical names to topics, by kind: `camera.top` is `bindings.camera.top`."""

    camera: Table = Field(default_factory=dict, description="Frames in.")
    reference: Table = Field(default_factory=dict, description="Reference images in.")
    signal: Table = Field(default_factory=dict, description="Signals in.")
    action: Table = Field(default_factory=dict, description="Actions out.")

    @model_validator(mode="after")
    def _actions_have_one_topic(self) -> Self:
        for name, binding in self.action.items():
            if "+" in binding.topic or "#" in binding.topic:
                raise ValueError(f"action.{name}: no wildcard in a topic that is published to")
            if "{" in binding.topic:  # it would be taken word for word, and the gate hear nothing
                raise ValueError(
                    f"action.{name}: no placeholder in a topic that is published to: the message "
                    "itself names frame and part"
                )
        return self

    @model_validator(mode="after")
    def _metrics_are_signals(self) -> Self:
        for kind in ("camera", "reference", "action"):
            table: dict[str, Binding] = getattr(self, kind)
            for name, binding in table.items():
                if binding.metric:
                    raise ValueError(f"{kind}.{name}: a metric is for signals")
        return self

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
    ledger: LedgerSection = Field(default_factory=LedgerSection)
    updates: UpdateSection = Field(default_factory=UpdateSection)
    inference: InferenceSection = Field(default_factory=InferenceSection)
    clock: ClockSection = Field(default_factory=ClockSection)
    limits: LimitsSection = Field(default_factory=LimitsSection)
    deadlines: DeadlineSection = Field(default_factory=DeadlineSection)
    status: StatusSection = Field(default_factory=StatusSection)
    metrics: MetricsSection = Field(default_factory=MetricsSection)
    traces: TracesSection = Field(default_factory=TracesSection)
    log: LogSection = Field(default_factory=LogSection)
    bindings: BindingsSection = Field(default_factory=BindingsSection)
