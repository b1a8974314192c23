/* A small reader of JSON (RFC 8259) for configuration documents.
 *
 * Bounded in depth, nodes and text; no allocation. One document at a time.
 * The first problem is kept in the error text, with its place: `configuration, byte 17: ...` where
 * the text is no JSON, `parameters.score.open: expected a number 0..1` where a value is not what the
 * guest takes. After a problem all readers go on with their fallback, so a guest reads everything
 * in a row and asks once, at the end, whether all was well (`edge_json_failed`).
 */
#ifndef EDGE_JSON_H
#define EDGE_JSON_H

#include "edge_runtime.h"

/* What runs once, or only on errors, is small rather than fast. */
#pragma clang attribute push(__attribute__((minsize, noinline)), apply_to = function)

#define EDGE_JSON_DEPTH 16
#define EDGE_JSON_NODES 4096
#define EDGE_JSON_TEXT 65536
#define EDGE_JSON_SHOWN 48 /* bytes of a key that an error shows, to leave room for the problem */

typedef struct edge_string {
    const char *text; /* UTF-8, not NUL-terminated */
    uint32_t length;
} edge_string;

typedef enum edge_json_kind {
    EDGE_JSON_NULL,
    EDGE_JSON_BOOL,
    EDGE_JSON_NUMBER,
    EDGE_JSON_STRING,
    EDGE_JSON_ARRAY,
    EDGE_JSON_OBJECT,
} edge_json_kind;

typedef struct edge_json {
    edge_json_kind kind;
    bool asked;  /* a reader has looked for this member */
    bool truth;  /* of a bool */
    uint32_t count; /* children */
    uint32_t index; /* place in its array */
    double number;
    edge_string key; /* in its object */
    edge_string text;
    struct edge_json *parent, *next, *child;
} edge_json;

static edge_json edge_json_nodes[EDGE_JSON_NODES];
static uint32_t edge_json_node_count;
static char edge_json_text[EDGE_JSON_TEXT]; /* decoded strings */
static uint32_t edge_json_text_length;
static const char *edge_json_at, *edge_json_begin, *edge_json_end;
static bool edge_json_failed;

static inline bool edge_string_is(edge_string a, const char *b) {
    uint32_t i = 0;
    while (i < a.length && b[i] && a.text[i] == b[i]) i++;
    return i == a.length && !b[i];
}

static inline bool edge_string_equal(edge_string a, edge_string b) {
    if (a.length != b.length) return false;
    for (uint32_t i = 0; i < a.length; i++) {
        if (a.text[i] != b.text[i]) return false;
    }
    return true;
}

/* --- problems ------------------------------------------------------------------------------- */

static inline void edge_json_say_path(const edge_json *node) {
    const edge_json *way[EDGE_JSON_DEPTH + 1];
    uint32_t depth = 0;
    for (; node->parent && depth <= EDGE_JSON_DEPTH; node = node->parent) way[depth++] = node;
    while (depth--) {
        if (way[depth]->parent->kind == EDGE_JSON_ARRAY) {
            edge_say("[");
            edge_say_integer(way[depth]->index);
            edge_say("]");
        } else {
            if (way[depth]->parent->parent) edge_say(".");
            edge_string key = way[depth]->key;
            uint32_t shown = edge_prefix(key.text, key.length, EDGE_JSON_SHOWN);
            edge_say_bytes(key.text, shown);
            if (shown < key.length) edge_say("...");
        }
    }
}

/* Opens the error text with the place; false when an earlier problem stands and is to be kept. */
static inline bool edge_json_blame(const edge_json *node, const char *member) {
    if (edge_json_failed) return false;
    edge_json_failed = true;
    edge_error_clear();
    edge_json_say_path(node);
    if (member) {
        if (node->parent) edge_say(".");
        edge_say(member);
    }
    edge_say(": ");
    return true;
}

static inline void edge_json_refuse(const edge_json *node, const char *problem) {
    if (edge_json_blame(node, NULL)) edge_say(problem);
}

static inline void edge_json_refuse_range(const edge_json *node, const char *what, double low,
                                          double high) {
    if (!edge_json_blame(node, NULL)) return;
    edge_say("expected ");
    edge_say(what);
    edge_say(" ");
    edge_say_number(low);
    edge_say("..");
    edge_say_number(high);
}

static inline edge_json *edge_json_syntax(const char *problem) {
    if (!edge_json_failed) {
        edge_json_failed = true;
        edge_error_clear();
        edge_say("configuration, byte ");
        edge_say_integer(edge_json_at - edge_json_begin);
        edge_say(": ");
        edge_say(problem);
    }
    return NULL;
}

/* --- parsing -------------------------------------------------------------------------------- */

static inline int edge_json_peek(void) {
    return edge_json_at < edge_json_end ? (uint8_t)*edge_json_at : -1;
}

static inline bool edge_json_take(char wanted) {
    if (edge_json_peek() != (uint8_t)wanted) return false;
    edge_json_at++;
    return true;
}

static inline void edge_json_space(void) {
    static const char space[] = " \n\r\t";
    for (const char *s = space; *s; s = edge_json_take(*s) ? space : s + 1) {
    }
}

static inline bool edge_json_digit(void) {
    int c = edge_json_peek();
    return c >= '0' && c <= '9';
}

static inline double edge_json_power_of_ten(uint32_t exponent) {
    double power = 1, base = 10;
    for (; exponent; exponent >>= 1, base *= base) {
        if (exponent & 1) power *= base;
    }
    return power;
}

/* Nearest double for up to 15 digits and |exponent| <= 22, within a few units in the last place
 * beyond (W. D. Clinger, How to read floating point numbers accurately, 1990). Above 1e308 that
 * would not be safe, so such numbers are refused. */
static inline bool edge_json_number_text(double *number) {
    uint64_t digits = 0;
    int32_t exponent = 0;
    bool negative = edge_json_take('-');
    if (!edge_json_digit()) return edge_json_syntax("expected a digit");
    if (edge_json_take('0') && edge_json_digit()) return edge_json_syntax("a number begins with 0");
    bool fraction = false;
    for (;; edge_json_at++) {
        if (edge_json_peek() == '.' && !fraction) {
            fraction = true;
            edge_json_at++;
            if (!edge_json_digit()) return edge_json_syntax("expected a digit after the point");
        }
        if (!edge_json_digit()) break;
        if (digits < 1000000000000000000ull) {
            digits = digits * 10 + (uint64_t)(*edge_json_at - '0');
            exponent -= fraction;
        } else {
            exponent += !fraction;
        }
    }
    if (edge_json_take('e') || edge_json_take('E')) {
        bool down = edge_json_take('-');
        if (!down) edge_json_take('+');
        if (!edge_json_digit()) return edge_json_syntax("expected a digit in the exponent");
        int32_t written = 0;
        for (; edge_json_digit(); edge_json_at++) {
            if (written < 100000) written = written * 10 + (*edge_json_at - '0');
        }
        exponent += down ? -written : written;
    }
    double value = (double)digits;
    if (digits == 0) exponent = 0;
    if (exponent > 308) return edge_json_syntax("the number is too large");
    if (exponent < -340) value = 0;
    if (exponent > 0) value *= edge_json_power_of_ten((uint32_t)exponent);
    if (exponent < -300) value /= 1e40, exponent += 40;
    if (exponent < 0) value /= edge_json_power_of_ten((uint32_t)-exponent);
    if (value > 1e308) return edge_json_syntax("the number is too large");
    *number = negative ? -value : value;
    return true;
}

static inline bool edge_json_put(uint32_t byte) {
    if (edge_json_text_length == EDGE_JSON_TEXT) return edge_json_syntax("too much text");
    edge_json_text[edge_json_text_length++] = (char)byte;
    return true;
}

static inline bool edge_json_put_code_point(uint32_t c) {
    if (c < 0x80) return edge_json_put(c);
    if (c < 0x800) return edge_json_put(0xC0 | c >> 6) && edge_json_put(0x80 | (c & 63));
    if (c < 0x10000) {
        return edge_json_put(0xE0 | c >> 12) && edge_json_put(0x80 | (c >> 6 & 63)) &&
               edge_json_put(0x80 | (c & 63));
    }
    return edge_json_put(0xF0 | c >> 18) && edge_json_put(0x80 | (c >> 12 & 63)) &&
           edge_json_put(0x80 | (c >> 6 & 63)) && edge_json_put(0x80 | (c & 63));
}

static inline bool edge_json_hex4(uint32_t *code) {
    *code = 0;
    for (int i = 0; i < 4; i++, edge_json_at++) {
        int c = edge_json_peek();
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return edge_json_syntax("expected four hexadecimal digits");
        *code = *code << 4 | (uint32_t)digit;
    }
    return true;
}

static inline bool edge_json_escape(void) {
    static const char letters[] = "\"\\/bfnrt", bytes[] = "\"\\/\b\f\n\r\t";
    for (uint32_t i = 0; i < sizeof letters - 1; i++) {
        if (edge_json_take(letters[i])) return edge_json_put((uint8_t)bytes[i]);
    }
    uint32_t code, low;
    if (!edge_json_take('u')) return edge_json_syntax("no such escape");
    if (!edge_json_hex4(&code)) return false;
    if (code >= 0xD800 && code < 0xDC00) {
        if (!edge_json_take('\\') || !edge_json_take('u')) return edge_json_syntax("half a surrogate");
        if (!edge_json_hex4(&low)) return false;
        if (low < 0xDC00 || low > 0xDFFF) return edge_json_syntax("half a surrogate");
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code == 0 || (code >= 0xDC00 && code < 0xE000)) {
        return edge_json_syntax("not a character");
    }
    return edge_json_put_code_point(code);
}

/* One well-formed UTF-8 sequence beyond ASCII (Unicode, table 3-7). */
static inline bool edge_json_utf8(void) {
    uint8_t lead = (uint8_t)*edge_json_at;
    uint32_t more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
    uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (lead < 0xC2 || lead > 0xF4) return edge_json_syntax("not UTF-8");
    edge_json_at++;
    if (!edge_json_put(lead)) return false;
    for (; more; more--, edge_json_at++, low = 0x80, high = 0xBF) {
        int c = edge_json_peek();
        if (c < low || c > high) return edge_json_syntax("not UTF-8");
        if (!edge_json_put((uint32_t)c)) return false;
    }
    return true;
}

static inline bool edge_json_string_text(edge_string *string) {
    if (!edge_json_take('"')) return edge_json_syntax("expected a string");
    string->text = edge_json_text + edge_json_text_length;
    for (;;) {
        int c = edge_json_peek();
        bool good;
        if (c < 0) return edge_json_syntax("the text ends in a string");
        if (c < 0x20) return edge_json_syntax("a control character");
        if (edge_json_take('"')) break;
        if (edge_json_take('\\')) {
            good = edge_json_escape();
        } else if (c < 0x80) {
            edge_json_at++;
            good = edge_json_put((uint32_t)c);
        } else {
            good = edge_json_utf8();
        }
        if (!good) return false;
    }
    string->length = (uint32_t)(edge_json_text + edge_json_text_length - string->text);
    return true;
}

static inline bool edge_json_word(const char *word) {
    for (; *word; word++) {
        if (!edge_json_take(*word)) return edge_json_syntax("expected a value");
    }
    return true;
}

static inline edge_json *edge_json_value(edge_json *parent, uint32_t depth);

static inline bool edge_json_children(edge_json *node, char close, uint32_t depth) {
    edge_json **link = &node->child;
    edge_json_at++;
    edge_json_space();
    if (edge_json_take(close)) return true;
    do {
        edge_string key = {NULL, 0};
        edge_json_space();
        if (node->kind == EDGE_JSON_OBJECT) {
            if (!edge_json_string_text(&key)) return false;
            edge_json_space();
            if (!edge_json_take(':')) return edge_json_syntax("expected ':'");
        }
        edge_json *child = edge_json_value(node, depth + 1);
        if (!child) return false;
        child->key = key;
        child->index = node->count++;
        *link = child;
        link = &child->next;
        edge_json_space();
    } while (edge_json_take(','));
    if (edge_json_take(close)) return true;
    return edge_json_syntax(close == '}' ? "expected ',' or '}'" : "expected ',' or ']'");
}

static inline edge_json *edge_json_value(edge_json *parent, uint32_t depth) {
    if (depth > EDGE_JSON_DEPTH) return edge_json_syntax("nested too deeply");
    if (edge_json_node_count == EDGE_JSON_NODES) return edge_json_syntax("too many values");
    edge_json *node = &edge_json_nodes[edge_json_node_count++];
    *node = (edge_json){.parent = parent};
    bool good;
    edge_json_space();
    switch (edge_json_peek()) {
    case '{':
        node->kind = EDGE_JSON_OBJECT;
        good = edge_json_children(node, '}', depth);
        break;
    case '[':
        node->kind = EDGE_JSON_ARRAY;
        good = edge_json_children(node, ']', depth);
        break;
    case '"':
        node->kind = EDGE_JSON_STRING;
        good = edge_json_string_text(&node->text);
        break;
    case 't':
    case 'f':
        node->kind = EDGE_JSON_BOOL;
        node->truth = edge_json_peek() == 't';
        good = edge_json_word(node->truth ? "true" : "false");
        break;
    case 'n': good = edge_json_word("null"); break;
    case '-':
    case '0' ... '9':
        node->kind = EDGE_JSON_NUMBER;
        good = edge_json_number_text(&node->number);
        break;
    default: good = edge_json_syntax("expected a value");
    }
    return good ? node : NULL;
}

/* Reads a whole document, which must be an object; NULL where it is not, with the error text set. */
static inline edge_json *edge_json_parse(const char *text, uint32_t bytes) {
    edge_json_node_count = edge_json_text_length = 0;
    edge_json_failed = false;
    edge_error_clear();
    edge_json_at = edge_json_begin = text;
    edge_json_end = text + bytes;
    edge_json *root = edge_json_value(NULL, 0);
    edge_json_space();
    if (root && edge_json_at != edge_json_end) root = edge_json_syntax("text behind the document");
    if (root && root->kind != EDGE_JSON_OBJECT) {
        edge_json_at = edge_json_begin;
        root = edge_json_syntax("expected an object");
    }
    return root;
}

/* --- reading -------------------------------------------------------------------------------- */

/* The member, or NULL; a key that stands twice is refused. Objects may be NULL: they are empty. */
static inline edge_json *edge_json_member(edge_json *object, const char *key) {
    edge_json *found = NULL;
    for (edge_json *child = object ? object->child : NULL; child; child = child->next) {
        if (!edge_string_is(child->key, key)) continue;
        if (found) edge_json_refuse(child, "stands twice");
        child->asked = true;
        found = child;
    }
    return found;
}

static inline edge_json *edge_json_member_of(edge_json *object, const char *key, edge_json_kind kind,
                                             const char *expected) {
    edge_json *node = edge_json_member(object, key);
    if (node && node->kind != kind) edge_json_refuse(node, expected);
    return node && node->kind == kind ? node : NULL;
}

static inline edge_json *edge_json_object(edge_json *object, const char *key) {
    return edge_json_member_of(object, key, EDGE_JSON_OBJECT, "expected an object");
}

static inline edge_json *edge_json_array(edge_json *object, const char *key) {
    return edge_json_member_of(object, key, EDGE_JSON_ARRAY, "expected an array");
}

static inline double edge_json_in_range(const edge_json *node, double fallback, double low,
                                        double high) {
    if (!node) return fallback;
    bool number = node->kind == EDGE_JSON_NUMBER;
    if (number && node->number >= low && node->number <= high) return node->number;
    edge_json_refuse_range(node, "a number", low, high);
    return fallback;
}

static inline double edge_json_number(edge_json *object, const char *key, double fallback, double low,
                                      double high) {
    return edge_json_in_range(edge_json_member(object, key), fallback, low, high);
}

/* Exactly `count` numbers; `values` stay as they are where the member is absent. */
static inline void edge_json_numbers(edge_json *object, const char *key, double *values, uint32_t count,
                                     double low, double high) {
    const edge_json *list = edge_json_array(object, key);
    if (!list) return;
    if (list->count != count) {
        if (edge_json_blame(list, NULL)) {
            edge_say("expected ");
            edge_say_integer(count);
            edge_say(" numbers");
        }
        return;
    }
    for (const edge_json *node = list->child; node; node = node->next) {
        values[node->index] = edge_json_in_range(node, values[node->index], low, high);
    }
}

static inline uint32_t edge_json_whole(edge_json *object, const char *key, uint32_t fallback,
                                       uint32_t low, uint32_t high) {
    const edge_json *node = edge_json_member(object, key);
    if (!node) return fallback;
    if (node->kind == EDGE_JSON_NUMBER && node->number >= low && node->number <= high &&
        node->number == (double)(uint32_t)node->number) {
        return (uint32_t)node->number;
    }
    edge_json_refuse_range(node, "a whole number", low, high);
    return fallback;
}

static inline bool edge_json_bool(edge_json *object, const char *key, bool fallback) {
    const edge_json *node = edge_json_member_of(object, key, EDGE_JSON_BOOL, "expected true or false");
    return node ? node->truth : fallback;
}

/* A string; length 0 where it is absent. */
static inline edge_string edge_json_string(edge_json *object, const char *key) {
    const edge_json *node = edge_json_member_of(object, key, EDGE_JSON_STRING, "expected a string");
    return node ? node->text : (edge_string){NULL, 0};
}

/* The place of a string among `words`. */
static inline uint32_t edge_json_choice(edge_json *object, const char *key, uint32_t fallback,
                                        const char *const *words, uint32_t count) {
    const edge_json *node = edge_json_member(object, key);
    if (!node) return fallback;
    for (uint32_t i = 0; i < count; i++) {
        if (node->kind == EDGE_JSON_STRING && edge_string_is(node->text, words[i])) return i;
    }
    if (edge_json_blame(node, NULL)) {
        edge_say("expected one of ");
        for (uint32_t i = 0; i < count; i++) {
            edge_say(i ? ", \"" : "\"");
            edge_say(words[i]);
            edge_say("\"");
        }
    }
    return fallback;
}

/* Refuses the first member that no reader has asked for: a misspelt key is an error, not a no-op. */
static inline void edge_json_refuse_unknown(const edge_json *object) {
    for (const edge_json *child = object ? object->child : NULL; child; child = child->next) {
        if (!child->asked) edge_json_refuse(child, "no such parameter");
    }
}

#pragma clang attribute pop

#endif
