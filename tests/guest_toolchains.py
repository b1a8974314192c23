"""The toolchains that tests of guest languages need."""

import os
from typing import Final

import pytest

from edge.sdk.languages import TABLE, Language, ToolchainMissingError

NOT_IN_CI: Final = {"assemblyscript", "javascript"}
"""Toolchains of another package world; `make guests-all` installs and tries them."""


def need(name: str) -> Language:
    """A language whose toolchain is here; the test is skipped, or fails in CI, where it is not."""
    language = TABLE[name]
    try:
        language.find()
    except ToolchainMissingError as missing:
        if os.environ.get("CI") == "true" and name not in NOT_IN_CI:
            raise
        pytest.skip(str(missing))
    return language
