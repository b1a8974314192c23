"""What to type for a missing compiler follows from how edge itself was installed."""

import sys
from pathlib import Path

import pytest

from edge.sdk.languages import ziglang
from edge.sdk.languages.language import beside_this_python


@pytest.mark.parametrize(
    ("left_behind", "typed"),
    [
        ("pyvenv.cfg", ziglang.INSTALL),
        ("pipx_metadata.json", f"pipx inject edge-verdict {ziglang.REQUIREMENT}"),
        (
            "uv-receipt.toml",
            f"uv tool install --with {ziglang.REQUIREMENT} WHEEL, as edge was installed",
        ),
        # /opt/edge of the Debian package.
        (
            "state-format",
            f"not on a box; where edge was installed from its wheel: {ziglang.INSTALL}",
        ),
    ],
)
def test_the_hint_fits_the_environment(
    left_behind: str, typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / left_behind).touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert beside_this_python(ziglang.INSTALL) == typed
