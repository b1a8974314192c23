/* Drift: good parts that score as they did not use to; a lamp that ages, a lens that is dirty.
 *
 * The level is an exponentially weighted mean (Roberts, 1959) of the strongest score of frames whose
 * findings pass; the baseline is given, or the mean of the first such frames. An alarm begins when
 * both are further apart than `limit`, and ends when they are nearer than half of it.
 */
#ifndef DRIFT_H
#define DRIFT_H

#include "edge_config.h"

typedef struct {
    uint32_t frames; /* that the baseline was learned from */
    uint32_t alarm;
    double baseline, level;
} drift_memory;

static struct {
    bool given, fixed;
    double baseline, limit, weight; /* weight of one frame in the level */
    uint32_t learn, verdict;
} drift;

/* Reads all but the action; returns its table, or NULL. */
static edge_json *drift_read(edge_json *parameters) {
    static const char *const WORDS[] = {"review", "pass"};
    static const uint32_t VERDICTS[] = {EDGE_VERDICT_REVIEW, EDGE_VERDICT_PASS};
    edge_json *given = edge_json_object(parameters, "drift");
    drift.given = given;
    if (!given) return NULL;
    drift.fixed = edge_json_member(given, "baseline");
    drift.baseline = edge_json_number(given, "baseline", 0, 0, 1);
    drift.limit = edge_json_number(given, "limit", 1, 0.001, 1);
    drift.weight = 2.0 / (edge_json_whole(given, "span", 200, 1, 1000000) + 1);
    drift.learn = edge_json_whole(given, "learn", 500, 1, 1000000);
    drift.verdict = VERDICTS[edge_json_choice(given, "verdict", 0, WORDS, 2)];
    if (!edge_json_member(given, "limit")) edge_json_refuse(given, "needs limit");
    return given;
}

/* Takes the score of a frame that passes; returns whether an alarm begins with it. */
static bool drift_follow(drift_memory *memory, double score) {
    if (drift.fixed) {
        if (memory->frames == 0) memory->level = drift.baseline;
        memory->frames = drift.learn;
        memory->baseline = drift.baseline;
    } else if (memory->frames < drift.learn) {
        memory->baseline += (score - memory->baseline) / ++memory->frames;
        memory->level = memory->baseline;
        return false;
    }
    memory->level += drift.weight * (score - memory->level);
    double distance = memory->level - memory->baseline;
    if (distance < 0) distance = -distance;
    bool before = memory->alarm;
    memory->alarm = distance > (before ? drift.limit / 2 : drift.limit);
    return memory->alarm && !before;
}

#endif
