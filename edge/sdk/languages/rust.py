"""Rust, without its standard library: the crate `edge` of the SDK, linked by Zig's wasm-ld.

A Rust that has the target wasm32-unknown-unknown brings the crate `core` for it. One that has the
sources of its library instead (Debian's packages) compiles `core` once, in 20 s, into the cache.
Cargo is not used: a guest has no dependencies beyond the SDK.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from edge import shipped
from edge.contracts import abi
from edge.sdk.languages import ziglang
from edge.sdk.languages.language import (
    Language,
    Source,
    ToolchainMissingError,
    cache_folder,
    run_compiler,
)

DEBIAN: Final = "/usr/bin"
"""Where a distribution's Rust lies, perhaps behind another in the path."""
TARGET: Final = "wasm32-unknown-unknown"
INSTALL: Final = (
    f"rustup target add {TARGET}, or on Debian: apt-get install rustc-web rust-web-src"
    f"; and for the linker: {ziglang.INSTALL}"
)
_CODE_FLAGS: Final = (
    f"--target={TARGET}",
    "-Copt-level=3",
    "-Cpanic=abort",
    "-Cdebuginfo=0",
    "-Ctarget-feature=+simd128,+bulk-memory",
)
_FLAGS: Final = ("--edition=2021", *_CODE_FLAGS, "-Ccodegen-units=1")
_LINK_FLAGS: Final = (
    "--no-entry",
    "--gc-sections",
    "--strip-all",
    "--stack-first",
    *("-z", f"stack-size={ziglang.STACK_BYTES}"),
)
_LIBRARY: Final = Path("lib/rustlib/src/rust/library")
_TARGET_LIBRARY: Final = Path("lib/rustlib") / TARGET / "lib"
_BUILTINS: Final = "compiler-builtins/compiler-builtins/src/lib.rs"
# What the build script of compiler_builtins sets for this target.
_BUILTINS_FLAGS: Final = tuple(
    word
    for setting in (
        'feature="compiler-builtins"',
        'feature="mem"',
        'feature="unstable-intrinsics"',
        "intrinsics_enabled",
        "arch_enabled",
        "optimizations_enabled",
    )
    for word in ("--cfg", setting)
)


class Toolchain(msgspec.Struct, frozen=True):
    """A compiler and where its `core` comes from.

    Attributes:
        rustc: The command.
        library: Sources of the standard library, to compile `core` from; `None`: it has `core`.
    """

    rustc: str
    library: Path | None


def find() -> Toolchain:
    """The first Rust on the path that can compile for Wasm: with the target, else with sources.

    Raises:
        ToolchainMissingError: There is none, or the linker is missing.
    """
    ziglang.find()
    folders = [*os.environ.get("PATH", os.defpath).split(os.pathsep), DEBIAN]
    commands = dict.fromkeys(filter(None, (shutil.which("rustc", path=f) for f in folders)))
    sysroots = {command: _sysroot(command) for command in commands}
    for command, sysroot in sysroots.items():
        if sysroot and list((sysroot / _TARGET_LIBRARY).glob("libcore-*.rlib")):
            return Toolchain(command, None)
    for command, sysroot in sysroots.items():
        if sysroot and (sysroot / _LIBRARY / _BUILTINS).is_file():
            return Toolchain(command, sysroot / _LIBRARY)
    found = f" ({', '.join(sysroots)} cannot compile for it)" if sysroots else ""
    raise ToolchainMissingError(f"no Rust for WebAssembly is installed{found}: {INSTALL}")


def _sysroot(rustc: str) -> Path | None:
    """Where a Rust lies; `None` where it does not run."""
    command = [rustc, "--print", "sysroot"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return Path(done.stdout.strip()) if done.returncode == 0 else None


def compile_source(source: Source, target: Path) -> None:
    """Compile one Rust file and the SDK's crate, and link them with a memory of exactly its size.

    Raises:
        BuildError: The toolchain is missing, or refused it.
    """
    toolchain, aside = find(), target.resolve().parent
    rustc = [toolchain.rustc, *_FLAGS]
    if toolchain.library is not None:
        rustc.append(f"--sysroot={_with_core(toolchain.rustc, toolchain.library)}")
    crate = shipped.path("guests/sdk/rust/edge.rs")
    edge = ["--crate-name=edge", "--crate-type=rlib", f"--remap-path-prefix={crate.parent}=edge"]
    run_compiler([*rustc, *edge, f"--out-dir={aside}", str(crate)], source.file)
    archive = str(aside / "guest.a")
    guest = ["--crate-name=guest", "--crate-type=staticlib", f"--extern=edge={aside}/libedge.rlib"]
    run_compiler([*rustc, *guest, "-o", archive, source.file.name], source.file)
    size = source.memory_bytes
    exports = [
        f"--export{'' if export.required else '-if-defined'}={export.name}"
        for export in abi.EXPORTS
    ]
    limits = [f"--initial-memory={size}", f"--max-memory={size}"]
    command = [*ziglang.find(), "wasm-ld", *_LINK_FLAGS, *limits, *exports]
    run_compiler([*command, "-o", str(target.resolve()), archive], source.file)


def _with_core(rustc: str, library: Path) -> Path:
    """A sysroot in the cache that holds `core` for Wasm, compiled from the library's sources."""
    version = subprocess.run([rustc, "-vV"], capture_output=True, timeout=60, check=True).stdout
    key = hashlib.sha256(version + repr((_CODE_FLAGS, _BUILTINS_FLAGS)).encode()).hexdigest()[:16]
    cache = cache_folder("rust")
    sysroot = cache / key
    if sysroot.is_dir():
        return sysroot
    with tempfile.TemporaryDirectory(dir=cache) as aside:
        made = Path(aside) / "sysroot"
        lib = made / _TARGET_LIBRARY
        lib.mkdir(parents=True)
        crates: tuple[tuple[str, str, tuple[str, ...]], ...] = (
            ("core", "core/src/lib.rs", ()),
            (
                "compiler_builtins",
                _BUILTINS,
                (*_BUILTINS_FLAGS, f"--extern=core={lib}/libcore.rlib"),
            ),
        )
        for name, file, flags in crates:
            command = [rustc, "--edition=2024", f"--crate-name={name}", "--crate-type=rlib"]
            command += [*_CODE_FLAGS, "--cap-lints=allow", *flags]
            command += [f"--remap-path-prefix={library}=library", f"--out-dir={lib}"]
            # `core` is made of what only Rust's own crates may use.
            run_compiler([*command, str(library / file)], library / file, {"RUSTC_BOOTSTRAP": "1"})
        try:
            made.rename(sysroot)
        except OSError:  # another build was faster
            if not sysroot.is_dir():
                raise
    return sysroot


LANGUAGE: Final = Language(
    name="rust",
    title="Rust",
    suffix="rs",
    install=INSTALL,
    find=find,
    compile=compile_source,
    memory_mib=ziglang.MEMORY_MIB,
)
