/* boxes: from a detector's raw outputs to findings in pixels of the frame.
 *
 * See README.md for the parameters and the rules of selection. The scan looks at four cells at a
 * time and leaves the cold ones behind; what it keeps is bounded, ordered by score and then by cell,
 * so the same outputs give the same findings on every machine.
 */
#include <wasm_simd128.h>

#include "edge_tiles.h"
#include "outputs.h"

#define MAX_CANDIDATES 1024
#define BLOCK_CELLS 256 /* of the planar scan: a block's row is 1 KiB, and stays in the cache */

static struct {
    uint32_t layout, max, candidates;
    places outputs;
    uint32_t classes; /* 0: the document names none */
    float iou;        /* above 1: nothing is suppressed */
    bool class_agnostic;
    bool tiled;
    edge_grid grid;
    float score[EDGE_MAX_CLASSES];
} parameters;

typedef struct {
    float score;
    uint32_t tile, cell;
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

static view views[EDGE_MAX_TILES];
static uint32_t tile_count;

int32_t edge_configure(const char *document, uint32_t bytes) {
    edge_config config = edge_config_open(document, bytes);
    edge_json *given = config.parameters;
    parameters.layout = edge_json_choice(given, "layout", LAYOUT_XYXY_SCORES, LAYOUTS, LAYOUTS_COUNT);
    edge_json *tiles = edge_json_object(given, "tiles");
    parameters.tiled = tiles;
    parameters.grid = edge_grid_read(tiles);
    edge_json_refuse_unknown(tiles);
    /* What the graph has suppressed, only tiles can give twice. */
    bool suppressed = parameters.layout == LAYOUT_NMS || parameters.layout == LAYOUT_END2END;
    parameters.iou = (float)edge_json_number(given, "iou", 0.5, 0, 1);
    if (suppressed && !tiles && !edge_json_member(given, "iou")) parameters.iou = 2;
    parameters.class_agnostic = edge_json_bool(given, "class_agnostic", false);
    parameters.max = edge_json_whole(given, "max", EDGE_MAX_DEFECTS, 1, EDGE_MAX_DEFECTS);
    parameters.candidates = edge_json_whole(given, "candidates", 300, 1, MAX_CANDIDATES);
    edge_config_per_class(&config, "score", 0.25f, 0, 1, NULL, parameters.score);
    parameters.classes = edge_config_count(config.classes);
    parameters.outputs = find_outputs(config.outputs, parameters.layout);
    return edge_config_close(&config);
}

/* --- the strongest candidates --------------------------------------------------------------- */

static bool weaker(const candidate *a, const candidate *b) {
    if (a->score != b->score) return a->score < b->score;
    return a->tile > b->tile || (a->tile == b->tile && a->cell > b->cell);
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
    candidate best = {.score = -1, .tile = (uint32_t)(v - views), .cell = cell};
    const float *given = v->scores + (size_t)cell * v->cell_stride;
    float objectness = v->objectness ? v->objectness[(size_t)cell * v->cell_stride] : 1;
    for (uint32_t label = 0; label < v->classes; label++, given += v->class_stride) {
        float score = *given * objectness;
        if (score != score) return not_a_number("scores", cell);
        if (score >= parameters.score[label] && score > best.score) {
            best.score = score;
            best.label = (int32_t)label;
        }
    }
    if (best.score > 1) best.score = 1;
    if (best.score >= 0) offer(best);
    return EDGE_OK;
}

/* The model has chosen the class; rows behind the last finding have the score 0. */
static int32_t examine_labelled(const view *v, uint32_t cell) {
    candidate only = {.score = v->scores[(size_t)cell * v->cell_stride], .tile = (uint32_t)(v - views),
                      .cell = cell};
    if (only.score != only.score) return not_a_number("scores", cell);
    if (only.score <= 0) return EDGE_OK;
    only.label = whole_at(v->labels, v->label_dtype, (size_t)cell * v->label_stride);
    uint32_t classes = parameters.classes ? parameters.classes : EDGE_MAX_CLASSES;
    if (only.label < 0 || (uint32_t)only.label >= classes) {
        edge_fail(EDGE_ERROR_INPUT, "the model's label is none of the classes at cell ");
        edge_say_integer(cell);
        return EDGE_ERROR_INPUT;
    }
    if (only.score < parameters.score[only.label]) return EDGE_OK;
    if (only.score > 1) only.score = 1;
    offer(only);
    return EDGE_OK;
}

static int32_t scan_labelled(const view *v) {
    int32_t failed = EDGE_OK;
    for (uint32_t cell = 0; cell < v->cells && !failed; cell++) failed = examine_labelled(v, cell);
    return failed;
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

static bool any_nan(const float *numbers, uint32_t count) {
    v128_t odd = wasm_i32x4_splat(0);
    uint32_t i = 0;
    for (; i + 4 <= count; i += 4) {
        v128_t four = wasm_v128_load(numbers + i);
        odd = wasm_v128_or(odd, wasm_f32x4_ne(four, four));
    }
    for (; i < count; i++) {
        if (numbers[i] != numbers[i]) return true;
    }
    return wasm_v128_any_true(odd);
}

/* A cell is no better than its objectness; where that is low its classes need not be weighed. A class
 * score above 1, which a model should not give, counts as 1 there. */
static int32_t scan_objects(const view *v) {
    float lowest = parameters.score[0];
    for (uint32_t i = 1; i < v->classes; i++) {
        if (parameters.score[i] < lowest) lowest = parameters.score[i];
    }
    for (uint32_t cell = 0; cell < v->cells; cell++) {
        const float *row = v->objectness + (size_t)cell * v->cell_stride;
        if (row[0] < lowest) {
            if (any_nan(row + 1, v->classes)) return not_a_number("scores", cell);
            continue;
        }
        int32_t failed = examine(v, cell);
        if (failed) return failed;
    }
    return EDGE_OK;
}

static int32_t scan(const view *v) {
    if (v->labels) return scan_labelled(v);
    if (v->objectness) return scan_objects(v);
    return v->cell_stride == 1 && v->class_stride != 1 ? scan_planar(v) : scan_interleaved(v);
}

/* --- suppression ---------------------------------------------------------------------------- */

static float smaller(float a, float b) { return a < b ? a : b; }
static float larger(float a, float b) { return a > b ? a : b; }
static float clip(float value, float end) { return smaller(larger(value, 0), end); }

/* Of all tiles in one system: pixels of the first tile's model input. */
static box box_of(const edge_postprocess_call *call, const candidate *c) {
    const view *v = &views[c->tile];
    const float *at = v->boxes + (size_t)c->cell * v->box_stride;
    uint32_t step = v->corner_stride;
    box b = {at[0], at[step], at[2 * step], at[3 * step], 0, c->label};
    if (v->centred) {
        float half_width = b.x1 / 2, half_height = b.y1 / 2, x = b.x0, y = b.y0;
        b.x0 = x - half_width, b.x1 = x + half_width;
        b.y0 = y - half_height, b.y1 = y + half_height;
    }
    if (c->tile > 0) {
        edge_rectangle first = edge_grid_tile(&parameters.grid, call->frame_width, call->frame_height, 0);
        edge_rectangle own =
            edge_grid_tile(&parameters.grid, call->frame_width, call->frame_height, c->tile);
        float right = (float)(own.x - first.x) / call->transform.scale_x;
        float down = (float)(own.y - first.y) / call->transform.scale_y;
        b.x0 += right, b.x1 += right;
        b.y0 += down, b.y1 += down;
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

static int32_t suppress(const edge_postprocess_call *call) {
    uint32_t room = call->defect_capacity < parameters.max ? call->defect_capacity : parameters.max;
    uint32_t kept_count = 0, found = 0;
    for (uint32_t i = 0; i < heap_size && found < room; i++) {
        box b = box_of(call, &heap[i]);
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

static int32_t refuse_classes(uint32_t found) {
    edge_fail(EDGE_ERROR_INPUT, "the model scores ");
    edge_say_integer(found);
    edge_say(" classes, the configuration names ");
    edge_say_integer(parameters.classes);
    return EDGE_ERROR_INPUT;
}

static int32_t view_all(const edge_postprocess_call *call) {
    tile_count = parameters.tiled ? edge_grid_count(&parameters.grid) : 1;
    for (uint32_t n = 0; n < tile_count; n++) {
        view *v = &views[n];
        int32_t failed = view_outputs(call, parameters.layout, parameters.outputs, tile_count, n, v);
        if (failed) return failed;
        bool known = v->labels || !parameters.classes || v->classes == parameters.classes;
        if (v->classes > EDGE_MAX_CLASSES || !known) return refuse_classes(v->classes);
    }
    return EDGE_OK;
}

int32_t postprocess(edge_postprocess_call *call) {
    edge_error_clear();
    int32_t failed = view_all(call);
    heap_size = 0;
    for (uint32_t n = 0; n < tile_count && !failed; n++) failed = scan(&views[n]);
    if (failed) return failed;
    sort_candidates();
    return suppress(call);
}
