//! NAME: rows of a detector that has its NMS in the graph become findings.
//! Output: float32 [1, rows, 6] of x0, y0, x1, y1, score, label. guests/ABI.md explains every call.
const edge = @import("edge");
const abi = edge.abi;

var least_score: f32 = 0.5;

export fn edge_configure(document: [*]const u8, bytes: usize) i32 {
    var parameters = edge.Parameters.open(document[0..bytes]);
    least_score = @floatCast(parameters.number("score", 0.5, 0, 1));
    return parameters.close(); // refuses what was not asked for
}

export fn postprocess(call: *abi.PostprocessCall) i32 {
    const wrong = "expected one float32 output [1, rows, 6]";
    if (call.output_count != 1) return edge.fail(abi.ERROR_INPUT, wrong);
    const output = call.outputs.?[0];
    if (output.dtype != abi.DTYPE_FLOAT32 or output.rank != 3 or output.dims[0] != 1 or output.dims[2] != 6)
        return edge.fail(abi.ERROR_INPUT, wrong);
    const rows: [*]const [6]f32 = @ptrCast(@alignCast(output.data.?));
    var count: u32 = 0;
    for (rows[0..output.dims[1]]) |row| {
        var sum: f32 = 0;
        for (row) |value| sum += value;
        // Dropping what is not a number would pass the part.
        if (sum - sum != 0) return edge.fail(abi.ERROR_INPUT, "an output is not finite");
        if (row[4] < least_score) continue;
        if (row[5] < 0 or row[5] > 1000000) return edge.fail(abi.ERROR_INPUT, "a label is out of range");
        const t = call.transform;
        count = insert(call, count, .{
            .x0 = (row[0] - t.offset_x) * t.scale_x,
            .y0 = (row[1] - t.offset_y) * t.scale_y,
            .x1 = (row[2] - t.offset_x) * t.scale_x,
            .y1 = (row[3] - t.offset_y) * t.scale_y,
            .score = row[4],
            .label = @intFromFloat(row[5]),
        });
    }
    return @intCast(count);
}

/// Strongest first; when there is no room, the weakest goes.
fn insert(call: *abi.PostprocessCall, count: u32, found: abi.Defect) u32 {
    const defects = call.defects.?;
    const full = count == call.defect_capacity;
    if (full and (count == 0 or defects[count - 1].score >= found.score)) return count;
    var at = if (full) count - 1 else count;
    while (at > 0 and defects[at - 1].score < found.score) : (at -= 1) defects[at] = defects[at - 1];
    defects[at] = found;
    return if (full) count else count + 1;
}
