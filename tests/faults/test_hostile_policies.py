"""One worker, one policy, many attacks in turn: each costs its frames, and the next is judged."""

import asyncio
from pathlib import Path
from typing import Final

import pytest
from daemons import DEPLOYMENT, TIMED_LAMP, Daemon, Line, line_to
from deployments import with_policy
from evil_guests import GOOD_LAMP
from guest_wat import assemble, guest
from hostile_case import decision

from edge.mqtt.brokers import LocalBroker

OVERRIDES: Final = ("status.interval_s=0.5", TIMED_LAMP)
FIRST_LAMP: Final = 100
TRIES: Final = 10
FLOODED: Final = 45
"""Frames with 4 wishes each: more than are granted."""
GRANTED: Final = 120
"""Rejects a minute, of the reference deployment."""

_FOREVER: Final = "(loop $l (br $l)) unreachable"
_ALL: Final = "(i32.const 4194304)"
ATTACKS: Final = (
    ("guest-budget", _FOREVER),
    ("guest-trap", "unreachable"),
    ("guest-trap", "(call $dig)"),
    ("guest-trap", "(i32.load (i32.const -4))"),
    ("guest-trap", "(i32.div_u (i32.const 1) (i32.const 0))"),
    ("guest-trap", "(call_indirect (result i32) (i32.const 0))"),
    ("guest-trap", f"(memory.fill (i32.const 0) (i32.const 255) {_ALL}) (i32.const 0)"),
    ("guest-budget", f"(loop $l (memory.fill (i32.const 0) (i32.const 1) {_ALL}) (br $l))"
                     " unreachable"),
    ("guest-trap", decision(score="(f32.const nan)")),
    ("guest-trap", decision(verdict="(i32.const 7)")),
    ("guest-trap", decision(reason=b"\x1b[2J")),
    ("guest-trap", decision(reason=b"overrun")),
    ("guest-trap", decision(actions="(i32.const 5)")),
    ("guest-trap", decision(actions="(i32.const 1)", index="(i32.const 9)")),
    ("guest-trap", "(i32.const -2)"),
    ("fine", f"(drop (memory.grow (i32.const 1))) {decision()}"),
)  # fmt: skip
_FLOOD_LAMP: Final = 99


def hostile() -> bytes:
    """A policy that attacks by the lamp's number, and passes every part under any other."""
    lamp = "(f64.load (i32.load offset=32 (local.get 0)))"
    flood = decision(actions="(i32.const 4)")
    bodies = [*enumerate((body for _, body in ATTACKS), FIRST_LAMP), (_FLOOD_LAMP, flood)]
    functions = "".join(
        f"(func $attack{number} (param $call i32) (result i32) {body})" for number, body in bodies
    )
    choices = "".join(
        f"(if (f64.eq {lamp} (f64.const {number}))"
        f" (then (return (call $attack{number} (local.get 0)))))"
        for number, _ in bodies
    )
    good = decision(reason=b"ok", score="(f32.const 0)")
    return assemble(
        guest(
            decide=f'(func (export "decide") (param i32) (result i32) {choices} {good})',
            error='(data (i32.const 16) "\\1b[2J\\ff\\07") '
            '(func (export "edge_error") (result i32) (i32.const 16))',
            extra=f"{functions} (table 1 funcref)"
            " (func $dig (result i32) (i32.add (call $dig) (i32.const 1)))",
        )
    )


async def meets(line: Line, reason: str, what: str) -> None:
    """Play frames until one has this reason; a busy machine may be late for others, and no more."""
    for _ in range(TRIES):
        names = await line.play(2, interval_s=0.08)
        await line.all_verdicts(names)
        reasons = line.reasons(names)
        assert reasons.keys() <= {reason, "overrun", "overload"}, f"{what}: {dict(reasons)}"
        if reason in reasons:
            return
    pytest.fail(f"no frame got {reason!r}: {what}")


@pytest.mark.timeout(180)
def test_one_worker_outlives_every_attack(mosquitto: LocalBroker, tmp_path: Path) -> None:
    deployment = with_policy(DEPLOYMENT, tmp_path / "deployment", hostile(), call_ms=30)

    async def scenario(daemon: Daemon) -> None:
        async with line_to(mosquitto) as line:
            worker, supervisor = daemon.worker(), daemon.pid
            line.lamp(GOOD_LAMP)
            await meets(line, "ok", "the guest is good at first")
            for number, (reason, body) in enumerate(ATTACKS, FIRST_LAMP):
                line.lamp(number)
                await meets(line, reason, body)
                line.lamp(GOOD_LAMP)
                await meets(line, "ok", body)
            line.lamp(_FLOOD_LAMP)
            names = await line.play(FLOODED, interval_s=0.12)
            reasons = line.reasons(names) if await line.all_verdicts(names) else {}
            # A busy machine may be late for some; what counts is that the wishes stay in bounds.
            assert reasons["fine"] * 4 > GRANTED, reasons
            assert len(line.heard["line/top/reject"]) <= GRANTED + 1
            await line.status(
                lambda s: any("actions_denied" in name for name in s["counters"]),
                "what was wished beyond the grant was denied, and counted",
            )
            assert (daemon.worker(), daemon.pid) == (worker, supervisor)
            assert all(line.isprintable() for line in daemon.log().splitlines())

    with Daemon(mosquitto, tmp_path, deployment=deployment, overrides=OVERRIDES) as daemon:
        asyncio.run(scenario(daemon.ready()))
