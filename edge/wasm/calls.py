"""Calls into compiled guest code: the unchecked one, and the checked one that it must equal.

`wasmtime_func_call_unchecked` takes an array of raw values and believes the caller about the
signature. The signature is verified from the module's exports when it is loaded, the array is laid
out once, and a call costs 0.6 µs instead of 20. Its Python binding is private, so this module
looks at the binding before it relies on it; where that looks different, `Func` is used.
"""

import ctypes
from collections.abc import Callable
from importlib.metadata import version
from typing import Final

from wasmtime import Func, Store, Trap, WasmtimeError, _bindings, _ffi

from edge.wasm.interruption import DEADLINE_TICKS, Alarm

KNOWN_VERSION: Final = "50.0.1"
"""The release whose C header the unchecked call was written against."""

_VALUE_BYTES: Final = 16
"""sizeof(wasmtime_val_raw_t): its widest member is a v128."""
_I32_STEP: Final = _VALUE_BYTES // 4

GuestFunction = Callable[[int, int], int]
"""A guest function of up to two i32 parameters; what it does not take is ignored.

The result is a signed i32. Raises `Trap` or `WasmtimeError`.
"""


def unchecked_is_known() -> bool:
    """Whether the private binding is the one that this module was written against."""
    try:
        signature = _bindings._wasmtime_func_call_unchecked.argtypes
        return (
            version("wasmtime") == KNOWN_VERSION
            and ctypes.sizeof(_bindings.wasmtime_val_raw_t) == _VALUE_BYTES
            and len(signature) == len(_UNCHECKED_ARGUMENTS)
            and callable(Trap._from_ptr)
            and callable(WasmtimeError._from_ptr)
        )
    except AttributeError:
        return False


_UNCHECKED_ARGUMENTS: Final = (
    ctypes.c_void_p,  # wasmtime_context_t*
    ctypes.c_void_p,  # const wasmtime_func_t*
    ctypes.c_void_p,  # wasmtime_val_raw_t*, parameters in, results out
    ctypes.c_size_t,
    ctypes.c_void_p,  # wasm_trap_t**
)


class _Library:
    """Our own prototypes of the C functions: plain addresses, so that nothing is converted."""

    def __init__(self) -> None:
        path = str(_ffi.filename)
        # Releases the interpreter lock: the decode thread works on while a guest computes.
        # No prototypes of arguments: they are made C values once, when a function is bound, which
        # spares each call the half of its cost (0.45 instead of 0.77 us).
        self.call = ctypes.CDLL(path).wasmtime_func_call_unchecked
        self.call.restype = ctypes.c_void_p
        # Keeps it: a store of one word.
        self.set_deadline = ctypes.PyDLL(path).wasmtime_context_set_epoch_deadline
        self.set_deadline.restype = None


_library: _Library | None = None


def unchecked_function(
    store: Store, func: Func, parameters: int, alarm: Alarm, budget: int
) -> GuestFunction:
    """Bind a guest function to preallocated values.

    Args:
        store: The Store of `func`; it is kept alive.
        func: A function of `parameters` i32 and one i32 result. That is the caller's word:
            a wrong one corrupts memory.
        parameters: 0..2.
        alarm: Interrupts the call.
        budget: The alarm's token for this guest's budget.
    """
    global _library  # noqa: PLW0603 - opened on first use, where the fallback does not need it
    _library = library = _library or _Library()
    context = ctypes.c_void_p(ctypes.cast(store._context(), ctypes.c_void_p).value)
    values = (_bindings.wasmtime_val_raw_t * 2)()
    words = (ctypes.c_int32 * (2 * _I32_STEP)).from_buffer(values)
    trap = (ctypes.c_size_t * 1)()
    kept = (store, func, values, alarm)
    call, set_deadline = library.call, library.set_deadline
    arm, disarm = alarm.arm, alarm.disarm
    at_func, at_values, at_trap = (
        ctypes.c_void_p(ctypes.addressof(x)) for x in (func._func, values, trap)
    )
    count = ctypes.c_size_t(max(parameters, 1))
    ticks = ctypes.c_uint64(DEADLINE_TICKS)

    def invoke(first: int, second: int, _kept: object = kept) -> int:
        words[0] = first
        words[_I32_STEP] = second
        set_deadline(context, ticks)
        arm(budget)
        error = call(context, at_func, at_values, count, at_trap)
        disarm()
        if error:
            raise WasmtimeError._from_ptr(ctypes.cast(error, ctypes.POINTER(_ffi.wasmtime_error_t)))
        if trap[0]:
            pointer = ctypes.cast(trap[0], ctypes.POINTER(_ffi.wasm_trap_t))
            trap[0] = 0
            raise Trap._from_ptr(pointer)
        return words[0]

    return invoke


def checked_function(
    store: Store, func: Func, parameters: int, alarm: Alarm, budget: int
) -> GuestFunction:
    """Bind a guest function through wasmtime's public `Func`; same contract, 20 µs a call."""

    def invoke(first: int, second: int) -> int:
        arguments = (_signed(first), _signed(second))[:parameters]
        store.set_epoch_deadline(DEADLINE_TICKS)
        alarm.arm(budget)
        try:
            result = func(store, *arguments)
        finally:
            alarm.disarm()
        return int(result)

    return invoke


def metered_function(store: Store, function: GuestFunction, fuel: int) -> GuestFunction:
    """Have each call begin with so much fuel, which the code of a metered engine counts down."""

    def invoke(first: int, second: int) -> int:
        store.set_fuel(fuel)
        return function(first, second)

    return invoke


def _signed(word: int) -> int:
    return (word & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000
