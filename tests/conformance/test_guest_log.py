"""`edge_log` by the C SDK: a guest that says something, and what the host hears of it."""

import hashlib
from pathlib import Path

import numpy as np

from edge.sdk.languages import Source
from edge.sdk.languages.c import compile_against
from edge.wasm.engine import GuestEngine
from edge.wasm.roles import DEFECT, Decider

SDK = Path(__file__).parents[2] / "guests" / "sdk" / "c"
TALKATIVE = """
#include "edge_config.h"
#include "edge_log.h"

int32_t edge_configure(const char *document, uint32_t bytes) {
    edge_config config = edge_config_open(document, bytes);
    edge_log_say("configured");
    edge_log_end();
    return edge_config_close(&config);
}

int32_t decide(edge_decide_call *call) {
    call->verdict = EDGE_VERDICT_PASS;
    call->score = 0;
    call->action_count = 0;
    __builtin_memcpy(call->reason, "ok", 3);
    if (call->frame_width == 1) return EDGE_OK;
    uint32_t lines = call->frame_width == 9 ? 300 : 1;
    for (uint32_t i = 0; i < lines; i++) {
        edge_log_say("part ");
        edge_log_say_integer(-(int64_t)call->part);
        edge_log_end();
    }
    return EDGE_OK;
}
"""


def test_lines_are_heard_once_and_what_is_too_much_is_cut_off(tmp_path: Path) -> None:
    source, built = tmp_path / "talkative.c", tmp_path / "talkative.wasm"
    source.write_text(TALKATIVE)
    compile_against(SDK, Source(source, 1), built)
    with GuestEngine(tmp_path / "cache") as engine:
        digest = hashlib.sha256(built.read_bytes()).hexdigest()
        guest = engine.load(built, digest, 1).instantiate(5_000)
        guest.configure({"parameters": {}})
        decider = Decider(guest, 0, 0)
        nothing = np.zeros(0, DEFECT)

        def see(width: int, part: int) -> tuple[str, ...]:
            decider.run(nothing, 0, (), 0, 0, width, 8, part)
            return guest.log_lines()

        assert see(8, 7) == ("configured", "part -7")
        assert guest.log_lines() == ()
        assert see(8, 2**32 - 1) == ("part -4294967295",)
        assert see(1, 1) == ()
        assert see(9, 1) == ("part -1",) * 8
        assert see(8, 2) == ("part -2",)
