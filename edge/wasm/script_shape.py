"""What a component must look like to be a script: its world, and no import.

Decided from the component alone: nothing of it has run.
"""

from typing import Final

from wasmtime import Engine
from wasmtime.component import Component, ComponentInstanceType, FuncType, ResultType, String

from edge.contracts import script
from edge.errors import IncompatibleError
from edge.wasm.guest import printable

_SHAPES: Final = {
    (script.POLICY_INTERFACE, "configure"): "(string) -> result<_, string>",
    (script.POLICY_INTERFACE, "decide"): "(string) -> result<string, string>",
    (script.STATE_INTERFACE, "save"): "() -> string",
    (script.STATE_INTERFACE, "restore"): "(string) -> result<_, string>",
}


def script_interfaces(
    engine: Engine, component: Component, name: str
) -> tuple[str, dict[tuple[str, str], str]]:
    """The world's version, and under which exported name each function of it is found.

    Raises:
        IncompatibleError: The component imports something, or exports another world.
    """
    kind = component.type
    for wish in kind.imports(engine):
        raise IncompatibleError(
            f"guest {name}: it imports {printable(wish, 80)}; a script imports nothing: "
            "build it with --stub-wasi, and leave out what needs a system"
        )
    version, found = "", {}
    for exported, extern in kind.exports(engine).items():
        interface, _, number = exported.partition("@")
        if interface not in {script.POLICY_INTERFACE, script.STATE_INTERFACE}:
            continue
        version = _checked_version(number, name)
        instance = extern.ty
        functions = instance.exports(engine) if isinstance(instance, ComponentInstanceType) else {}
        for (owner, function), shape in _SHAPES.items():
            if owner == interface:
                item = functions[function].ty if function in functions else None
                said = _shape(item) if isinstance(item, FuncType) else "missing"
                if said != shape:
                    raise IncompatibleError(
                        f"guest {name}: {exported}.{function} is {said}, expected {shape}"
                    )
                found[owner, function] = exported
    if (script.POLICY_INTERFACE, "decide") not in found:
        exports = ", ".join(printable(each, 80) for each in kind.exports(engine)) or "nothing"
        raise IncompatibleError(
            f"guest {name}: a component that exports {exports}; a script exports "
            f"{script.POLICY_INTERFACE}@{script.SCRIPT_MAJOR}.{script.SCRIPT_MINOR}.0 "
            "(guests/sdk/script/policy.wit)"
        )
    return version, found


def _checked_version(number: str, name: str) -> str:
    major, _, rest = number.partition(".")
    minor = rest.partition(".")[0]
    known = major == str(script.SCRIPT_MAJOR) and minor.isdecimal()
    if not known or int(minor) > script.SCRIPT_MINOR:
        raise IncompatibleError(
            f"guest {name}: it wants script world {printable(number, 40)}; this host has "
            f"{script.SCRIPT_MAJOR}.{script.SCRIPT_MINOR}: rebuild it with this host's SDK"
        )
    return f"{major}.{minor}"


def _shape(func: FuncType) -> str:
    """A function's type in the words of `_SHAPES`."""
    result = func.result
    if isinstance(result, ResultType):
        said = f"result<{_word(result.ok)}, {_word(result.err)}>"
    else:
        said = _word(result)
    return f"({', '.join(_word(kind) for _, kind in func.params)}) -> {said}"


def _word(kind: object) -> str:
    if kind is None:
        return "_"
    return "string" if isinstance(kind, String) else type(kind).__name__.lower()
