//! Allocation, the error text and the configuration document: what every Zig guest needs.
//!
//! The host allocates at set-up only and gives nothing back, so a bump allocator is all it takes.
//! The parameters are read with the standard library's JSON parser, in memory of their own.
const std = @import("std");
const abi = @import("edge_guest.zig");

extern var __heap_base: u8; // set by the linker: first byte behind stack and globals
var heap_next: usize = 0;
var error_text: [abi.MAX_ERROR_BYTES + 1]u8 = @splat(0);
var document_memory: [256 << 10]u8 = undefined;

export fn edge_abi() u32 {
    return abi.ABI_MAJOR << 16; // no later addition is needed
}

export fn edge_alloc(bytes: usize, alignment: usize) usize {
    if (alignment == 0 or alignment > 4096 or alignment & (alignment - 1) != 0) return 0;
    const next: u64 = if (heap_next != 0) heap_next else @intFromPtr(&__heap_base);
    const begin = (next + alignment - 1) & ~@as(u64, alignment - 1);
    const end = begin + bytes;
    if (end > @as(u64, @wasmMemorySize(0)) * 65536) return 0;
    heap_next = @intCast(end);
    return @intCast(begin);
}

export fn edge_error() [*]const u8 {
    return &error_text;
}

/// Sets the error text (cut at its end) and returns the code: `return edge.fail(...)`.
pub fn fail(code: i32, sentence: []const u8) i32 {
    failParts(&.{sentence});
    return code;
}

fn failParts(parts: []const []const u8) void {
    var at: usize = 0;
    for (parts) |part| for (part) |c| {
        if (at == abi.MAX_ERROR_BYTES) break;
        error_text[at] = if (c < 0x20) '?' else c;
        at += 1;
    };
    error_text[at] = 0;
}

/// The guest's own parameters. Each is asked for once; `close` refuses what nobody asked for. The
/// first problem is kept, and the readers go on with their fallback.
pub const Parameters = struct {
    object: ?std.json.ObjectMap = null,
    asked: usize = 0,
    failed: bool = false,

    /// Opens the document; what is wrong with it shows in `close`.
    pub fn open(document: []const u8) Parameters {
        var memory = std.heap.FixedBufferAllocator.init(&document_memory);
        const root = std.json.parseFromSliceLeaky(std.json.Value, memory.allocator(), document, .{}) catch |wrong| {
            failParts(&.{ "configuration: not JSON that this guest takes: ", @errorName(wrong) });
            return .{ .failed = true };
        };
        if (root != .object) {
            failParts(&.{"configuration: expected an object"});
            return .{ .failed = true };
        }
        const found = root.object.get("parameters") orelse return .{};
        if (found != .object) {
            failParts(&.{"parameters: expected an object"});
            return .{ .failed = true };
        }
        return .{ .object = found.object };
    }

    /// A number from `low` to `high`; `bounds` is how the error says so.
    pub fn number(self: *Parameters, comptime key: []const u8, fallback: f64, comptime low: f64, comptime high: f64) f64 {
        const object = self.object orelse return fallback;
        const value = object.get(key) orelse return fallback;
        self.asked += 1;
        const found: f64 = switch (value) {
            .integer => |whole_number| @floatFromInt(whole_number),
            .float => |real| real,
            else => std.math.nan(f64),
        };
        if (found >= low and found <= high) return found;
        self.refuse("parameters." ++ key ++ ": expected a number " ++ std.fmt.comptimePrint("{d}..{d}", .{ low, high }));
        return fallback;
    }

    /// A whole number from `low` to `high`.
    pub fn whole(self: *Parameters, comptime key: []const u8, fallback: u32, comptime low: u32, comptime high: u32) u32 {
        const object = self.object orelse return fallback;
        const value = object.get(key) orelse return fallback;
        self.asked += 1;
        if (value == .integer and value.integer >= low and value.integer <= high) return @intCast(value.integer);
        self.refuse("parameters." ++ key ++ ": expected a whole number " ++ std.fmt.comptimePrint("{d}..{d}", .{ low, high }));
        return fallback;
    }

    fn refuse(self: *Parameters, comptime sentence: []const u8) void {
        if (self.failed) return;
        self.failed = true;
        failParts(&.{sentence});
    }

    /// The result of `edge_configure`.
    pub fn close(self: *Parameters) i32 {
        if (self.object) |object| {
            if (object.count() > self.asked) self.refuse("parameters: one of them is unknown to this guest");
        }
        return if (self.failed) abi.ERROR_PARAMETERS else abi.OK;
    }
};
