"""The file for node_exporter."""

import asyncio
import stat
from pathlib import Path

from brokers import until
from structlog.testing import capture_logs

from edge.observability.textfile import Textfile


def test_the_file_is_whole_readable_by_others_and_goes_with_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "edge.prom"

    async def scenario() -> None:
        count = iter(range(1_000_000))
        task = asyncio.create_task(
            Textfile(path, 0.01, lambda: b"edge_x %d\n" % next(count)).keep()
        )
        await until(path.exists, "it is there")
        first = path.read_bytes()
        await until(lambda: path.read_bytes() != first, "it is renewed")
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        task.cancel()
        await asyncio.wait((task,))

    asyncio.run(scenario())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said_once_and_when_it_can_be_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "absent" / "edge.prom"
    rendered = 0

    def render() -> bytes:
        nonlocal rendered
        rendered += 1
        return b"edge_x 1\n"

    async def scenario() -> None:
        with capture_logs() as events:
            task = asyncio.create_task(Textfile(path, 0.01, render).keep())
            await until(lambda: rendered > 3, "it tries again")
            path.parent.mkdir()
            await until(lambda: len(events) > 1, "it says that it can")
            task.cancel()
            await asyncio.wait((task,))
        assert [e["event"] for e in events] == ["metrics_not_written", "metrics_written"]

    asyncio.run(scenario())
