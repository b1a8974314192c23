/* NAME: rows of a detector that has its NMS in the graph become findings.
 * Output: float32 [1, rows, 6] of x0, y0, x1, y1, score, label. guests/ABI.md explains every call. */
#include "edge_config.h"

static float least_score;

int32_t edge_configure(const char *document, uint32_t bytes) {
    edge_config config = edge_config_open(document, bytes);
    least_score = (float)edge_json_number(config.parameters, "score", 0.5, 0, 1);
    return edge_config_close(&config); /* refuses what was not asked for */
}

/* Strongest first; when there is no room, the weakest goes. */
static uint32_t insert(edge_postprocess_call *call, uint32_t count, edge_defect found) {
    if (count == call->defect_capacity && (count == 0 || call->defects[count - 1].score >= found.score))
        return count;
    uint32_t at = count < call->defect_capacity ? count : count - 1;
    for (; at > 0 && call->defects[at - 1].score < found.score; at--) call->defects[at] = call->defects[at - 1];
    call->defects[at] = found;
    return count < call->defect_capacity ? count + 1 : count;
}

int32_t postprocess(edge_postprocess_call *call) {
    edge_error_clear();
    const edge_tensor *output = call->outputs;
    if (call->output_count != 1 || output->dtype != EDGE_DTYPE_FLOAT32 || output->rank != 3 ||
        output->dims[0] != 1 || output->dims[2] != 6)
        return edge_fail(EDGE_ERROR_INPUT, "expected one float32 output [1, rows, 6]");
    const float *row = output->data;
    const edge_transform *t = &call->transform;
    uint32_t count = 0;
    for (uint32_t i = 0; i < output->dims[1]; i++, row += 6) {
        float sum = row[0] + row[1] + row[2] + row[3] + row[4] + row[5];
        /* Dropping what is not a number would pass the part. */
        if (sum - sum != 0) return edge_fail(EDGE_ERROR_INPUT, "an output is not finite");
        if (row[4] < least_score) continue;
        if (row[5] < 0 || row[5] > 1000000) return edge_fail(EDGE_ERROR_INPUT, "a label is out of range");
        count = insert(call, count, (edge_defect){
            .x0 = (row[0] - t->offset_x) * t->scale_x, .y0 = (row[1] - t->offset_y) * t->scale_y,
            .x1 = (row[2] - t->offset_x) * t->scale_x, .y1 = (row[3] - t->offset_y) * t->scale_y,
            .score = row[4], .label = (int32_t)row[5]});
    }
    return (int32_t)count;
}
