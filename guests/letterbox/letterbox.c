/* letterbox: one frame, resized (or not), padded and normalised, as an RGB model input.
 *
 * See README.md for the parameters. The work is done in edge_planes.h; here is where the frame lies in
 * the model input.
 */
#include "edge_planes.h"

enum { RESIZE_FIT, RESIZE_STRETCH, RESIZE_NONE };
static const char *const RESIZES[] = {"fit", "stretch", "none"};

static struct {
    edge_normal normal;
    uint32_t resize;
} parameters;

int32_t edge_configure(const char *document, uint32_t bytes) {
    edge_config config = edge_config_open(document, bytes);
    edge_json *given = config.parameters;
    parameters.normal = edge_normal_read(given);
    parameters.resize = edge_json_choice(given, "resize", RESIZE_FIT, RESIZES, 3);
    return edge_config_close(&config);
}

static int32_t refuse_size(const edge_image *frame, const edge_tensor *input) {
    edge_fail(EDGE_ERROR_INPUT, "the frame has ");
    edge_say_integer(frame->width);
    edge_say(" x ");
    edge_say_integer(frame->height);
    edge_say(" pixels, the model input ");
    edge_say_integer(input->dims[3]);
    edge_say(" x ");
    edge_say_integer(input->dims[2]);
    edge_say(", and parameters.resize is none");
    return EDGE_ERROR_INPUT;
}

static int32_t check_input(const edge_preprocess_call *call) {
    static const char SHAPE[] = "the model input must be of shape [1, 3, height, width]";
    if (call->input_count != 1) return edge_fail(EDGE_ERROR_INPUT, "letterbox fills one model input");
    int32_t failed = edge_input_check(call->inputs, 3, SHAPE);
    return failed ? failed : edge_normal_check(&parameters.normal, call->inputs);
}

int32_t preprocess(edge_preprocess_call *call) {
    const edge_image *frame = &call->frame;
    const edge_tensor *input = call->inputs;
    edge_error_clear();
    int32_t failed = check_input(call);
    if (!failed) failed = edge_image_check(frame, "the frame");
    if (failed) return failed;
    uint32_t width = input->dims[3], height = input->dims[2];
    if (parameters.resize == RESIZE_NONE && (frame->width != width || frame->height != height)) {
        return refuse_size(frame, input);
    }
    edge_fit fit = parameters.resize == RESIZE_STRETCH
                       ? edge_stretch_image(frame->width, frame->height, width, height)
                       : edge_fit_image(frame->width, frame->height, width, height);
    edge_fill(frame, &fit, input, &parameters.normal);
    call->transform = fit.transform;
    return EDGE_OK;
}
