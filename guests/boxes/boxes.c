/* boxes: from a detector's raw outputs to findings in pixels of the frame.
 *
 * See README.md for the parameters and the rules of selection. The scan looks at four cells at a
 * time and leaves the cold ones behind; what it keeps is bounded, ordered by score and then by cell,
 * so the same outputs give the same findings on every machine.
 */
#include <wasm_simd128.h>

#include "edge_config.h"

#define MAX_CANDIDATES 1024
#define BLOCK_CELLS 256 /* of the planar scan: a block's row is 1 KiB, and stays in the cache */

enum { LAYOUT_XYXY_SCORES, LAYOUT_YOLOV8 };
static const char *const LAYOUTS[] = {"xyxy+scores", "yolov8"};

static struct {
    uint32_t layout, max, candidates;
    uint32_t boxes_output, scores_output; /* places among the model's outputs */
    uint32_t classes;                     /* 0: the document names none */
    float iou;
    bool class_agnostic;
    float score[EDGE_MAX_CLASSES];
} parameters;

/* The outputs of one frame, whatever their layout. Strides count floats. */
typedef struct {
    const float *scores, *boxes;
    uint32_t cells, classes;
    uint32_t cell_stride, class_stride; /* of scores */
    uint32_t box_stride, corner_stride; /* of boxes */
} view;

typedef struct {
    float score;
    uint32_t cell;
    int32_t label;
} candidate;

typedef struct {
    float x0, y0, x1, y1, area;
    int32_t label;
} box;

static candidate heap[MAX_CANDIDATES]; /* the weakest on top */
static uint32_t heap_size;
static box kept[MAX_CANDIDATES];
static float interleaved_scores[4 * EDGE_MAX_CLASSES]; /* thresholds of four cells in a row */

static uint32_t output_named(const edge_json *outputs, const char *name, uint32_t fallback) {
    for (edge_json *output = outputs ? outputs->child : NULL; output; output = output->next) {
        if (edge_string_is(edge_json_string(output, "name"), name)) return output->index;
    }
    return fallback;
}

int32_t edge_configure(const char *document, uint32_t bytes) {
    edge_config config = edge_config_open(document, bytes);
    edge_json *given = config.parameters;
    parameters.layout = edge_json_choice(given, "layout", LAYOUT_XYXY_SCORES, LAYOUTS, 2);
    parameters.iou = (float)edge_json_number(given, "iou", 0.5, 0, 1);
    parameters.class_agnostic = edge_json_bool(given, "class_agnostic", false);
    parameters.max = edge_json_whole(given, "max", EDGE_MAX_DEFECTS, 1, EDGE_MAX_DEFECTS);
    parameters.candidates = edge_json_whole(given, "candidates", 300, 1, MAX_CANDIDATES);
    edge_config_per_class(&config, "score", 0.25f, 0, 1, NULL, parameters.score);
    parameters.classes = edge_config_count(config.classes);
    parameters.boxes_output = output_named(config.outputs, "boxes", 0);
    parameters.scores_output = output_named(config.outputs, "scores", 1);
    return edge_config_close(&config);
}

/* --- the strongest candidates --------------------------------------------------------------- */

static bool weaker(const candidate *a, const candidate *b) {
    return a->score < b->score || (a->score == b->score && a->cell > b->cell);
}

static void sift_down(uint32_t at, uint32_t size) {
    candidate moved = heap[at];
    for (uint32_t child; (child = 2 * at + 1) < size; at = child) {
        if (child + 1 < size && weaker(&heap[child + 1], &heap[child])) child++;
        if (!weaker(&heap[child], &moved)) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

static void offer(candidate offered) {
    if (heap_size == parameters.candidates) {
        if (weaker(&heap[0], &offered)) {
            heap[0] = offered;
            sift_down(0, heap_size);
        }
        return;
    }
    uint32_t at = heap_size++;
    while (at > 0) {
        uint32_t parent = (at - 1) / 2;
        if (!weaker(&offered, &heap[parent])) break;
        heap[at] = heap[parent];
        at = parent;
    }
    heap[at] = offered;
}

/* Heapsort: the weakest goes last, so the strongest ends up first. */
static void sort_candidates(void) {
    for (uint32_t size = heap_size; size > 1;) {
        candidate weakest = heap[0];
        heap[0] = heap[--size];
        heap[size] = weakest;
        sift_down(0, size);
    }
}

/* --- the scan ------------------------------------------------------------------------------- */

static int32_t not_a_number(const char *output, uint32_t cell) {
    edge_fail(EDGE_ERROR_INPUT, "the model's ");
    edge_say(output);
    edge_say(" are not finite numbers at cell ");
    edge_say_integer(cell);
    return EDGE_ERROR_INPUT;
}

/* A cell speaks for the strongest class that reaches its own threshold. */
static int32_t examine(const view *v, uint32_t cell) {
    candidate best = {.score = -1, .cell = cell};
    const float *score = v->scores + (size_t)cell * v->cell_stride;
    for (uint32_t label = 0; label < v->classes; label++, score += v->class_stride) {
        if (*score != *score) return not_a_number("scores", cell);
        if (*score >= parameters.score[label] && *score > best.score) {
            best.score = *score;
            best.label = (int32_t)label;
        }
    }
    if (best.score > 1) best.score = 1;
    if (best.score >= 0) offer(best);
    return EDGE_OK;
}

static int32_t examine_from(const view *v, uint32_t cell, uint32_t end) {
    int32_t failed = EDGE_OK;
    for (; cell < end && !failed; cell++) failed = examine(v, cell);
    return failed;
}

/* Below its threshold; a NaN is not, and is found by `examine`. */
static v128_t cold_lanes(const float *scores, v128_t threshold) {
    return wasm_f32x4_lt(wasm_v128_load(scores), threshold);
}

/* Scores of a cell lie together: four cells are as many vectors as there are classes. */
static int32_t scan_interleaved(const view *v) {
    for (uint32_t i = 0; i < 4 * v->classes; i++) {
        interleaved_scores[i] = parameters.score[i % v->classes];
    }
    uint32_t cell = 0;
    for (; cell + 4 <= v->cells; cell += 4) {
        const float *scores = v->scores + (size_t)cell * v->classes;
        v128_t cold = wasm_i32x4_splat(-1);
        for (uint32_t i = 0; i < v->classes; i++) {
            v128_t threshold = wasm_v128_load(interleaved_scores + 4 * i);
            cold = wasm_v128_and(cold, cold_lanes(scores + 4 * i, threshold));
        }
        if (wasm_i32x4_all_true(cold)) continue;
        int32_t failed = examine_from(v, cell, cell + 4);
        if (failed) return failed;
    }
    return examine_from(v, cell, v->cells);
}

/* Scores of a class lie together: class by class over a block of cells. */
static int32_t scan_planar(const view *v) {
    v128_t cold[BLOCK_CELLS / 4];
    for (uint32_t begin = 0; begin < v->cells; begin += BLOCK_CELLS) {
        uint32_t cells = v->cells - begin < BLOCK_CELLS ? v->cells - begin : BLOCK_CELLS;
        uint32_t groups = cells / 4;
        for (uint32_t i = 0; i < groups; i++) cold[i] = wasm_i32x4_splat(-1);
        for (uint32_t label = 0; label < v->classes; label++) {
            const float *scores = v->scores + (size_t)label * v->class_stride + begin;
            v128_t threshold = wasm_f32x4_splat(parameters.score[label]);
            for (uint32_t i = 0; i < groups; i++) {
                cold[i] = wasm_v128_and(cold[i], cold_lanes(scores + 4 * i, threshold));
            }
        }
        int32_t failed = EDGE_OK;
        for (uint32_t i = 0; i < groups && !failed; i++) {
            uint32_t cell = begin + 4 * i;
            if (!wasm_i32x4_all_true(cold[i])) failed = examine_from(v, cell, cell + 4);
        }
        if (!failed) failed = examine_from(v, begin + 4 * groups, begin + cells);
        if (failed) return failed;
    }
    return EDGE_OK;
}

/* --- suppression ---------------------------------------------------------------------------- */

static float smaller(float a, float b) { return a < b ? a : b; }
static float larger(float a, float b) { return a > b ? a : b; }
static float clip(float value, float end) { return smaller(larger(value, 0), end); }

static box box_of(const view *v, const candidate *c) {
    const float *at = v->boxes + (size_t)c->cell * v->box_stride;
    uint32_t step = v->corner_stride;
    box b = {at[0], at[step], at[2 * step], at[3 * step], 0, c->label};
    if (parameters.layout == LAYOUT_YOLOV8) {
        float half_width = b.x1 / 2, half_height = b.y1 / 2, x = b.x0, y = b.y0;
        b.x0 = x - half_width, b.x1 = x + half_width;
        b.y0 = y - half_height, b.y1 = y + half_height;
    }
    b.area = larger(b.x1 - b.x0, 0) * larger(b.y1 - b.y0, 0);
    return b;
}

static bool overlapped(const box *b, uint32_t kept_count) {
    for (uint32_t i = 0; i < kept_count; i++) {
        const box *k = &kept[i];
        if (k->label != b->label && !parameters.class_agnostic) continue;
        float width = smaller(k->x1, b->x1) - larger(k->x0, b->x0);
        float height = smaller(k->y1, b->y1) - larger(k->y0, b->y0);
        if (width <= 0 || height <= 0) continue;
        float shared = width * height;
        if (shared >= parameters.iou * (k->area + b->area - shared)) return true;
    }
    return false;
}

/* The corners in pixels of the frame, inside it; false where nothing of the box is. */
static bool in_frame(const edge_postprocess_call *call, const box *b, edge_defect *defect) {
    const edge_transform *t = &call->transform;
    defect->x0 = clip((b->x0 - t->offset_x) * t->scale_x, (float)call->frame_width);
    defect->x1 = clip((b->x1 - t->offset_x) * t->scale_x, (float)call->frame_width);
    defect->y0 = clip((b->y0 - t->offset_y) * t->scale_y, (float)call->frame_height);
    defect->y1 = clip((b->y1 - t->offset_y) * t->scale_y, (float)call->frame_height);
    return defect->x0 < defect->x1 && defect->y0 < defect->y1;
}

static int32_t suppress(const edge_postprocess_call *call, const view *v) {
    uint32_t room = call->defect_capacity < parameters.max ? call->defect_capacity : parameters.max;
    uint32_t kept_count = 0, found = 0;
    for (uint32_t i = 0; i < heap_size && found < room; i++) {
        box b = box_of(v, &heap[i]);
        float sum = b.x0 + b.y0 + b.x1 + b.y1 + b.area;
        if (!(sum - sum == 0)) return not_a_number("boxes", heap[i].cell);
        if (overlapped(&b, kept_count)) continue;
        kept[kept_count++] = b;
        edge_defect *defect = &call->defects[found];
        if (!in_frame(call, &b, defect)) continue;
        defect->score = heap[i].score;
        defect->label = b.label;
        found++;
    }
    return (int32_t)found;
}

/* --- the outputs ---------------------------------------------------------------------------- */

static bool is_float3(const edge_tensor *t) {
    return t->dtype == EDGE_DTYPE_FLOAT32 && t->rank == 3 && t->dims[0] == 1 &&
           t->bytes == 4ull * t->dims[1] * t->dims[2];
}

static int32_t view_outputs(const edge_postprocess_call *call, view *v) {
    if (parameters.layout == LAYOUT_YOLOV8) {
        const edge_tensor *t = call->outputs;
        if (call->output_count < 1 || !is_float3(t) || t->dims[1] < 5) {
            return edge_fail(EDGE_ERROR_INPUT,
                             "yolov8 needs one float32 output [1, 4 + classes, cells]");
        }
        *v = (view){.boxes = t->data, .cells = t->dims[2], .classes = t->dims[1] - 4,
                    .cell_stride = 1, .class_stride = t->dims[2],
                    .box_stride = 1, .corner_stride = t->dims[2]};
        v->scores = v->boxes + (size_t)4 * v->cells;
    } else {
        uint32_t at = parameters.boxes_output, of = parameters.scores_output;
        const edge_tensor *boxes = call->outputs + at, *scores = call->outputs + of;
        if (at >= call->output_count || of >= call->output_count || !is_float3(boxes) ||
            !is_float3(scores) || boxes->dims[2] != 4 || boxes->dims[1] != scores->dims[1] ||
            scores->dims[2] == 0) {
            return edge_fail(EDGE_ERROR_INPUT, "xyxy+scores needs float32 outputs boxes [1, cells, 4] "
                                               "and scores [1, cells, classes]");
        }
        *v = (view){.scores = scores->data, .boxes = boxes->data, .cells = scores->dims[1],
                    .classes = scores->dims[2], .cell_stride = scores->dims[2], .class_stride = 1,
                    .box_stride = 4, .corner_stride = 1};
    }
    if (v->classes > EDGE_MAX_CLASSES || (parameters.classes && v->classes != parameters.classes)) {
        edge_fail(EDGE_ERROR_INPUT, "the model scores ");
        edge_say_integer(v->classes);
        edge_say(" classes, the configuration names ");
        edge_say_integer(parameters.classes);
        return EDGE_ERROR_INPUT;
    }
    return EDGE_OK;
}

int32_t postprocess(edge_postprocess_call *call) {
    view v;
    edge_error_clear();
    int32_t failed = view_outputs(call, &v);
    if (failed) return failed;
    heap_size = 0;
    failed = parameters.layout == LAYOUT_YOLOV8 ? scan_planar(&v) : scan_interleaved(&v);
    if (failed) return failed;
    sort_candidates();
    return suppress(call, &v);
}
