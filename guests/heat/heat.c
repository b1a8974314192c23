/* heat: from an anomaly map to regions.
 *
 * See README.md for the parameters. The map is cut into runs of hot cells, row by row; runs that touch
 * those of the row above are joined (union by the smaller root, as of Rosenfeld and Pfaltz, 1966).
 * So the memory needed grows with the heat and not with the map, and is bounded.
 */
#include <wasm_simd128.h>

#include "edge_config.h"

#define MAX_RUNS 65536

enum { SCORE_MAX, SCORE_MEAN };
static const char *const SCORES[] = {"max", "mean"};

static struct {
    float threshold;  /* a cell of at least this is hot */
    float low, high;  /* map values that become the scores 0 and 1 */
    uint32_t reach;   /* 1: cells that touch at a corner belong together */
    uint32_t score, max;
    float min_area_px;
    uint32_t input_width, input_height; /* of the model's first input; 0: not named */
} parameters;

typedef struct {
    uint32_t row, begin, end; /* cells begin..end */
    uint32_t parent;          /* a run of the same region, itself at the root */
} run;

typedef struct {
    uint32_t x0, y0, x1, y1, cells;
    float hottest;
    double sum;
} region;

static run runs[MAX_RUNS];
static uint32_t run_count;
static region regions[MAX_RUNS]; /* of the run with the same index, where that is a root */

static void read_input_size(const edge_json *inputs) {
    const edge_json *shape = inputs && inputs->child ? edge_json_array(inputs->child, "shape") : NULL;
    uint32_t sides[2] = {0, 0};
    for (const edge_json *n = shape ? shape->child : NULL; n; n = n->next) {
        sides[0] = sides[1];
        sides[1] = n->kind == EDGE_JSON_NUMBER && n->number >= 1 && n->number < 1e6 ? (uint32_t)n->number : 0;
    }
    parameters.input_height = sides[0];
    parameters.input_width = sides[1];
}

int32_t edge_configure(const char *document, uint32_t bytes) {
    edge_config config = edge_config_open(document, bytes);
    edge_json *given = config.parameters;
    parameters.threshold = (float)edge_json_number(given, "threshold", 0.5, -1e6, 1e6);
    double low = edge_json_number(given, "low", 0, -1e6, 1e6);
    double high = edge_json_number(given, "high", 1, -1e6, 1e6);
    parameters.min_area_px = (float)edge_json_number(given, "min_area_px", 0, 0, 1e9);
    parameters.score = edge_json_choice(given, "score", SCORE_MAX, SCORES, 2);
    parameters.max = edge_json_whole(given, "max", EDGE_MAX_DEFECTS, 1, EDGE_MAX_DEFECTS);
    uint32_t neighbours = edge_json_whole(given, "neighbours", 8, 4, 8);
    parameters.reach = neighbours == 8;
    if (neighbours != 4 && neighbours != 8) {
        edge_json_refuse(edge_json_member(given, "neighbours"), "expected 4 or 8");
    }
    if (low > high) {
        edge_json *named = edge_json_member(given, "high");
        edge_json_refuse(named ? named : edge_json_member(given, "low"), "low is above high");
    }
    parameters.low = (float)low;
    parameters.high = (float)high;
    read_input_size(config.inputs);
    return edge_config_close(&config);
}

/* --- runs ----------------------------------------------------------------------------------- */

static uint32_t root_of(uint32_t at) {
    while (runs[at].parent != at) at = runs[at].parent = runs[runs[at].parent].parent;
    return at;
}

static void join(uint32_t a, uint32_t b) {
    a = root_of(a), b = root_of(b);
    if (a < b) runs[b].parent = a;
    else runs[a].parent = b;
}

/* Joins the run with those of the row above, which lie in `from`..`to`; returns where to look on. */
static uint32_t join_above(uint32_t at, uint32_t from, uint32_t to) {
    const run *r = &runs[at];
    uint32_t reach = parameters.reach;
    while (from < to && runs[from].end + reach <= r->begin) from++;
    for (uint32_t i = from; i < to && runs[i].begin < r->end + reach; i++) join(at, i);
    return from;
}

/* The first cell from x on that is hot, or is no number; `width` where there is none. */
static uint32_t next_hot(const float *row, uint32_t x, uint32_t width) {
    v128_t threshold = wasm_f32x4_splat(parameters.threshold);
    for (; x + 4 <= width; x += 4) {
        if (!wasm_i32x4_all_true(wasm_f32x4_lt(wasm_v128_load(row + x), threshold))) break;
    }
    while (x < width && row[x] < parameters.threshold) x++;
    return x;
}

static int32_t find_runs(const float *map, uint32_t width, uint32_t height) {
    uint32_t above = 0, own = 0; /* first runs of the row above, and of this one */
    run_count = 0;
    for (uint32_t y = 0; y < height; y++, map += width) {
        above = own;
        own = run_count;
        for (uint32_t x = next_hot(map, 0, width); x < width; x = next_hot(map, x, width)) {
            if (run_count == MAX_RUNS) {
                return edge_fail(EDGE_ERROR_INPUT, "the map has more hot runs than 65536: it is noise");
            }
            uint32_t begin = x, at = run_count++;
            while (x < width && map[x] >= parameters.threshold && map[x] <= 3.4e38f) x++;
            if (x == begin || (x < width && !(map[x] < parameters.threshold))) {
                return edge_fail(EDGE_ERROR_INPUT, "the model's map is not of finite numbers");
            }
            runs[at] = (run){.row = y, .begin = begin, .end = x, .parent = at};
            above = join_above(at, above, own);
        }
    }
    return EDGE_OK;
}

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }
static uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

/* Adds each run to the region of its root; a root comes before the other runs of its region. */
static void gather(const float *map, uint32_t width) {
    for (uint32_t i = 0; i < run_count; i++) {
        const run *r = &runs[i];
        uint32_t root = root_of(i);
        region *g = &regions[root];
        if (root == i) {
            *g = (region){.x0 = r->begin, .y0 = r->row, .x1 = r->end, .y1 = r->row + 1,
                          .hottest = map[(size_t)r->row * width + r->begin]};
        }
        g->x0 = smaller(g->x0, r->begin);
        g->x1 = larger(g->x1, r->end);
        g->y1 = larger(g->y1, r->row + 1);
        g->cells += r->end - r->begin;
        for (uint32_t x = r->begin; x < r->end; x++) {
            float value = map[(size_t)r->row * width + x];
            g->sum += value;
            if (value > g->hottest) g->hottest = value;
        }
    }
}

/* --- findings ------------------------------------------------------------------------------- */

static float clip(float value, float end) { return value < 0 ? 0 : value > end ? end : value; }

static float score_of(const region *g) {
    float value = parameters.score == SCORE_MEAN ? (float)(g->sum / g->cells) : g->hottest;
    if (parameters.low >= parameters.high) return value >= parameters.high;
    return clip((value - parameters.low) / (parameters.high - parameters.low), 1);
}

/* Puts a finding in its place among the strongest so far; returns their number. */
static uint32_t insert(edge_defect *defects, uint32_t found, uint32_t room, edge_defect defect) {
    if (found == room && !(defect.score > defects[found - 1].score)) return found;
    uint32_t at = found < room ? found++ : found - 1;
    for (; at > 0 && defect.score > defects[at - 1].score; at--) defects[at] = defects[at - 1];
    defects[at] = defect;
    return found;
}

static uint32_t write_findings(const edge_postprocess_call *call, uint32_t width, uint32_t height) {
    uint32_t room = smaller(call->defect_capacity, parameters.max), found = 0;
    const edge_transform *t = &call->transform;
    float cell_x = parameters.input_width ? (float)parameters.input_width / (float)width : 1;
    float cell_y = parameters.input_height ? (float)parameters.input_height / (float)height : 1;
    float cell_px = cell_x * t->scale_x * cell_y * t->scale_y;
    float frame_width = (float)call->frame_width, frame_height = (float)call->frame_height;
    for (uint32_t i = 0; i < run_count; i++) {
        const region *g = &regions[i];
        if (runs[i].parent != i || (float)g->cells * cell_px < parameters.min_area_px) continue;
        edge_defect defect = {
            .x0 = clip(((float)g->x0 * cell_x - t->offset_x) * t->scale_x, frame_width),
            .y0 = clip(((float)g->y0 * cell_y - t->offset_y) * t->scale_y, frame_height),
            .x1 = clip(((float)g->x1 * cell_x - t->offset_x) * t->scale_x, frame_width),
            .y1 = clip(((float)g->y1 * cell_y - t->offset_y) * t->scale_y, frame_height),
            .score = score_of(g),
        };
        if (defect.x0 >= defect.x1 || defect.y0 >= defect.y1) continue; /* padding */
        found = insert(call->defects, found, room, defect);
    }
    return found;
}

int32_t postprocess(edge_postprocess_call *call) {
    edge_error_clear();
    const edge_tensor *t = call->outputs;
    uint32_t rank = call->output_count ? t->rank : 0;
    bool good = rank >= 3 && rank <= 4 && t->dtype == EDGE_DTYPE_FLOAT32 && t->dims[0] == 1 &&
                (rank == 3 || t->dims[1] == 1);
    uint32_t height = good ? t->dims[rank - 2] : 0, width = good ? t->dims[rank - 1] : 0;
    if (!good || width == 0 || height == 0 || t->bytes != 4ull * width * height) {
        return edge_fail(EDGE_ERROR_INPUT, "heat needs one float32 output [1, 1, height, width]");
    }
    int32_t failed = find_runs(t->data, width, height);
    if (failed) return failed;
    gather(t->data, width);
    return (int32_t)write_findings(call, width, height);
}
