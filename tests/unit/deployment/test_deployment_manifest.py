"""The manifest's rules: each refusal names the key, and each limit holds on both sides."""

import tomllib
from typing import Any

import pytest
from deployment_samples import MANIFEST
from hypothesis import given
from hypothesis import strategies as st

from edge.deployment.manifest import Manifest
from edge.deployment.schema import parse, validate
from edge.errors import DeploymentError

SHA = "a" * 64


def document() -> dict[str, Any]:
    found = tomllib.loads(MANIFEST)
    board = found["pipelines"]["board"]
    for table in (board["model"]["card"], *(board[r] for r in ROLES)):
        table["sha256"] = SHA
    return found


ROLES = ("preprocess", "postprocess", "decide")


def set_key(found: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    table = found
    for parent in parents:
        table = table.setdefault(parent, {})
    table[last] = value


def test_the_manifest_of_these_tests_is_sound() -> None:
    assert validate(document(), Manifest, "m").pipelines["board"].reference_slots == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("deployment.revision", 0),
        ("deployment.revision", "3"),
        ("deployment.revision", True),
        ("deployment.name", "two words"),
        ("deployment.abi", "1"),
        ("deployment.surprise", 1),
        ("drift.learn_frames", -1),
        ("drift.learn_frames", 1_001),
        ("drift.window_frames", 19),
        ("drift.window_frames", 1_001),
        ("drift.every_s", -0.1),
        ("drift.every_s", float("inf")),
        ("drift.max_distance", 0.4),
        ("drift.max_psi", 0.0),
        ("drift.surprise", 1),
        ("pipelines.board.source", "reference.top"),
        ("pipelines.board.source", "top"),
        ("pipelines.board.source", "camera.a/b"),
        ("pipelines.board.source", "camera.top\n"),
        ("pipelines.board.reference", "camera.top"),
        ("pipelines.board.reference_slots", 0),
        ("pipelines.board.budget_ms", 9),
        ("pipelines.board.fail_safe", "maybe"),
        ("pipelines.board.overflow", "drop"),
        ("pipelines.board.queue_frames", 0),
        ("pipelines.board.queue_frames", 257),
        ("pipelines.board.image.format", "BayerRG8"),
        ("pipelines.board.image.max_width", 0),
        ("pipelines.board.image.max_height", 65_536),
        ("pipelines.board.model.card.sha256", "A" * 64),
        ("pipelines.board.model.card.sha256", "a" * 63),
        ("pipelines.board.preprocess.path", "../pre.wasm"),
        ("pipelines.board.preprocess.path", "/pre.wasm"),
        ("pipelines.board.preprocess.path", ".hidden/pre.wasm"),
        ("pipelines.board.preprocess.path", "a//b"),
        ("pipelines.board.preprocess.memory_mib", 4_097),
        ("pipelines.board.preprocess.call_ms", 0),
        ("pipelines.board.signals", [{"name": "action.reject", "max_age_ms": 5}]),
        ("pipelines.board.signals", [{"name": "signal.a", "max_age_ms": 0}]),
        (
            "pipelines.board.actions",
            [{"name": "signal.lamp", "max_per_minute": 1, "max_ttl_ms": 1}],
        ),
    ],
)
def test_a_value_out_of_its_bounds_is_refused_by_its_key(key: str, value: object) -> None:
    found = document()
    set_key(found, key, value)
    with pytest.raises(DeploymentError) as raised:
        validate(found, Manifest, "manifest.toml")
    assert str(raised.value).startswith(f"manifest.toml: {key}")


IMAGE = {"format": "GRAY8", "max_width": 16_384}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preprocess.call_ms": 85}, "nothing is left for the model"),
        ({"preprocess.memory_mib": 1, "reference_slots": 3}, "reference_slots alone take 1.2 MiB"),
        ({"signals": [{"name": "signal.a", "max_age_ms": 1}] * 2}, "'signal.a' is granted twice"),
        ({"decide.path": "guests/pre.wasm"}, "are the same file"),
    ],
)
def test_values_that_contradict_each_other_are_refused(changes: dict[str, Any], words: str) -> None:
    found = document()
    for key, value in changes.items():
        set_key(found, f"pipelines.board.{key}", value)
    with pytest.raises(DeploymentError, match=r"manifest\.toml: pipelines\.board: ") as raised:
        validate(found, Manifest, "manifest.toml")
    assert words in str(raised.value)


@pytest.mark.parametrize(("height", "good"), [(16_384, True), (16_385, False)])
def test_an_image_that_no_packet_carries_is_refused_before_its_probe_frame(
    height: int, good: bool
) -> None:
    found = document()
    set_key(found, "pipelines.board.image", IMAGE | {"max_height": height})
    set_key(found, "pipelines.board.preprocess.memory_mib", 4_096)
    if good:
        assert validate(found, Manifest, "m").pipelines["board"].image.max_bytes == 256 << 20
        return
    with pytest.raises(DeploymentError, match=r"board\.image: .* at most 256 MiB are carried"):
        validate(found, Manifest, "m")


def test_one_module_may_serve_several_roles() -> None:
    found = document()
    set_key(found, "pipelines.board.decide.path", "guests/post.wasm")
    set_key(found, "pipelines.board.decide.memory_mib", 4)
    assert validate(found, Manifest, "m").pipelines["board"].decide.path == "guests/post.wasm"


def test_slots_without_a_reference_are_refused() -> None:
    found = document()
    del found["pipelines"]["board"]["reference"]
    with pytest.raises(DeploymentError, match="reference_slots is set, but there is no reference"):
        validate(found, Manifest, "m")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("when = 2026-11-22", "cannot be said in JSON"),
        ("limit = inf", "cannot be said in JSON"),
        ("limit = nan", "cannot be said in JSON"),
        ("a.b.c.d.e.f.g.h.i = 1", "nested deeper"),
        (f'text = "{"x" * 20_000}"', "bytes as JSON"),
    ],
)
def test_parameters_that_no_guest_could_be_handed_are_refused(parameters: str, words: str) -> None:
    found = document()
    set_key(found, "pipelines.board.decide.parameters", tomllib.loads(parameters))
    with pytest.raises(DeploymentError, match=r"pipelines\.board\.decide: ") as raised:
        validate(found, Manifest, "m")
    assert words in str(raised.value)


def test_every_finding_is_told_at_once() -> None:
    found = document()
    set_key(found, "deployment.revision", -1)
    set_key(found, "pipelines.board.budget_ms", "fast")
    del found["pipelines"]["board"]["decide"]["path"]
    with pytest.raises(DeploymentError) as raised:
        validate(found, Manifest, "m")
    for key in ("deployment.revision", "pipelines.board.budget_ms", "pipelines.board.decide.path"):
        assert key in str(raised.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff", "not UTF-8"),
        (b"[deployment", "not TOML"),
        (b"", "deployment: is missing"),
        (b"a = " + b"[" * 20_000, "nested too deeply"),
        (b"a = " + b"{b=" * 20_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_manifest_is_said_to_be_none(content: bytes, words: str) -> None:
    with pytest.raises(DeploymentError, match=words):
        parse(content, Manifest, "manifest.toml")


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_arbitrary_bytes_are_refused_and_nothing_else_happens(content: bytes) -> None:
    with pytest.raises(DeploymentError):
        parse(content, Manifest, "manifest.toml")
