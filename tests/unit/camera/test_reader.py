"""The reading thread: ends, losses, schedule and stop, on sources that are told what to do."""

import queue
import threading
from collections.abc import Callable, Iterator

import pytest

from edge.camera import reader as reader_module
from edge.camera.picture import Picture
from edge.camera.reader import Reader
from edge.errors import TransportError

DEADLINE_S = 20.0


class Scripted:
    """A source that plays a script: a number is a picture, an error is raised, the end is None."""

    title = "script"
    can_reopen = True

    def __init__(self, script: Iterator[int | Exception], *, is_live: bool = False) -> None:
        self.is_live = is_live
        self._script = script
        self.opened = self.closed = self.skipped = 0

    def open(self) -> None:
        self.opened += 1

    def skip(self) -> bool:
        self.skipped += 1
        return self.read() is not None

    def read(self) -> Picture | None:
        step = next(self._script, None)
        if isinstance(step, Exception):
            raise step
        return None if step is None else Picture(b"x", "image/jpeg", step, f"n{step}")

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1


class Listener:
    """Takes what a reader hands over."""

    def __init__(self) -> None:
        self.names: queue.Queue[str] = queue.Queue()
        self.ended: queue.Queue[Exception | None] = queue.Queue()

    def keep(self, picture: Picture) -> None:
        self.names.put(picture.part_id)

    def all_names(self) -> list[str]:
        return [self.names.get_nowait() for _ in range(self.names.qsize())]


@pytest.fixture
def read() -> Iterator[Callable[..., tuple[Reader, Listener]]]:
    readers: list[Reader] = []

    def start(
        source: Scripted, rate_hz: float = 1000.0, give_up_s: float = DEADLINE_S
    ) -> tuple[Reader, Listener]:
        listener = Listener()
        reader = Reader(source, rate_hz, listener.keep, listener.ended.put, give_up_s)
        readers.append(reader)
        reader.start()
        return reader, listener

    yield start
    for reader in readers:
        reader.stop()


Reading = Callable[..., tuple[Reader, Listener]]


def test_a_source_is_read_to_its_end_and_closed(read: Reading) -> None:
    source = Scripted(iter([1, 2, 3]))
    _, listener = read(source)
    assert listener.ended.get(timeout=DEADLINE_S) is None
    assert listener.all_names() == ["n1", "n2", "n3"]
    assert (source.opened, source.closed) == (1, 1)


def test_a_lost_source_is_opened_again(read: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "FIRST_PAUSE_S", 0.01)
    source = Scripted(iter([1, TransportError("gone"), TransportError("still"), 2]))
    reader, listener = read(source)
    assert listener.ended.get(timeout=DEADLINE_S) is None
    assert listener.all_names() == ["n1", "n2"]
    assert (source.opened, reader.losses) == (3, 2)


def test_a_source_that_stays_away_is_given_up(
    read: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "FIRST_PAUSE_S", 0.01)
    source = Scripted(iter(lambda: TransportError("gone"), None))
    _, listener = read(source, give_up_s=0.1)
    failure = listener.ended.get(timeout=DEADLINE_S)
    assert isinstance(failure, TransportError)
    assert str(failure) == "gone (no picture for 0.1 s: given up)"
    assert source.closed == 1


def test_a_bug_is_handed_over_and_not_swallowed(read: Reading) -> None:
    _, listener = read(Scripted(iter([1, ZeroDivisionError("a bug")])))
    assert isinstance(listener.ended.get(timeout=DEADLINE_S), ZeroDivisionError)


def test_a_live_source_is_emptied_between_two_frames(read: Reading) -> None:
    source = Scripted(iter(range(1_000_000)), is_live=True)
    reader, listener = read(source, rate_hz=2.0)
    first = listener.names.get(timeout=DEADLINE_S)
    second = listener.names.get(timeout=DEADLINE_S)
    reader.stop()
    assert source.skipped > 10
    assert int(second[1:]) - int(first[1:]) > 10


def test_a_stopped_reader_ends_at_once_even_while_it_waits(read: Reading) -> None:
    reader, listener = read(Scripted(iter(range(100))), rate_hz=0.001)
    listener.names.get(timeout=DEADLINE_S)
    stopping = threading.Thread(target=reader.stop)
    stopping.start()
    stopping.join(DEADLINE_S)
    assert not stopping.is_alive()
    assert listener.ended.get(timeout=DEADLINE_S) is None
