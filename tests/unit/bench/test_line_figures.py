"""Figures of a line, from latencies whose figures are known."""

from edge.bench.command import _line_table
from edge.bench.whole_line import line_figures


def test_one_in_a_thousand_is_told_of_a_thousand_verdicts() -> None:
    taken: list[float | None] = [float(n) for n in range(1_001)]
    many = line_figures("many", [*taken, None], 0)
    few = line_figures("few", taken[:999], 0)
    assert (many.p99_ms, many.p99_9_ms, many.max_ms) == (990.0, 999.0, 1000.0)
    assert (many.frames, many.unanswered) == (1_002, 1)
    assert few.p99_9_ms is None
    table = _line_table([many, few], 10)
    cells = {str(column.header): list(column.cells) for column in table.columns}
    assert cells["p99.9"] == ["999.0", ""]
    assert cells["max"] == ["1000.0", "998.0"]
