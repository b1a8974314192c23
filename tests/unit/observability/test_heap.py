"""The heap's own figures."""

import ctypes
import gc

import pytest

from edge.observability.heap import heap

#: The figures are the whole process's: what other tests' threads and their garbage take or give
#: back in between is small beside this.
BLOCK_BYTES = 256 << 20
BESIDE_BYTES = 64 << 20


def test_what_is_asked_for_is_used_and_what_is_given_back_is_not() -> None:
    gc.collect()
    before = heap()
    if before is None:
        pytest.skip("this C library has no mallinfo2")
    block = ctypes.create_string_buffer(BLOCK_BYTES)
    held = heap()
    assert held is not None
    assert held.used - before.used == pytest.approx(BLOCK_BYTES, abs=BESIDE_BYTES)
    del block
    after = heap()
    assert after is not None
    assert held.used - after.used == pytest.approx(BLOCK_BYTES, abs=BESIDE_BYTES)


def test_a_library_that_does_not_tell_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    assert heap() is None
