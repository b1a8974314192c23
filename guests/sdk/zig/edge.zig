//! What a Zig guest imports: `const edge = @import("edge");`.
pub const abi = @import("edge_guest.zig");
const runtime = @import("edge_runtime.zig");
pub const Parameters = runtime.Parameters;
pub const fail = runtime.fail;

comptime {
    _ = runtime; // its exports belong to every guest
}
