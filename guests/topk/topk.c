/* topk: from a classifier's scores to findings that are the whole frame.
 *
 * See README.md for the parameters. A classifier says what the frame shows, not where; so each class
 * that reaches its threshold is one finding with the frame as its box.
 */
#include "edge_config.h"
#include "edge_math.h"

enum { AS_IT_IS, SOFTMAX, SIGMOID };
static const char *const ACTIVATIONS[] = {"none", "softmax", "sigmoid"};
/* Above every score: a class that is never a finding, such as that of good parts. */
static const float NEVER = __builtin_inff();

static struct {
    uint32_t activation, k;
    uint32_t classes; /* 0: the document names none */
    float score[EDGE_MAX_CLASSES];
} parameters;

static float scores[EDGE_MAX_CLASSES];

int32_t edge_configure(const char *document, uint32_t bytes) {
    edge_config config = edge_config_open(document, bytes);
    edge_json *given = config.parameters;
    parameters.activation = edge_json_choice(given, "activation", AS_IT_IS, ACTIVATIONS, 3);
    parameters.k = edge_json_whole(given, "k", 1, 1, EDGE_MAX_DEFECTS);
    edge_config_per_class(&config, "score", 0.5f, 0, 1, &NEVER, parameters.score);
    parameters.classes = edge_config_count(config.classes);
    return edge_config_close(&config);
}

/* [1, classes], or with further dimensions of 1. */
static int32_t check_output(const edge_postprocess_call *call) {
    const edge_tensor *t = call->outputs;
    bool good = call->output_count >= 1 && t->dtype == EDGE_DTYPE_FLOAT32 && t->rank >= 2;
    for (uint32_t i = 0; good && i < t->rank; i++) good = i == 1 || t->dims[i] == 1;
    if (!good || t->dims[1] < 1 || t->dims[1] > EDGE_MAX_CLASSES || t->bytes != 4 * t->dims[1]) {
        return edge_fail(EDGE_ERROR_INPUT, "topk needs one float32 output [1, classes]");
    }
    if (parameters.classes && t->dims[1] != parameters.classes) {
        edge_fail(EDGE_ERROR_INPUT, "the model scores ");
        edge_say_integer(t->dims[1]);
        edge_say(" classes, the configuration names ");
        edge_say_integer(parameters.classes);
        return EDGE_ERROR_INPUT;
    }
    for (uint32_t i = 0; i < t->dims[1]; i++) {
        float value = ((const float *)t->data)[i];
        if (!(value - value == 0)) {
            return edge_fail(EDGE_ERROR_INPUT, "the model's scores are not finite numbers");
        }
    }
    return EDGE_OK;
}

static void softmax(const float *given, uint32_t count) {
    double sum = 0, largest = given[0];
    for (uint32_t i = 1; i < count; i++) {
        if (given[i] > largest) largest = given[i];
    }
    for (uint32_t i = 0; i < count; i++) sum += edge_exp(given[i] - largest);
    for (uint32_t i = 0; i < count; i++) scores[i] = (float)(edge_exp(given[i] - largest) / sum);
}

static void activate(const float *given, uint32_t count) {
    if (parameters.activation == SOFTMAX) {
        softmax(given, count);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        float score = parameters.activation == SIGMOID ? (float)(1 / (1 + edge_exp(-given[i]))) : given[i];
        scores[i] = score < 0 ? 0 : score > 1 ? 1 : score;
    }
}

/* The strongest class that was not taken yet; of equal ones the first. */
static int32_t strongest(uint32_t count) {
    int32_t best = -1;
    for (uint32_t i = 0; i < count; i++) {
        if (scores[i] >= 0 && (best < 0 || scores[i] > scores[best])) best = (int32_t)i;
    }
    return best;
}

int32_t postprocess(edge_postprocess_call *call) {
    edge_error_clear();
    int32_t failed = check_output(call);
    if (failed) return failed;
    uint32_t count = call->outputs->dims[1], found = 0;
    activate(call->outputs->data, count);
    for (uint32_t i = 0; i < parameters.k && i < count && found < call->defect_capacity; i++) {
        int32_t label = strongest(count);
        float score = scores[label];
        scores[label] = -1; /* taken */
        if (score < parameters.score[label]) continue;
        call->defects[found++] = (edge_defect){
            .x1 = (float)call->frame_width, .y1 = (float)call->frame_height, .score = score, .label = label};
    }
    return (int32_t)found;
}
