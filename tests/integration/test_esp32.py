"""The ESP32 sketch of docs/examples before a real daemon, its hardware played by tests/esp32.

What is real: the sketch's own source, MQTT 3.1.1 on the wire, pictures as an OV2640 makes them
(640 x 480, colour, 4:2:2), the broker and the daemon.
"""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import pytest
from brokers import require_mosquitto
from daemons import ROOT, Daemon, Line, line_to

from edge.linesim import Board, render_part
from edge.mqtt.brokers import LocalBroker

SKETCH: Final = ROOT / "docs" / "examples" / "esp32_camera"
HOST: Final = ROOT / "tests" / "esp32"
BOUND: Final = 'bindings.camera.top="line/top/frame/{reference_id}/{frame_id}"'
FIRST: Final = "esp32-240ac4c0ffee-1-000000"
SECOND: Final = "esp32-240ac4c0ffee-1-000001"
AFTER_A_BOOT: Final = "esp32-240ac4c0ffee-2-000000"


@pytest.fixture(scope="module")
def sketch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sketch, compiled for this machine; warnings are errors."""
    program = tmp_path_factory.mktemp("esp32") / "sketch"
    subprocess.run(
        [
            *(sys.executable, "-m", "ziglang", "c++", "-nostdlib++", "-fno-exceptions"),
            *("-fno-rtti", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-O1"),
            *(f"-I{HOST}", f"-I{SKETCH}", HOST / "host.cpp", "-o", program),
        ],
        check=True,
    )
    return program


def ov2640(
    name: Path, part: int, defects: tuple[str, ...] = (), *, reference: bool = False
) -> Path:
    """A board as that sensor sees it."""
    board = Board(3)
    image = board.reference() if reference else render_part(board, part, defects).image
    colour = cv2.cvtColor(image[:480], cv2.COLOR_GRAY2BGR)
    how = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422]
    assert cv2.imwrite(str(name), colour, [*how, cv2.IMWRITE_JPEG_QUALITY, 90])
    return name


def test_an_esp32_is_judged_and_its_ids_outlive_its_boots(sketch: Path, tmp_path: Path) -> None:
    require_mosquitto()
    good = ov2640(tmp_path / "good.jpg", 0)
    bad = ov2640(tmp_path / "bad.jpg", 1, ("open", "short"))
    golden = ov2640(tmp_path / "golden.jpg", 0, reference=True)

    def boot(broker: LocalBroker, flash: Path, pictures: Sequence[Path]) -> None:
        """From power on to power off; each trigger finds the other kind of part left over."""
        stale = bad if pictures[0] == good else good
        subprocess.run(
            [sketch, str(broker.port), flash, stale],
            input="".join(f"{picture}\n" for picture in pictures).encode(),
            check=True,
            timeout=60,
        )

    async def scene(line: Line, broker: LocalBroker) -> list[dict[str, Any]]:
        line.session.publish("line/top/reference/board-0003", golden.read_bytes(), retain=True)
        await asyncio.to_thread(boot, broker, tmp_path / "flash", [good])
        await asyncio.to_thread(boot, broker, tmp_path / "flash", [bad])
        first = [await line.verdict(FIRST), await line.verdict(AFTER_A_BOOT)]
        line.verdicts.clear()
        # One whose flash forgets counts anew, and shows another part under the old id.
        await asyncio.to_thread(boot, broker, tmp_path / "forgets", [bad, bad])
        return [*first, await line.verdict(FIRST), await line.verdict(SECOND)]

    async def stand() -> list[dict[str, Any]]:
        async with LocalBroker(kind="mosquitto") as broker:
            with Daemon(broker, tmp_path, overrides=(BOUND,)) as daemon:
                daemon.ready()
                async with line_to(broker, taught=False) as line:
                    return await scene(line, broker)

    verdicts = asyncio.run(stand())
    assert [(verdict["verdict"], verdict["reason"]) for verdict in verdicts] == [
        ("pass", "ok"), ("reject", "defect"), ("review", "id-reused"), ("reject", "defect"),
    ]  # fmt: skip
