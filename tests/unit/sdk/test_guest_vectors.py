"""`edge guest test` and `bench`: reference guests pass; each kind of failure is found and named."""

import json
from pathlib import Path

import pytest
from guest_wat import assemble, guest

from edge import shipped
from edge.cli.main import main

DECIDE = """
role = "decide"
[document]
[[call]]
expect = {{ verdict = "{verdict}", reason = "ok" }}
"""


def outcome_of(
    folder: Path, module: str, vector: str, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    (folder / "guest.wasm").write_bytes(assemble(module))
    (folder / "vectors").mkdir()
    (folder / "vectors" / "one.toml").write_text(vector)
    status = main(["guest", "test", str(folder / "guest.wasm"), str(folder / "vectors")])
    return status, capsys.readouterr().out


@pytest.mark.parametrize("name", ["boxes", "letterbox", "pair", "policy"])
def test_the_reference_guests_pass_their_vectors(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = (
        shipped.path(f"guests/{name}/{name}.wasm"),
        shipped.path(f"guests/{name}/vectors"),
    )
    assert main(["guest", "test", str(file), str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"]
    names = {outcome["name"] for outcome in found["outcomes"]}
    assert {path.stem for path in folder.glob("*.toml")} <= names


def test_another_verdict_than_expected_fails_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = shipped.path("guests/policy/policy.wasm")
    (tmp_path / "wrong.toml").write_text(DECIDE.format(verdict="reject"))
    assert main(["guest", "test", str(file), str(tmp_path)]) == 1
    assert "FAIL  wrong\n      call 0: verdict is 'pass', expected 'reject'" in (
        capsys.readouterr().out
    )


def test_a_trap_and_a_document_taken_unread_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decide = '(func (export "decide") (param i32) (result i32) unreachable)'
    status, said = outcome_of(
        tmp_path,
        guest(decide=decide, preprocess="", postprocess=""),
        DECIDE.format(verdict="pass"),
        capsys,
    )
    assert status == 1
    assert "decide trapped: unreachable executed" in said
    assert "FAIL  decide: broken documents are refused" in said


def test_memory_that_no_state_holds_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decide = """
      (global $calls (mut i32) (i32.const 0))
      (func (export "decide") (param $call i32) (result i32)
        (i32.store offset=40 (local.get $call) (global.get $calls))
        (f32.store offset=44 (local.get $call) (f32.const 0))
        (i64.store offset=48 (local.get $call) (i64.const 0x6b6f))
        (global.set $calls (i32.const 1))
        (i32.const 0))"""
    state = """
      (func (export "edge_state_save") (param i32 i32) (result i32) (i32.const 4))
      (func (export "edge_state_restore") (param i32 i32) (result i32) (i32.const 0))"""
    vector = 'role = "decide"\n[[call]]\n[[call]]\n'
    status, said = outcome_of(
        tmp_path,
        guest(decide=decide, preprocess="", postprocess="", state=state),
        vector,
        capsys,
    )
    assert status == 1
    assert "edge_state_save does not hold all that it remembers" in said


def test_a_trap_at_the_most_findings_that_there_can_be_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decide = """
      (func (export "decide") (param $call i32) (result i32)
        (if (i32.ge_u (i32.load offset=28 (local.get $call)) (i32.const 300)) (then unreachable))
        (i32.store offset=40 (local.get $call) (i32.const 0))
        (f32.store offset=44 (local.get $call) (f32.const 0))
        (i64.store offset=48 (local.get $call) (i64.const 0x6b6f))
        (i32.const 0))"""
    status, said = outcome_of(
        tmp_path,
        guest(decide=decide, preprocess="", postprocess="", state=""),
        DECIDE.format(verdict="pass"),
        capsys,
    )
    assert status == 1
    assert "pass  one" in said
    assert "FAIL  decide: extremes are survived" in said
    assert "300 findings, signals of 0: guest" in said


def test_fuel_is_counted_and_the_same_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    file = shipped.path("guests/boxes/boxes.wasm")
    folder = shipped.path("guests/boxes/vectors")
    counted = []
    for _ in range(2):
        assert main(["guest", "test", str(file), str(folder), "--json"]) == 0
        outcomes = json.loads(capsys.readouterr().out)["outcomes"]
        counted.append({each["name"]: each["fuel"] for each in outcomes})
    assert counted[0] == counted[1]
    assert counted[0]["xyxy"] > 100
    assert counted[0]["refused-misspelt"] == 0


@pytest.mark.parametrize(
    ("vector", "problem"),
    [
        ('role = "decide"\nrefusd = "x"', "unknown field `refusd`"),
        ('role = "decide"', "needs either"),
        ("role = [", "Invalid"),
        ('role = "decide"\n[[call]]\nsignals = [{}]', "1 signals, the document names 0"),
    ],
)
def test_a_vector_that_cannot_be_used_fails_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], vector: str, problem: str
) -> None:
    file = shipped.path("guests/policy/policy.wasm")
    (tmp_path / "odd.toml").write_text(vector)
    assert main(["guest", "test", str(file), str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "FAIL  odd" in said
    assert problem in said


def test_bench_times_calls_and_cold_starts(capsys: pytest.CaptureFixture[str]) -> None:
    file, folder = shipped.path("guests/pair/pair.wasm"), shipped.path("guests/pair/vectors")
    assert main(["guest", "bench", str(file), str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["vectors"]
    assert [timing["name"] for timing in found] == ["copied", "scaled"]
    assert all(timing["call_us"] > 0 and timing["cold_ms"] > 0 for timing in found)
    assert main(["guest", "bench", str(file), str(folder / "none")]) == 2
