/* A grid of equal tiles over a region of the frame: shared by who cuts it and who puts it together.
 *
 * Tile n lies in row n / columns and column n % columns. Neighbours overlap, so that what lies on a
 * border lies whole in one of them. Everything follows from the grid and the frame's size, so both
 * guests come to the same pixels.
 */
#ifndef EDGE_TILES_H
#define EDGE_TILES_H

#include "edge_config.h"

#define EDGE_MAX_TILES 64

typedef struct edge_grid {
    uint32_t rows, columns;
    double overlap; /* share of a tile's side that it has in common with its neighbour */
    double left, top, right, bottom; /* of the region that it covers, as shares of the frame's sides */
} edge_grid;

typedef struct edge_rectangle {
    uint32_t x, y, width, height; /* pixels of the frame */
} edge_rectangle;

/* The parameters `rows`, `columns`, `overlap` and `region` of an object, which may be NULL. */
static inline edge_grid edge_grid_read(edge_json *given) {
    edge_grid grid;
    edge_json *region = edge_json_object(given, "region");
    grid.rows = edge_json_whole(given, "rows", 1, 1, 8);
    grid.columns = edge_json_whole(given, "columns", 1, 1, 8);
    grid.overlap = edge_json_number(given, "overlap", 0, 0, 0.5);
    grid.left = edge_json_number(region, "left", 0, 0, 1);
    grid.top = edge_json_number(region, "top", 0, 0, 1);
    grid.right = edge_json_number(region, "right", 1, 0, 1);
    grid.bottom = edge_json_number(region, "bottom", 1, 0, 1);
    if (grid.left > grid.right) edge_json_refuse(region, "left is above right");
    if (grid.top > grid.bottom) edge_json_refuse(region, "top is above bottom");
    edge_json_refuse_unknown(region);
    return grid;
}

static inline uint32_t edge_grid_count(const edge_grid *grid) { return grid->rows * grid->columns; }

/* One axis: where tile `n` of `count` begins, and the length that all of them have. */
static inline void edge_grid_axis(double low, double high, double overlap, uint32_t count, uint32_t n,
                                  uint32_t side, uint32_t *begin, uint32_t *length) {
    uint32_t first = (uint32_t)(low * side + 0.5), last = (uint32_t)(high * side + 0.5);
    if (first >= side) first = side - 1;
    if (last <= first) last = first + 1;
    uint32_t whole = last - first;
    double exact = whole / (count - (count - 1) * overlap);
    *length = (uint32_t)exact;
    if (*length < exact) ++*length;
    if (*length > whole) *length = whole;
    *begin = first + (count > 1 ? (uint32_t)((uint64_t)(whole - *length) * n / (count - 1)) : 0);
}

static inline edge_rectangle edge_grid_tile(const edge_grid *grid, uint32_t width, uint32_t height,
                                            uint32_t n) {
    edge_rectangle tile;
    edge_grid_axis(grid->left, grid->right, grid->overlap, grid->columns, n % grid->columns, width, &tile.x,
                   &tile.width);
    edge_grid_axis(grid->top, grid->bottom, grid->overlap, grid->rows, n / grid->columns, height, &tile.y,
                   &tile.height);
    return tile;
}

#endif
