"""Loading a folder: what is refused, in words that name the file, and what it becomes."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from deployment_samples import edit, write_folder

from edge.config import DeviceConfig, parse
from edge.contracts.abi import PARAMETERS_SECTION
from edge.contracts.frame import PixelFormat
from edge.contracts.plan import DriftPlan, Overflow, PipelinePlan, TensorSpec
from edge.contracts.verdict import Kind
from edge.deployment import files
from edge.deployment.folder import load_folder, plans
from edge.deployment.pin import pin
from edge.deployment.pins import MAX_GUEST_BYTES
from edge.errors import ConfigError, DeploymentError, IncompatibleError, UntrustedError
from edge.wasm import binary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "bench")


@pytest.fixture
def device() -> DeviceConfig:
    """Binds everything that the folder's deployment names."""
    bindings = {
        "camera": {"top": "line/frame"},
        "reference": {"top": "line/reference/{reference_id}"},
        "signal": {"lamp": "line/lamp"},
        "action": {"reject": "line/reject"},
    }
    inference = {"threads": 2, "options": {"a": "b"}}
    return parse({"bindings": bindings, "inference": inference}, "device.toml")


def test_a_whole_folder_loads_and_is_named_by_its_manifest(folder: Path) -> None:
    loaded = load_folder(folder)
    assert loaded.ref.name == "bench"
    assert loaded.ref.revision == 3
    assert loaded.ref.signed is False
    assert loaded.digest == hashlib.sha256((folder / "manifest.toml").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "name",
    ["guests/pre.wasm", "guests/post.wasm", "guests/decide.wasm", "model/card.toml"],
)
def test_one_flipped_bit_in_a_pinned_file_is_untrusted(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    expected = hashlib.sha256(content).hexdigest()
    content[0] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(UntrustedError) as raised:
        load_folder(folder)
    for word in (name, expected, hashlib.sha256(content).hexdigest()):
        assert word in str(raised.value)


def test_a_model_that_its_card_does_not_pin_is_untrusted(folder: Path) -> None:
    (folder / "model/board.int8.onnx").write_bytes(b"another")
    with pytest.raises(UntrustedError, match=r"board\.int8\.onnx"):
        load_folder(folder)


@pytest.mark.parametrize("name", ["guests/pre.wasm", "model/board.int8.onnx", "manifest.toml"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DeploymentError, match=f"{name}: cannot be read: No such file"):
        load_folder(folder)


def test_what_is_no_deployment_at_all_is_not_told_to_be_fetched_anew(tmp_path: Path) -> None:
    for root, said in (
        (tmp_path / "nowhere", "nowhere: there is no such folder"),
        (Path(__file__), "test_deployment_folder.py: is no folder"),
        (tmp_path, "manifest.toml: cannot be read: No such file or directory (a deployment is"),
    ):
        with pytest.raises(DeploymentError) as refused:
            load_folder(root)
        assert said in str(refused.value)
        assert "anew" not in str(refused.value)


@pytest.mark.parametrize("name", ["guests/pre.wasm", "guests", "manifest.toml"])
def test_a_symbolic_link_is_refused_even_to_the_right_bytes(
    folder: Path, tmp_path: Path, name: str
) -> None:
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DeploymentError, match="symbolic link"):
        load_folder(folder)


def test_a_link_to_the_whole_folder_is_the_operators_own_business(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "current").symlink_to(folder)
    assert load_folder(tmp_path / "current").digest == load_folder(folder).digest


@pytest.mark.parametrize(
    "path", ["../pre.wasm", "/etc/passwd", "guests/../../pre.wasm", "", "a\\b"]
)
def test_a_path_that_leaves_the_folder_is_refused(folder: Path, path: str) -> None:
    edit(folder / "manifest.toml", '"guests/pre.wasm"', f"'{path}'")
    with pytest.raises(DeploymentError, match=r"pipelines\.board\.preprocess\.path"):
        load_folder(folder)


@pytest.mark.parametrize("path", ["../pre.wasm", "/etc/passwd", ""])
def test_the_reader_of_files_does_not_rely_on_the_manifests_rule(folder: Path, path: str) -> None:
    (folder.parent / "pre.wasm").write_bytes(b"outside")
    with pytest.raises(DeploymentError, match="does not stay below"):
        files.verify(folder, path, "0" * 64, 100)
    with pytest.raises(DeploymentError, match="does not stay below"):
        files.read(folder, path, 100)


def test_a_fifo_in_place_of_a_guest_does_not_block(folder: Path) -> None:
    (folder / "guests/pre.wasm").unlink()
    os.mkfifo(folder / "guests/pre.wasm")
    with pytest.raises(DeploymentError, match="not a regular file"):
        load_folder(folder)


def test_a_folder_in_place_of_a_guest_is_refused(folder: Path) -> None:
    (folder / "guests/pre.wasm").unlink()
    (folder / "guests/pre.wasm").mkdir()
    with pytest.raises(DeploymentError, match="not a regular file"):
        load_folder(folder)


def test_a_guest_larger_than_its_kind_is_not_read(folder: Path) -> None:
    with (folder / "guests/pre.wasm").open("wb") as sparse:
        sparse.truncate(MAX_GUEST_BYTES + 1)
    with pytest.raises(DeploymentError, match=f"larger than {MAX_GUEST_BYTES} bytes"):
        load_folder(folder)


def test_a_variant_that_the_card_does_not_offer_is_refused(folder: Path) -> None:
    edit(folder / "manifest.toml", 'variant = "int8"', 'variant = "fp16"')
    with pytest.raises(DeploymentError, match=r"'fp16'; model/card\.toml offers int8"):
        load_folder(folder)


@pytest.mark.parametrize("abi", ["2.0", "0.9", "1.2"])
def test_a_guest_abi_that_this_host_has_not_is_incompatible(folder: Path, abi: str) -> None:
    edit(folder / "manifest.toml", 'abi = "1.0"', f'abi = "{abi}"')
    with pytest.raises(IncompatibleError, match=rf"{abi}; this host offers 1\.1"):
        load_folder(folder)


def test_a_deployment_and_a_device_become_a_plan(folder: Path, device: DeviceConfig) -> None:
    loaded = load_folder(folder)
    (plan,) = plans(loaded, device)
    assert plan.name == "board"
    assert plan.deployment == loaded.ref
    assert (plan.source, plan.reference, plan.reference_slots) == ("camera.top", "reference.top", 2)
    assert (plan.budget_ms, plan.fail_safe) == (100, Kind.REJECT)
    assert (plan.overflow, plan.queue_frames) == (Overflow.QUEUE, 5)
    assert plan.image.pixel_format is PixelFormat.GRAY8
    assert plan.image.max_bytes == 640 * 480
    assert plan.model.path == str(folder / "model/board.int8.onnx")
    assert plan.model.sha256 == hashlib.sha256(Path(plan.model.path).read_bytes()).hexdigest()
    assert plan.model.classes == ("open", "short")
    assert plan.model.inputs == (TensorSpec("x", "uint8", (1, 2, 32, 32)),)
    assert plan.model.outputs == (TensorSpec("scores", "float32", (1, 16, 2)),)
    assert (plan.model.provider, plan.model.require, plan.model.threads) == ("cpu", True, 2)
    assert plan.model.options == {"a": "b"}
    assert plan.postprocess.parameters == {"score": 0.5, "classes": {"open": 0.25}}
    assert (plan.decide.memory_mib, plan.decide.call_ms) == (1, 5)
    assert [grant.name for grant in plan.signals] == ["signal.lamp"]
    assert [grant.max_ttl_ms for grant in plan.actions] == [500]


def test_a_deployment_is_watched_unless_it_says_otherwise(
    folder: Path, device: DeviceConfig
) -> None:
    (plan,) = plans(load_folder(folder), device)
    assert plan.drift == DriftPlan(learn_frames=600)
    edit(
        folder / "manifest.toml", "[pipelines.board]", "[drift]\nevery_s = 0.5\n\n[pipelines.board]"
    )
    (plan,) = plans(load_folder(folder), device)
    assert plan.drift == DriftPlan(learn_frames=600, every_ms=500)
    edit(folder / "manifest.toml", "every_s = 0.5", "learn_frames = 0")
    (plan,) = plans(load_folder(folder), device)
    assert plan.drift.learn_frames == 0


def test_a_plan_survives_the_channel(folder: Path, device: DeviceConfig) -> None:
    (plan,) = plans(load_folder(folder), device)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=PipelinePlan) == plan


def test_without_a_reference_there_are_no_slots(folder: Path, device: DeviceConfig) -> None:
    edit(folder / "manifest.toml", 'reference = "reference.top"\nreference_slots = 2\n', "")
    pin(folder)
    (plan,) = plans(load_folder(folder), device)
    assert (plan.reference, plan.reference_slots) == ("", 0)


@pytest.mark.parametrize("logical", ["camera.top", "reference.top", "signal.lamp", "action.reject"])
def test_an_unbound_name_says_which_key_to_add(folder: Path, logical: str) -> None:
    names = {"camera": "top", "reference": "top", "signal": "lamp", "action": "reject"}
    kind, rest = logical.split(".")
    bindings = {k: {name: "a/topic"} for k, name in names.items() if k != kind}
    with pytest.raises(ConfigError) as raised:
        plans(load_folder(folder), parse({"bindings": bindings}, "device.toml"))
    assert raised.value.where == f"bindings.{logical}"
    assert f"[bindings.{kind}]" in raised.value.remedy
    assert f"{rest} = " in raised.value.remedy


def test_an_action_cannot_be_bound_to_a_wildcard(folder: Path, device: DeviceConfig) -> None:
    action = {"reject": device.bindings.action["reject"].model_copy(update={"topic": "line/+"})}
    bindings = device.bindings.model_copy(update={"action": action})
    with pytest.raises(ConfigError, match=r"bindings\.action\.reject: topic 'line/\+'"):
        plans(load_folder(folder), device.model_copy(update={"bindings": bindings}))


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("edge/box1/receipts", "below edge/ devices and their cloud speak"),
        ("edge/box2/board/verdict", "below edge/ devices and their cloud speak"),
        ("edge", "below edge/ devices and their cloud speak"),
        ("line/frame", r"taken by bindings\.camera\.top \('line/frame'\)"),
        ("line/reference/r1", r"taken by bindings\.reference\.top"),
        ("side/3/frame", r"taken by bindings\.camera\.side \('side/\{part_id\}/frame'\)"),
        ("all/of/it", r"taken by bindings\.camera\.all \('all/#'\)"),
    ],
)
def test_an_action_that_would_come_back_as_an_input_is_refused(
    folder: Path, device: DeviceConfig, topic: str, said: str
) -> None:
    bindings = device.model_dump()["bindings"]
    bindings["action"]["reject"]["topic"] = topic
    bindings["camera"] |= {"side": "side/{part_id}/frame", "all": "all/#"}
    with pytest.raises(ConfigError, match=said) as raised:
        plans(load_folder(folder), parse({"bindings": bindings}, "device.toml"))
    assert raised.value.where == "bindings.action.reject"
    assert "gate" in raised.value.remedy


@pytest.mark.parametrize(
    ("camera", "reference"),
    [
        ("side/frame", "side/frame"),
        ("side/frame", "side/{reference_id}"),
        ("side/{part_id}/{frame_id}", "side/reference/{reference_id}"),
        ("side/#", "side/reference/{reference_id}"),
    ],
)
def test_a_reference_that_a_camera_would_overwrite_is_refused(
    folder: Path, device: DeviceConfig, camera: str, reference: str
) -> None:
    bindings = device.model_dump()["bindings"]
    bindings["camera"]["top"]["topic"] = camera
    bindings["reference"]["top"]["topic"] = reference
    with pytest.raises(ConfigError, match="frames would become the part") as raised:
        plans(load_folder(folder), parse({"bindings": bindings}, "device.toml"))
    assert raised.value.where == "bindings.reference.top"


@pytest.mark.parametrize("topic", ["edges/reject", "line/edge/reject", "line/frame/reject"])
def test_an_action_beside_them_is_taken(folder: Path, device: DeviceConfig, topic: str) -> None:
    bindings = device.model_dump()["bindings"]
    bindings["action"]["reject"]["topic"] = topic
    assert plans(load_folder(folder), parse({"bindings": bindings}, "device.toml"))


def test_a_margin_that_eats_the_budget_is_refused(folder: Path, device: DeviceConfig) -> None:
    deadlines = device.deadlines.model_copy(update={"margin_ms": 100})
    with pytest.raises(ConfigError, match=r"deadlines\.margin_ms: is 100"):
        plans(load_folder(folder), device.model_copy(update={"deadlines": deadlines}))


def test_the_room_brings_no_engine_into_the_supervisor() -> None:
    code = (
        "import sys; import edge.deployment.folder, edge.deployment.pin; "
        "print(sorted({'numpy', 'onnxruntime', 'wasmtime', 'cv2'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def carry(folder: Path, guest: str, schema: bytes) -> None:
    """Have a guest of the folder carry these bytes as the schema of its parameters."""
    file = folder / "guests" / guest
    content = binary.name(PARAMETERS_SECTION) + schema
    section = bytes([binary.CUSTOM]) + binary.number(len(content)) + content
    file.write_bytes(file.read_bytes() + section)


SCHEMA = b"""{"type": "object", "additionalProperties": false, "properties": {
  "reject": {"type": "number", "minimum": 0, "maximum": 1},
  "of": {"type": "string", "x-name-of": "class"}}}"""


def test_parameters_that_fit_the_schema_of_their_guest_pass(folder: Path) -> None:
    carry(folder, "decide.wasm", SCHEMA)
    edit(folder / "manifest.toml", "call_ms = 5\n", "call_ms = 5\nparameters = { of = 'open' }\n")
    pin(folder)
    load_folder(folder)


def test_wrong_parameters_are_all_named_before_anything_is_compiled(folder: Path) -> None:
    carry(folder, "decide.wasm", SCHEMA)
    edit(
        folder / "manifest.toml",
        "call_ms = 5\n",
        "call_ms = 5\nparameters = { reject = 2, of = 'opne', rejct = 1 }\n",
    )
    with pytest.raises(DeploymentError) as refusal:
        pin(folder)
    said = str(refusal.value)
    for part in (
        "manifest.toml: pipelines.board.decide.parameters.reject: expected a number 0..1, found 2",
        'parameters.of: expected the name of a class, found "opne" (did you mean open?)',
        "parameters.rejct: expected no parameter of this name, found 1 (did you mean reject?)",
    ):
        assert part in said


def test_a_broken_schema_is_refused_by_the_guests_name(folder: Path) -> None:
    carry(folder, "post.wasm", b"{")
    with pytest.raises(IncompatibleError, match=r"guests/post\.wasm: its parameter schema"):
        pin(folder)
