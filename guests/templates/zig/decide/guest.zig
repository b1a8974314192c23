//! NAME: rejects a part from `limit` findings on; after `series` rejects in a row it says so.
//! guests/ABI.md explains every call.
const edge = @import("edge");
const abi = edge.abi;

var limit: u32 = 1;
var series: u32 = 3;
var rejects_in_a_row: u32 = 0; // all that is remembered, so all that is saved

export fn edge_configure(document: [*]const u8, bytes: usize) i32 {
    var parameters = edge.Parameters.open(document[0..bytes]);
    limit = parameters.whole("limit", 1, 1, abi.MAX_DEFECTS);
    series = parameters.whole("series", 3, 1, 1000000);
    return parameters.close(); // refuses what was not asked for
}

export fn decide(call: *abi.DecideCall) i32 {
    var reason: []const u8 = "ok";
    if (call.defect_count < limit) {
        rejects_in_a_row = 0;
    } else {
        rejects_in_a_row +|= 1;
        reason = if (rejects_in_a_row >= series) "series" else "defect";
    }
    call.verdict = if (rejects_in_a_row > 0) abi.VERDICT_REJECT else abi.VERDICT_PASS;
    call.score = if (call.defect_count > 0) call.defects.?[0].score else 0;
    call.action_count = 0;
    call.reason = @splat(0);
    @memcpy(call.reason[0..reason.len], reason);
    return abi.OK;
}

// A state begins with its version: it may meet another build of this guest.
export fn edge_state_save(blob: *align(1) [2]u32, capacity: usize) i32 {
    if (capacity < 8) return edge.fail(abi.ERROR_MEMORY, "the state takes 8 bytes");
    blob.* = .{ 1, rejects_in_a_row };
    return 8;
}

export fn edge_state_restore(blob: *align(1) const [2]u32, bytes: usize) i32 {
    if (bytes != 8 or blob[0] != 1) return edge.fail(abi.ERROR_INPUT, "the state is not of version 1");
    rejects_in_a_row = blob[1];
    return abi.OK;
}
