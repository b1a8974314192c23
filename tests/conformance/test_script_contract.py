"""guests/SCRIPTS.md: the record and the answer that it shows are those of the host."""

import json
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from guest_wat import GuestFiles
from jsonschema import Draft202012Validator
from script_wat import script

from edge.contracts import script as contract
from edge.contracts.parameters import Names
from edge.errors import GuestError
from edge.wasm.engine import GuestEngine
from edge.wasm.policy import new_policy
from edge.wasm.roles import DEFECT

pytest_plugins = ["guest_fixtures"]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "guests/SCRIPTS.md").read_text()
SCHEMA = json.loads((ROOT / "guests/sdk/script/policy.schema.json").read_text())
RECORD, ANSWER = (json.loads(each) for each in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))


def validator(of: str) -> Draft202012Validator:
    return Draft202012Validator({**SCHEMA["properties"][of], "$defs": SCHEMA["$defs"]})


def test_the_pages_record_and_answer_are_ones() -> None:
    validator("record").validate(RECORD)
    validator("answer").validate(ANSWER)
    assert (
        msgspec.json.decode(msgspec.json.encode(msgspec.convert(RECORD, contract.Record))) == RECORD
    )
    assert (
        msgspec.json.decode(msgspec.json.encode(msgspec.convert(ANSWER, contract.ScriptAnswer)))
        == ANSWER
    )


def test_the_page_has_every_key_and_the_worlds_names() -> None:
    for struct in (contract.Record, contract.ScriptAnswer):
        for field in msgspec.structs.fields(struct):
            assert f"| `{field.encode_name}` |" in PAGE
    wit = (ROOT / "guests/sdk/script/policy.wit").read_text()
    version = f"{contract.SCRIPT_MAJOR}.{contract.SCRIPT_MINOR}.0"
    assert f"package edge:script@{version};" in wit
    for interface in (contract.POLICY_INTERFACE, contract.STATE_INTERFACE):
        assert f"`{interface}@{version}`" in PAGE
        assert f"interface {interface.partition('/')[2]} {{" in wit


def test_the_host_sends_the_pages_keys_in_its_order(engine: GuestEngine, files: GuestFiles) -> None:
    """A script that answers, as an error, the record that it was given."""
    echo = """(i32.store8 (i32.const 256) (i32.const 1))
      (i32.store offset=4 (i32.const 256) (local.get 0))
      (i32.store offset=8 (i32.const 256) (local.get 1)) (i32.const 256)"""
    written = files.write(script(decide=echo))
    instance = engine.load_policy(written.path, written.sha256, 8).instantiate(1000)
    instance.configure({"parameters": {}})
    role = new_policy(instance, Names(("open",), ("signal.lamp",), ("action.reject",)))
    box = RECORD["defects"][0]["box"]
    defects = np.array([(*box, 0.875, 0)], DEFECT)
    with pytest.raises(GuestError) as told:
        role.run(
            defects, 1, [(0.9, 12_000_000, 1)], RECORD["frame_index"], RECORD["captured_at_ns"],
            640, 480, RECORD["part"],
        )  # fmt: skip
    sent = str(told.value).partition("decide failed: ")[2]
    assert len(sent) > 200  # cut at 255 characters
    assert json.dumps(RECORD, separators=(",", ":")).startswith(sent)
