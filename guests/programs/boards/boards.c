/* boards: finds defects of bare boards with wasi-nn, and knows nothing of edge.
 *
 * A command of WASI preview 1. Standard input: two binary PGM pictures of 640x640, a board and its
 * reference. Standard output: the findings as JSON. The model is asked for under the name "boards".
 * What is imported from wasi-nn is what its WITX says, in the form that wasmtime serves.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { SIDE = 640, CELLS = 6400, CLASSES = 6, MOST = 300 };

#define NN(name) __attribute__((import_module("wasi_ephemeral_nn"), import_name(#name)))

typedef struct {
    const uint32_t *dimensions;
    uint32_t rank;
    uint8_t type; /* 1: f32, 3: u8 */
    const void *data;
    uint32_t bytes;
} nn_tensor;

NN(load_by_name) int32_t nn_load_by_name(const char *name, uint32_t bytes, uint32_t *graph);
NN(init_execution_context) int32_t nn_init_execution_context(uint32_t graph, uint32_t *context);
NN(set_input) int32_t nn_set_input(uint32_t context, uint32_t index, const nn_tensor *tensor);
NN(compute) int32_t nn_compute(uint32_t context);
NN(get_output)
int32_t nn_get_output(uint32_t context, uint32_t index, void *out, uint32_t room, uint32_t *bytes);

typedef struct {
    float score;
    uint32_t cell, label;
} candidate;

static uint8_t planes[2][SIDE * SIDE];
static float boxes[CELLS][4], scores[CELLS][CLASSES];
static candidate candidates[CELLS];
static const float *kept[MOST];

static void fail(const char *what, int32_t code) {
    fprintf(stderr, "boards: %s (%d)\n", what, (int)code);
    exit(1);
}

static void check(int32_t code, const char *what) {
    if (code) fail(what, code);
}

static void read_picture(uint8_t *plane) {
    unsigned width, height, most;
    if (scanf("P5 %u %u %u", &width, &height, &most) != 3) fail("no binary PGM on standard input", 0);
    if (width != SIDE || height != SIDE || most != 255) fail("a picture is not of 640x640", 0);
    getchar();
    if (fread(plane, 1, SIDE * SIDE, stdin) != SIDE * SIDE) fail("a picture is cut short", 0);
}

static void infer(void) {
    static const uint32_t dimensions[4] = {1, 2, SIDE, SIDE};
    nn_tensor input = {dimensions, 4, 3, planes, sizeof planes};
    uint32_t graph, context, bytes;
    check(nn_load_by_name("boards", 6, &graph), "load_by_name");
    check(nn_init_execution_context(graph, &context), "init_execution_context");
    check(nn_set_input(context, 0, &input), "set_input");
    check(nn_compute(context), "compute");
    check(nn_get_output(context, 0, boxes, sizeof boxes, &bytes), "get_output of boxes");
    check(nn_get_output(context, 1, scores, sizeof scores, &bytes), "get_output of scores");
}

static int stronger_first(const void *one, const void *other) {
    const candidate *a = one, *b = other;
    if (a->score != b->score) return a->score > b->score ? -1 : 1;
    return a->cell < b->cell ? -1 : 1;
}

static float smaller(float a, float b) { return a < b ? a : b; }
static float larger(float a, float b) { return a > b ? a : b; }

static float area(const float *b) { return larger(b[2] - b[0], 0) * larger(b[3] - b[1], 0); }

static int overlap(const float *a, const float *b) {
    float width = smaller(a[2], b[2]) - larger(a[0], b[0]);
    float height = smaller(a[3], b[3]) - larger(a[1], b[1]);
    float shared = width * height;
    return width > 0 && height > 0 && shared >= 0.4f * (area(a) + area(b) - shared);
}

int main(void) {
    read_picture(planes[0]);
    read_picture(planes[1]);
    infer();

    uint32_t count = 0;
    for (uint32_t cell = 0; cell < CELLS; cell++) {
        candidate best = {0, cell, 0};
        for (uint32_t label = 0; label < CLASSES; label++) {
            if (scores[cell][label] != scores[cell][label]) fail("a score is not a number", (int)cell);
            if (scores[cell][label] > best.score) best.score = scores[cell][label], best.label = label;
        }
        if (best.score >= 0.5f) candidates[count++] = best;
    }
    qsort(candidates, count, sizeof *candidates, stronger_first);

    uint32_t found = 0;
    printf("{\"defects\":[");
    for (uint32_t i = 0; i < count && i < MOST; i++) {
        const float *b = boxes[candidates[i].cell];
        int covered = 0;
        for (uint32_t k = 0; k < found && !covered; k++) covered = overlap(kept[k], b);
        if (covered) continue;
        printf("%s{\"label\":%u,\"score\":%.9g,\"box\":[%.9g,%.9g,%.9g,%.9g]}", found ? "," : "",
               (unsigned)candidates[i].label, candidates[i].score, b[0], b[1], b[2], b[3]);
        kept[found++] = b;
    }
    printf("]}\n");
    return 0;
}
