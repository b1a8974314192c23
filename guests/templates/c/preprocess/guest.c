/* NAME: the frame, stretched to the model's input by the nearest pixel, times `scale`.
 * Input: float32 [1, 1 or 3, height, width]; colours as planes red, green, blue. guests/ABI.md
 * explains every call; edge_image.h has a bilinear letterbox, much faster than these loops. */
#include "edge_config.h"

static float scale;

int32_t edge_configure(const char *document, uint32_t bytes) {
    edge_config config = edge_config_open(document, bytes);
    scale = (float)edge_json_number(config.parameters, "scale", 1.0 / 255, 1e-6, 1e6);
    return edge_config_close(&config); /* refuses what was not asked for */
}

int32_t preprocess(edge_preprocess_call *call) {
    edge_error_clear();
    const edge_image *frame = &call->frame;
    const edge_tensor *input = call->inputs;
    uint32_t channels = frame->format == EDGE_FORMAT_GRAY8 ? 1 : 3;
    if (!frame->data || !frame->width || !frame->height || frame->format == EDGE_FORMAT_NONE)
        return edge_fail(EDGE_ERROR_INPUT, "there is no frame");
    if (call->input_count != 1 || input->dtype != EDGE_DTYPE_FLOAT32 || input->rank != 4 ||
        input->dims[0] != 1 || input->dims[1] != channels)
        return edge_fail(EDGE_ERROR_INPUT, "expected one float32 input [1, channels of the frame, height, width]");
    uint32_t height = input->dims[2], width = input->dims[3];
    float *out = input->data;
    for (uint32_t channel = 0; channel < channels; channel++) {
        uint32_t from = frame->format == EDGE_FORMAT_BGR8 ? 2 - channel : channel;
        for (uint32_t y = 0; y < height; y++) {
            uint32_t source_y = (uint32_t)((uint64_t)y * frame->height / height);
            const uint8_t *row = frame->data + (size_t)source_y * frame->stride;
            for (uint32_t x = 0; x < width; x++) {
                uint32_t source_x = (uint32_t)((uint64_t)x * frame->width / width);
                *out++ = (float)row[source_x * channels + from] * scale;
            }
        }
    }
    call->transform = (edge_transform){
        .scale_x = (float)frame->width / (float)width, .scale_y = (float)frame->height / (float)height};
    return EDGE_OK;
}
