"""The shipped device configs and the published schema: both say what the models say."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edge import config, shipped
from edge.errors import ConfigError

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "device_configs").glob("*.toml"))
SCHEMA: dict[str, Any] = json.loads((ROOT / "device_configs" / "schema.json").read_text())


def _accepts(document: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid(document))


def test_there_is_one_for_each_kind_of_box() -> None:
    assert [path.stem for path in CONFIGS] == [
        "jetson-orin",
        "raspberry-pi-5",
        "x86-cpu",
        "x86-cuda",
        "x86-openvino",
    ]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_is_valid_by_model_and_by_schema(path: Path) -> None:
    loaded = config.load(path)
    assert _accepts(tomllib.loads(path.read_text()))
    assert loaded.inference.require, "a shipped config must not fall back unsaid"
    assert {name: loaded.bindings.find(name) for name in EXPECTED} == {
        name: config.Binding(topic=topic) for name, topic in EXPECTED.items()
    }


EXPECTED = {
    "camera.top": "line/top/frame",
    "reference.top": "line/top/reference/{reference_id}",
    "signal.lamp": "line/lamp",
    "action.reject": "line/top/reject",
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_says_what_was_run_on_such_a_box(path: Path) -> None:
    head = path.read_text().partition("\n[")[0]
    assert "Run and tested" in head or "Not run on such a box" in head


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_names_only_files_that_are_shipped(path: Path) -> None:
    words = path.read_text().replace("(", " ").replace(")", " ").split()
    named = [word.strip(".,:;") for word in words if word.startswith(("systemd/", "docs/"))]
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    "document",
    [
        {"broker": {"prot": 1}},
        {"broker": {"port": 0}},
        {"broker": {"port": "1883"}},
        {"inference": {"provider": "gpu"}},
        {"bindings": {"camera": {"to p": "x"}}},
        {"bindings": {"camera": {"top": {"topic": "x", "qos": 2}}}},
        {"bindings": {"camera": {"top": ""}}},
    ],
    ids=str,
)
def test_the_schema_refuses_what_the_model_refuses(document: dict[str, Any]) -> None:
    assert not _accepts(document)
    with pytest.raises(ConfigError):
        config.parse(document, "test")


def test_schema_and_reference_are_generated_from_the_models_as_they_stand() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "config_reference.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_key_has_a_description() -> None:
    bare = [
        f"{name}.{key}"
        for name, section in config.DeviceConfig.model_fields.items()
        for key, field in section.annotation.model_fields.items()  # type: ignore[union-attr]
        if not (field.description or "").endswith(".")
    ]
    assert bare == []


def test_the_shipped_configs_are_found_by_their_name() -> None:
    assert shipped.path("device_configs/x86-cpu.toml") == ROOT / "device_configs" / "x86-cpu.toml"
