"""Which records are judged again, and what people said of them."""

from collections.abc import Iterator

import msgspec

from edge.contracts.verdict import Kind
from edge.errors import StorageError
from edge.ledger import record as records
from edge.ledger.reading import Reading
from edge.ledger.record import Override, Record
from edge.ledger.verify import Row


class Selection(msgspec.Struct, frozen=True):
    """Records, by one of the first four; the last two narrow them down.

    Attributes:
        seq: One place; 0: not by place.
        part: A part's records; empty: not by part.
        last: So many of the last; 0: not by number.
        between_ns: Decided from one instant to another, UTC; None: not by time.
        pipeline: Empty: of every pipeline.
        verdict: None: of every kind.
    """

    seq: int = 0
    part: str = ""
    last: int = 0
    between_ns: tuple[int, int] | None = None
    pipeline: str = ""
    verdict: Kind | None = None

    def rows(self, ledger: Reading) -> Iterator[Row]:
        """Yield what lies at these places, overrides among it."""
        if self.seq:
            row = ledger.record(self.seq)
            return iter(() if row is None else (row,))
        if self.part:
            return ledger.of_part(self.part)
        if self.between_ns is not None:
            return ledger.decided_between(*self.between_ns)
        return ledger.last(self.last)

    def verdicts(self, ledger: Reading) -> Iterator[tuple[Row, Record]]:
        """Yield the records of verdicts that are meant, by place.

        Raises:
            StorageError: The file is damaged, or a record cannot be read.
        """
        for row in self.rows(ledger):
            record = _read(row)
            if (
                isinstance(record, Record)
                and self.pipeline in ("", record.pipeline)
                and self.verdict in (None, record.verdict)
            ):
                yield row, record


class Truths:
    """What people said of verdicts; the last word on a part counts for all of its frames."""

    def __init__(self, ledger: Reading) -> None:
        self._by_part: dict[tuple[str, str], Kind] = {}
        self._by_place: dict[int, Kind] = {}
        for row in ledger.overrides():
            said = _read(row)
            if isinstance(said, Override):
                self._by_place[said.of] = said.verdict
                if said.part_id:
                    self._by_part[said.pipeline, said.part_id] = said.verdict

    def find(self, record: Record) -> Kind | None:
        """Return what a person said of the part, or of this very record; None: nobody did."""
        said = self._by_part.get((record.pipeline, record.part_id))
        return self._by_place.get(record.seq) if said is None else said


def _read(row: Row) -> Record | Override:
    try:
        return records.decode(row.body)
    except StorageError as wrong:
        raise StorageError(f"record {row.seq}: {wrong} (run `edge ledger verify`)") from wrong
