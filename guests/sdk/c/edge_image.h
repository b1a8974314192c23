/* Bilinear letterbox for guests that preprocess: geometry, sampling tables, row kernels.
 *
 * Pixel centres lie at half integers, there is no antialiasing (as OpenCV's INTER_LINEAR). A row is
 * made in two steps: two source rows are blended into 16-bit fixed point, then sampled. Results are
 * integers until the last step, so they are the same on every machine; they differ from real
 * arithmetic by less than 1/50 of a grey level before rounding.
 */
#ifndef EDGE_IMAGE_H
#define EDGE_IMAGE_H

#include <wasm_simd128.h>

#include "edge_runtime.h"

#define EDGE_MAX_SOURCE 16384 /* pixels on a side of an image */
#define EDGE_MAX_TARGET 8192  /* pixels on a side of a model input */
#define EDGE_BLEND_BITS 7     /* fraction of a blended row: 255 << 7 still fits 16 bits */
#define EDGE_SAMPLE_BITS 14   /* fraction of a horizontal weight */
#define EDGE_GREY_BITS (EDGE_BLEND_BITS + EDGE_SAMPLE_BITS) /* fraction of a sampled value */

/* Where the image lies in the model input, in pixels of the input. */
typedef struct edge_fit {
    uint32_t width, height, left, top;
    edge_transform transform;
} edge_fit;

static inline uint32_t edge_scaled_side(uint32_t side, uint32_t target, uint32_t source) {
    uint32_t scaled = (uint32_t)(((uint64_t)side * target + source / 2) / source);
    return scaled ? scaled : 1;
}

static inline edge_transform edge_fit_transform(const edge_fit *fit, uint32_t width, uint32_t height) {
    return (edge_transform){
        .scale_x = (float)((double)width / fit->width),
        .scale_y = (float)((double)height / fit->height),
        .offset_x = (float)fit->left,
        .offset_y = (float)fit->top,
    };
}

/* The whole of the model input, whatever becomes of the aspect ratio. */
static inline edge_fit edge_stretch_image(uint32_t width, uint32_t height, uint32_t into_width,
                                          uint32_t into_height) {
    edge_fit fit = {.width = into_width, .height = into_height};
    fit.transform = edge_fit_transform(&fit, width, height);
    return fit;
}

/* The largest centred rectangle of the image's aspect ratio. */
static inline edge_fit edge_fit_image(uint32_t width, uint32_t height, uint32_t into_width,
                                      uint32_t into_height) {
    edge_fit fit = {.width = into_width, .height = into_height};
    if ((uint64_t)width * into_height >= (uint64_t)height * into_width) {
        fit.height = edge_scaled_side(height, into_width, width);
    } else {
        fit.width = edge_scaled_side(width, into_height, height);
    }
    fit.left = (into_width - fit.width) / 2;
    fit.top = (into_height - fit.height) / 2;
    fit.transform = edge_fit_transform(&fit, width, height);
    return fit;
}

/* The sample left of (above) a target pixel's centre, and how far beyond it the centre lies. */
typedef struct edge_sample {
    uint32_t index;
    double fraction; /* 0..1; 0 at the last sample, which has no neighbour */
} edge_sample;

static inline edge_sample edge_sample_at(uint32_t target, double step, uint32_t length) {
    double at = (target + 0.5) * step - 0.5;
    if (at < 0) at = 0;
    uint32_t index = (uint32_t)at;
    if (index + 1 >= length) return (edge_sample){length - 1, 0};
    return (edge_sample){index, at - index};
}

/* The horizontal samples of a row; kept until the geometry changes. */
typedef struct edge_columns {
    uint32_t source, target, channels;
    uint32_t offset[EDGE_MAX_TARGET + 4];  /* bytes into the blended row */
    uint32_t weights[EDGE_MAX_TARGET + 4]; /* two 16-bit weights, the left one low */
} edge_columns;

static inline void edge_columns_prepare(edge_columns *columns, uint32_t source, uint32_t target,
                                        uint32_t channels) {
    if (columns->source == source && columns->target == target && columns->channels == channels) return;
    columns->source = source;
    columns->target = target;
    columns->channels = channels;
    double step = (double)source / target;
    for (uint32_t x = 0; x < target; x++) {
        edge_sample sample = edge_sample_at(x, step, source);
        uint32_t right = (uint32_t)(sample.fraction * (1 << EDGE_SAMPLE_BITS) + 0.5);
        columns->offset[x] = sample.index * channels * sizeof(int16_t);
        columns->weights[x] = ((1 << EDGE_SAMPLE_BITS) - right) | right << 16;
    }
    for (uint32_t x = target; x < target + 4; x++) columns->offset[x] = columns->weights[x] = 0;
}

/* A blended row; readable beyond its end, as far as one vector. */
static int16_t edge_blended[EDGE_MAX_SOURCE * 3 + 16] __attribute__((aligned(16)));

/* Blends two rows of `count` bytes; reads up to 7 bytes beyond them. */
static inline void edge_blend(const uint8_t *above, const uint8_t *below, uint32_t count,
                              double fraction) {
    int32_t weight = (int32_t)(fraction * 32768 + 0.5);
    v128_t w = wasm_i16x8_splat((int16_t)(weight > 32767 ? 32767 : weight));
    if (weight == 0 || above == below) {
        for (uint32_t i = 0; i < count; i += 8) {
            v128_t a = wasm_u16x8_load8x8(above + i);
            wasm_v128_store(edge_blended + i, wasm_i16x8_shl(a, EDGE_BLEND_BITS));
        }
        return;
    }
    for (uint32_t i = 0; i < count; i += 8) {
        v128_t a = wasm_i16x8_shl(wasm_u16x8_load8x8(above + i), EDGE_BLEND_BITS);
        v128_t b = wasm_i16x8_shl(wasm_u16x8_load8x8(below + i), EDGE_BLEND_BITS);
        v128_t d = wasm_i16x8_q15mulr_sat(wasm_i16x8_sub(b, a), w);
        wasm_v128_store(edge_blended + i, wasm_i16x8_add(a, d));
    }
}

static inline const void *edge_blended_at(uint32_t offset) {
    return (const char *)edge_blended + offset;
}

/* Four grey pixels of the blended row from column x on, with EDGE_GREY_BITS of fraction. */
static inline v128_t edge_sample_grey(const edge_columns *columns, uint32_t x) {
    const uint32_t *offset = columns->offset + x;
    v128_t pairs = wasm_v128_load32_zero(edge_blended_at(offset[0]));
    pairs = wasm_v128_load32_lane(edge_blended_at(offset[1]), pairs, 1);
    pairs = wasm_v128_load32_lane(edge_blended_at(offset[2]), pairs, 2);
    pairs = wasm_v128_load32_lane(edge_blended_at(offset[3]), pairs, 3);
    return wasm_i32x4_dot_i16x8(pairs, wasm_v128_load(columns->weights + x));
}

/* Four three-channel pixels of the blended row from column x on: their first, second and third
 * channel, with EDGE_GREY_BITS of fraction. */
static inline void edge_sample_colour(const edge_columns *columns, uint32_t x, v128_t channel[3]) {
    v128_t pairs[4];
    for (uint32_t i = 0; i < 4; i++) {
        v128_t p = wasm_v128_load(edge_blended_at(columns->offset[x + i])); /* two pixels: 012 012 */
        pairs[i] = wasm_i16x8_shuffle(p, p, 0, 3, 1, 4, 2, 5, 6, 7);      /* 00 11 22 */
    }
    v128_t first_ab = wasm_i32x4_shuffle(pairs[0], pairs[1], 0, 4, 1, 5);
    v128_t first_cd = wasm_i32x4_shuffle(pairs[2], pairs[3], 0, 4, 1, 5);
    v128_t last_ab = wasm_i32x4_shuffle(pairs[0], pairs[1], 2, 6, 3, 7);
    v128_t last_cd = wasm_i32x4_shuffle(pairs[2], pairs[3], 2, 6, 3, 7);
    v128_t weights = wasm_v128_load(columns->weights + x);
    channel[0] = wasm_i32x4_dot_i16x8(wasm_i64x2_shuffle(first_ab, first_cd, 0, 2), weights);
    channel[1] = wasm_i32x4_dot_i16x8(wasm_i64x2_shuffle(first_ab, first_cd, 1, 3), weights);
    channel[2] = wasm_i32x4_dot_i16x8(wasm_i64x2_shuffle(last_ab, last_cd, 0, 2), weights);
}

static inline v128_t edge_row_sum(const uint8_t *above, const uint8_t *below) {
    return wasm_i16x8_add(wasm_u16x8_load8x8(above), wasm_u16x8_load8x8(below));
}

/* Means of 2 x 2 pixels, four of them: what edge_blend and edge_sample_colour give where an image is
 * halved, to the bit, in half the time. Reads 24 bytes of each row. */
static inline void edge_halve_colour(const uint8_t *above, const uint8_t *below, v128_t channel[3]) {
    v128_t a = edge_row_sum(above, below);           /* 012 012 01 */
    v128_t b = edge_row_sum(above + 8, below + 8);   /* 2 012 012 0 */
    v128_t c = edge_row_sum(above + 16, below + 16); /* 12 012 012 */
    v128_t ones = wasm_i16x8_splat(1);
    v128_t ab = wasm_i16x8_shuffle(a, b, 0, 3, 6, 9, 12, 15, 0, 0);
    channel[0] = wasm_i32x4_dot_i16x8(wasm_i16x8_shuffle(ab, c, 0, 1, 2, 3, 4, 5, 10, 13), ones);
    ab = wasm_i16x8_shuffle(a, b, 1, 4, 7, 10, 13, 0, 0, 0);
    channel[1] = wasm_i32x4_dot_i16x8(wasm_i16x8_shuffle(ab, c, 0, 1, 2, 3, 4, 8, 11, 14), ones);
    ab = wasm_i16x8_shuffle(a, b, 2, 5, 8, 11, 14, 0, 0, 0);
    channel[2] = wasm_i32x4_dot_i16x8(wasm_i16x8_shuffle(ab, c, 0, 1, 2, 3, 4, 9, 12, 15), ones);
    for (uint32_t i = 0; i < 3; i++) channel[i] = wasm_i32x4_shl(channel[i], EDGE_GREY_BITS - 2);
}

/* Sixteen three-channel pixels, channel by channel. */
static inline void edge_split_colour(const uint8_t *pixels, v128_t channel[3]) {
    v128_t a = wasm_v128_load(pixels), b = wasm_v128_load(pixels + 16), c = wasm_v128_load(pixels + 32);
    v128_t ab = wasm_i8x16_shuffle(a, b, 0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 0, 0, 0, 0, 0);
    channel[0] = wasm_i8x16_shuffle(ab, c, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17, 20, 23, 26, 29);
    ab = wasm_i8x16_shuffle(a, b, 1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 0, 0, 0, 0, 0);
    channel[1] = wasm_i8x16_shuffle(ab, c, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 18, 21, 24, 27, 30);
    ab = wasm_i8x16_shuffle(a, b, 2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 0, 0, 0, 0, 0, 0);
    channel[2] = wasm_i8x16_shuffle(ab, c, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 19, 22, 25, 28, 31);
}

/* Luma of ITU-R BT.601 in 15 bits, rounded: (3735 B + 19235 G + 9798 R + 2^14) >> 15. */
static inline uint8_t edge_luma(uint32_t blue, uint32_t green, uint32_t red) {
    return (uint8_t)((3735 * blue + 19235 * green + 9798 * red + 16384) >> 15);
}

static inline v128_t edge_luma_of_4(const uint8_t *pixels, v128_t blue_green, v128_t red_one) {
    v128_t p = wasm_v128_load(pixels); /* 12 bytes are used */
    v128_t one = wasm_i8x16_const(1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0);
    v128_t first = wasm_i8x16_shuffle(p, one, 0, 17, 1, 17, 3, 17, 4, 17, 6, 17, 7, 17, 9, 17, 10, 17);
    v128_t last = wasm_i8x16_shuffle(p, one, 2, 17, 16, 17, 5, 17, 16, 17, 8, 17, 16, 17, 11, 17, 16, 17);
    first = wasm_i32x4_dot_i16x8(first, blue_green);
    last = wasm_i32x4_dot_i16x8(last, red_one);
    return wasm_u32x4_shr(wasm_i32x4_add(first, last), 15);
}

/* Turns `width` pixels of three channels to grey; reads up to 4 bytes beyond them. */
static inline void edge_grey_row(uint8_t *grey, const uint8_t *row, uint32_t width, uint32_t format) {
    uint32_t outer = format == EDGE_FORMAT_RGB8 ? 9798 : 3735, last = 3735 + 9798 - outer;
    v128_t first = wasm_i32x4_splat((int32_t)(outer | 19235u << 16));
    v128_t second = wasm_i32x4_splat((int32_t)(last | 16384u << 16));
    uint32_t x = 0;
    for (; x + 8 <= width; x += 8) {
        v128_t low = edge_luma_of_4(row + 3 * x, first, second);
        v128_t high = edge_luma_of_4(row + 3 * x + 12, first, second);
        v128_t words = wasm_u16x8_narrow_i32x4(low, high);
        wasm_v128_store64_lane(grey + x, wasm_u8x16_narrow_i16x8(words, words), 0);
    }
    for (; x < width; x++) {
        const uint8_t *p = row + 3 * x;
        bool rgb = format == EDGE_FORMAT_RGB8;
        grey[x] = edge_luma(rgb ? p[2] : p[0], p[1], rgb ? p[0] : p[2]);
    }
}

static inline uint32_t edge_channels(uint32_t format) { return format == EDGE_FORMAT_GRAY8 ? 1 : 3; }

/* 0, or an error with its sentence, for an image that the kernels cannot read. */
static inline int32_t edge_image_check(const edge_image *image, const char *name) {
    const char *problem = NULL;
    if (!image->data) problem = " is missing";
    else if (image->format < EDGE_FORMAT_GRAY8 || image->format > EDGE_FORMAT_RGB8)
        problem = " is of an unknown pixel format";
    else if (image->width == 0 || image->height == 0) problem = " is empty";
    else if (image->width > EDGE_MAX_SOURCE || image->height > EDGE_MAX_SOURCE)
        problem = " is larger than 16384 pixels on a side";
    else if (image->stride < image->width * edge_channels(image->format))
        problem = " has rows that overlap";
    if (!problem) return EDGE_OK;
    edge_fail(EDGE_ERROR_INPUT, name);
    edge_say(problem);
    return EDGE_ERROR_INPUT;
}

/* 0, or an error with its sentence, for a model input that is not [count, channels, height, width] of
 * bytes or floats. */
static inline int32_t edge_inputs_check(const edge_tensor *input, uint32_t count, uint32_t channels,
                                        const char *shape) {
    if (input->rank != 4 || input->dims[0] != count || input->dims[1] != channels || input->dims[2] == 0 ||
        input->dims[3] == 0 || input->dims[2] > EDGE_MAX_TARGET || input->dims[3] > EDGE_MAX_TARGET) {
        return edge_fail(EDGE_ERROR_INPUT, shape);
    }
    if (input->dtype != EDGE_DTYPE_UINT8 && input->dtype != EDGE_DTYPE_FLOAT32) {
        return edge_fail(EDGE_ERROR_INPUT, "the model input must be uint8 or float32");
    }
    uint64_t elements = (uint64_t)count * channels * input->dims[2] * input->dims[3];
    if (input->bytes != elements * (input->dtype == EDGE_DTYPE_UINT8 ? 1 : 4)) {
        return edge_fail(EDGE_ERROR_INPUT,
                         "the model input's size in bytes does not follow from its shape");
    }
    return EDGE_OK;
}

static inline int32_t edge_input_check(const edge_tensor *input, uint32_t channels, const char *shape) {
    return edge_inputs_check(input, 1, channels, shape);
}

#endif
