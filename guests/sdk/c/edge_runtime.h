/* Allocation and the error text: what every C guest has to export.
 *
 * Include from the one source file of a guest. Memory comes from behind the linker's data and is
 * never given back: the host allocates at set-up only, and a guest should do the same.
 */
#ifndef EDGE_RUNTIME_H
#define EDGE_RUNTIME_H

#include <stdbool.h>

#include "edge_guest.h"

/* The lowest minor version of the host that will do; a guest that needs a later addition defines it
 * before it includes anything. */
#ifndef EDGE_NEEDS_MINOR
#define EDGE_NEEDS_MINOR 0
#endif

#define EDGE_MAX_ALIGNMENT 4096u
#define EDGE_WASM_PAGE 65536ull

extern unsigned char __heap_base; /* set by the linker: first byte behind stack and data */

static uint32_t edge_heap_next;
static char edge_error_text[EDGE_MAX_ERROR_BYTES + 1];
static uint32_t edge_error_length;

/* What runs once, or only on errors, is small rather than fast. */
#pragma clang attribute push(__attribute__((minsize, noinline)), apply_to = function)

uint32_t edge_abi(void) { return EDGE_ABI_MAJOR << 16 | EDGE_NEEDS_MINOR; }

void *edge_alloc(uint32_t bytes, uint32_t alignment) {
    if (alignment == 0 || alignment > EDGE_MAX_ALIGNMENT || (alignment & (alignment - 1))) return NULL;
    uint64_t next = edge_heap_next ? edge_heap_next : (uint32_t)(uintptr_t)&__heap_base;
    uint64_t begin = (next + alignment - 1) & ~(uint64_t)(alignment - 1);
    uint64_t end = begin + bytes;
    if (end > __builtin_wasm_memory_size(0) * EDGE_WASM_PAGE) return NULL;
    edge_heap_next = (uint32_t)end;
    return (void *)(uintptr_t)begin;
}

const char *edge_error(void) { return edge_error_text; }

static inline void edge_error_clear(void) {
    edge_error_length = 0;
    edge_error_text[0] = 0;
}

/* Length of the longest beginning of at most `most` bytes that ends between two characters. */
static inline uint32_t edge_prefix(const char *text, uint32_t length, uint32_t most) {
    if (length <= most) return length;
    while (most > 0 && ((uint8_t)text[most] & 0xC0) == 0x80) most--;
    return most;
}

/* Appends to the error text, as far as there is room; control characters become '?'. */
static inline void edge_say_bytes(const char *text, uint32_t length) {
    length = edge_prefix(text, length, EDGE_MAX_ERROR_BYTES - edge_error_length);
    for (uint32_t i = 0; i < length; i++) {
        edge_error_text[edge_error_length++] = (uint8_t)text[i] < 0x20 ? '?' : text[i];
    }
    edge_error_text[edge_error_length] = 0;
}

static inline void edge_say(const char *text) {
    uint32_t length = 0;
    while (text[length]) length++;
    edge_say_bytes(text, length);
}

static inline void edge_say_integer(int64_t value) {
    char digits[20];
    uint32_t at = sizeof digits;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do digits[--at] = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0) edge_say("-");
    edge_say_bytes(digits + at, sizeof digits - at);
}

/* At most six decimals: enough for the bounds of a range. */
static inline void edge_say_number(double value) {
    if (!(value > -1e15 && value < 1e15)) {
        edge_say(value > 0 ? "infinity" : "-infinity");
        return;
    }
    if (value < 0) edge_say("-");
    uint64_t millionths = (uint64_t)((value < 0 ? -value : value) * 1e6 + 0.5);
    edge_say_integer((int64_t)(millionths / 1000000));
    uint32_t fraction = (uint32_t)(millionths % 1000000);
    if (fraction == 0) return;
    char digits[] = ".000000";
    for (uint32_t i = 6; i > 0; i--, fraction /= 10) digits[i] = (char)('0' + fraction % 10);
    uint32_t length = 7;
    while (digits[length - 1] == '0') length--;
    edge_say_bytes(digits, length);
}

/* Sets the error text and returns the code, for `return edge_fail(EDGE_ERROR_INPUT, "...")`. */
static inline int32_t edge_fail(int32_t code, const char *sentence) {
    edge_error_clear();
    edge_say(sentence);
    return code;
}

#pragma clang attribute pop

#endif
