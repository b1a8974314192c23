"""Fixtures for guests of inline WAT; a test module asks for them with `pytest_plugins`."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guest_wat import GuestFiles

from edge.wasm.engine import GuestEngine, GuestModule
from edge.wasm.guest import Guest


@pytest.fixture
def files(tmp_path: Path) -> GuestFiles:
    """A folder to write guests into."""
    return GuestFiles(tmp_path)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of compiled guests for all tests: each guest is compiled once."""
    return tmp_path_factory.mktemp("cache") / "guests"


@pytest.fixture
def engine(cache_dir: Path) -> Iterator[GuestEngine]:
    """A guest engine."""
    with GuestEngine(cache_dir) as opened:
        yield opened


@pytest.fixture
def load(engine: GuestEngine, files: GuestFiles) -> Callable[[str | bytes], GuestModule]:
    """Load a guest from its text or bytes, granted 8 MiB."""

    def from_module(module: str | bytes) -> GuestModule:
        written = files.write(module)
        return engine.load(written.path, written.sha256, 8)

    return from_module


@pytest.fixture
def instance(load: Callable[[str | bytes], GuestModule]) -> Callable[..., Guest]:
    """An instance of a guest from its text; 2 s a call, which a busy machine keeps, too."""

    def from_module(module: str | bytes, call_ms: int = 2000) -> Guest:
        return load(module).instantiate(call_ms)

    return from_module
