/* The configuration document (guests/ABI.md): parameters, and the names and tensors around them. */
#ifndef EDGE_CONFIG_H
#define EDGE_CONFIG_H

#include "edge_json.h"

#define EDGE_MAX_CLASSES 1024

/* What runs once, or only on errors, is small rather than fast. */
#pragma clang attribute push(__attribute__((minsize, noinline)), apply_to = function)

typedef struct edge_config {
    edge_json *root, *parameters, *classes, *signals, *actions, *inputs, *outputs; /* NULL: absent */
} edge_config;

static inline edge_json *edge_config_names(edge_json *root, const char *key) {
    edge_json *names = edge_json_array(root, key);
    for (edge_json *name = names ? names->child : NULL; name; name = name->next) {
        if (name->kind != EDGE_JSON_STRING) edge_json_refuse(name, "expected a string");
    }
    return names;
}

static inline uint32_t edge_config_count(const edge_json *list) { return list ? list->count : 0; }

/* Opens the document; problems show in `edge_config_close`. */
static inline edge_config edge_config_open(const char *document, uint32_t bytes) {
    edge_json *root = edge_json_parse(document, bytes);
    edge_config config = {
        .root = root,
        .parameters = edge_json_object(root, "parameters"),
        .classes = edge_config_names(root, "classes"),
        .signals = edge_config_names(root, "signals"),
        .actions = edge_config_names(root, "actions"),
        .inputs = edge_json_array(root, "inputs"),
        .outputs = edge_json_array(root, "outputs"),
    };
    if (edge_config_count(config.classes) > EDGE_MAX_CLASSES) {
        edge_json_refuse(config.classes, "more classes than this guest takes");
    }
    return config;
}

/* Refuses unknown parameters; the result of `edge_configure`. */
static inline int32_t edge_config_close(const edge_config *config) {
    edge_json_refuse_unknown(config->parameters);
    return edge_json_failed ? EDGE_ERROR_PARAMETERS : EDGE_OK;
}

/* Index of a name in a list, -1 where it is not there. */
static inline int32_t edge_config_index(const edge_json *names, edge_string name) {
    for (const edge_json *child = names ? names->child : NULL; child; child = child->next) {
        if (edge_string_equal(child->text, name)) return (int32_t)child->index;
    }
    return -1;
}

/* Index of the name that a member gives; -1 where it is absent or refused. */
static inline int32_t edge_config_name(edge_json *object, const char *key, const edge_json *names,
                                       const char *problem) {
    edge_json *node = edge_json_member_of(object, key, EDGE_JSON_STRING, "expected a string");
    int32_t index = node ? edge_config_index(names, node->text) : -1;
    if (node && index < 0) edge_json_refuse(node, problem);
    return index;
}

/* One bound for each class: a number for all, or an object of class names and `default`.
 * Where `never` is given, the word "never" stands for it. Fills values[EDGE_MAX_CLASSES]. */
static inline float edge_config_bound(const edge_json *node, float fallback, double low, double high,
                                      const float *never) {
    if (never && node->kind == EDGE_JSON_STRING && edge_string_is(node->text, "never")) return *never;
    return (float)edge_json_in_range(node, fallback, low, high);
}

static inline void edge_config_per_class(const edge_config *config, const char *key, float fallback,
                                         double low, double high, const float *never, float *values) {
    edge_json *node = edge_json_member(config->parameters, key);
    edge_json *common = node;
    if (node && node->kind == EDGE_JSON_OBJECT) common = edge_json_member(node, "default");
    if (common) fallback = edge_config_bound(common, fallback, low, high, never);
    for (uint32_t i = 0; i < EDGE_MAX_CLASSES; i++) values[i] = fallback;
    if (!node || node->kind != EDGE_JSON_OBJECT) return;
    for (edge_json *child = node->child; child; child = child->next) {
        if (child == common) continue;
        int32_t label = edge_config_index(config->classes, child->key);
        if (label < 0) {
            edge_json_refuse(child, "no such class");
        } else if (child->asked) {
            edge_json_refuse(child, "stands twice");
        } else if (label < EDGE_MAX_CLASSES) {
            values[label] = edge_config_bound(child, fallback, low, high, never);
        }
        for (edge_json *later = child->next; later; later = later->next) {
            if (edge_string_equal(later->key, child->key)) later->asked = true;
        }
    }
}

#pragma clang attribute pop

#endif
