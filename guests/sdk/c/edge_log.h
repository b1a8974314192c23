/* Lines for the daemon's log (guests/ABI.md, Log): include it, and call `edge_log_say` with parts of a
 * line and `edge_log_end` at its end. What the deployment does not grant is dropped by the host.
 *
 * Needs ABI 1.1 to be heard; on an older host nobody asks, and nothing else changes.
 */
#ifndef EDGE_LOG_H
#define EDGE_LOG_H

#include "edge_runtime.h"

static char edge_log_text[EDGE_MAX_LOG_BYTES];
static uint32_t edge_log_length;
static bool edge_log_taken; /* the host has it: the next line begins anew */

#pragma clang attribute push(__attribute__((minsize, noinline)), apply_to = function)

/* What was logged since the host asked last; NULL where there is nothing. */
const char *edge_log(void) {
    if (edge_log_taken || !edge_log_length) return NULL;
    edge_log_taken = true;
    return edge_log_text;
}

static inline void edge_log_say(const char *text) {
    if (edge_log_taken) edge_log_length = 0;
    edge_log_taken = false;
    while (*text && edge_log_length < EDGE_MAX_LOG_BYTES - 1) edge_log_text[edge_log_length++] = *text++;
    edge_log_text[edge_log_length] = 0;
}

static inline void edge_log_say_integer(int64_t value) {
    char digits[21];
    uint32_t at = sizeof digits;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    digits[--at] = 0;
    do digits[--at] = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0) edge_log_say("-");
    edge_log_say(digits + at);
}

static inline void edge_log_end(void) { edge_log_say("\n"); }

#pragma clang attribute pop

#endif
