"""Running the daemon: its storage, its signals, its tasks, and what ends it.

The order of construction is here; taking down is its reverse. A failure that nobody foresaw ends
the process, loudly: systemd starts the next one.
"""

import asyncio
import contextlib
import fcntl
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import structlog

from edge import durable
from edge.config import DeviceConfig
from edge.contracts.plan import PipelinePlan
from edge.daemon.supervisor import Supervisor
from edge.deployment.folder import plans as plans_of
from edge.deployment.installed import FOLDER, Installed
from edge.errors import ConfigError, DeploymentError, EdgeError, MediumError, StorageError
from edge.observability.systemd import Notifier

log = structlog.get_logger("edge.daemon")


async def supervise(
    config: DeviceConfig, plans: tuple[PipelinePlan, ...] | None, notifier: Notifier
) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    Args:
        config: The device config.
        plans: Of a local deployment folder; None: what is installed on this device, kept up to date
            from its repository.
        notifier: The line to systemd.

    Raises:
        ConfigError: The storage folder cannot be used, or there is nothing to run.
        MediumError: What the storage folder lies on is full, or fails.
        DaemonBugError: Something failed that nobody foresaw; it was logged.
    """
    with _storage(config.storage.path):
        try:
            await _run(config, plans, notifier)
        except BaseExceptionGroup as group:
            bug = _first(group)
            log.critical("daemon_bug", error=type(bug).__name__, detail=str(bug), exc_info=bug)
            raise DaemonBugError(f"the daemon ended by a bug: {type(bug).__name__}: {bug}") from bug


class DaemonBugError(EdgeError):
    """The daemon cannot go on as promised; systemd starts the next one."""


async def _run(
    config: DeviceConfig, plans: tuple[PipelinePlan, ...] | None, notifier: Notifier
) -> None:
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()
    loop.set_exception_handler(_fail_by(stop))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _resolve, stop)
    loop.add_signal_handler(signal.SIGHUP, _refuse_reload)
    installed = None
    if plans is None:
        installed, plans = _installed(config)
    supervisor = Supervisor(config, plans, notifier, installed)
    await supervisor.prepare()
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(supervisor.session.run(), name="session"),
            tasks.create_task(supervisor.keep_sensors(), name="sensors"),
            tasks.create_task(supervisor.keep_status(), name="status"),
            tasks.create_task(supervisor.keep_sending(), name="records"),
            tasks.create_task(supervisor.keep_control(), name="control"),
            tasks.create_task(supervisor.keep_leases(), name="actions"),
            tasks.create_task(supervisor.keep_drift(), name="drift"),
            tasks.create_task(supervisor.keep_telling(), name="telling"),
            tasks.create_task(supervisor.lineup.keep(), name="workers"),
            tasks.create_task(supervisor.keep_deployments(), name="deployments"),
        ]
        await stop
        await supervisor.drain()
        for task in reversed(running):
            task.cancel()


def _installed(config: DeviceConfig) -> tuple[Installed, tuple[PipelinePlan, ...]]:
    """What this device is to run, and the pipelines of it; none where there is nothing yet."""
    try:
        installed = Installed(
            config.storage.path / FOLDER, config.updates.store_bytes, time.time_ns
        )
        loaded = installed.start()
    except MediumError:
        raise
    except StorageError as unusable:
        raise ConfigError("storage.path", str(unusable)) from unusable
    except DeploymentError as unfit:
        # Nothing that is left can be loaded: it is fetched anew, and until then nothing runs.
        log.error("deployment_unreadable", detail=str(unfit))
        loaded = None
    if loaded is not None:
        return installed, plans_of(loaded, config)
    if not config.updates.repository:
        raise ConfigError(
            "updates.repository",
            "is not set, and no deployment is installed: there is nothing to run",
            "set it, or give --deployment DIR",
        )
    return installed, ()


def _refuse_reload() -> None:
    """Say that SIGHUP changes nothing: the configuration is read once.

    A daemon that is half changed would be harder to trust than a restart, which drains and takes
    two seconds; and a broken file must never end what runs.
    """
    log.warning(
        "reload_refused",
        detail="the configuration is read at the start: edge check, then systemctl restart edge",
    )


def _resolve(stop: asyncio.Future[None]) -> None:
    if not stop.done():  # a second SIGTERM changes nothing
        stop.set_result(None)


def _fail_by(stop: asyncio.Future[None]) -> Callable[[asyncio.AbstractEventLoop, Any], None]:
    """Make an exception in a callback end the daemon.

    asyncio would log it and go on, and a timer with the fail-safe of a frame would be gone unseen.
    """

    def fail(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        bug = context.get("exception")
        if isinstance(bug, OSError) and "socket" in context:
            # Of one that listens: no descriptor or memory is left, and asyncio tries again soon.
            log.warning("connection_not_taken", detail=bug.strerror)
            return
        log.error("loop_trouble", detail=str(context.get("message", "")), exc_info=bug)
        if isinstance(bug, Exception) and not stop.done():
            stop.set_exception(bug)

    return fail


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first failure itself, out of its groups."""
    failure: BaseException = group
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


@contextlib.contextmanager
def _storage(path: Path) -> Iterator[None]:
    """Hold the storage folder for this daemon alone."""
    with contextlib.ExitStack() as stack:
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = stack.enter_context((path / "lock").open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for folder in (path, path / FOLDER):
                durable.clear(folder)
        except BlockingIOError:
            raise ConfigError(
                "storage.path", f"another daemon uses {path}", "stop it, or set another folder"
            ) from None
        except OSError as failed:
            problem = durable.storage_error(f"{path} cannot be used", failed)
            if isinstance(problem, MediumError):
                raise problem from failed
            raise ConfigError(
                "storage.path",
                str(problem),
                "name a folder that this user may write, e.g. --set storage.path=...",
            ) from failed
        yield
