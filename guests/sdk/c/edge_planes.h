/* From pixels to normalised planes: the inner part of guests whose model input is [n, 3, h, w].
 *
 * Resizing, channel order, normalising and the turn from pixels to planes are one pass over the
 * image: what it saves is memory traffic. The loops are written once, for grey and coloured images,
 * float and byte inputs; `grey` and `floats` are constants wherever they arrive, so that each pairing
 * is compiled apart.
 */
#ifndef EDGE_PLANES_H
#define EDGE_PLANES_H

#include "edge_config.h"
#include "edge_image.h"

#define EDGE_UNROLLED static inline __attribute__((always_inline))

/* value = grey level * gain + bias, for each plane: red, green, blue. */
typedef struct edge_normal {
    float gain[3], bias[3];
    uint8_t pad;
    bool float_only; /* a parameter was given that has no meaning for bytes */
} edge_normal;

static edge_columns edge_plane_columns;

/* Where one row goes, for each channel of the image in the image's order. */
typedef struct edge_lane {
    void *out;
    v128_t gain, bias;
} edge_lane;

/* The parameters `scale`, `mean`, `std` and `pad`. */
static inline edge_normal edge_normal_read(edge_json *given) {
    edge_normal normal;
    double mean[3] = {0, 0, 0}, deviation[3] = {1, 1, 1};
    double scale = edge_json_number(given, "scale", 1.0 / 255.0, 1e-6, 1e6);
    edge_json_numbers(given, "mean", mean, 3, -1e6, 1e6);
    edge_json_numbers(given, "std", deviation, 3, 1e-6, 1e6);
    normal.pad = (uint8_t)edge_json_whole(given, "pad", 114, 0, 255);
    normal.float_only = edge_json_member(given, "scale") || edge_json_member(given, "mean") ||
                        edge_json_member(given, "std");
    for (uint32_t plane = 0; plane < 3; plane++) {
        normal.gain[plane] = (float)(scale / deviation[plane]);
        normal.bias[plane] = (float)(-mean[plane] / deviation[plane]);
    }
    return normal;
}

/* 0, or an error with its sentence, for an input of bytes with parameters for floats. */
static inline int32_t edge_normal_check(const edge_normal *normal, const edge_tensor *input) {
    if (input->dtype != EDGE_DTYPE_UINT8 || !normal->float_only) return EDGE_OK;
    return edge_fail(EDGE_ERROR_PARAMETERS,
                     "parameters: scale, mean and std have no meaning for a uint8 model input");
}

/* --- rows ----------------------------------------------------------------------------------- */

EDGE_UNROLLED v128_t edge_normalised(const edge_lane *l, v128_t level) {
    return wasm_f32x4_add(wasm_f32x4_mul(wasm_f32x4_convert_i32x4(level), l->gain), l->bias);
}

EDGE_UNROLLED v128_t edge_rounded(v128_t level) {
    v128_t half = wasm_i32x4_splat(1 << (EDGE_GREY_BITS - 1));
    v128_t bytes = wasm_u32x4_shr(wasm_i32x4_add(level, half), EDGE_GREY_BITS);
    bytes = wasm_u16x8_narrow_i32x4(bytes, bytes);
    return wasm_u8x16_narrow_i16x8(bytes, bytes);
}

/* Sixteen levels of one channel at column x. */
EDGE_UNROLLED void edge_put_16(const edge_lane *l, uint32_t x, v128_t levels, bool floats) {
    if (!floats) {
        wasm_v128_store((uint8_t *)l->out + x, levels);
        return;
    }
    v128_t low = wasm_u16x8_extend_low_u8x16(levels), high = wasm_u16x8_extend_high_u8x16(levels);
    float *out = (float *)l->out + x;
    wasm_v128_store(out, edge_normalised(l, wasm_u32x4_extend_low_u16x8(low)));
    wasm_v128_store(out + 4, edge_normalised(l, wasm_u32x4_extend_high_u16x8(low)));
    wasm_v128_store(out + 8, edge_normalised(l, wasm_u32x4_extend_low_u16x8(high)));
    wasm_v128_store(out + 12, edge_normalised(l, wasm_u32x4_extend_high_u16x8(high)));
}

/* A row that keeps its size. */
EDGE_UNROLLED void edge_copy_row(const edge_lane lanes[3], const uint8_t *row, uint32_t width, bool grey,
                                 bool floats) {
    uint32_t x = 0;
    for (; x + 16 <= width; x += 16) {
        v128_t channel[3];
        if (grey) channel[0] = channel[1] = channel[2] = wasm_v128_load(row + x);
        else edge_split_colour(row + 3 * x, channel);
        for (uint32_t i = 0; i < 3; i++) edge_put_16(&lanes[i], x, channel[i], floats);
    }
    for (; x < width; x++) {
        for (uint32_t i = 0; i < 3; i++) {
            uint8_t level = grey ? row[x] : row[3 * x + i];
            v128_t value = edge_normalised(&lanes[i], wasm_i32x4_splat(level));
            if (floats) ((float *)lanes[i].out)[x] = wasm_f32x4_extract_lane(value, 0);
            else ((uint8_t *)lanes[i].out)[x] = level;
        }
    }
}

/* Up to four sampled pixels, from column x on. */
EDGE_UNROLLED void edge_put_4(const edge_lane lanes[3], uint32_t x, uint32_t count,
                              const v128_t channel[3], bool floats) {
    for (uint32_t i = 0; i < 3; i++) {
        v128_t values = floats ? edge_normalised(&lanes[i], channel[i]) : edge_rounded(channel[i]);
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

EDGE_UNROLLED void edge_sample_4(const edge_lane lanes[3], uint32_t x, uint32_t count, bool grey,
                                 bool floats) {
    v128_t channel[3];
    if (grey) channel[0] = channel[1] = channel[2] = edge_sample_grey(&edge_plane_columns, x);
    else edge_sample_colour(&edge_plane_columns, x, channel);
    edge_put_4(lanes, x, count, channel, floats);
}

/* A row out of the blended one; the columns end with four empty ones. */
EDGE_UNROLLED void edge_sample_row(const edge_lane lanes[3], uint32_t width, bool grey, bool floats) {
    uint32_t x = 0;
    for (; x + 4 <= width; x += 4) edge_sample_4(lanes, x, 4, grey, floats);
    if (x < width) edge_sample_4(lanes, x, width - x, grey, floats);
}

/* A row of a coloured image of twice the size; `width` is a multiple of four. */
EDGE_UNROLLED void edge_halve_row(const edge_lane lanes[3], const uint8_t *row, uint32_t stride,
                                  uint32_t width, bool floats) {
    for (uint32_t x = 0; x < width; x += 4) {
        v128_t channel[3];
        edge_halve_colour(row + 6 * x, row + stride + 6 * x, channel);
        edge_put_4(lanes, x, 4, channel, floats);
    }
}

EDGE_UNROLLED void edge_lay(const edge_image *image, const edge_fit *fit, const edge_tensor *input,
                            const edge_normal *normal, bool grey, bool floats) {
    uint32_t height = input->dims[2], width = input->dims[3], channels = grey ? 1 : 3;
    uint32_t size = floats ? 4 : 1;
    bool same = image->width == fit->width && image->height == fit->height;
    bool half = !grey && image->width == 2 * fit->width && image->height == 2 * fit->height &&
                fit->width % 4 == 0;
    float fixed_point = same ? 1 : 1.0f / (1 << EDGE_GREY_BITS);
    double step = (double)image->height / fit->height;
    edge_lane lanes[3];
    if (!same) edge_columns_prepare(&edge_plane_columns, image->width, fit->width, channels);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t plane = image->format == EDGE_FORMAT_BGR8 ? 2 - i : i;
        size_t at = ((size_t)plane * height + fit->top) * width + fit->left;
        lanes[i].out = (uint8_t *)input->data + at * size;
        lanes[i].gain = wasm_f32x4_splat(normal->gain[plane] * fixed_point);
        lanes[i].bias = wasm_f32x4_splat(normal->bias[plane]);
    }
    for (uint32_t y = 0; y < fit->height; y++) {
        if (same) {
            edge_copy_row(lanes, image->data + (size_t)y * image->stride, fit->width, grey, floats);
        } else if (half) {
            const uint8_t *row = image->data + 2ull * y * image->stride;
            edge_halve_row(lanes, row, image->stride, fit->width, floats);
        } else {
            edge_sample sample = edge_sample_at(y, step, image->height);
            const uint8_t *above = image->data + (size_t)sample.index * image->stride;
            const uint8_t *below = sample.fraction > 0 ? above + image->stride : above;
            edge_blend(above, below, image->width * channels, sample.fraction);
            edge_sample_row(lanes, fit->width, grey, floats);
        }
        for (uint32_t i = 0; i < 3; i++) lanes[i].out = (uint8_t *)lanes[i].out + (size_t)width * size;
    }
}

/* --- padding -------------------------------------------------------------------------------- */

/* Elements begin..end of one plane. */
static inline void edge_pad_span(const edge_tensor *input, const edge_normal *normal, uint32_t plane,
                                 size_t begin, size_t end) {
    size_t at = (size_t)plane * input->dims[2] * input->dims[3] + begin, count = end - begin;
    if (input->dtype == EDGE_DTYPE_UINT8) {
        __builtin_memset((uint8_t *)input->data + at, normal->pad, count);
        return;
    }
    float value = (float)normal->pad * normal->gain[plane] + normal->bias[plane];
    float *out = (float *)input->data + at;
    v128_t values = wasm_f32x4_splat(value);
    for (; count >= 4; count -= 4, out += 4) wasm_v128_store(out, values);
    for (; count; count--) *out++ = value;
}

static inline void edge_pad(const edge_tensor *input, const edge_normal *normal, const edge_fit *fit) {
    size_t width = input->dims[3], end = width * input->dims[2], right = fit->left + fit->width;
    for (uint32_t plane = 0; plane < 3; plane++) {
        edge_pad_span(input, normal, plane, 0, fit->top * width);
        edge_pad_span(input, normal, plane, (fit->top + fit->height) * width, end);
        if (fit->width == width) continue;
        for (size_t y = fit->top; y < fit->top + fit->height; y++) {
            edge_pad_span(input, normal, plane, y * width, y * width + fit->left);
            edge_pad_span(input, normal, plane, y * width + right, (y + 1) * width);
        }
    }
}

/* Fills [1, 3, h, w] from an image, laid where `fit` says. */
static inline void edge_fill(const edge_image *image, const edge_fit *fit, const edge_tensor *input,
                             const edge_normal *normal) {
    bool grey = image->format == EDGE_FORMAT_GRAY8;
    edge_pad(input, normal, fit);
    if (input->dtype == EDGE_DTYPE_FLOAT32) {
        if (grey) edge_lay(image, fit, input, normal, true, true);
        else edge_lay(image, fit, input, normal, false, true);
    } else {
        if (grey) edge_lay(image, fit, input, normal, true, false);
        else edge_lay(image, fit, input, normal, false, false);
    }
}

#endif
