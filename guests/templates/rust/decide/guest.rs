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
    let strongest = call.defects().first();
    call.score = strongest.map_or(0.0, |defect| defect.score);
    call.action_count = 0;
    if call.defect_count < LIMIT.get() {
        REJECTS_IN_A_ROW.set(0);
        call.verdict = abi::VERDICT_PASS;
        call.reason = reason("ok");
        return abi::OK;
    }
    let row = REJECTS_IN_A_ROW.get().saturating_add(1);
    let series = row >= SERIES.get();
    REJECTS_IN_A_ROW.set(row);
    call.verdict = abi::VERDICT_REJECT;
    call.reason = reason(if series { "series" } else { "defect" });
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
    if bytes != 8 || blob.read_unaligned()[0] != 1 {
        return fail(abi::ERROR_INPUT, "the state is not of version 1");
    }
    REJECTS_IN_A_ROW.set(blob.read_unaligned()[1]);
    abi::OK
}
