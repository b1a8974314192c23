"""What the daemon tells of itself beside its status: metrics and traces, as configured.

Both are off unless the config says so. A port that is taken, a folder that cannot be written and a
collector that is gone are logged, and stop no line; a file of a secret that cannot be read at the
start is the config's fault.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from edge import __version__
from edge.config import DeviceConfig, TlsSection, TracesSection
from edge.daemon.frame_traces import FrameTraces
from edge.errors import ConfigError
from edge.mqtt.security import tls_context
from edge.observability.counters import Counters
from edge.observability.scrapes import Scrapes
from edge.observability.span_export import SpanExport
from edge.observability.textfile import Textfile

log = structlog.get_logger("edge.daemon")

_GRACE_S: Final = 2.0


class Telling:
    """Metrics and traces of one daemon.

    Args:
        config: The device config.
        counters: The daemon's.
        figures: Makes the metrics.

    Attributes:
        traces: None where no traces are made.

    Raises:
        ConfigError: A secret or certificate of the traces cannot be read.
    """

    def __init__(
        self, config: DeviceConfig, counters: Counters, figures: Callable[[], bytes]
    ) -> None:
        self._metrics = config.metrics
        self._counters = counters
        self._make = figures
        self._export: SpanExport | None = None
        self.traces: FrameTraces | None = None
        if config.traces.endpoint:
            self._export = _export(config.traces, config.device.id, counters)
            self.traces = FrameTraces(
                config.traces.share,
                config.traces.max_per_s,
                self._export.offer,
                time.monotonic_ns,
            )

    async def keep(self) -> None:
        """Answer scrapes and write the textfile, until cancelled."""
        section = self._metrics
        async with asyncio.TaskGroup() as tasks:
            if section.listen:
                scrapes = Scrapes(section.listen, self._figures, self._counters)
                tasks.create_task(scrapes.serve(), name="scrapes")
            if section.textfile is not None:
                textfile = Textfile(section.textfile, section.interval_s, self._figures)
                tasks.create_task(textfile.keep(), name="textfile")

    def _figures(self) -> bytes:
        """Make the metrics; a bug in that is told, and costs no frame."""
        try:
            return self._make()
        except Exception as bug:
            self._counters.count("scrapes_refused", cause="bug")
            log.error("metrics_bug", detail=str(bug), exc_info=bug)
            return b""

    async def close(self) -> None:
        """Send the spans that wait."""
        if self._export is not None:
            await asyncio.to_thread(self._export.close, _GRACE_S)


def _export(section: TracesSection, device: str, counters: Counters) -> SpanExport:
    if section.authorization_file is not None:
        try:
            section.authorization_file.read_bytes()
        except OSError as failed:
            raise ConfigError(
                f"traces.authorization_file {section.authorization_file}",
                f"cannot be read: {failed.strerror}",
            ) from failed
    tls: TlsSection | None = section.tls
    if tls is not None:
        tls_context(tls, "traces.tls")
    return SpanExport(
        section.endpoint,
        {
            "service.name": "edge",
            "service.version": __version__,
            "service.instance.id": device,
            "host.name": device,
        },
        __version__,
        counters,
        section.authorization_file,
        (lambda: tls_context(tls, "traces.tls")) if tls is not None else None,
    )
