"""Guests that attack while frames come: on every second frame, and good in between."""

from typing import Final

from corpus_setup import DIG, FOREVER
from hostile_case import SAVE, Case, End, attack, decision, defect, exported, text, transform

_ROLES: Final = ("preprocess", "postprocess", "decide")
_ALL_MEMORY: Final = "(i32.const 4194304)"
_FILL: Final = f"(memory.fill (i32.const 0) (i32.const 1) {_ALL_MEMORY})"
_COPY: Final = "(memory.copy (i32.const 0) (i32.const 65536) (i32.const 4128768))"


def _trap(name: str, body: str, says: str, role: str = "decide", extra: str = "") -> Case:
    return text(f"{role}: {name}", attack(body, role, extra), "guest-trap", says)


def _stall(name: str, body: str, role: str = "decide", extra: str = "") -> Case:
    return text(
        f"{role}: {name}",
        attack(body, role, extra),
        "guest-budget",
        f"{role} did not return within",
    )


STALLS: Final = (
    *(_stall("endless loop", FOREVER, role) for role in _ROLES),
    *(
        _stall("two functions call each other for ever", "(call $ping (i32.const 1))", role,
               "(func $ping (param i32) (result i32) (loop $l (drop (call $pong (i32.const 1)))"
               " (br $l)) unreachable)"
               "(func $pong (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))")
        for role in ("decide",)
    ),
    _stall("fills memory for ever", f"(loop $l {_FILL} (br $l)) unreachable"),
    _stall("fills memory 10,000 times without a loop", f"{_FILL * 10_000} (i32.const 0)"),
    _stall("copies memory 10,000 times without a loop", f"{_COPY * 10_000} (i32.const 0)"),
    _stall(
        "fills a table for ever",
        "(loop $l (table.fill $t (i32.const 0) (ref.null func) (i32.const 65000)) (br $l))"
        " unreachable",
        extra="(table $t 65000 funcref)",
    ),
    _stall(
        "asks for more memory for ever",
        "(loop $l (drop (memory.grow (i32.const 1))) (br $l)) unreachable",
    ),
    _stall(
        "divides for ever",
        "(loop $l (drop (i64.div_u (i64.const -1) (i64.const 3))) (br $l)) unreachable",
        "postprocess",
    ),
)  # fmt: skip

TRAPS: Final = (
    *(_trap("unreachable", "unreachable", "unreachable executed", role) for role in _ROLES),
    *(
        _trap("recursion", "(call $dig)", "stack overflow", role, DIG)
        for role in _ROLES
    ),
    _trap("reads below 0", "(i32.load (i32.const -4))", "out-of-bounds memory"),
    _trap("reads behind the end", "(i32.load (i32.const 4194301))", "out-of-bounds memory"),
    _trap(
        "reads 8 GiB away",
        "(i32.load offset=4294967295 (i32.const -1))",
        "out-of-bounds memory",
        "preprocess",
    ),
    _trap("writes behind the end", "(v128.store (i32.const 4194296) (v128.const i64x2 1 1))"
          " (i32.const 0)", "out-of-bounds memory", "postprocess"),
    _trap("fills beyond the end", "(memory.fill (i32.const 1) (i32.const 0) (i32.const -1))"
          " (i32.const 0)", "out-of-bounds"),
    _trap("copies beyond the end", "(memory.copy (i32.const 0) (i32.const 9) (i32.const -1))"
          " (i32.const 0)", "out-of-bounds"),
    _trap("divides by zero", "(i32.div_u (i32.const 1) (i32.const 0))", "division by zero"),
    _trap("divides out of range", "(i32.div_s (i32.const 0x80000000) (i32.const -1))", "overflow"),
    _trap("converts NaN", "(i32.trunc_f32_s (f32.const nan))", "bad conversion to integer"),
    _trap("converts infinity", "(i32.trunc_f64_u (f64.const inf))", "integer overflow"),
    _trap("calls nothing", "(call_indirect (result i32) (i32.const 0))", "indirect call to null",
          extra="(table 1 funcref)"),
    _trap("calls outside the table", "(call_indirect (result i32) (i32.const 7))",
          "out.of.bounds", extra="(table 1 funcref)"),
    _trap("calls under another type", "(call_indirect (result i64) (i32.const 0)) (i32.wrap_i64)",
          "signature|type mismatch|bad signature",
          extra="(table 1 funcref) (elem (i32.const 0) func $alloc)"),
    _trap("reads outside a table", "(ref.is_null (table.get $t (i32.const 9)))",
          "out.of.bounds", extra="(table $t 1 funcref)"),
)  # fmt: skip

RESULTS: Final = tuple(
    _trap(f"answers {answer}", f"(i32.const {answer})", says, role)
    for role, answer, says in (
        ("preprocess", 1, "result 1, which the ABI does not know"),
        ("preprocess", -2, r"preprocess failed: the input is.*threshold"),
        ("preprocess", -99, "result -99, which the ABI does not know"),
        ("preprocess", -2147483648, "which the ABI does not know"),
        ("postprocess", 301, "claims 301 defects; it was given room for 300"),
        ("postprocess", 2147483647, "claims 2147483647 defects"),
        ("postprocess", -4, "postprocess failed: the guest failed"),
        ("decide", 5, "result 5, which the ABI does not know"),
        ("decide", -3, "decide failed"),
    )
)

TRANSFORMS: Final = tuple(
    _trap(f"transform {' '.join(values) or 'not set'}", transform(*values), "set the transform",
          "preprocess")
    for values in (
        (),
        ("nan", "1", "0", "0"),
        ("1", "inf", "0", "0"),
        ("1", "1", "-inf", "0"),
        ("1", "1", "0", "nan"),
        ("0", "1", "0", "0"),
        ("1", "-1", "0", "0"),
        ("1", "1"),
    )
)  # fmt: skip

DEFECTS: Final = (
    *(
        _trap(f"field {offset} is {value}", defect(offset, f"(f32.const {value})"), says,
              "postprocess")
        for offset, value, says in (
            (0, "nan", "box that is not finite"),
            (4, "inf", "box that is not finite"),
            (8, "-inf", "box that is not finite"),
            (12, "nan:0x1234", "box that is not finite"),
            (0, "3", "box inside out"),
            (12, "0", "box inside out"),
            (16, "nan", "score outside"),
            (16, "1.5", "score outside"),
            (16, "-0.5", "score outside"),
            (16, "inf", "score outside"),
        )
    ),
    *(
        _trap(f"label {label}", defect(20, f"(i32.const {label})"), "has a label outside",
              "postprocess")
        for label in (2, -1, 2147483647)
    ),
)  # fmt: skip

DECISIONS: Final = tuple(
    _trap(name, decision(**answer), says)
    for name, answer, says in (
        ("verdict 3", {"verdict": "(i32.const 3)"}, "verdict 3, none of the ABI's"),
        ("verdict -1", {"verdict": "(i32.const -1)"}, "none of the ABI's"),
        ("score NaN", {"score": "(f32.const nan)"}, "score nan"),
        ("score infinite", {"score": "(f32.const inf)"}, "score inf"),
        ("score 1.01", {"score": "(f32.const 1.01)"}, "outside"),
        ("score below 0", {"score": "(f32.const -0.01)"}, "outside"),
        ("reason empty", {"reason": b""}, "at least one"),
        ("reason in capitals", {"reason": b"No"}, "codes are of"),
        ("reason with a space", {"reason": b"a b"}, "codes are of"),
        ("reason with a line end", {"reason": b"a\n"}, "codes are of"),
        ("reason in terminal codes", {"reason": b"\x1b[2Jok"}, "codes are of"),
        ("reason no UTF-8", {"reason": b"\xff\xfe"}, "codes are of"),
        ("reason that leaves its field", {"reason": b"A" * 32}, "codes are of"),
        ("reason that leaves no room for its end", {"reason": b"a" * 32}, "at most 31"),
        ("a reason of the host", {"reason": b"overrun"}, "which only the host gives"),
        ("another of the host", {"reason": b"worker-lost"}, "which only the host gives"),
        ("5 actions", {"actions": "(i32.const 5)"}, "5 actions; at most 4"),
        ("4 billion actions", {"actions": "(i32.const -1)"}, "at most 4"),
        ("an action not granted", {"actions": "(i32.const 1)", "index": "(i32.const 2)"},
         "action 2; 2 are granted"),
        ("action -1", {"actions": "(i32.const 1)", "index": "(i32.const -1)"}, "are granted"),
        ("an infinite action", {"actions": "(i32.const 1)", "value": "(f64.const inf)"},
         "the value inf"),
        ("an action of NaN", {"actions": "(i32.const 1)", "value": "(f64.const nan)"},
         "the value nan"),
    )
)  # fmt: skip

_SAVE: Final = "edge_state_save"
STATES: Final = (
    *(
        _trap(name, body, says, _SAVE)
        for name, body, says in (
            ("claims 4097 bytes", "(i32.const 4097)", "claims 4097 bytes"),
            ("claims 2 GiB", "(i32.const 2147483647)", "claims 2147483647 bytes"),
            ("fails", "(i32.const -4)", "edge_state_save failed"),
            ("answers a wild error", "(i32.const -2147483648)", "edge_state_save failed"),
            ("traps", "unreachable", "edge_state_save trapped"),
        )
    ),
    _stall("loops", FOREVER, _SAVE),
    # The trap brings a fresh instance, which is handed the state; it starts empty instead.
    *(
        text(
            f"edge_state_restore {name}",
            attack("unreachable", state=SAVE + exported("edge_state_restore", body, 2)),
            "guest-trap",
            "decide trapped",
            calls=calls,
        )
        for name, body, calls in (
            ("refuses", "(i32.const -1)", 1),
            ("answers 9", "(i32.const 9)", 1),
            ("traps", "unreachable", 1),
            ("loops", FOREVER, 3),
        )
    ),
)  # fmt: skip


def _error(name: str, body: str, says: str, calls: int = 1, extra: str = "") -> Case:
    error = exported("edge_error", body)
    return text(
        f"edge_error {name}",
        attack("(i32.const -2)", error=error, extra=extra),
        "guest-trap",
        says,
        calls=calls,
    )


ERROR_TEXTS: Final = (
    _error("loops", FOREVER, "decide failed.*edge_error did not return", calls=2),
    _error("traps", "unreachable", "decide failed.*edge_error trapped"),
    _error("points behind memory", "(i32.const 4194304)", "points outside the guest's memory"),
    _error("points below 0", "(i32.const -1)", "points outside the guest's memory"),
    _error(
        "points at text without an end",
        "(i32.const 4194200)",
        "decide failed.*: x{104}$",
        extra='(data (i32.const 4194200) "{}")'.format("x" * 104),
    ),
    _error(
        "points at terminal codes and no UTF-8",
        "(i32.const 4194200)",
        r"decide failed[^\x00-\x1f\x7f-\x9f]*$",
        extra='(data (i32.const 4194200) "\\1b[2J\\9b1m\\ff\\fe\\07\\0d\\0a\\e2\\80\\ae\\00")',
    ),
)

_LOGS: Final = '(func $logs (export "edge_log") (result i32) {})'
_LOG_ATTACKS: Final[tuple[tuple[str, str, End, str], ...]] = (
    ("loops", FOREVER, "guest-budget", "edge_log did not return within"),
    ("traps", "unreachable", "guest-trap", "edge_log trapped"),
    ("points behind memory", "(i32.const 4194304)", "guest-trap", "points outside its memory"),
    ("points below 0", "(i32.const -1)", "guest-trap", "points outside its memory"),
    ("points at all memory", "(i32.const 1)", "harmless", ""),
)
LOGS: Final = tuple(
    text(
        f"edge_log {name}",
        attack(
            decision(),
            extra=_LOGS.format(f"""
          (if (result i32) (i32.or (i32.and (global.get $frames) (i32.const 1))
                                   (i32.eqz (global.get $frames)))
            (then (i32.const 0)) (else {body}))"""),
        ),
        end,
        says,
    )
    for name, body, end, says in _LOG_ATTACKS
)

# Not a number, and not a crime by itself: the model's outputs are then no numbers either.
_POISON: Final = """
  (local $sink i32) (local $left i32)
  (local.set $sink (i32.load (i32.load offset=48 (local.get $call))))
  (local.set $left (i32.const 48))
  (loop $next
    (f32.store (local.get $sink) (f32.const {value}))
    (local.set $sink (i32.add (local.get $sink) (i32.const 4)))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br_if $next (local.get $left)))
"""
POISON: Final = tuple(
    _trap(
        f"fills the model's input with {value}",
        _POISON.format(value=value) + transform("1", "1", "0", "0"),
        "postprocess failed: the input is",
        "preprocess",
    )
    for value in ("nan", "inf", "-inf", "nan:0x1")
)

# What a role returned stays what it was, whatever another role of the same memory does later; and
# what the host laid out is laid out again for each call.
_DEFECTS: Final = "(i32.load offset=24 (local.get $call))"
_REWRITES: Final[tuple[tuple[str, str, End, str], ...]] = (
    (
        "rewrites the findings it was given",
        f"(memory.fill {_DEFECTS} (i32.const 255) (i32.const 7200))",
        "harmless",
        "",
    ),
    (
        "rewrites its own argument",
        "(memory.fill (local.get $call) (i32.const 255) (i32.const 40))",
        "harmless",
        "",
    ),
    (
        "rewrites all memory, then answers",
        f"(memory.fill (i32.const 0) (i32.const 255) {_ALL_MEMORY})",
        "guest-trap",
        "5 actions|actions; at most 4|codes are of",
    ),
)
LATER: Final = tuple(
    text(f"decide: {name}", attack(f"{body} {decision()}"), end, says)
    for name, body, end, says in _REWRITES
)
LATER_ROLES: Final = (
    text(
        "postprocess: rewrites tensors, transform and its argument, then answers",
        attack(
            f"""(memory.fill (i32.load (i32.load offset=8 (local.get $call)))
                  (i32.const 255) (i32.const 240))
                {defect()} (drop)
                (memory.fill (i32.load offset=8 (local.get $call)) (i32.const 255) (i32.const 48))
                (memory.fill (local.get $call) (i32.const 255) (i32.const 40))
                (i32.const 1)""",
            "postprocess",
        ),
        "harmless",
    ),
    text(
        "preprocess: rewrites the frame, the tensors' descriptions and its argument",
        attack(
            """(memory.fill (i32.load (local.get $call)) (i32.const 255) (i32.const 384))
               (memory.fill (i32.load (i32.load offset=48 (local.get $call)))
                 (i32.const 0) (i32.const 192))
               (memory.fill (i32.load offset=48 (local.get $call)) (i32.const 255) (i32.const 48))
               (memory.fill (local.get $call) (i32.const 255) (i32.const 56))"""
            + transform("1", "1", "0", "0"),
            "preprocess",
        ),
        "harmless",
    ),
)

GROWTH: Final = tuple(
    text(f"decide: {name}", attack(f"{body} {decision()}", extra=extra), "harmless")
    for name, body, extra in (
        ("grows memory by a page", "(drop (memory.grow (i32.const 1)))", ""),
        ("grows memory by 4 GiB", "(drop (memory.grow (i32.const 65535)))", ""),
        ("grows memory by -1", "(drop (memory.grow (i32.const -1)))", ""),
        (
            "grows a table to its end",
            "(drop (table.grow $t (ref.null func) (i32.const -1)))",
            "(table $t 1 funcref)",
        ),
        (
            "grows a table by 100,000",
            "(if (i32.ne (table.grow $t (ref.null func) (i32.const 100000)) (i32.const -1))"
            " (then unreachable))",
            "(table $t 1 funcref)",
        ),
    )
)

_FOUR_ACTIONS: Final = decision(actions="(i32.const 4)")
FLOOD: Final = (
    text("decide: wishes 4 actions, all that may be", attack(_FOUR_ACTIONS), "harmless"),
)

CASES: Final = (
    *STALLS,
    *TRAPS,
    *RESULTS,
    *TRANSFORMS,
    *DEFECTS,
    *DECISIONS,
    *STATES,
    *ERROR_TEXTS,
    *LOGS,
    *POISON,
    *LATER,
    *LATER_ROLES,
    *GROWTH,
    *FLOOD,
)
