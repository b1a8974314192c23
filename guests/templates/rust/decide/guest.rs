//! NAME: rejects a part from `limit` findings on; after `series` rejects in a row it says so.
//! guests/ABI.md explains every call.
#![no_std]

use edge::{abi, fail, reason, Global, Parameters};

static LIMIT: Global<u32> = Global::new(1);
static SERIES: Global<u32> = Global::new(3);
static REJECTS_IN_A_ROW: Global<u32> = Global::new(0); // all that is remembered, so all that is saved

#[no_mangle]
unsafe extern "C" fn edge_configure(document: *const u8, bytes: usize) -> i32 {
    let mut parameters = Parameters::open(document, bytes);
    LIMIT.set(parameters.whole("limit", 1, 1, abi::MAX_DEFECTS));
    SERIES.set(parameters.whole("series", 3, 1, 1_000_000));
    parameters.close() // refuses what was not asked for
}

#[no_mangle]
extern "C" fn decide(call: &mut abi::DecideCall) -> i32 {
    let bad = call.defect_count >= LIMIT.get();
    let row = if bad { REJECTS_IN_A_ROW.get().saturating_add(1) } else { 0 };
    REJECTS_IN_A_ROW.set(row);
    call.verdict = if bad { abi::VERDICT_REJECT } else { abi::VERDICT_PASS };
    call.reason = reason(match row {
        0 => "ok",
        _ if row >= SERIES.get() => "series",
        _ => "defect",
    });
    call.score = call.defects().first().map_or(0.0, |strongest| strongest.score);
    call.action_count = 0;
    abi::OK
}

// A state begins with its version: it may meet another build of this guest.
#[no_mangle]
unsafe extern "C" fn edge_state_save(blob: *mut [u32; 2], capacity: usize) -> i32 {
    if capacity < 8 {
        return fail(abi::ERROR_MEMORY, "the state takes 8 bytes");
    }
    blob.write_unaligned([1, REJECTS_IN_A_ROW.get()]);
    8
}

#[no_mangle]
unsafe extern "C" fn edge_state_restore(blob: *const [u32; 2], bytes: usize) -> i32 {
    let state = if bytes == 8 { blob.read_unaligned() } else { [0, 0] };
    if state[0] != 1 {
        return fail(abi::ERROR_INPUT, "the state is not of version 1");
    }
    REJECTS_IN_A_ROW.set(state[1]);
    abi::OK
}
