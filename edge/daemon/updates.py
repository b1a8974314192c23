"""Looking for updates: the fetch process, run now and then, and ended when its time is over."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from edge.config import UpdateSection
from edge.deployment.asking import request_of
from edge.deployment.fetch_messages import Line, Outcome, Progress, Refused, Request
from edge.deployment.rollout import Journal

log = structlog.get_logger("edge.daemon")

_MAX_LINE_BYTES: Final = 64 << 10
_GRACE_S: Final = 30.0
"""The process keeps its deadline by itself; what is not gone so long after it is killed."""
_END_S: Final = 5.0


async def look(
    section: UpdateSection,
    device: str,
    folder: Path,
    journal: Journal,
    say: Callable[[Progress], None],
    repository: str = "",
) -> Outcome:
    """Look for an update once, and fetch it.

    Args:
        section: Where, and within what bounds.
        device: This device's id.
        folder: Of the installed deployments.
        journal: What is known, and what is barred.
        say: Takes the progress.
        repository: Another address than the section's: a stick, say.

    Returns:
        What came of it; a process that failed or hung is refused as `TransportError`.

    Raises:
        ConfigError: The root file cannot be read.
    """
    request = request_of(section, device, folder, journal, repository)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "edge.deployment.fetch",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_MAX_LINE_BYTES,
            start_new_session=True,
        )
    except (OSError, RuntimeError) as failed:  # a box out of processes, threads or memory
        return Refused("TransportError", f"the fetch process cannot start: {failed}")
    try:
        async with asyncio.timeout(section.deadline_s + _GRACE_S):
            return await _outcome(process, request, say)
    except TimeoutError:
        return Refused("TransportError", f"no end after {section.deadline_s + _GRACE_S:g} s")
    finally:
        await _end(process)


async def _outcome(
    process: asyncio.subprocess.Process, request: Request, say: Callable[[Progress], None]
) -> Outcome:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.json.encode(request))
    process.stdin.close()
    decoder = msgspec.json.Decoder(Line)
    try:
        async for line in process.stdout:
            said: Line = decoder.decode(line)
            if not isinstance(said, Progress):
                return said
            say(said)
    except (ValueError, msgspec.DecodeError) as nonsense:
        return Refused("TransportError", f"the fetch process said what is no line: {nonsense}")
    status = await process.wait()
    return Refused("TransportError", f"the fetch process ended without a word: status {status}")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_S):
            await process.wait()
