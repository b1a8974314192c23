"""The example units of cameras on a fresh gateway, with cameras: `make cameras` runs this.

A minute or two, and a Debian with Aravis; the transcript is .out/systemd/cameras/transcript.txt.
"""

import os
import sys
from functools import cache
from typing import Any, Final

import pytest
from gateways import OUT, booted, hold

STEPS: Final = (
    "the_package_runs",
    "a_genicam_bridge_sends_frames_under_the_units_confinement",
    "a_bridge_that_is_killed_is_back_with_its_pipe",
    "without_the_drop_ins_grant_it_reaches_no_camera",
    "packet_sockets_are_had_by_the_lines_that_stand_there_for_them",
    "an_http_camera_with_a_password_sends_frames_by_the_unit_as_shipped",
    "without_its_credential_the_unit_ends_and_is_left_ended",
)

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        sys.version_info[:2] != (3, 11), reason="the package is built by Debian 12's Python, 3.11"
    ),
    pytest.mark.skipif(
        "EDGE_TEST_CAMERAS" not in os.environ, reason="minutes and a Debian mirror: make cameras"
    ),
]


@cache
def gateway() -> dict[str, dict[str, Any]]:
    """Boot the gateway once, and return how each step ended, by name."""
    return booted("genicam", OUT / "cameras", "camera_driver.py")


@pytest.mark.parametrize("step", STEPS)
def test_on_a_gateway_with_cameras(step: str) -> None:
    hold(gateway()[step])
