"""Which wasmtime is run at all."""

from importlib.metadata import version

import pytest

from edge.errors import IncompatibleError
from edge.wasm.sandbox import new_engine, refuse_unsound


@pytest.mark.parametrize("release", ["36.0.18", "42.0.2", "43.0.0", "49.0.3", "49.0.4", "49"])
def test_a_release_with_known_ways_out_is_refused_by_its_cves(release: str) -> None:
    with pytest.raises(IncompatibleError, match=rf"wasmtime {release} .*CVE-2026-115889"):
        refuse_unsound(release)


@pytest.mark.parametrize("release", ["50.0.0", "50.0.1", "50.0.3", "51.0.0", "50.0.1.post1"])
def test_later_releases_are_taken(release: str) -> None:
    refuse_unsound(release)


def test_the_installed_one_is_sound() -> None:
    refuse_unsound(version("wasmtime"))
    new_engine()
