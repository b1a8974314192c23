"""Policy guests that turn evil when the lamp says so (a value above 90), and are good otherwise."""

from typing import Final

from guest_wat import assemble, guest

EVIL_LAMP: Final = 99.0
GOOD_LAMP: Final = 1.0

_GOOD: Final = """
  (i32.store offset=40 (local.get $call) (i32.const 0))
  (f32.store offset=44 (local.get $call) (f32.const 0))
  (i64.store offset=48 (local.get $call) (i64.const 0x6b6f))
  (i32.const 0)
"""
_WHEN_LAMP: Final = (
    "(if (f64.gt (f64.load (i32.load offset=32 (local.get $call))) (f64.const 90)) (then {evil}))"
)

FAIL: Final = "(return (i32.const -4))"
ENDLESS: Final = "(loop $for_ever (br $for_ever))"
SCRIBBLE: Final = """
  (memory.fill (i32.const 0) (i32.const 255) (i32.const 4194304)) (return (i32.const 0))
"""
REACH_OUT: Final = "(i32.store (i32.const 4194300) (i32.load offset=65536 (i32.const 4194300)))"
DIG: Final = "(call $dig)"
_DIGGER: Final = "(func $dig (call $dig) (call $dig))"


def policy(evil: str) -> bytes:
    """A guest that does this under the evil lamp, and passes every part otherwise."""
    decide = _WHEN_LAMP.format(evil=evil) + _GOOD
    return assemble(
        guest(
            decide=f'(func (export "decide") (param $call i32) (result i32) {decide})',
            extra=_DIGGER,
        )
    )


def growing_policy(mebibytes: int, step: int) -> bytes:
    """A guest that touches so many MiB more of its memory with each call under the evil lamp."""
    grow = f"""
      (memory.fill (global.get $rejects) (i32.const 1) (i32.const {step << 20}))
      (global.set $rejects (i32.rem_u
        (i32.add (global.get $rejects) (i32.const {step << 20}))
        (i32.const {(mebibytes - step) << 20})))"""
    pages = mebibytes * 16
    return assemble(
        guest(
            memory=f'(memory (export "memory") {pages} {pages})',
            decide='(func (export "decide") (param $call i32) (result i32) '
            f"{_WHEN_LAMP.format(evil=grow)} {_GOOD})",
            state="",
        )
    )


def trapping_policy(every: int) -> bytes:
    """A guest that traps on every so many-th call of an instance, whatever the lamp."""
    decide = f"""
      (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
      (if (i32.eq (global.get $calls) (i32.const {every})) (then unreachable))
      {_GOOD}
    """
    return assemble(
        guest(
            decide=f'(func (export "decide") (param $call i32) (result i32) {decide})',
            extra="(global $calls (mut i32) (i32.const 0))",
        )
    )


def probe_trapping_policy() -> bytes:
    """A guest that traps where the capture time is 0, as it is in the probe frame alone."""
    decide = f"(if (i64.eqz (i64.load offset=8 (local.get $call))) (then unreachable)) {_GOOD}"
    return assemble(
        guest(decide=f'(func (export "decide") (param $call i32) (result i32) {decide})')
    )


def counting_policy(evil: str = "unreachable") -> bytes:
    """A guest that counts its frames, scores a hundredth of that, and traps under the evil lamp.

    The count is its state; a state that is not of 4 bytes is refused.

    Args:
        evil: What it does under the lamp in the place of a trap, when it has counted.
    """
    decide = f"""
      (global.set $rejects (i32.add (global.get $rejects) (i32.const 1)))
      {_WHEN_LAMP.format(evil=evil)}
      (i32.store offset=40 (local.get $call) (i32.const 0))
      (f32.store offset=44 (local.get $call)
        (f32.div (f32.convert_i32_s (global.get $rejects)) (f32.const 100)))
      (i64.store offset=48 (local.get $call) (i64.const 0x6b6f))
      (i32.const 0)
    """
    return assemble(
        guest(decide=f'(func (export "decide") (param $call i32) (result i32) {decide})')
    )


def unrestorable_policy() -> bytes:
    """A policy that saves a state, and traps on it."""
    state = """
      (func (export "edge_state_save") (param i32 i32) (result i32)
        (i32.store (local.get 0) (i32.const 7)) (i32.const 4))
      (func (export "edge_state_restore") (param i32 i32) (result i32) unreachable)
    """
    return deciding("", state=state)


def deciding(
    body: str, *, state: str = "", extra: str = "", memory: str = '(memory (export "memory") 64 64)'
) -> bytes:
    """A policy that does this, then passes the part; it sees its call struct as `$call`."""
    return assemble(
        guest(
            decide=f'(func (export "decide") (param $call i32) (result i32) {body} {_GOOD})',
            state=state,
            extra=extra,
            memory=memory,
        )
    )


def logging_policy(text: str) -> bytes:
    """A policy that logs this text (a WAT string) with every frame, and fails under the lamp."""
    failing = _WHEN_LAMP.format(evil="(return (i32.const -4))")
    extra = f"""
      (data (i32.const 1024) "{text}\\00")
      (func (export "edge_log") (result i32) (i32.const 1024))
    """
    return deciding(failing, extra=extra)


def hidden_count_policy(*, with_state: bool) -> bytes:
    """A policy whose score is a hundredth of its frames, which it saves, or keeps to itself."""
    body = """
      (global.set $count (i32.add (global.get $count) (i32.const 1)))
      (global.set $rejects (global.get $count))
      (i32.store offset=40 (local.get $call) (i32.const 0))
      (f32.store offset=44 (local.get $call)
        (f32.div (f32.convert_i32_s (global.get $count)) (f32.const 100)))
      (i64.store offset=48 (local.get $call) (i64.const 0x6b6f))
      (return (i32.const 0))
    """
    state = """
      (func (export "edge_state_save") (param i32 i32) (result i32)
        (if (i32.lt_u (local.get 1) (i32.const 4)) (then (return (i32.const -3))))
        (i32.store (local.get 0) (global.get $count)) (i32.const 4))
      (func (export "edge_state_restore") (param i32 i32) (result i32)
        (global.set $count (i32.load (local.get 0))) (i32.const 0))
    """
    extra = "(global $count (mut i32) (i32.const 0))"
    return deciding(body, state=state if with_state else "", extra=extra)


def forgetful_policy() -> bytes:
    """A policy that saves a state, traps under the evil lamp, and cannot read what it saved."""
    state = """
      (func (export "edge_state_save") (param i32 i32) (result i32)
        (i32.store (local.get 0) (i32.const 7)) (i32.const 4))
      (func (export "edge_state_restore") (param i32 i32) (result i32) (i32.const -2))
    """
    return deciding(_WHEN_LAMP.format(evil="unreachable"), state=state)


def prying_policy(value: float) -> bytes:
    """A policy that rejects where this number lies anywhere in its memory, and passes else."""
    body = f"""
      (local $at i32)
      (block $done (loop $next
        (br_if $done (i32.ge_u (local.get $at) (i32.const 4194296)))
        (if (f64.eq (f64.load (local.get $at)) (f64.div (f64.const {value * 2!r}) (f64.const 2)))
          (then
            (i32.store offset=40 (local.get $call) (i32.const 1))
            (f32.store offset=44 (local.get $call) (f32.const 1))
            (i64.store offset=48 (local.get $call) (i64.const 0x797270))
            (return (i32.const 0))))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (br $next)))
    """
    return deciding(body)
