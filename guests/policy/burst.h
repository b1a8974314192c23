/* k of n: a part that several frames show is rejected when enough of them say so.
 *
 * A part is known by the number that the host gives it (DecideCall.part). The eight parts that were
 * seen last are remembered, so that frames of neighbouring parts may be mixed.
 */
#ifndef BURST_H
#define BURST_H

#include "edge_config.h"

#define MAX_PARTS 8

typedef struct {
    uint32_t part;     /* 0: no part yet */
    uint32_t rejects;  /* one bit a frame, the latest lowest: whether its findings reject */
    uint32_t rejected; /* whether the part was rejected, and its actions asked for */
    uint32_t seen;     /* `turn` of its last frame */
} part_record;

typedef struct {
    uint32_t turn; /* frames with a part so far */
    part_record parts[MAX_PARTS];
} burst_memory;

static struct {
    bool given;
    uint32_t frames, reject;
    uint32_t until; /* verdict of a frame that rejects, while too few others do */
} burst;

static void burst_read(edge_json *parameters) {
    static const char *const WORDS[] = {"review", "pass"};
    static const uint32_t VERDICTS[] = {EDGE_VERDICT_REVIEW, EDGE_VERDICT_PASS};
    edge_json *given = edge_json_object(parameters, "burst");
    burst.given = given;
    if (!given) return;
    burst.frames = edge_json_whole(given, "frames", 1, 1, 32);
    burst.reject = edge_json_whole(given, "reject", 1, 1, 32);
    burst.until = VERDICTS[edge_json_choice(given, "until", 0, WORDS, 2)];
    if (!edge_json_member(given, "frames")) edge_json_refuse(given, "needs frames");
    if (!edge_json_member(given, "reject")) edge_json_refuse(given, "needs reject");
    if (burst.reject > burst.frames) edge_json_refuse(given, "reject is above frames");
    edge_json_refuse_unknown(given);
}

/* The record of a part; a new part takes the place of the one that was not seen for longest. */
static part_record *burst_part(burst_memory *memory, uint32_t part) {
    part_record *oldest = &memory->parts[0];
    for (uint32_t i = 0; i < MAX_PARTS; i++) {
        part_record *r = &memory->parts[i];
        if (r->part == part) return r;
        if (memory->turn - r->seen > memory->turn - oldest->seen || r->part == 0) oldest = r;
        if (r->part == 0) break;
    }
    *oldest = (part_record){.part = part};
    return oldest;
}

/* Whether the part that was seen before this one went by without being rejected. */
static bool burst_good_part_ended(const burst_memory *memory, uint32_t part) {
    for (uint32_t i = 0; i < MAX_PARTS; i++) {
        const part_record *r = &memory->parts[i];
        if (r->part && r->seen == memory->turn) return r->part != part && !r->rejected;
    }
    return false;
}

/* Notes what the findings of this frame say; returns in how many of its last frames the part was bad. */
static uint32_t burst_count(part_record *record, bool rejects) {
    uint32_t kept = burst.frames == 32 ? ~0u : (1u << burst.frames) - 1;
    record->rejects = (record->rejects << 1 | rejects) & kept;
    return (uint32_t)__builtin_popcount(record->rejects);
}

#endif
