"""The reference deployment with a wasi-nn program in the place of its two guests."""

import shutil
from pathlib import Path
from typing import Final

from edge.deployment.pin import pin

ROOT: Final = Path(__file__).resolve().parents[1]
BOARDS: Final = ROOT / "guests/programs/boards/boards.wasm"


def with_program(
    source: Path,
    folder: Path,
    wasm: bytes,
    *,
    graph: str = "boards",
    call_ms: int = 150,
    memory_mib: int = 16,
) -> Path:
    """A copy of the reference deployment whose findings come from a program; pinned."""
    shutil.copytree(source, folder)
    manifest = folder / "manifest.toml"
    text = manifest.read_text().replace("= 1280", "= 640")  # all that `boards` takes
    before, after = text.index("[pipelines.pcb.preprocess]"), text.index("[pipelines.pcb.decide]")
    manifest.write_text(
        f"{text[:before]}[pipelines.pcb.program]\n"
        f'path = "guests/program.wasm"\nsha256 = ""\ngraph = "{graph}"\n'
        f"memory_mib = {memory_mib}\ncall_ms = {call_ms}\n\n{text[after:]}"
    )
    for name in ("pair.wasm", "boxes.wasm"):
        (folder / "guests" / name).unlink()
    (folder / "guests/program.wasm").write_bytes(wasm)
    pin(folder)
    return folder
