"""The two engines, tried in processes of their own: does each do here what is asked of it?"""

import math
import subprocess
import sys
from pathlib import Path
from typing import Final

from edge.config import InferenceSection
from edge.contracts.plan import ModelPlan, PipelinePlan
from edge.doctor.check import Check, finding, ok, unknown
from edge.errors import TrialError
from edge.inference.trial import Request, offered, trial
from edge.wasm.binary import COMPONENT_HEAD
from edge.wasm.code import Code

RUNS: Final = 20
TRIAL_S: Final = 120.0
_COMPILE_S: Final = 60.0
_COMPILE_LIMITS: Final = ("30", "1024", "128")
"""Seconds of CPU, MiB of memory, MiB of output."""
_SCRIPT_S: Final = 300.0
_SCRIPT_LIMITS: Final = ("180", "3072", "128")
"""A script brings its interpreter: 11 s of a desktop core."""
_ONE_FUNCTION: Final = bytes.fromhex(
    "0061736d 01000000"  # magic and version
    "01 05 01 60 00 01 7f"  # one type: () -> i32
    "03 02 01 00"  # one function of it
    "0a 06 01 04 00 41 2a 0b"  # its body: i32.const 42
)
"""The smallest module that has code: of one without, nothing is made executable."""
_SHOWN_CHARS: Final = 300


def provider(inference: InferenceSection) -> Check:
    """Does the installed ONNX Runtime offer the configured provider?"""
    name = "provider.offered"
    if inference.plugin is not None:
        library = inference.plugin.library
        if library.is_file():
            return ok(name, f"{inference.provider} is the plug-in {library}; its models try it")
        return finding(
            name,
            f"inference.plugin.library {library} is no file",
            "install the package that has it, or correct the path",
        )
    try:
        known = offered()
    except TrialError as failed:
        return finding(name, str(failed), "install edge anew: its Python packages are damaged")
    said = f"ONNX Runtime offers {', '.join(known)}"
    if inference.provider in known:
        return ok(name, said)
    text = f"{said}; the config asks for {inference.provider}"
    if not inference.require:
        return finding(name, f"{text}, does not require it, and gets the CPU", "see provider")
    return finding(
        name,
        text,
        f"install the onnxruntime wheel that has {inference.provider}, or set inference.provider",
    )


def models(plans: tuple[PipelinePlan, ...]) -> list[Check]:
    """Load and run each pipeline's models as its worker does."""
    found = []
    for plan in plans:
        found.append(_model(f"model.{plan.name}", plan.model, plan.budget_ms))
        if plan.refine is not None:
            most = math.ceil(plan.refine.max_crops / plan.refine.batch)
            name = f"model.{plan.name}.refine"
            found.append(_model(name, plan.refine.model, plan.budget_ms, most))
    return found


def _model(name: str, model: ModelPlan, budget_ms: int, most_runs: int = 1) -> Check:
    """Try a model that one frame may take so many times."""
    try:
        report = trial(Request(model, RUNS, TRIAL_S))
    except TrialError as failed:
        return finding(
            name, str(failed), "deploy another variant, or set inference.* to what this box has"
        )
    nodes = ", ".join(f"{count} on {where}" for where, count in report.placement.items())
    said = (
        f"runs on {report.provider} (nodes: {nodes}), p50 {report.p50_ms} ms, p99 "
        f"{report.p99_ms} ms of {report.runs}, {report.resident_mib:.0f} MiB"
    )
    if found := report.findings():
        return finding(name, f"{said}; {'; '.join(found)}", "correct the model: edge model trial")
    if most_runs > 1:
        said = f"{said}, up to {most_runs} a frame"
    if report.provider != model.provider:
        return finding(
            name,
            f"{said}; asked for was {model.provider}",
            "install the wheel and driver it needs, and set inference.require = true",
        )
    if most_runs * report.p99_ms > budget_ms:
        return finding(
            name,
            f"{said}; the budget of the whole frame is {budget_ms} ms",
            ("lower refine.max_crops, " if most_runs > 1 else "")
            + "use an accelerator, the int8 variant, more inference.threads, or a larger budget",
        )
    return ok(name, said)


def _interpreted() -> bool:
    """Whether a process that we start, and so this one, may make no machine code."""
    code = "from edge.wasm.sandbox import interpreted; print(interpreted())"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        capture_output=True,
        timeout=_COMPILE_S,
        check=False,
    )
    return done.stdout.strip() == b"True"


def guests(plans: tuple[PipelinePlan, ...]) -> Check:
    """Compile one function, then each guest: may this process make machine code?"""
    name = "wasm.compile"
    if _interpreted():
        return finding(
            name,
            "this process may not make machine code: guests are interpreted, some 20 times slower",
            "MemoryDenyWriteExecute= and SELinux's execmem must allow it, or every call_ms and "
            "budget_ms be so much larger",
        )
    programs = {plan.preprocess.path for plan in plans if plan.graph}
    paths = {guest.path for plan in plans for _, guest in plan.guests}
    modules = [("one function", _ONE_FUNCTION, Code.PLAIN)]
    try:
        for path in sorted(paths):
            wasm = Path(path).read_bytes()
            kind = Code.SCRIPT if wasm.startswith(COMPONENT_HEAD) else Code.PLAIN
            modules.append((Path(path).name, wasm, Code.PROGRAM if path in programs else kind))
    except OSError as failed:
        return unknown(name, f"{failed.filename}: {failed.strerror}")
    native_bytes = 0
    for title, wasm, code in modules:
        most_s, limits = (
            (_SCRIPT_S, _SCRIPT_LIMITS) if code is Code.SCRIPT else (_COMPILE_S, _COMPILE_LIMITS)
        )
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-m", "edge.wasm.compile", *limits, code],
                input=wasm,
                capture_output=True,
                timeout=most_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return finding(name, f"{title}: did not compile in {most_s:g} s", "free the processor")
        if done.returncode or not done.stdout:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
            return finding(
                name,
                f"{title}: status {done.returncode}: {lines[-1][:_SHOWN_CHARS]}",
                "guests are compiled to machine code: MemoryDenyWriteExecute= and SELinux's "
                "execmem must allow it; a guest at fault is to be built anew",
            )
        native_bytes += len(done.stdout)
    return ok(name, f"{len(modules)} modules compiled to {native_bytes >> 10} KiB of machine code")
