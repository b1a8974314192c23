/* The letterbox guest as an Extism plug-in: the same kernel, behind Extism's interface.
 *
 * The frame and the tensor cross in Extism's own memory, eight bytes a call, as its C PDK does it.
 * Built by edge/bench/guests.py.
 */
#include "letterbox.c"

#define HOST(name) __attribute__((import_module("extism:host/env"), import_name(#name))) extern
HOST(input_length) uint64_t host_input_length(void);
HOST(input_load_u64) uint64_t host_input_load_u64(uint64_t offset);
HOST(alloc) uint64_t host_alloc(uint64_t bytes);
HOST(store_u64) void host_store_u64(uint64_t offset, uint64_t value);
HOST(output_set) void host_output_set(uint64_t offset, uint64_t bytes);

/* Frame: width, height, side as three u32 and one to spare, then BGR pixels; whole words. */
static uint64_t input[(16 + 1920 * 1080 * 3 + 64) / 8];
static uint64_t tensor[3 * 640 * 640 * 4 / 8];

__attribute__((export_name("letterbox"))) int32_t letterbox(void) {
    static const char NOTHING[] = "{\"parameters\":{}}";
    uint64_t bytes = host_input_length();
    if (bytes > sizeof input) return 1;
    for (uint64_t at = 0; at + 8 <= bytes; at += 8) input[at / 8] = host_input_load_u64(at);
    if (edge_configure(NOTHING, sizeof NOTHING - 1)) return 2;
    const uint32_t *head = (const uint32_t *)input;
    uint32_t side = head[2];
    edge_tensor description = {0};
    description.data = tensor;
    description.dtype = 1;
    description.rank = 4;
    description.bytes = 3 * side * side * 4;
    description.dims[0] = 1;
    description.dims[1] = 3;
    description.dims[2] = description.dims[3] = side;
    edge_preprocess_call call = {0};
    call.frame.data = (const uint8_t *)input + 16;
    call.frame.width = head[0];
    call.frame.height = head[1];
    call.frame.stride = head[0] * 3;
    call.frame.format = EDGE_FORMAT_BGR8;
    call.inputs = &description;
    call.input_count = 1;
    if (preprocess(&call)) return 3;
    uint64_t out = host_alloc(description.bytes);
    for (uint64_t at = 0; at < description.bytes; at += 8) host_store_u64(out + at, tensor[at / 8]);
    host_output_set(out, description.bytes);
    return 0;
}
