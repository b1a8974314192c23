"""wasi-nn programs: the native numbers by the public interface, and nothing beyond the grant."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemons import CONFIG, DEPLOYMENT, part_jpeg, reference_jpeg
from programs import BOARDS, with_program
from wasmtime import wat2wasm

from edge import config
from edge.contracts.frame import ContentType
from edge.contracts.messages import Judge, Judged, PolicyState
from edge.contracts.signal import SignalState, SignalValue
from edge.deployment.folder import load_folder, plans
from edge.errors import DeploymentError, GuestBudgetError, GuestError, IncompatibleError
from edge.inference.model import OnnxModel
from edge.pipeline.path import FramePath
from edge.pipeline.stages import load_modules
from edge.wasm.engine import GuestEngine

FOR_EVER = (1 << 63) - 1
JPEG = ContentType()
MODEL = (DEPLOYMENT / "model/model.int8.onnx").read_bytes()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestEngine]:
    with GuestEngine(tmp_path_factory.mktemp("cache") / "guests") as opened:
        yield opened


def stand(engine: GuestEngine, folder: Path) -> FramePath:
    (plan,) = plans(load_folder(folder), config.load(CONFIG))
    path = FramePath(plan, load_modules(engine, plan), OnnxModel.load(plan.model), PolicyState())
    path.encoded.keep("board", JPEG, reference_jpeg(3))
    return path


def judge(path: FramePath, payload: bytes) -> Judged:
    lamp = SignalValue(1.0, 0, SignalState.FRESH)
    request = Judge(1, JPEG, FOR_EVER, 1_000, "board", signals=(lamp,))
    return path.judge(path.decode(request, payload))


def test_a_program_gives_the_very_numbers_of_the_native_pipeline(
    engine: GuestEngine, tmp_path: Path
) -> None:
    native = stand(engine, DEPLOYMENT)
    program = stand(engine, with_program(DEPLOYMENT, tmp_path / "nn", BOARDS.read_bytes()))
    found = 0
    for part, defects in enumerate(((), ("short",), ("open", "spur"), ("copper", "pin-hole"))):
        payload = part_jpeg(3, part, defects)
        one, other = judge(native, payload), judge(program, payload)
        assert (one.verdict, one.reason, one.score) == (other.verdict, other.reason, other.score)
        assert one.defects == other.defects
        assert one.findings == other.findings  # a digest over the unrounded numbers
        assert list(other.stage_ms) == ["decode", "program", "decide"]
        found += len(other.defects)
    assert found >= 4


# Programs of WAT: each makes one call, and says its number as the right edge of a box

ANSWER = '{"defects":[{"label":0,"score":1,"box":[0,0,0,9]}]}'
AT = ANSWER.index("0,9]")
NN = """
(import "wasi_ephemeral_nn" "load" (func $load (param i32 i32 i32 i32 i32) (result i32)))
(import "wasi_ephemeral_nn" "load_by_name" (func $by_name (param i32 i32 i32) (result i32)))
(import "wasi_ephemeral_nn" "init_execution_context" (func $init (param i32 i32) (result i32)))
(import "wasi_ephemeral_nn" "set_input" (func $set (param i32 i32 i32) (result i32)))
(import "wasi_ephemeral_nn" "compute" (func $compute (param i32) (result i32)))
(import "wasi_ephemeral_nn" "get_output"
  (func $get (param i32 i32 i32 i32 i32) (result i32)))
"""
WASI = """
(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
"""
# 64: "boards"; 80: the tensor, its dimensions at 112, its data at 4096, 819,200 bytes.
DATA = r"""
(data (i32.const 64) "boards")
(data (i32.const 80) "\\70\\00\\00\\00\\04\\00\\00\\00\\03\\00\\00\\00"
  "\\00\\10\\00\\00\\00\\80\\0c\\00")
(data (i32.const 112) "\\01\\00\\00\\00\\02\\00\\00\\00\\80\\02\\00\\00\\80\\02\\00\\00")
""".replace("\\\\", "\\")


def program(code: str, *, pages: int = 32, imports: str = NN + WASI, say: str = ANSWER) -> bytes:
    """A command whose `code` leaves the number to say; it may use $number for others."""
    said = say.replace('"', '\\"')
    return bytes(
        wat2wasm(
            f"""(module {imports} (memory (export "memory") {pages}) {DATA}
            (data (i32.const 1024) "{said}")
            (func (export "_start") (local $number i32)
              (local.set $number (block (result i32) {code}))
              (i32.store8 (i32.const {1024 + AT}) (i32.add (local.get $number) (i32.const 48)))
              (i32.store (i32.const 0) (i32.const 1024))
              (i32.store (i32.const 4) (i32.const {len(say)}))
              (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""
        )
    )


GRAPH = "(drop (call $by_name (i32.const 64) (i32.const 6) (i32.const 128)))"
CONTEXT = f"{GRAPH} (drop (call $init (i32.const 0) (i32.const 132)))"
TENSOR = "(call $set (i32.const 0) (i32.const 0) (i32.const 80))"
READY = f"{CONTEXT} (drop {TENSOR})"


def changed(at: int, word: int) -> str:
    """`set_input` with one word of the tensor's description changed."""
    return f"{CONTEXT} (i32.store (i32.const {at}) (i32.const {word})) {TENSOR}"


CALLS = {
    "the granted name": (GRAPH + "(i32.const 0)", 0),
    "another name": ("(call $by_name (i32.const 64) (i32.const 5) (i32.const 128))", 8),
    "a name of 4 GiB": ("(call $by_name (i32.const 64) (i32.const -1) (i32.const 128))", 7),
    "a name outside": ("(call $by_name (i32.const -4) (i32.const 6) (i32.const 128))", 1),
    "a handle put outside": ("(call $by_name (i32.const 64) (i32.const 6) (i32.const -2))", 1),
    "a context of no graph": ("(call $init (i32.const 0) (i32.const 132))", 1),
    "a context of another graph": (f"{GRAPH} (call $init (i32.const 1) (i32.const 132))", 1),
    "compute without a context": ("(call $compute (i32.const 0))", 1),
    "compute before its input": (f"{CONTEXT} (call $compute (i32.const 0))", 1),
    "the model's tensor": (f"{CONTEXT} {TENSOR}", 0),
    "an input that there is not": (
        f"{CONTEXT} (call $set (i32.const 0) (i32.const 1) (i32.const 80))",
        1,
    ),
    "a tensor outside": (f"{CONTEXT} (call $set (i32.const 0) (i32.const 0) (i32.const -8))", 1),
    "dimensions outside": (changed(80, -4), 1),
    "a rank of 4 billion": (changed(84, -1), 1),
    "another rank": (changed(84, 3), 1),
    "another element type": (changed(88, 1), 1),
    "an element type that is none": (changed(88, 200), 1),
    "data outside": (changed(92, 0x7FFF_0000), 1),
    "too much data": (changed(96, 819_201), 7),
    "too little data": (changed(96, 819_199), 1),
    "another shape": (changed(116, 1), 1),
    "compute": (f"{READY} (call $compute (i32.const 0))", 0),
    "an output before compute": (
        f"{READY} (call $get (i32.const 0) (i32.const 0) (i32.const 4096) "
        "(i32.const 102400) (i32.const 136))",
        1,
    ),
    "an output": (
        f"{READY} (drop (call $compute (i32.const 0))) (call $get (i32.const 0) (i32.const 0) "
        "(i32.const 4096) (i32.const 102400) (i32.const 136))",
        0,
    ),
    "an output into too little room": (
        f"{READY} (drop (call $compute (i32.const 0))) (call $get (i32.const 0) (i32.const 0) "
        "(i32.const 4096) (i32.const 102399) (i32.const 136))",
        7,
    ),
    "an output put outside": (
        f"{READY} (drop (call $compute (i32.const 0))) (call $get (i32.const 0) (i32.const 0) "
        "(i32.const 0x1ffff0) (i32.const 102400) (i32.const 136))",
        1,
    ),
    "an output that there is not": (
        f"{READY} (drop (call $compute (i32.const 0))) (call $get (i32.const 0) (i32.const 2) "
        "(i32.const 4096) (i32.const 102400) (i32.const 136))",
        1,
    ),
    "foreign bytes": (
        "(i32.store (i32.const 256) (i32.const 4096)) (i32.store (i32.const 260) (i32.const 99)) "
        "(call $load (i32.const 256) (i32.const 1) (i32.const 1) (i32.const 0) (i32.const 128))",
        6,
    ),
    "bytes of the model's length that are not the model": (
        f"(i32.store (i32.const 256) (i32.const 4096)) "
        f"(i32.store (i32.const 260) (i32.const {len(MODEL)})) "
        "(call $load (i32.const 256) (i32.const 1) (i32.const 1) (i32.const 0) (i32.const 128))",
        6,
    ),
    "bytes outside": (
        "(i32.store (i32.const 256) (i32.const 4096)) (i32.store (i32.const 260) (i32.const -1)) "
        "(call $load (i32.const 256) (i32.const 1) (i32.const 1) (i32.const 0) (i32.const 128))",
        1,
    ),
    "two files": (
        "(call $load (i32.const 256) (i32.const 2) (i32.const 1) (i32.const 0) (i32.const 128))",
        1,
    ),
    "the encoding of OpenVINO": (
        "(call $load (i32.const 256) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 128))",
        2,
    ),
    "a GPU where there is none": (
        "(call $load (i32.const 256) (i32.const 1) (i32.const 1) (i32.const 1) (i32.const 128))",
        6,
    ),
    "a TPU": (
        "(call $load (i32.const 256) (i32.const 1) (i32.const 1) (i32.const 2) (i32.const 128))",
        6,
    ),
    "more graphs than may be": (
        "(loop $again (local.set $number (call $by_name (i32.const 64) (i32.const 6) "
        "(i32.const 128))) (br_if $again (i32.eqz (local.get $number)))) (local.get $number)",
        7,
    ),
}


@pytest.fixture
def number(engine: GuestEngine, tmp_path: Path) -> Callable[[bytes], float]:
    """Run a program on a frame; the number that it says."""

    def run(wasm: bytes) -> float:
        path = stand(engine, with_program(DEPLOYMENT, tmp_path / "deployment", wasm))
        return judge(path, part_jpeg(3, 0)).defects[0].box[2]

    return run


@pytest.mark.parametrize("call", CALLS)
def test_each_call_answers_its_number_and_the_program_goes_on(
    number: Callable[[bytes], float], call: str
) -> None:
    code, expected = CALLS[call]
    assert number(program(code)) == expected


def test_the_models_own_bytes_are_the_model(number: Callable[[bytes], float]) -> None:
    text = "".join(f"\\{byte:02x}" for byte in MODEL)
    pages = len(MODEL) // 65536 + 4
    code = (
        "(i32.store (i32.const 256) (i32.const 4096)) "
        f"(i32.store (i32.const 260) (i32.const {len(MODEL)})) "
        "(call $load (i32.const 256) (i32.const 1) (i32.const 1) (i32.const 0) (i32.const 128))"
    )
    model = f'(data (i32.const 4096) "{text}")'
    assert number(program(code, pages=pages, imports=NN + WASI + model)) == 0


# Programs gone wrong

WRONG: dict[str, tuple[bytes, str]] = {
    "exits with a status": (
        program("(call $exit (i32.const 3)) (i32.const 0)"),
        "ended with status 3: it said nothing",
    ),
    "complains and exits": (
        program(
            "(i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 6)) "
            "(drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8))) "
            "(call $exit (i32.const 1)) (i32.const 0)"
        ),
        "ended with status 1: boards",
    ),
    "traps": (program("unreachable"), "_start trapped: unreachable executed"),
    "says nothing": (program("(call $exit (i32.const 0)) (i32.const 0)"), "no answer"),
    "says what is no JSON": (program("(i32.const 0)", say=ANSWER[:-1] + "!"), "no answer"),
    "says a key too many": (program("(i32.const 0)", say=ANSWER[:-1] + ',"a":1}'), "no answer"),
    "says a box inside out": (
        program("(i32.const 0)", say=ANSWER.replace("[0,0", "[5,0")),
        "the box",
    ),
    "says a class that is none": (
        program("(i32.const 0)", say=ANSWER.replace('label":0', 'label":6')),
        "label 6",
    ),
    "says a score above 1": (
        program("(i32.const 0)", say=ANSWER.replace('score":1', 'score":2')),
        "no answer",
    ),
    "says NaN": (program("(i32.const 0)", say=ANSWER.replace("[0,0", "[NaN,0")), "no answer"),
    "says infinity": (program("(i32.const 0)", say=ANSWER.replace("9]", "1e999]")), "no answer"),
    "says bytes that are no text": (
        program("(i32.store8 (i32.const 1030) (i32.const 255)) (i32.const 0)"),
        "no answer",
    ),
    "says something endlessly": (
        program(
            "(i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 4000)) "
            "(loop $more (br_if $more (i32.eqz "
            "(call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))) "
            "(i32.const 0)"
        ),
        "more than 65536 bytes",
    ),
    "names buffers outside": (
        program(
            "(i32.store (i32.const 0) (i32.const -8)) (i32.store (i32.const 4) (i32.const 40)) "
            "(call $exit (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) "
            "(i32.const 0)"
        ),
        "status 21",
    ),
    "names 4 billion buffers": (
        program(
            "(call $exit (call $read (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 8))) "
            "(i32.const 0)"
        ),
        "status 21",
    ),
    "writes to its input": (
        program(
            "(call $exit (call $write (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 8))) "
            "(i32.const 0)"
        ),
        "status 8",
    ),
    "takes all memory": (
        program(
            "(loop $more (br_if $more (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) "
            "(call $exit (memory.size)) (i32.const 0)"
        ),
        "ended with status 256",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_program_gone_wrong_is_named_and_the_next_frame_is_judged(
    name: str, engine: GuestEngine, tmp_path: Path
) -> None:
    wasm, sentence = WRONG[name]
    path = stand(engine, with_program(DEPLOYMENT, tmp_path / "deployment", wasm))
    for _ in range(2):
        with pytest.raises(GuestError, match="program.wasm .*" + sentence) as failure:
            judge(path, part_jpeg(3, 0))
        assert not isinstance(failure.value, GuestBudgetError)


def test_a_program_without_end_is_interrupted(engine: GuestEngine, tmp_path: Path) -> None:
    wasm = program("(loop $on (br $on)) (i32.const 0)")
    folder = with_program(DEPLOYMENT, tmp_path / "deployment", wasm, call_ms=30)
    path = stand(engine, folder)
    with pytest.raises(GuestBudgetError, match="did not return within 30 ms"):
        judge(path, part_jpeg(3, 0))


@pytest.mark.parametrize(
    ("wasm", "sentence"),
    [
        (program("(i32.const 0)", imports=NN + WASI + '(import "env" "f" (func))'), "env.f"),
        (
            program(
                "(i32.const 0)",
                imports=NN + WASI + '(import "wasi_ephemeral_nn" "set_fire" (func))',
            ),
            "wasi_ephemeral_nn.set_fire",
        ),
        (
            program(
                "(i32.const 0)",
                imports=WASI + '(import "wasi_ephemeral_nn" "compute" (func (param i64)))',
            ),
            "wasi_ephemeral_nn.compute",
        ),
        (program("(i32.const 0)", pages=257), "16 MiB are granted"),
        (bytes(wat2wasm('(module (memory (export "memory") 1))')), "no function _start"),
        (bytes(wat2wasm('(module (func (export "_start")))')), "no 32-bit memory"),
        (b"\0asm\x0d\0\x01\0", "not a core Wasm module"),
    ],
)
def test_what_is_no_program_is_refused_by_name(
    wasm: bytes, sentence: str, engine: GuestEngine, tmp_path: Path
) -> None:
    with pytest.raises(IncompatibleError, match=sentence):
        stand(engine, with_program(DEPLOYMENT, tmp_path / "deployment", wasm))


def test_a_program_taken_for_a_guest_is_told_where_it_belongs(engine: GuestEngine) -> None:
    digest = hashlib.sha256(BOARDS.read_bytes()).hexdigest()
    with pytest.raises(IncompatibleError, match="a pipeline names it as its program"):
        engine.load(BOARDS, digest, 64)


def test_runs_leave_no_memory_behind(engine: GuestEngine, tmp_path: Path) -> None:
    path = stand(engine, with_program(DEPLOYMENT, tmp_path / "nn", program("(i32.const 0)")))
    sizes = []
    for _ in range(3):
        for _ in range(30):
            judge(path, part_jpeg(3, 0))
        status = Path("/proc/self/status").read_text()
        sizes.append(int(status.partition("VmSize:")[2].split()[0]))
    assert sizes[2] - sizes[1] < 1 << 20  # one memory alone reserves 4 GiB, here in KiB


@pytest.mark.parametrize(
    ("edits", "sentence"),
    [
        ({"GRAY8": "BGR"}, "a program takes GRAY8 or RGB"),
        ({'graph = "boards"': 'graph = "no such thing"'}, "graph"),
        ({"call_ms = 150": "call_ms = 195"}, "nothing is left for the model"),
        ({"[pipelines.pcb.program]": "[pipelines.pcb.preprocess]"}, "graph"),
    ],
)
def test_a_manifest_that_grants_a_program_wrongly_is_refused(
    edits: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    folder = with_program(DEPLOYMENT, tmp_path / "nn", BOARDS.read_bytes())
    manifest = folder / "manifest.toml"
    text = manifest.read_text()
    for old, new in edits.items():
        assert old in text
        text = text.replace(old, new)
    manifest.write_text(text)
    with pytest.raises(DeploymentError, match=sentence):
        load_folder(folder)
