/* pair: frame and reference, in grey, as the two channels of one model input.
 *
 * See README.md for the parameters. Channel 0 is the frame, channel 1 the reference, both laid into
 * the input by the same geometry. Images of the input's own size are copied, byte for byte.
 */
#include "edge_config.h"
#include "edge_image.h"

static struct {
    float scale;
    uint8_t pad;
    bool float_only; /* `scale` was given: it has no meaning for bytes */
} parameters;

static edge_columns columns;
static uint8_t grey_rows[2][EDGE_MAX_SOURCE + 16];
static uint32_t grey_row_index[2];

int32_t edge_configure(const char *document, uint32_t bytes) {
    edge_config config = edge_config_open(document, bytes);
    edge_json *given = config.parameters;
    parameters.float_only = edge_json_member(given, "scale") != NULL;
    parameters.scale = (float)edge_json_number(given, "scale", 1.0 / 255.0, 1e-6, 1e6);
    parameters.pad = (uint8_t)edge_json_whole(given, "pad", 114, 0, 255);
    return edge_config_close(&config);
}

/* A row of the image in grey: in place, or turned to grey in one of two buffers. */
static const uint8_t *grey_row(const edge_image *image, uint32_t y) {
    const uint8_t *row = image->data + (size_t)y * image->stride;
    if (image->format == EDGE_FORMAT_GRAY8) return row;
    uint32_t slot = y & 1;
    if (grey_row_index[slot] != y) {
        edge_grey_row(grey_rows[slot], row, image->width, image->format);
        grey_row_index[slot] = y;
    }
    return grey_rows[slot];
}

static void put_bytes(uint8_t *out, const uint8_t *row, uint32_t width) {
    __builtin_memcpy(out, row, width);
}

static void put_floats(float *out, const uint8_t *row, uint32_t width) {
    v128_t scale = wasm_f32x4_splat(parameters.scale);
    uint32_t x = 0;
    for (; x + 8 <= width; x += 8) {
        v128_t words = wasm_u16x8_load8x8(row + x);
        v128_t low = wasm_f32x4_convert_i32x4(wasm_u32x4_extend_low_u16x8(words));
        v128_t high = wasm_f32x4_convert_i32x4(wasm_u32x4_extend_high_u16x8(words));
        wasm_v128_store(out + x, wasm_f32x4_mul(low, scale));
        wasm_v128_store(out + x + 4, wasm_f32x4_mul(high, scale));
    }
    for (; x < width; x++) out[x] = (float)row[x] * parameters.scale;
}

static v128_t sampled_bytes(uint32_t x) {
    v128_t half = wasm_i32x4_splat(1 << (EDGE_GREY_BITS - 1));
    v128_t grey = wasm_u32x4_shr(wasm_i32x4_add(edge_sample_grey(&columns, x), half), EDGE_GREY_BITS);
    v128_t words = wasm_u16x8_narrow_i32x4(grey, grey);
    return wasm_u8x16_narrow_i16x8(words, words);
}

static void sample_bytes(uint8_t *out, uint32_t width) {
    uint32_t x = 0;
    for (; x + 4 <= width; x += 4) wasm_v128_store32_lane(out + x, sampled_bytes(x), 0);
    uint8_t rest[16];
    wasm_v128_store(rest, sampled_bytes(x)); /* the columns end with four empty ones */
    for (uint32_t i = 0; x < width; x++, i++) out[x] = rest[i];
}

static void sample_floats(float *out, uint32_t width) {
    v128_t scale = wasm_f32x4_splat(parameters.scale / (1 << EDGE_GREY_BITS));
    uint32_t x = 0;
    for (;; x += 4) {
        v128_t grey = wasm_f32x4_mul(wasm_f32x4_convert_i32x4(edge_sample_grey(&columns, x)), scale);
        if (x + 4 > width) {
            float rest[4];
            wasm_v128_store(rest, grey);
            for (uint32_t i = 0; x < width; x++, i++) out[x] = rest[i];
            return;
        }
        wasm_v128_store(out + x, grey);
    }
}

/* Lays the image into one channel, whose padding is there already. */
static void lay(const edge_image *image, const edge_fit *fit, edge_tensor *input, uint32_t channel) {
    uint32_t into_height = input->dims[2], into_width = input->dims[3];
    bool floats = input->dtype == EDGE_DTYPE_FLOAT32;
    bool same = image->width == fit->width && image->height == fit->height;
    double step = (double)image->height / fit->height;
    grey_row_index[0] = grey_row_index[1] = UINT32_MAX;
    if (!same) edge_columns_prepare(&columns, image->width, fit->width, 1);
    for (uint32_t y = 0; y < fit->height; y++) {
        size_t at = ((size_t)channel * into_height + fit->top + y) * into_width + fit->left;
        if (same) {
            const uint8_t *row = grey_row(image, y);
            if (floats) put_floats((float *)input->data + at, row, fit->width);
            else put_bytes((uint8_t *)input->data + at, row, fit->width);
            continue;
        }
        edge_sample sample = edge_sample_at(y, step, image->height);
        const uint8_t *above = grey_row(image, sample.index);
        const uint8_t *below = sample.fraction > 0 ? grey_row(image, sample.index + 1) : above;
        edge_blend(above, below, image->width, sample.fraction);
        if (floats) sample_floats((float *)input->data + at, fit->width);
        else sample_bytes((uint8_t *)input->data + at, fit->width);
    }
}

static void pad(const edge_fit *fit, edge_tensor *input) {
    uint32_t width = input->dims[3], height = input->dims[2];
    if (fit->width == width && fit->height == height) return;
    if (input->dtype == EDGE_DTYPE_UINT8) {
        __builtin_memset(input->data, parameters.pad, input->bytes);
        return;
    }
    v128_t value = wasm_f32x4_splat((float)parameters.pad * parameters.scale);
    float *out = input->data;
    uint32_t count = 2 * width * height, i = 0;
    for (; i + 4 <= count; i += 4) wasm_v128_store(out + i, value);
    for (; i < count; i++) out[i] = wasm_f32x4_extract_lane(value, 0);
}

static int32_t check_input(const edge_preprocess_call *call) {
    static const char SHAPE[] = "the model input must be of shape [1, 2, height, width]";
    if (call->input_count != 1) return edge_fail(EDGE_ERROR_INPUT, "pair fills one model input");
    int32_t failed = edge_input_check(call->inputs, 2, SHAPE);
    if (!failed && call->inputs->dtype == EDGE_DTYPE_UINT8 && parameters.float_only) {
        return edge_fail(EDGE_ERROR_PARAMETERS,
                         "parameters.scale: has no meaning for a uint8 model input");
    }
    return failed;
}

int32_t preprocess(edge_preprocess_call *call) {
    const edge_image *frame = &call->frame, *reference = &call->reference;
    edge_error_clear();
    int32_t failed = check_input(call);
    if (!failed) failed = edge_image_check(frame, "the frame");
    if (!failed) failed = edge_image_check(reference, "the reference image");
    if (failed) return failed;
    if ((uint64_t)frame->width * reference->height != (uint64_t)frame->height * reference->width) {
        return edge_fail(EDGE_ERROR_INPUT, "the reference image is not of the frame's aspect ratio");
    }
    edge_tensor *input = call->inputs;
    edge_fit fit = edge_fit_image(frame->width, frame->height, input->dims[3], input->dims[2]);
    pad(&fit, input);
    lay(frame, &fit, input, 0);
    lay(reference, &fit, input, 1);
    call->transform = fit.transform;
    return EDGE_OK;
}
