"""What a module is, beside what the ABI asks of it: `edge guest inspect`.

Two answers stand side by side. The declarations are read from the bytes, all of them, also of a
module that the host refuses. Whether it is usable is the host's own answer: it is loaded and
instantiated as a worker would, and the first reason to refuse it is the host's sentence.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from edge.contracts import abi
from edge.errors import EdgeError, IncompatibleError
from edge.sdk import measure, module
from edge.sdk.parameters import Row, rows
from edge.wasm import wasi
from edge.wasm.binary import COMPONENT_HEAD
from edge.wasm.guest import Guest
from edge.wasm.sandbox import MAX_SCRIPT_BYTES
from edge.wasm.script import ScriptModule
from edge.wasm.section import parameter_schema
from edge.wasm.shape import PAGE_BYTES

_CALL_MS: Final = 1000
_ANY: Final = 0xFFFF
_WASI: Final = frozenset(f"{wasi.MODULE}.{name}" for name in wasi.FUNCTIONS)


class ExportFinding(msgspec.Struct, frozen=True):
    """One export beside the ABI.

    Attributes:
        found: Its signature, or its kind where it is no function; empty where it is missing.
        expected: The ABI's signature; empty where the ABI does not know the name.
        state: `ok`, `wrong`, `missing` (required, and not there), `absent` (optional, and not
            there) or `ignored` (the ABI does not know it).
    """

    name: str
    found: str
    expected: str
    state: Literal["ok", "wrong", "missing", "absent", "ignored"]
    meaning: str = ""


class Inspection(msgspec.Struct, frozen=True):
    """What was found in one file.

    Attributes:
        usable: Whether the host takes it.
        refusal: The host's reason where it does not.
        abi: Lowest host version that it asks for, `major.minor`; empty where it could not be asked.
        findings: Everything that the ABI does not allow, by name.
        is_script: Whether it is a component: then the ABI's exports are not asked for.
        costs: The dearest call of each role, of its vectors; empty where none were tried.
    """

    file: str
    sha256: str
    size_bytes: int
    usable: bool
    refusal: str
    abi: str
    roles: tuple[str, ...]
    imports: tuple[module.External, ...]
    exports: tuple[ExportFinding, ...]
    memories: tuple[module.Limits, ...]
    tables: tuple[module.Limits, ...]
    custom_sections: tuple[str, ...]
    has_start: bool
    findings: tuple[str, ...]
    is_script: bool = False
    costs: tuple[measure.Cost, ...] = ()
    parameters: tuple[Row, ...] = ()


def inspect(file: Path, memory_mib: int, vectors: Path | None = None) -> Inspection:
    """Look into a module.

    Args:
        file: The Wasm file.
        memory_mib: The most memory that the host would grant it.
        vectors: Vectors whose calls are measured, where the host takes it.

    Raises:
        OSError: The file cannot be read.
    """
    with file.open("rb") as stream:
        wasm = stream.read(MAX_SCRIPT_BYTES + 1)
    sha256 = hashlib.sha256(wasm).hexdigest()
    is_script = wasm.startswith(COMPONENT_HEAD)
    answer = _ask_host(file, sha256, memory_mib, vectors)
    carried, unreadable_schema = _parameters(wasm, file.name)
    declared = module.Declarations((), (), (), (), (), False)
    exports: tuple[ExportFinding, ...] = ()
    findings: tuple[str, ...] = ()
    roles = answer.roles
    if not is_script:
        try:
            declared = module.read(wasm)
            exports = tuple(_beside_abi(declared))
            findings = tuple(_findings(declared, exports))
        except IncompatibleError as unreadable:
            findings = (str(unreadable),)
        roles = tuple(e.name for e in exports if e.state == "ok" and e.name in abi.ROLES)
    return Inspection(
        file=str(file),
        sha256=sha256,
        size_bytes=len(wasm),
        usable=not (answer.refusal or unreadable_schema),
        refusal=answer.refusal or unreadable_schema,
        abi=answer.version,
        roles=roles,
        imports=declared.imports,
        exports=exports,
        memories=declared.memories,
        tables=declared.tables,
        custom_sections=declared.custom_sections,
        has_start=declared.has_start,
        findings=findings,
        is_script=is_script,
        costs=answer.costs,
        parameters=carried,
    )


def _parameters(wasm: bytes, name: str) -> tuple[tuple[Row, ...], str]:
    """The parameters of the schema that a guest carries, or why that cannot be read."""
    try:
        schema = parameter_schema(wasm, name)
    except IncompatibleError as broken:
        return (), str(broken)
    return (tuple(rows(schema)) if schema else ()), ""


class _Answer(msgspec.Struct, frozen=True):
    """What the host says of a file; no refusal: it takes it."""

    refusal: str = ""
    version: str = ""
    roles: tuple[str, ...] = ()
    costs: tuple[measure.Cost, ...] = ()


def _ask_host(file: Path, sha256: str, memory_mib: int, vectors: Path | None) -> _Answer:
    """Load it as a worker would, ask for its ABI, and measure the calls of its vectors."""
    with measure.new_engine() as engine:
        try:
            loaded = engine.load_policy(file, sha256, memory_mib)
            guest = loaded.instantiate(_CALL_MS)
            version = ""
            if isinstance(guest, Guest):
                wanted = guest.call("edge_abi")
                version = f"{wanted >> 16 & _ANY}.{wanted & _ANY}"
            elif isinstance(loaded, ScriptModule):
                version = loaded.version
        except EdgeError as refused:
            return _Answer(str(refused))
        roles = tuple(role for role in abi.ROLES if role in loaded.roles)
        if vectors is None:
            return _Answer("", version, roles)
        seen = measure.costs(engine, file, vectors, memory_mib=memory_mib, call_ms=_CALL_MS)
        return _Answer("", version, roles, tuple(seen))


def _beside_abi(declared: module.Declarations) -> Iterator[ExportFinding]:
    """The ABI's exports in its order, then the others."""
    found = {export.name: export for export in declared.exports}
    has_role = any(role in found for role in abi.ROLES)
    for export in abi.EXPORTS:
        expected = module.signature(["i32"] * export.parameters, ["i32"] * export.result)
        there = found.pop(export.name, None)
        if there is not None:
            text = there.signature or there.kind
            state: Literal["ok", "wrong"] = "ok" if text == expected else "wrong"
            yield ExportFinding(export.name, text, expected, state, export.meaning)
        else:
            missing = export.required or (export.name in abi.ROLES and not has_role)
            yield ExportFinding(
                export.name, "", expected, "missing" if missing else "absent", export.meaning
            )
    for there in found.values():
        if there.name != "memory":
            yield ExportFinding(there.name, there.signature or there.kind, "", "ignored")


def _findings(declared: module.Declarations, exports: tuple[ExportFinding, ...]) -> Iterator[str]:
    for wish in declared.imports:
        if wish.name not in _WASI or wish.kind != "function":
            yield f"imports {wish.kind} {wish.name}; a guest imports nothing, save WASI preview 1"
    for export in exports:
        if export.state == "wrong":
            yield f"export {export.name} is {export.found}; the ABI says {export.expected}"
        elif export.state == "missing" and export.name not in abi.ROLES:
            yield f"export {export.name} is missing: {export.expected}, {export.meaning}"
    if not any(e.name in abi.ROLES and e.state != "missing" for e in exports if e.found):
        yield f"exports none of {', '.join(abi.ROLES)}; a guest serves one role at least"
    if not any(e.name == "memory" and e.kind == "memory" for e in declared.exports):
        yield 'no memory is exported as "memory"'
    if len(declared.memories) > 1:
        yield f"has {len(declared.memories)} memories; a guest has one"
    for memory in declared.memories:
        if memory.minimum != memory.maximum:
            most = "none" if memory.maximum is None else f"{memory.maximum} pages"
            yield (
                f"memory: minimum {memory.minimum} pages, maximum {most}; both must be equal "
                "(link with --initial-memory and --max-memory)"
            )
        if memory.shared or memory.is_64:
            yield "memory is shared or 64-bit; it must be neither"


def lines(found: Inspection) -> Iterator[str]:
    """The inspection for people."""
    yield f"{found.file}: {'usable' if found.usable else 'not usable'}"
    yield f"  sha256   {found.sha256}"
    yield f"  size     {found.size_bytes} bytes"
    yield f"  roles    {', '.join(found.roles) or 'none'}"
    if found.is_script:
        yield "  kind     a component: a script policy, run by the interpreter that it carries"
    else:
        yield f"  abi      {found.abi or 'unknown'} at least; this host has " + (
            f"{abi.ABI_MAJOR}.{abi.ABI_MINOR}"
        )
    for memory in found.memories:
        most = "no maximum" if memory.maximum is None else f"at most {_mib(memory.maximum)}"
        yield f"  memory   {_mib(memory.minimum)}, {most}"
    for table in found.tables:
        most = "no maximum" if table.maximum is None else f"at most {table.maximum}"
        yield f"  table    {table.minimum} elements, {most}"
    if not found.is_script:
        imports = [f"{i.kind} {i.name} {i.signature}".rstrip() for i in found.imports]
        yield f"  imports  {'; '.join(imports) or 'none'}"
        yield f"  start    {'a start function runs at set-up' if found.has_start else 'none'}"
    if found.custom_sections:
        yield f"  custom   {', '.join(found.custom_sections)}"
    for row in found.parameters:
        default = f", default {row.default}" if row.default not in ("", "required") else ""
        needed = ", required" if row.default == "required" else ""
        yield f"  parameter {row.name}: {row.kind}{default}{needed}"
    for export in found.exports:
        shown = export.found or export.expected
        yield f"  {export.state:8} {export.name} {shown}"
    for cost in found.costs:
        counted = f", at most {cost.fuel} fuel" if cost.fuel else ""
        yield f"  cost     {cost.role}: 99 of 100 calls within {cost.p99_us:.1f} us{counted}"
    for finding in found.findings:
        yield f"  wrong    {finding}"
    if found.refusal:
        yield f"  refused  {found.refusal}"


def _mib(pages: int) -> str:
    return f"{pages * PAGE_BYTES / 2**20:g} MiB"
