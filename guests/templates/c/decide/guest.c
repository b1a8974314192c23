/* NAME: rejects a part from `limit` findings on; after `series` rejects in a row it says so.
 * guests/ABI.md explains every call. */
#include "edge_config.h"

static uint32_t limit, series;
static uint32_t rejects_in_a_row; /* all that is remembered, so all that is saved */

int32_t edge_configure(const char *document, uint32_t bytes) {
    edge_config config = edge_config_open(document, bytes);
    limit = edge_json_whole(config.parameters, "limit", 1, 1, EDGE_MAX_DEFECTS);
    series = edge_json_whole(config.parameters, "series", 3, 1, 1000000);
    return edge_config_close(&config); /* refuses what was not asked for */
}

int32_t decide(edge_decide_call *call) {
    static const char reasons[3][EDGE_REASON_BYTES] = {"ok", "defect", "series"};
    uint32_t reason = 0;
    if (call->defect_count < limit) {
        rejects_in_a_row = 0;
    } else {
        rejects_in_a_row += rejects_in_a_row < UINT32_MAX;
        reason = rejects_in_a_row >= series ? 2 : 1;
    }
    call->verdict = reason ? EDGE_VERDICT_REJECT : EDGE_VERDICT_PASS;
    call->score = call->defect_count ? call->defects[0].score : 0;
    call->action_count = 0;
    __builtin_memcpy(call->reason, reasons[reason], EDGE_REASON_BYTES);
    return EDGE_OK;
}

/* A state begins with its version: it may meet another build of this guest. */
int32_t edge_state_save(void *blob, uint32_t capacity) {
    uint32_t state[2] = {1, rejects_in_a_row};
    if (capacity < sizeof state) return edge_fail(EDGE_ERROR_MEMORY, "the state takes 8 bytes");
    __builtin_memcpy(blob, state, sizeof state);
    return sizeof state;
}

int32_t edge_state_restore(void *blob, uint32_t bytes) {
    uint32_t state[2] = {0, 0};
    if (bytes == sizeof state) __builtin_memcpy(state, blob, sizeof state);
    if (state[0] != 1) return edge_fail(EDGE_ERROR_INPUT, "the state is not of version 1");
    rejects_in_a_row = state[1];
    return EDGE_OK;
}
