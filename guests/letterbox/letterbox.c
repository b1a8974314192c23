/* letterbox: one frame, resized, padded and normalised, as an RGB model input.
 *
 * See README.md for the parameters. Resizing, channel order, normalising and the turn from pixels to
 * planes are one pass over the frame: what it saves is memory traffic.
 *
 * The loops are written once, for grey and coloured frames, float and byte inputs; `grey` and
 * `floats` are constants wherever they arrive, so that each pairing is compiled apart.
 */
#include "edge_config.h"
#include "edge_image.h"

#define UNROLLED static inline __attribute__((always_inline))

static struct {
    float gain[3], bias[3]; /* value = grey level * gain + bias, for each plane: red, green, blue */
    uint8_t pad;
    bool float_only; /* one was given that has no meaning for bytes */
} parameters;

static edge_columns columns;

/* Where one row goes, for each channel of the frame in the frame's order. */
typedef struct {
    void *out;
    v128_t gain, bias;
} lane;

int32_t edge_configure(const char *document, uint32_t bytes) {
    edge_config config = edge_config_open(document, bytes);
    edge_json *given = config.parameters;
    double mean[3] = {0, 0, 0}, deviation[3] = {1, 1, 1};
    double scale = edge_json_number(given, "scale", 1.0 / 255.0, 1e-6, 1e6);
    edge_json_numbers(given, "mean", mean, 3, -1e6, 1e6);
    edge_json_numbers(given, "std", deviation, 3, 1e-6, 1e6);
    parameters.pad = (uint8_t)edge_json_whole(given, "pad", 114, 0, 255);
    parameters.float_only = edge_json_member(given, "scale") || edge_json_member(given, "mean") ||
                            edge_json_member(given, "std");
    for (uint32_t plane = 0; plane < 3; plane++) {
        parameters.gain[plane] = (float)(scale / deviation[plane]);
        parameters.bias[plane] = (float)(-mean[plane] / deviation[plane]);
    }
    return edge_config_close(&config);
}

UNROLLED v128_t normalised(const lane *l, v128_t level) {
    return wasm_f32x4_add(wasm_f32x4_mul(wasm_f32x4_convert_i32x4(level), l->gain), l->bias);
}

UNROLLED v128_t rounded(v128_t level) {
    v128_t half = wasm_i32x4_splat(1 << (EDGE_GREY_BITS - 1));
    v128_t bytes = wasm_u32x4_shr(wasm_i32x4_add(level, half), EDGE_GREY_BITS);
    bytes = wasm_u16x8_narrow_i32x4(bytes, bytes);
    return wasm_u8x16_narrow_i16x8(bytes, bytes);
}

/* Sixteen levels of one channel at column x. */
UNROLLED void put_16(const lane *l, uint32_t x, v128_t levels, bool floats) {
    if (!floats) {
        wasm_v128_store((uint8_t *)l->out + x, levels);
        return;
    }
    v128_t low = wasm_u16x8_extend_low_u8x16(levels), high = wasm_u16x8_extend_high_u8x16(levels);
    float *out = (float *)l->out + x;
    wasm_v128_store(out, normalised(l, wasm_u32x4_extend_low_u16x8(low)));
    wasm_v128_store(out + 4, normalised(l, wasm_u32x4_extend_high_u16x8(low)));
    wasm_v128_store(out + 8, normalised(l, wasm_u32x4_extend_low_u16x8(high)));
    wasm_v128_store(out + 12, normalised(l, wasm_u32x4_extend_high_u16x8(high)));
}

/* A row that keeps its size. */
UNROLLED void copy_row(const lane lanes[3], const uint8_t *row, uint32_t width, bool grey,
                       bool floats) {
    uint32_t x = 0;
    for (; x + 16 <= width; x += 16) {
        v128_t channel[3];
        if (grey) channel[0] = channel[1] = channel[2] = wasm_v128_load(row + x);
        else edge_split_colour(row + 3 * x, channel);
        for (uint32_t i = 0; i < 3; i++) put_16(&lanes[i], x, channel[i], floats);
    }
    for (; x < width; x++) {
        for (uint32_t i = 0; i < 3; i++) {
            uint8_t level = grey ? row[x] : row[3 * x + i];
            v128_t value = normalised(&lanes[i], wasm_i32x4_splat(level));
            if (floats) ((float *)lanes[i].out)[x] = wasm_f32x4_extract_lane(value, 0);
            else ((uint8_t *)lanes[i].out)[x] = level;
        }
    }
}

/* Up to four sampled pixels, from column x on. */
UNROLLED void put_4(const lane lanes[3], uint32_t x, uint32_t count, const v128_t channel[3],
                    bool floats) {
    for (uint32_t i = 0; i < 3; i++) {
        v128_t values = floats ? normalised(&lanes[i], channel[i]) : rounded(channel[i]);
        uint32_t size = floats ? 4 : 1;
        uint8_t *out = (uint8_t *)lanes[i].out + (size_t)x * size, rest[16];
        if (count < 4) {
            wasm_v128_store(rest, values);
            for (uint32_t byte = 0; byte < count * size; byte++) out[byte] = rest[byte];
        } else if (floats) {
            wasm_v128_store(out, values);
        } else {
            wasm_v128_store32_lane(out, values, 0);
        }
    }
}

UNROLLED void sample_4(const lane lanes[3], uint32_t x, uint32_t count, bool grey, bool floats) {
    v128_t channel[3];
    if (grey) channel[0] = channel[1] = channel[2] = edge_sample_grey(&columns, x);
    else edge_sample_colour(&columns, x, channel);
    put_4(lanes, x, count, channel, floats);
}

/* A row out of the blended one; the columns end with four empty ones. */
UNROLLED void sample_row(const lane lanes[3], uint32_t width, bool grey, bool floats) {
    uint32_t x = 0;
    for (; x + 4 <= width; x += 4) sample_4(lanes, x, 4, grey, floats);
    if (x < width) sample_4(lanes, x, width - x, grey, floats);
}

/* A row of a coloured frame of twice the size; `width` is a multiple of four. */
UNROLLED void halve_row(const lane lanes[3], const uint8_t *row, uint32_t stride, uint32_t width,
                        bool floats) {
    for (uint32_t x = 0; x < width; x += 4) {
        v128_t channel[3];
        edge_halve_colour(row + 6 * x, row + stride + 6 * x, channel);
        put_4(lanes, x, 4, channel, floats);
    }
}

UNROLLED void lay(const edge_image *frame, const edge_fit *fit, edge_tensor *input, bool grey,
                  bool floats) {
    uint32_t height = input->dims[2], width = input->dims[3], channels = grey ? 1 : 3;
    uint32_t size = floats ? 4 : 1;
    bool same = frame->width == fit->width && frame->height == fit->height;
    bool half = !grey && frame->width == 2 * fit->width && frame->height == 2 * fit->height &&
                fit->width % 4 == 0;
    float fixed_point = same ? 1 : 1.0f / (1 << EDGE_GREY_BITS);
    double step = (double)frame->height / fit->height;
    lane lanes[3];
    if (!same) edge_columns_prepare(&columns, frame->width, fit->width, channels);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t plane = frame->format == EDGE_FORMAT_BGR8 ? 2 - i : i;
        size_t at = ((size_t)plane * height + fit->top) * width + fit->left;
        lanes[i].out = (uint8_t *)input->data + at * size;
        lanes[i].gain = wasm_f32x4_splat(parameters.gain[plane] * fixed_point);
        lanes[i].bias = wasm_f32x4_splat(parameters.bias[plane]);
    }
    for (uint32_t y = 0; y < fit->height; y++) {
        if (same) {
            copy_row(lanes, frame->data + (size_t)y * frame->stride, fit->width, grey, floats);
        } else if (half) {
            halve_row(lanes, frame->data + 2ull * y * frame->stride, frame->stride, fit->width, floats);
        } else {
            edge_sample sample = edge_sample_at(y, step, frame->height);
            const uint8_t *above = frame->data + (size_t)sample.index * frame->stride;
            const uint8_t *below = sample.fraction > 0 ? above + frame->stride : above;
            edge_blend(above, below, frame->width * channels, sample.fraction);
            sample_row(lanes, fit->width, grey, floats);
        }
        for (uint32_t i = 0; i < 3; i++) lanes[i].out = (uint8_t *)lanes[i].out + (size_t)width * size;
    }
}

/* --- padding -------------------------------------------------------------------------------- */

/* Elements begin..end of one plane. */
static void pad_span(edge_tensor *input, uint32_t plane, size_t begin, size_t end) {
    size_t at = (size_t)plane * input->dims[2] * input->dims[3] + begin, count = end - begin;
    if (input->dtype == EDGE_DTYPE_UINT8) {
        __builtin_memset((uint8_t *)input->data + at, parameters.pad, count);
        return;
    }
    float value = (float)parameters.pad * parameters.gain[plane] + parameters.bias[plane];
    float *out = (float *)input->data + at;
    v128_t values = wasm_f32x4_splat(value);
    for (; count >= 4; count -= 4, out += 4) wasm_v128_store(out, values);
    for (; count; count--) *out++ = value;
}

static void pad(edge_tensor *input, const edge_fit *fit) {
    size_t width = input->dims[3], end = width * input->dims[2], right = fit->left + fit->width;
    for (uint32_t plane = 0; plane < 3; plane++) {
        pad_span(input, plane, 0, fit->top * width);
        pad_span(input, plane, (fit->top + fit->height) * width, end);
        if (fit->width == width) continue;
        for (size_t y = fit->top; y < fit->top + fit->height; y++) {
            pad_span(input, plane, y * width, y * width + fit->left);
            pad_span(input, plane, y * width + right, (y + 1) * width);
        }
    }
}

/* --- the call ------------------------------------------------------------------------------- */

static int32_t check_input(const edge_preprocess_call *call) {
    static const char SHAPE[] = "the model input must be of shape [1, 3, height, width]";
    if (call->input_count != 1) return edge_fail(EDGE_ERROR_INPUT, "letterbox fills one model input");
    int32_t failed = edge_input_check(call->inputs, 3, SHAPE);
    if (!failed && call->inputs->dtype == EDGE_DTYPE_UINT8 && parameters.float_only) {
        return edge_fail(EDGE_ERROR_PARAMETERS,
                         "parameters: scale, mean and std have no meaning for a uint8 model input");
    }
    return failed;
}

int32_t preprocess(edge_preprocess_call *call) {
    const edge_image *frame = &call->frame;
    edge_tensor *input = call->inputs;
    edge_error_clear();
    int32_t failed = check_input(call);
    if (!failed) failed = edge_image_check(frame, "the frame");
    if (failed) return failed;
    edge_fit fit = edge_fit_image(frame->width, frame->height, input->dims[3], input->dims[2]);
    bool grey = frame->format == EDGE_FORMAT_GRAY8;
    pad(input, &fit);
    if (input->dtype == EDGE_DTYPE_FLOAT32) {
        if (grey) lay(frame, &fit, input, true, true);
        else lay(frame, &fit, input, false, true);
    } else {
        if (grey) lay(frame, &fit, input, true, false);
        else lay(frame, &fit, input, false, false);
    }
    call->transform = fit.transform;
    return EDGE_OK;
}
