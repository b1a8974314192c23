"""Guests that attack before the first frame: when compiled, instantiated, asked, configured."""

from collections.abc import Callable
from typing import Final

from guest_wat import assemble, guest
from hostile_case import Case, attack, exported, text

from edge.contracts import abi
from edge.wasm.code_cache import CompileLimits

FOREVER: Final = "(loop $for_ever (br $for_ever)) unreachable"
DIG: Final = "(func $dig (result i32) (i32.add (call $dig) (i32.const 1)))"


def _started(body: str) -> str:
    return guest(extra=f"(func $start {body}) (start $start)")


def _versioned(version: int) -> str:
    return guest(abi=exported("edge_abi", f"(i32.const {version})"))


_NEXT: Final = abi.ABI_MAJOR << 16 | abi.ABI_MINOR + 1
INSTANTIATION: Final = tuple(
    text(name, wat, "refused", says)
    for name, wat, says in (
        ("start loops", _started(FOREVER), "start function did not return within"),
        ("start traps", _started("unreachable"), "start function trapped: unreachable"),
        (
            "start recurses",
            guest(extra=f"{DIG} (func $start (drop (call $dig))) (start $start)"),
            "stack overflow",
        ),
        (
            "start fills memory for ever",
            _started(
                "(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 4194304)) (br $l))"
            ),
            "start function did not return within",
        ),
        ("data segment out of memory", guest(extra='(data (i32.const 4194303) "ab")'), "bounds"),
        (
            "element segment out of table",
            guest(extra="(table 1 funcref) (elem (i32.const 9) func $alloc)"),
            "bounds",
        ),
        ("a million table elements", guest(extra="(table 1000000 funcref)"), "within its grant"),
        ("4 billion table elements", guest(extra="(table 4294967295 funcref)"), r"guest .*: "),
        ("a hundred tables", guest(extra="(table 1 funcref)" * 100), "within its grant|tables"),
    )
)

QUESTIONS: Final = tuple(
    text(name, wat, "refused", says)
    for name, wat, says in (
        ("wants ABI 2.0", _versioned(0x20000), r"wants guest ABI 2\.0"),
        ("wants ABI 0.0", _versioned(0), r"wants guest ABI 0\.0"),
        ("wants the next minor ABI", _versioned(_NEXT), "wants guest ABI 1"),
        ("wants ABI -1", _versioned(-1), r"wants guest ABI 65535\.65535"),
        ("edge_abi loops", guest(abi=exported("edge_abi", FOREVER)), "edge_abi did not return"),
        ("edge_abi traps", guest(abi=exported("edge_abi", "unreachable")), "edge_abi trapped"),
        (
            "edge_configure loops",
            guest(configure=exported("edge_configure", FOREVER, 2)),
            "edge_configure did not return within",
        ),
        (
            "edge_configure traps",
            guest(configure=exported("edge_configure", "unreachable", 2)),
            "edge_configure trapped",
        ),
        (
            "edge_configure refuses in terminal codes",
            guest(configure=exported("edge_configure", "(i32.const -1)", 2)),
            r"threshold \[31m must",
        ),
        (
            "edge_configure answers 77",
            guest(configure=exported("edge_configure", "(i32.const 77)", 2)),
            "result 77, which the ABI does not know",
        ),
    )
)


def _alloc(body: str) -> str:
    return guest(alloc=exported("edge_alloc", body, 2))


ALLOCATIONS: Final = tuple(
    text(f"edge_alloc {name}", _alloc(body), "refused", says)
    for name, body, says in (
        ("loops", FOREVER, "edge_alloc did not return within"),
        ("traps", "unreachable", "edge_alloc trapped"),
        ("never has room", "(i32.const 0)", "found no room"),
        ("gives the same twice", "(i32.const 8192)", "inside what it gave before"),
        ("gives odd addresses", "(i32.const 4097)", "not aligned"),
        ("gives the end of memory", "(i32.const 4194240)", "ends outside"),
        ("gives what lies outside", "(i32.const 4194304)", "ends outside"),
        ("gives the far end", "(i32.const -64)", "ends outside"),
        ("gives the middle of 32 bits", "(i32.const 0x7fffffc0)", "ends outside"),
    )
)


# Compile bombs. Each meets the limit that it is made to meet; the limits are narrowed here, so that
# the corpus is quick. The shipped ones are 60 s of CPU and 1 GiB.

_STEP: Final = "(local.set 0 (i32.mul (i32.add (local.get 0) (i32.const 7)) (local.get 0)))"
_CPU: Final = CompileLimits(cpu_s=1, wall_s=60)
_MEMORY: Final = CompileLimits(cpu_s=20, wall_s=60, memory_mib=200)


def _many_functions() -> bytes:
    return assemble(
        guest(extra=f"(func (param i32) (result i32) {_STEP * 60} (local.get 0))" * 20_000)
    )


def _huge_function() -> bytes:
    return assemble(guest(extra=f"(func (param i32) (result i32) {_STEP * 250_000} (local.get 0))"))


def _deep_nesting() -> bytes:
    """Written in binary: a hundred thousand blocks in each other."""
    return _with_body(b"\x02\x40" * 100_000 + b"\x0b" * 100_000)


def _jumps() -> bytes:
    """A hundred `br_table`s of sixty thousand targets each, among blocks."""
    table = b"\x41\x00\x0e" + leb(60_000) + b"\x00\x01" * 30_000 + b"\x00"
    return _with_body(b"".join(b"\x02\x40\x02\x40" + table + b"\x0b\x0b" for _ in range(100)))


def _locals() -> bytes:
    """A function of 50,000 locals, all alive at once, and sixty like it."""
    body = b"\x01" + leb(50_000) + b"\x7b" + b"\x0b"
    return _module_of([body] * 60)


def leb(number: int) -> bytes:
    """Unsigned LEB128."""
    found = bytearray()
    while True:
        low, number = number & 0x7F, number >> 7
        found.append(low | (0x80 if number else 0))
        if not number:
            return bytes(found)


def _with_body(code: bytes) -> bytes:
    return _module_of([b"\x00" + code + b"\x0b"])


def _module_of(bodies: list[bytes]) -> bytes:
    """A module of functions () -> () with these bodies, locals first."""

    def section(number: int, content: bytes) -> bytes:
        return bytes([number]) + leb(len(content)) + content

    code = b"".join(leb(len(body)) + body for body in bodies)
    return b"\0asm\1\0\0\0" + b"".join(
        (
            section(1, b"\x01\x60\x00\x00"),
            section(3, leb(len(bodies)) + b"\0" * len(bodies)),
            section(10, leb(len(bodies)) + code),
        )
    )


def _bomb(name: str, make: Callable[[], bytes], says: str, limits: CompileLimits) -> Case:
    return Case(f"compile bomb: {name}", make, "refused", says, compile=limits)


_COSTLY: Final = r"more than 1 s of CPU|more than 200 MiB|no memory named|guest .*: "
BOMBS: Final = (
    _bomb("20,000 functions", _many_functions, "more than 1 s of CPU", _CPU),
    _bomb("one huge function", _huge_function, "more than (1 s of CPU|200 MiB)", _CPU),
    _bomb("one huge function in 200 MiB", _huge_function, "more than 200 MiB", _MEMORY),
    _bomb("100,000 blocks deep", _deep_nesting, _COSTLY, _CPU),
    _bomb("br_table", _jumps, _COSTLY, _CPU),
    _bomb("50,000 locals", _locals, _COSTLY, _CPU),
    _bomb(
        "a module of 15 MiB of data",
        lambda: assemble(guest(extra='(data "{}")'.format("a" * (15 << 20)))),
        "native code is larger than 1 MiB",
        CompileLimits(cpu_s=20, wall_s=60, output_mib=1),
    ),
)

# Giant, and allowed: what they claim is bounded by the grant, and gains them nothing.
GIANTS: Final = (
    text(
        "10,000 small functions",
        attack("(i32.const -4)", extra="(func)" * 10_000),
        "guest-trap",
        "decide failed",
    ),
    text(
        "1,000 data segments",
        attack("(i32.const -4)", extra='(data (i32.const 100) "x")' * 1000),
        "guest-trap",
        "decide failed",
    ),
    text(
        "1,000 globals",
        attack("(i32.const -4)", extra="(global i64 (i64.const 1))" * 1000),
        "guest-trap",
        "decide failed",
    ),
)

CASES: Final = (*INSTANTIATION, *QUESTIONS, *ALLOCATIONS, *BOMBS, *GIANTS)
