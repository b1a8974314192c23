"""The worker's two threads: one reads and decodes, one judges and answers.

They meet in a queue, so that frame n+1 is decoded while frame n is judged. Answers leave in the
order in which frames came.
"""

import contextlib
import os
import queue
import threading
from pathlib import Path
from typing import Final

from edge.contracts.messages import (
    Failed,
    Forget,
    Judge,
    Loaded,
    LoadFailed,
    Reference,
    Start,
    Stop,
    TakeUp,
)
from edge.errors import EdgeError, FrameError
from edge.pipeline.path import DecodedFrame, FramePath
from edge.wasm.engine import GuestEngine
from edge.worker.channel import WorkerEnd
from edge.worker.loading import build
from edge.worker.versions import versions

_END: Final = None
_Turn = DecodedFrame | Failed | TakeUp | Exception | None


def work(end: WorkerEnd) -> int:
    """Serve one supervisor until it says stop or goes away; return the exit status."""
    first = end.receive()
    if first is None:
        return 0
    start = first[0]
    if not isinstance(start, Start):
        raise TypeError(f"the first message must be Start, not {type(start).__name__}")
    with contextlib.ExitStack() as stack:
        try:
            engine = stack.enter_context(GuestEngine(Path(start.cache_dir)))
            path = _load(engine, start, end)
        except EdgeError as unfit:
            end.send(LoadFailed(type(unfit).__name__, str(unfit)))
            return 1
        turns: queue.SimpleQueue[_Turn] = queue.SimpleQueue()
        reader = threading.Thread(target=_read_and_decode, args=(end, path, turns), daemon=True)
        reader.start()
        _judge_and_answer(end, path, turns)
    return 0


def _load(engine: GuestEngine, start: Start, end: WorkerEnd) -> FramePath:
    path, load_ms = build(engine, start.plan, start.policy)
    end.send(
        Loaded(
            provider=path.provider,
            load_ms=load_ms,
            state_refused=path.take_state_refusal(),
            versions=versions(),
        )
    )
    return path


def _read_and_decode(end: WorkerEnd, path: FramePath, turns: "queue.SimpleQueue[_Turn]") -> None:
    try:
        while True:
            received = end.receive()
            if received is None:
                # The supervisor is gone: nobody waits for an answer, and the engine thread may be
                # in a call that never ends. An orphan must not burn a core for ever.
                os._exit(0)
            message, body = received
            if isinstance(message, Judge):
                turns.put(_decoded(path, message, body))
            elif isinstance(message, Reference):
                path.encoded.keep(message.key, message.content_type, body)
            elif isinstance(message, Forget):
                path.encoded.forget(message.key)
            elif isinstance(message, TakeUp):
                turns.put(message)
            elif isinstance(message, Stop):
                break
    except Exception as bug:  # noqa: BLE001 - it is raised again, on the thread that ends us
        turns.put(bug)
    else:
        turns.put(_END)


def _decoded(path: FramePath, request: Judge, body: bytearray) -> DecodedFrame | Failed:
    try:
        return path.decode(request, body)
    except FrameError as error:
        return Failed(request.ticket, error.reason, str(error))


def _judge_and_answer(end: WorkerEnd, path: FramePath, turns: "queue.SimpleQueue[_Turn]") -> None:
    while (turn := turns.get()) is not _END:
        if isinstance(turn, DecodedFrame):
            try:
                end.send(path.judge(turn))
            except FrameError as error:
                end.send(path.failed(turn, error))
            path.mend()
        elif isinstance(turn, Failed):
            end.send(turn)
        elif isinstance(turn, TakeUp):
            path.take_up(turn.policy)
        else:
            raise turn
