"""The fixture of the reference guests; a test module asks for it with `pytest_plugins`."""

from collections.abc import Iterator

import pytest
from reference_guests import ReferenceGuests

from edge.wasm.engine import GuestEngine


@pytest.fixture(scope="session")
def guests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReferenceGuests]:
    """Makes instances of the checked-in guests."""
    with GuestEngine(tmp_path_factory.mktemp("guests") / "cache") as engine:
        yield ReferenceGuests(engine)
