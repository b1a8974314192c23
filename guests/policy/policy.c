/* policy: from findings and signals to a verdict and actions.
 *
 * See README.md for the parameters. The worst rule decides: reject before review before pass; among
 * equals findings before signals, signals in their order, drift last. What it remembers from frame to
 * frame: the rejects in a row, the parts that it saw last (burst.h), the level of the scores (drift.h).
 */
#define EDGE_NEEDS_MINOR 1 /* DecideCall.part */
#include "burst.h"
#include "drift.h"

#define MAX_RULES 32
#define STATE_VERSION 2u

/* Above every score: a class that never leads to the verdict. */
static const float NEVER = __builtin_inff();

enum { ON_REVIEW, ON_IGNORE };
static const char *const MISSING_WORDS[] = {"review", "ignore"};
static const uint32_t RULE_VERDICTS[] = {EDGE_VERDICT_REVIEW, EDGE_VERDICT_REJECT};
static const char *const RULE_VERDICT_WORDS[] = {"review", "reject"};
static const char *const RESERVED[] = EDGE_RESERVED_REASONS;

typedef struct {
    uint32_t signal, verdict, on_absent, on_stale;
    double min, max;
    char reason[EDGE_REASON_BYTES];
} rule;

typedef struct {
    bool given;
    edge_action action;
} wish;

static struct {
    float reject[EDGE_MAX_CLASSES], review[EDGE_MAX_CLASSES], min_area_px[EDGE_MAX_CLASSES];
    uint32_t classes;
    uint32_t line_stop_after; /* 0: never */
    wish reject_action, line_stop_action, drift_action;
    uint32_t rule_count;
    rule rules[MAX_RULES];
} parameters;

typedef struct {
    uint32_t version;
    uint32_t rejects_in_a_row; /* version 1 ends here */
    burst_memory burst;
    uint32_t reserved;
    drift_memory drift;
} memory;

_Static_assert(sizeof(memory) == 8 + 132 + 4 + 24, "the state has no padding");

static memory state = {.version = STATE_VERSION};

/* --- parameters ----------------------------------------------------------------------------- */

static wish read_wish(const edge_config *config, edge_json *object, const char *key) {
    wish w = {0};
    edge_json *given = edge_json_object(object, key);
    if (!given) return w;
    int32_t index = edge_config_name(given, "name", config->actions, "no such action is granted");
    w.given = true;
    w.action.index = index < 0 ? 0 : (uint32_t)index;
    w.action.ttl_ms = edge_json_whole(given, "ttl_ms", 1000, 1, 3600000);
    w.action.value = edge_json_number(given, "value", 1, -1e9, 1e9);
    if (index < 0) edge_json_refuse(given, "needs the name of an action");
    edge_json_refuse_unknown(given);
    return w;
}

static void read_reason(edge_json *given, char reason[EDGE_REASON_BYTES]) {
    edge_json *node = edge_json_member(given, "reason");
    bool good = node && node->kind == EDGE_JSON_STRING && node->text.length > 0 &&
                node->text.length < EDGE_REASON_BYTES;
    for (uint32_t i = 0; good && i < node->text.length; i++) {
        char c = node->text.text[i];
        good = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
        reason[i] = c;
    }
    if (!good) {
        edge_json_refuse(node ? node : given, "needs a reason of 1..31 characters a-z, 0-9 and '-'");
        return;
    }
    for (uint32_t i = 0; i < sizeof RESERVED / sizeof *RESERVED; i++) {
        if (!edge_string_is(node->text, RESERVED[i])) continue;
        edge_json_refuse(node, "only the host gives this reason");
    }
    if (edge_string_is(node->text, "ok")) edge_json_refuse(node, "this is the reason of a pass");
}

static void read_rule(const edge_config *config, edge_json *given, rule *r) {
    *r = (rule){0};
    if (given->kind != EDGE_JSON_OBJECT) {
        edge_json_refuse(given, "expected an object");
        return;
    }
    int32_t signal = edge_config_name(given, "signal", config->signals, "no such signal is granted");
    r->signal = signal < 0 ? 0 : (uint32_t)signal;
    r->min = edge_json_number(given, "min", -__builtin_inf(), -1e14, 1e14);
    r->max = edge_json_number(given, "max", __builtin_inf(), -1e14, 1e14);
    r->verdict = RULE_VERDICTS[edge_json_choice(given, "verdict", 0, RULE_VERDICT_WORDS, 2)];
    r->on_absent = edge_json_choice(given, "on_absent", ON_REVIEW, MISSING_WORDS, 2);
    r->on_stale = edge_json_choice(given, "on_stale", ON_REVIEW, MISSING_WORDS, 2);
    read_reason(given, r->reason);
    if (signal < 0) edge_json_refuse(given, "needs the name of a signal");
    if (r->min > r->max) edge_json_refuse(given, "min is above max");
    edge_json_refuse_unknown(given);
}

int32_t edge_configure(const char *document, uint32_t bytes) {
    edge_config config = edge_config_open(document, bytes);
    edge_json *given = config.parameters;
    edge_config_per_class(&config, "reject", 0.5f, 0, 1, &NEVER, parameters.reject);
    edge_config_per_class(&config, "review", 0.25f, 0, 1, &NEVER, parameters.review);
    edge_config_per_class(&config, "min_area_px", 0, 0, 1e9, NULL, parameters.min_area_px);
    parameters.classes = edge_config_count(config.classes);
    parameters.reject_action = read_wish(&config, given, "reject_action");
    parameters.line_stop_action = read_wish(&config, given, "line_stop_action");
    parameters.line_stop_after = edge_json_whole(given, "line_stop_after", 0, 0, 1000000);
    edge_json *after = edge_json_member(given, "line_stop_after");
    if (after && !parameters.line_stop_action.given) edge_json_refuse(after, "needs line_stop_action");
    burst_read(given);
    edge_json *drift_given = drift_read(given);
    parameters.drift_action = read_wish(&config, drift_given, "action");
    edge_json_refuse_unknown(drift_given);
    edge_json *rules = edge_json_array(given, "signals");
    if (edge_config_count(rules) > MAX_RULES) edge_json_refuse(rules, "more than 32 rules");
    parameters.rule_count = 0;
    for (edge_json *r = rules ? rules->child : NULL; r && r->index < MAX_RULES; r = r->next) {
        read_rule(&config, r, &parameters.rules[parameters.rule_count++]);
    }
    return edge_config_close(&config);
}

/* --- the decision --------------------------------------------------------------------------- */

static uint32_t severity(uint32_t verdict) {
    return verdict == EDGE_VERDICT_REJECT ? 2 : verdict == EDGE_VERDICT_REVIEW ? 1 : 0;
}

static void set_reason(edge_decide_call *call, const char *reason) {
    uint32_t i = 0;
    for (; reason[i] && i < EDGE_REASON_BYTES - 1; i++) call->reason[i] = reason[i];
    for (; i < EDGE_REASON_BYTES; i++) call->reason[i] = 0;
}

/* Rises to a worse verdict; returns whether it did. */
static bool rise(edge_decide_call *call, uint32_t verdict, const char *reason) {
    if (severity(verdict) <= severity(call->verdict)) return false;
    call->verdict = verdict;
    set_reason(call, reason);
    return true;
}

/* The score is of the strongest finding behind the verdict; of a pass, of the strongest at all. */
static int32_t judge_defects(edge_decide_call *call) {
    float strongest = 0;
    for (uint32_t i = 0; i < call->defect_count; i++) {
        const edge_defect *d = &call->defects[i];
        if (d->label < 0 || d->label >= EDGE_MAX_CLASSES ||
            (parameters.classes && (uint32_t)d->label >= parameters.classes)) {
            return edge_fail(EDGE_ERROR_INPUT,
                             "a finding is of a class that the configuration does not name");
        }
        if (d->score != d->score) return edge_fail(EDGE_ERROR_INPUT, "a score is not a number");
        float area = (d->x1 - d->x0) * (d->y1 - d->y0);
        if (area < parameters.min_area_px[d->label]) continue;
        uint32_t verdict = d->score >= parameters.reject[d->label]   ? EDGE_VERDICT_REJECT
                           : d->score >= parameters.review[d->label] ? EDGE_VERDICT_REVIEW
                                                                     : EDGE_VERDICT_PASS;
        if (severity(verdict) < severity(call->verdict)) continue;
        if (rise(call, verdict, "defect") || d->score > strongest) strongest = d->score;
    }
    call->score = strongest;
    return EDGE_OK;
}

static int32_t judge_signals(edge_decide_call *call) {
    for (uint32_t i = 0; i < parameters.rule_count; i++) {
        const rule *r = &parameters.rules[i];
        if (r->signal >= call->signal_count) {
            return edge_fail(EDGE_ERROR_INPUT, "the frame comes with fewer signals than were granted");
        }
        const edge_signal *s = &call->signals[r->signal];
        if (s->state == EDGE_SIGNAL_FRESH) {
            bool within = s->value >= r->min && s->value <= r->max; /* NaN is not */
            if (!within) rise(call, r->verdict, r->reason);
        } else if ((s->state == EDGE_SIGNAL_STALE ? r->on_stale : r->on_absent) == ON_REVIEW) {
            rise(call, EDGE_VERDICT_REVIEW, r->reason);
        }
    }
    return EDGE_OK;
}

static void wish_for(edge_decide_call *call, const wish *w) {
    if (w->given) call->actions[call->action_count++] = w->action;
}

/* What the findings say of the whole part, as far as its frames have come. NULL: it is unknown. */
static part_record *judge_part(edge_decide_call *call) {
    if (!burst.given || !call->part) return NULL;
    if (burst_good_part_ended(&state.burst, call->part)) state.rejects_in_a_row = 0;
    bool rejects = call->verdict == EDGE_VERDICT_REJECT;
    part_record *record = burst_part(&state.burst, call->part);
    record->seen = ++state.burst.turn;
    if (burst_count(record, rejects) >= burst.reject) {
        rise(call, EDGE_VERDICT_REJECT, "burst"); /* where this frame alone would not */
    } else if (rejects) {
        call->verdict = burst.until;
        set_reason(call, burst.until == EDGE_VERDICT_PASS ? "ok" : "unconfirmed");
    }
    return record;
}

static void judge_drift(edge_decide_call *call, bool findings_pass) {
    if (!drift.given) return;
    bool begins = findings_pass && drift_follow(&state.drift, call->score);
    if (state.drift.alarm) rise(call, drift.verdict, "drift");
    if (begins) wish_for(call, &parameters.drift_action);
}

/* A part is counted once, however many frames reject it. The stop is asked for once; then the count
 * begins anew. */
static void count_rejects(edge_decide_call *call, part_record *record) {
    if (call->verdict != EDGE_VERDICT_REJECT) {
        if (!record) state.rejects_in_a_row = 0; /* of a part more frames may come */
        return;
    }
    if (record && record->rejected) return;
    if (record) record->rejected = true;
    wish_for(call, &parameters.reject_action);
    if (parameters.line_stop_after && ++state.rejects_in_a_row >= parameters.line_stop_after) {
        wish_for(call, &parameters.line_stop_action);
        state.rejects_in_a_row = 0;
    }
}

int32_t decide(edge_decide_call *call) {
    edge_error_clear();
    call->verdict = EDGE_VERDICT_PASS;
    call->score = 0;
    call->action_count = 0;
    set_reason(call, "ok");
    int32_t failed = judge_defects(call);
    if (failed) return failed;
    bool findings_pass = call->verdict == EDGE_VERDICT_PASS;
    part_record *record = judge_part(call);
    failed = judge_signals(call);
    if (failed) return failed;
    judge_drift(call, findings_pass);
    count_rejects(call, record);
    return EDGE_OK;
}

/* --- state ---------------------------------------------------------------------------------- */

int32_t edge_state_save(void *blob, uint32_t capacity) {
    if (capacity < sizeof state) return edge_fail(EDGE_ERROR_MEMORY, "the state takes 168 bytes");
    __builtin_memcpy(blob, &state, sizeof state);
    return sizeof state;
}

/* Reads its own state, and that of version 1, which is its beginning. */
int32_t edge_state_restore(void *blob, uint32_t bytes) {
    static const uint32_t SIZES[] = {0, 2 * sizeof(uint32_t), sizeof(memory)}; /* by version */
    uint32_t version = 0;
    edge_error_clear();
    if (bytes >= sizeof version) __builtin_memcpy(&version, blob, sizeof version);
    state = (memory){.version = STATE_VERSION};
    if (version < 1 || version > STATE_VERSION || bytes != SIZES[version]) {
        return edge_fail(EDGE_ERROR_INPUT, "the state is not of this policy's versions 1 and 2");
    }
    __builtin_memcpy(&state, blob, bytes);
    state.version = STATE_VERSION;
    return EDGE_OK;
}
