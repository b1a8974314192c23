/* The layouts in which detectors give their boxes, each as one view: strides instead of cases.
 *
 * `[n, ...]` below is the batch: 1, or the number of tiles.
 *   xyxy+scores  boxes [n, cells, 4] of corners, scores [n, cells, classes]
 *   yolov8       [n, 4 + classes, cells]: centre, size, scores (YOLOv8, YOLOv9, YOLO11, YOLO12)
 *   yolov5       [n, cells, 5 + classes]: centre, size, objectness, scores (YOLOv5, YOLOv7, YOLOX)
 *   nms          [n, cells, 6]: corners, score, label (suppressed in the graph; YOLOv10, YOLO26)
 *   end2end      count [n, 1], boxes [n, cells, 4], scores [n, cells], labels [n, cells]
 */
#ifndef OUTPUTS_H
#define OUTPUTS_H

#include "edge_config.h"

enum { LAYOUT_XYXY_SCORES, LAYOUT_YOLOV8, LAYOUT_YOLOV5, LAYOUT_NMS, LAYOUT_END2END, LAYOUTS_COUNT };
static const char *const LAYOUTS[] = {"xyxy+scores", "yolov8", "yolov5", "nms", "end2end"};

/* Where the outputs of `end2end` and `xyxy+scores` stand among the model's. */
typedef struct {
    uint32_t boxes, scores, labels, count;
} places;

/* The outputs of one frame, or of one tile of it. Strides count elements. */
typedef struct {
    const float *boxes, *scores;
    const float *objectness; /* NULL: there is none */
    const void *labels;      /* NULL: a cell has a score for each class */
    uint32_t label_dtype;
    uint32_t cells, classes;
    uint32_t cell_stride, class_stride; /* of scores */
    uint32_t box_stride, corner_stride; /* of boxes */
    uint32_t label_stride;
    bool centred; /* boxes are centre and size */
} view;

static uint32_t output_named(const edge_json *outputs, const char *name, uint32_t fallback) {
    for (edge_json *output = outputs ? outputs->child : NULL; output; output = output->next) {
        if (edge_string_is(edge_json_string(output, "name"), name)) return output->index;
    }
    return fallback;
}

/* By name where the model's outputs are called so, else by their usual order. */
static places find_outputs(const edge_json *outputs, uint32_t layout) {
    bool end2end = layout == LAYOUT_END2END;
    places p = {.boxes = output_named(outputs, "boxes", end2end ? 1 : 0),
                .scores = output_named(outputs, "scores", end2end ? 2 : 1),
                .labels = output_named(outputs, "labels", 3)};
    p.count = output_named(outputs, "num_dets", 0);
    p.boxes = output_named(outputs, "det_boxes", p.boxes);
    p.scores = output_named(outputs, "det_scores", p.scores);
    p.labels = output_named(outputs, "det_classes", p.labels);
    return p;
}

static uint32_t element_bytes(uint32_t dtype) {
    return dtype == EDGE_DTYPE_INT64                                  ? 8
           : dtype == EDGE_DTYPE_FLOAT32 || dtype == EDGE_DTYPE_INT32 ? 4
                                                                      : 0;
}

/* A dense tensor of `rank` dimensions whose first is the batch. */
static bool is_dense(const edge_tensor *t, uint32_t rank, uint32_t batch) {
    uint64_t elements = 1;
    if (t->rank != rank || t->dims[0] != batch) return false;
    for (uint32_t i = 0; i < rank; i++) elements *= t->dims[i];
    return elements && element_bytes(t->dtype) && t->bytes == elements * element_bytes(t->dtype);
}

static bool is_floats(const edge_tensor *t, uint32_t rank, uint32_t batch) {
    return t->dtype == EDGE_DTYPE_FLOAT32 && is_dense(t, rank, batch);
}

static const float *floats_of(const edge_tensor *t, uint32_t n) {
    return (const float *)t->data + (size_t)n * (t->bytes / 4 / t->dims[0]);
}

/* A whole number of any of the types; -1 where it is none. */
static int32_t whole_at(const void *numbers, uint32_t dtype, size_t at) {
    double value = dtype == EDGE_DTYPE_INT64   ? (double)((const int64_t *)numbers)[at]
                   : dtype == EDGE_DTYPE_INT32 ? (double)((const int32_t *)numbers)[at]
                                               : (double)((const float *)numbers)[at];
    if (!(value >= 0 && value < 1e9) || value != (double)(int32_t)value) return -1;
    return (int32_t)value;
}

static int32_t view_xyxy(const edge_postprocess_call *call, places p, uint32_t batch, uint32_t n,
                         view *v) {
    const edge_tensor *boxes = call->outputs + p.boxes, *scores = call->outputs + p.scores;
    if (p.boxes >= call->output_count || p.scores >= call->output_count || !is_floats(boxes, 3, batch) ||
        !is_floats(scores, 3, batch) || boxes->dims[2] != 4 || boxes->dims[1] != scores->dims[1]) {
        return edge_fail(EDGE_ERROR_INPUT, "xyxy+scores needs float32 outputs boxes [1, cells, 4] "
                                           "and scores [1, cells, classes]");
    }
    *v = (view){.scores = floats_of(scores, n), .boxes = floats_of(boxes, n), .cells = scores->dims[1],
                .classes = scores->dims[2], .cell_stride = scores->dims[2], .class_stride = 1,
                .box_stride = 4, .corner_stride = 1};
    return EDGE_OK;
}

static int32_t view_yolov8(const edge_postprocess_call *call, uint32_t batch, uint32_t n, view *v) {
    const edge_tensor *t = call->outputs;
    if (call->output_count < 1 || !is_floats(t, 3, batch) || t->dims[1] < 5) {
        return edge_fail(EDGE_ERROR_INPUT, "yolov8 needs one float32 output [1, 4 + classes, cells]");
    }
    *v = (view){.boxes = floats_of(t, n), .cells = t->dims[2], .classes = t->dims[1] - 4,
                .cell_stride = 1, .class_stride = t->dims[2], .box_stride = 1,
                .corner_stride = t->dims[2], .centred = true};
    v->scores = v->boxes + (size_t)4 * v->cells;
    return EDGE_OK;
}

static int32_t view_yolov5(const edge_postprocess_call *call, uint32_t batch, uint32_t n, view *v) {
    const edge_tensor *t = call->outputs;
    if (call->output_count < 1 || !is_floats(t, 3, batch) || t->dims[2] < 6) {
        return edge_fail(EDGE_ERROR_INPUT, "yolov5 needs one float32 output [1, cells, 5 + classes]");
    }
    *v = (view){.boxes = floats_of(t, n), .cells = t->dims[1], .classes = t->dims[2] - 5,
                .cell_stride = t->dims[2], .class_stride = 1, .box_stride = t->dims[2],
                .corner_stride = 1, .centred = true};
    v->objectness = v->boxes + 4;
    v->scores = v->boxes + 5;
    return EDGE_OK;
}

static int32_t view_nms(const edge_postprocess_call *call, uint32_t batch, uint32_t n, view *v) {
    const edge_tensor *t = call->outputs;
    if (call->output_count < 1 || !is_floats(t, 3, batch) || t->dims[2] != 6) {
        return edge_fail(EDGE_ERROR_INPUT, "nms needs one float32 output [1, cells, 6]");
    }
    *v = (view){.boxes = floats_of(t, n), .cells = t->dims[1], .cell_stride = 6, .box_stride = 6,
                .corner_stride = 1, .label_dtype = EDGE_DTYPE_FLOAT32, .label_stride = 6};
    v->scores = v->boxes + 4;
    v->labels = v->boxes + 5;
    return EDGE_OK;
}

static int32_t view_end2end(const edge_postprocess_call *call, places p, uint32_t batch, uint32_t n,
                            view *v) {
    const edge_tensor *boxes = call->outputs + p.boxes, *scores = call->outputs + p.scores;
    const edge_tensor *labels = call->outputs + p.labels, *count = call->outputs + p.count;
    uint32_t most = call->output_count;
    if (p.boxes >= most || p.scores >= most || p.labels >= most || p.count >= most ||
        !is_floats(boxes, 3, batch) || boxes->dims[2] != 4 || !is_floats(scores, 2, batch) ||
        !is_dense(labels, 2, batch) || !is_dense(count, 2, batch) || count->dims[1] != 1 ||
        scores->dims[1] != boxes->dims[1] || labels->dims[1] != boxes->dims[1]) {
        return edge_fail(EDGE_ERROR_INPUT, "end2end needs outputs num_dets [1, 1], boxes [1, cells, 4], "
                                           "scores [1, cells] and labels [1, cells]");
    }
    int32_t cells = whole_at(count->data, count->dtype, n);
    if (cells < 0 || (uint32_t)cells > boxes->dims[1]) {
        return edge_fail(EDGE_ERROR_INPUT, "the model's num_dets is not a number of its boxes");
    }
    size_t first = (size_t)n * boxes->dims[1] * element_bytes(labels->dtype);
    *v = (view){.boxes = floats_of(boxes, n), .scores = floats_of(scores, n), .cells = (uint32_t)cells,
                .labels = (const uint8_t *)labels->data + first, .label_dtype = labels->dtype,
                .cell_stride = 1, .box_stride = 4, .corner_stride = 1, .label_stride = 1};
    return EDGE_OK;
}

/* The outputs of tile n; 0, or an error with its sentence. */
static int32_t view_outputs(const edge_postprocess_call *call, uint32_t layout, places p, uint32_t batch,
                            uint32_t n, view *v) {
    switch (layout) {
    case LAYOUT_YOLOV8: return view_yolov8(call, batch, n, v);
    case LAYOUT_YOLOV5: return view_yolov5(call, batch, n, v);
    case LAYOUT_NMS: return view_nms(call, batch, n, v);
    case LAYOUT_END2END: return view_end2end(call, p, batch, n, v);
    default: return view_xyxy(call, p, batch, n, v);
    }
}

#endif
