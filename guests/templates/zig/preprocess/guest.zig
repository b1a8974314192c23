//! NAME: the frame, stretched to the model's input by the nearest pixel, times `scale`.
//! Input: float32 [1, 1 or 3, height, width]; colours as planes red, green, blue. guests/ABI.md
//! explains every call.
const edge = @import("edge");
const abi = edge.abi;

var scale: f32 = 1.0 / 255.0;

export fn edge_configure(document: [*]const u8, bytes: usize) i32 {
    var parameters = edge.Parameters.open(document[0..bytes]);
    scale = @floatCast(parameters.number("scale", 1.0 / 255.0, 1e-6, 1e6));
    return parameters.close(); // refuses what was not asked for
}

export fn preprocess(call: *abi.PreprocessCall) i32 {
    const frame = call.frame;
    if (frame.data == null or frame.width == 0 or frame.height == 0 or frame.format == abi.FORMAT_NONE)
        return edge.fail(abi.ERROR_INPUT, "there is no frame");
    const wrong = "expected one float32 input [1, channels of the frame, height, width]";
    if (call.input_count != 1) return edge.fail(abi.ERROR_INPUT, wrong);
    const input = call.inputs.?[0];
    const channels: u32 = if (frame.format == abi.FORMAT_GRAY8) 1 else 3;
    if (input.dtype != abi.DTYPE_FLOAT32 or input.rank != 4 or input.dims[0] != 1 or input.dims[1] != channels)
        return edge.fail(abi.ERROR_INPUT, wrong);
    const height = input.dims[2];
    const width = input.dims[3];
    const out: [*]f32 = @ptrCast(@alignCast(input.data.?));
    var at: usize = 0;
    for (0..channels) |channel| {
        const from = if (frame.format == abi.FORMAT_BGR8) 2 - channel else channel;
        for (0..height) |y| {
            const row = frame.data.? + @as(usize, @intCast(@as(u64, y) * frame.height / height)) * frame.stride;
            for (0..width) |x| {
                const source_x: usize = @intCast(@as(u64, x) * frame.width / width);
                out[at] = @as(f32, @floatFromInt(row[source_x * channels + from])) * scale;
                at += 1;
            }
        }
    }
    call.transform = .{
        .scale_x = @as(f32, @floatFromInt(frame.width)) / @as(f32, @floatFromInt(width)),
        .scale_y = @as(f32, @floatFromInt(frame.height)) / @as(f32, @floatFromInt(height)),
        .offset_x = 0,
        .offset_y = 0,
    };
    return abi.OK;
}
