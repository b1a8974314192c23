"""The heap's own figures."""

import ctypes

import pytest

from edge.observability.heap import heap


def test_what_is_asked_for_is_used_and_what_is_given_back_is_not() -> None:
    before = heap()
    if before is None:
        pytest.skip("this C library has no mallinfo2")
    block = ctypes.create_string_buffer(8 << 20)
    held = heap()
    assert held is not None
    assert held.used - before.used >= 8 << 20
    del block
    after = heap()
    assert after is not None
    assert after.used < held.used - (7 << 20)


def test_a_library_that_does_not_tell_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    assert heap() is None
