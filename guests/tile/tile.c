/* tile: a region of a large frame, cut into a grid of overlapping tiles, one of each in the batch.
 *
 * See README.md for the parameters. Each tile is laid as letterbox lays a frame (edge_planes.h). The
 * transform is that of the first tile; who reads the outputs puts the others beside it with the same
 * grid (edge_tiles.h), as boxes does with its parameter `tiles`.
 */
#include "edge_planes.h"
#include "edge_tiles.h"

static struct {
    edge_normal normal;
    edge_grid grid;
} parameters;

int32_t edge_configure(const char *document, uint32_t bytes) {
    edge_config config = edge_config_open(document, bytes);
    parameters.normal = edge_normal_read(config.parameters);
    parameters.grid = edge_grid_read(config.parameters);
    return edge_config_close(&config);
}

static int32_t check_input(const edge_preprocess_call *call) {
    uint32_t tiles = edge_grid_count(&parameters.grid);
    if (call->input_count != 1) return edge_fail(EDGE_ERROR_INPUT, "tile fills one model input");
    int32_t failed = edge_inputs_check(call->inputs, tiles, 3,
                                       "the model input must be of shape [rows * columns, 3, height, width]");
    return failed ? failed : edge_normal_check(&parameters.normal, call->inputs);
}

/* The part of the frame that a tile shows; nothing is copied. */
static edge_image cut(const edge_image *frame, const edge_rectangle *tile) {
    edge_image image = *frame;
    image.data += (size_t)tile->y * frame->stride + (size_t)tile->x * edge_channels(frame->format);
    image.width = tile->width;
    image.height = tile->height;
    return image;
}

int32_t preprocess(edge_preprocess_call *call) {
    const edge_image *frame = &call->frame;
    edge_error_clear();
    int32_t failed = check_input(call);
    if (!failed) failed = edge_image_check(frame, "the frame");
    if (failed) return failed;
    edge_tensor input = *call->inputs;
    uint32_t tiles = input.dims[0];
    for (uint32_t n = 0; n < tiles; n++) {
        edge_rectangle tile = edge_grid_tile(&parameters.grid, frame->width, frame->height, n);
        edge_image image = cut(frame, &tile);
        edge_fit fit = edge_fit_image(image.width, image.height, input.dims[3], input.dims[2]);
        edge_fill(&image, &fit, &input, &parameters.normal);
        input.data = (uint8_t *)input.data + input.bytes / tiles;
        if (n > 0) continue;
        /* frame = (input - offset) * scale + the tile's corner, in the form of a transform */
        call->transform = fit.transform;
        call->transform.offset_x -= (float)tile.x / fit.transform.scale_x;
        call->transform.offset_y -= (float)tile.y / fit.transform.scale_y;
    }
    return EDGE_OK;
}
