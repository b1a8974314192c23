"""The worker's two threads: one reads and decodes, one judges and answers.

They meet in a queue, so that frame n+1 is decoded while frame n is judged. Answers leave in the
order in which frames came. Where pipelines share the worker, each has a seat in it: they take turns
in that same order, and have everything but the threads, the guest host and equal models apart.
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
from edge.worker.loading import LoadedModels, build
from edge.worker.versions import versions

_END: Final = None


_Turn = DecodedFrame | Failed | Start | TakeUp | Exception | None
_Seats = dict[int, FramePath]
"""Filled by the engine thread, before the supervisor hears that a pipeline stands there."""


def work(end: WorkerEnd) -> int:
    """Serve one supervisor until it says stop or goes away; return the exit status."""
    turns: queue.SimpleQueue[_Turn] = queue.SimpleQueue()
    seats: _Seats = {}
    reader = threading.Thread(target=_read_and_decode, args=(end, seats, turns), daemon=True)
    reader.start()
    with contextlib.ExitStack() as stack:
        builder = _Builder(stack)
        while (turn := turns.get()) is not _END:
            if isinstance(turn, DecodedFrame):
                _judge_and_answer(end, seats[turn.request.seat], turn)
            elif isinstance(turn, Failed):
                end.send(turn)
            elif isinstance(turn, TakeUp):
                seats[turn.seat].take_up(turn.policy)
            elif isinstance(turn, Start):
                end.send(builder.fill(seats, turn))
            else:
                raise turn
    return 0


class _Builder:
    """Builds pipelines, on the engine thread; the guest host comes with the first of them."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._engine: GuestEngine | None = None
        self._models = LoadedModels()

    def fill(self, seats: _Seats, start: Start) -> Loaded | LoadFailed:
        """Build a pipeline into its seat."""
        try:
            if self._engine is None:
                self._engine = self._stack.enter_context(GuestEngine(Path(start.cache_dir)))
            path, load_ms = build(self._engine, start.plan, start.policy, self._models.load)
        except EdgeError as unfit:
            return LoadFailed(type(unfit).__name__, str(unfit), seat=start.seat)
        seats[start.seat] = path
        return Loaded(
            provider=path.provider,
            load_ms=load_ms,
            state_refused=path.take_state_refusal(),
            versions=versions(),
            seat=start.seat,
        )


def _read_and_decode(end: WorkerEnd, seats: _Seats, turns: "queue.SimpleQueue[_Turn]") -> None:
    try:
        while True:
            received = end.receive()
            if received is None:
                # The supervisor is gone: nobody waits for an answer, and the engine thread may be
                # in a call that never ends. An orphan must not burn a core for ever.
                os._exit(0)
            message, body = received
            if isinstance(message, Judge):
                turns.put(_decoded(seats[message.seat], message, body))
            elif isinstance(message, Reference):
                seats[message.seat].encoded.keep(message.key, message.content_type, body)
            elif isinstance(message, Forget):
                seats[message.seat].encoded.forget(message.key)
            elif isinstance(message, Start | TakeUp):
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
        return Failed(request.ticket, error.reason, str(error), seat=request.seat)


def _judge_and_answer(end: WorkerEnd, path: FramePath, frame: DecodedFrame) -> None:
    try:
        end.send(path.judge(frame))
    except FrameError as error:
        end.send(path.failed(frame, error))
    path.mend()
