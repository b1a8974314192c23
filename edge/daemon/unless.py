"""Doing something unless an event comes first."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def unless(event: asyncio.Event, doing: Coroutine[Any, Any, None]) -> None:
    """Do something, but leave it when an event is set; on return it has ended, either way.

    Whoever is cancelled here stays cancelled, also while what was left is ending: a worker that is
    being killed takes its time.
    """
    task, waiting = asyncio.create_task(doing), asyncio.create_task(event.wait())
    failed: BaseException | None = None
    try:
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
        waiting.cancel()
        await asyncio.wait((task, waiting))
        failed = None if task.cancelled() else task.exception()
    if failed is not None:
        raise failed
