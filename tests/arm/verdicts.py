"""The same verdicts on both architectures: `make arm`.

    python tests/arm/verdicts.py --boards 24

Builds the arm64 package, unpacks it into a Debian arm64 root, and judges the same rendered boards
twice by the whole frame path (decode, guests, model, policy): here, and there by emulation. Status
0: every verdict and every class of defect is the same; how far scores and boxes differ is told.
Needs root, mmdebstrap, qemu-user-static and Linux 6.7. What emulation cannot show: speed, and the
kernels that ONNX Runtime chooses on a processor that is newer than the emulated Cortex-A72.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from edge.linesim import Board, encode_jpeg, render_part

ROOT: Final = Path(__file__).parents[2]
OUT: Final = ROOT / ".out" / "arm"
ROOTFS: Final = ROOT / ".out" / "rootfs-arm64"
DEFECTS: Final = ((), ("open",), ("short", "spur"), ("mousebite",), ("pin-hole", "copper"))


def lacking() -> str:
    """What is missing here for the run, with its remedy; empty where nothing is."""
    if os.geteuid() != 0:
        return "root: an emulated root is made and entered"
    tools = {"mmdebstrap": "mmdebstrap", "qemu-aarch64-static": "qemu-user-static"}
    missing = [package for tool, package in tools.items() if shutil.which(tool) is None]
    return f"Debian's {' and '.join(missing)}: make setup-tests" if missing else ""


def render(folder: Path, boards: int) -> None:
    """Draw so many boards, good and bad in turn, each beside its reference."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number in range(boards):
        board = Board(3 + number % 4)
        part = render_part(board, number, DEFECTS[number % len(DEFECTS)])
        (folder / f"{number:03}.jpg").write_bytes(encode_jpeg(part.image))
        (folder / f"{number:03}.reference.jpg").write_bytes(encode_jpeg(board.reference()))


def judge(command: list[str]) -> dict[str, dict[str, Any]]:
    """Run the judging, and return what came of each board, by its name."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["board"]: line for line in lines}


def compare(ours: dict[str, dict[str, Any]], theirs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Say which verdicts differ, and by how much the numbers of the others."""
    other, score, box = [], 0.0, 0.0
    for name, here in ours.items():
        there = theirs.get(name, {})
        same = all(here.get(key) == there.get(key) for key in ("verdict", "reason", "error"))
        labels = [each[0] for each in here.get("defects", ())]
        if not same or labels != [each[0] for each in there.get("defects", ())]:
            other.append({"here": here, "there": there})
            continue
        for mine, its in zip(here.get("defects", ()), there.get("defects", ()), strict=True):
            score = max(score, abs(mine[1] - its[1]))
            box = max(box, *(abs(a - b) for a, b in zip(mine[2], its[2], strict=True)))
    machines = sorted({line.get("machine", "") for line in (*ours.values(), *theirs.values())})
    return {
        "boards": len(ours),
        "machines": machines,
        "verdicts": {kind: [x["verdict"] for x in ours.values()].count(kind) for kind in
                     sorted({x["verdict"] for x in ours.values()})},
        "different": other,
        "largest_score_difference": round(score, 4),
        "largest_box_difference_px": round(box, 2),
    }  # fmt: skip


def main(arguments: list[str]) -> int:
    """Build, judge twice, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--boards", type=int, default=24)
    parser.add_argument("--package", type=Path, help="an arm64 package that is built already")
    parsed = parser.parse_args(arguments)
    if missing := lacking():
        parser.error(f"needs {missing}")
    render(OUT / "boards", parsed.boards)
    package = parsed.package
    if package is None:
        deb = [sys.executable, str(ROOT / "scripts" / "deb.py"), "--arch", "arm64", "--level", "1"]
        shutil.rmtree(OUT / "deb", ignore_errors=True)
        subprocess.run([*deb, "--out", str(OUT / "deb")], check=True, stdout=subprocess.DEVNULL)
        (package,) = (OUT / "deb").glob("*.deb")
    subprocess.run(
        ["sh", str(ROOT / "scripts" / "make_rootfs.sh"), str(ROOTFS), "arm64"], check=True
    )
    shutil.rmtree(ROOTFS / "opt" / "edge", ignore_errors=True)
    subprocess.run(["dpkg-deb", "-x", str(package), str(ROOTFS)], check=True)
    inside = ROOTFS / "judge"
    shutil.rmtree(inside, ignore_errors=True)
    shutil.copytree(OUT / "boards", inside / "boards")
    script = Path(__file__).with_name("judge_boards.py")
    shutil.copy(script, inside)
    here = [sys.executable, str(script), str(OUT / "boards"), str(OUT / f"cache-{os.getpid()}")]
    there = ["bash", str(ROOT / "scripts" / "arm_run.sh"), str(ROOTFS)]
    there += [
        "/opt/edge/bin/python",
        "-I",
        "/judge/judge_boards.py",
        "/judge/boards",
        "/judge/cache",
    ]
    found = compare(judge(here), judge(there))
    shutil.rmtree(OUT / f"cache-{os.getpid()}", ignore_errors=True)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 1 if found["different"] or len(found["machines"]) != 2 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
