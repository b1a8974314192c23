"""Running the collector: its signals, its tasks, and what ends it."""

import asyncio
import math
import signal
from typing import Any, Final

import structlog

from edge.errors import EdgeError, StorageError
from edge.fleet.collector import Collector
from edge.fleet.config import CollectConfig
from edge.fleet.database import Database
from edge.fleet.register import Limits
from edge.fleet.store import Store
from edge.fleet.witness import Witness
from edge.observability.systemd import Notifier

log = structlog.get_logger("edge.fleet")

_GRACE_S: Final = 5.0


class CollectorBugError(EdgeError):
    """The collector cannot go on as promised; systemd starts the next one."""


def store_of(config: CollectConfig, *, create: bool = True) -> Store:
    """Return the store that a config names; nothing is opened yet, nor made unless `create`."""
    section = config.store
    return Store(
        Database(section.url, section.password_file, create=create),
        Limits(section.max_devices, section.max_device_bytes),
    )


async def collect(config: CollectConfig, notifier: Notifier) -> None:
    """Collect until SIGTERM or SIGINT.

    Raises:
        ConfigError: A key cannot be used.
        StorageError: The store cannot be used.
        CollectorBugError: Something failed that nobody foresaw; it was logged.
    """
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()

    def fail(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        bug = context.get("exception")
        log.error("loop_trouble", detail=str(context.get("message", "")), exc_info=bug)
        if isinstance(bug, Exception) and not stop.done():
            stop.set_exception(bug)

    loop.set_exception_handler(fail)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _resolve, stop)
    witness = Witness.of(config.collect)
    store = store_of(config)
    await asyncio.to_thread(_prepare, store)
    await _run(config, store, witness, notifier, stop)


def _prepare(store: Store) -> None:
    # SQLite's connections belong to their threads: the store's own opens the next one.
    try:
        store.prepare()
    except StorageError as unusable:
        raise StorageError(f"store.url: {unusable}") from unusable
    finally:
        store.close()


async def _run(
    config: CollectConfig,
    store: Store,
    witness: Witness,
    notifier: Notifier,
    stop: asyncio.Future[None],
) -> None:
    collector = Collector(config, store, witness)
    announced = False

    def on_look() -> None:
        nonlocal announced
        notifier.watchdog()
        if collector.ready and not announced:
            announced = True
            notifier.ready("collecting")
            log.info("ready", store=config.store.url, share=config.collect.share)
        else:
            notifier.status(collector.trouble or "collecting")

    watchdog_s = notifier.watchdog_interval_s or math.inf
    collector.start()
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(collector.session.run(), name="session"),
                tasks.create_task(collector.keep_receipting(), name="receipts"),
                tasks.create_task(collector.keep_watch(on_look, watchdog_s), name="watch"),
            ]
            await stop
            notifier.stopping("draining")
            await collector.close(_GRACE_S)
            for task in reversed(running):
                task.cancel()
    except BaseExceptionGroup as group:
        bug = group.exceptions[0]
        log.critical("collector_bug", error=type(bug).__name__, detail=str(bug), exc_info=bug)
        raise CollectorBugError(f"the collector ended by a bug: {bug!r}") from bug


def _resolve(stop: asyncio.Future[None]) -> None:
    if not stop.done():  # a second SIGTERM changes nothing
        stop.set_result(None)
