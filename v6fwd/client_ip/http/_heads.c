/* A head is read line by line: a usual one has no line that two patterns could take. See _heads.h. */
#include "_heads.h"

#include <string.h>

enum { MOST_METHOD = 32, MOST_TARGET = 7000, MOST_HOST = 262, MOST_FIELDS = 100, MOST_DIGITS = 18 };
enum { KEEP_ALIVE = sizeof "keep-alive" - 1 };

/* -- bytes -- */

enum { NAME = 1, TOKEN = 2, TARGET = 4, METHOD = 8, VISIBLE = 16 };

#define IN(byte, low, high) ((byte) >= (low) && (byte) <= (high))
#define IS_NAME(byte) (IN((byte) | 32, 'a', 'z') || IN(byte, '0', '9') || (byte) == '-')
#define IS_MARK(byte) \
    ((byte) == '!' || IN(byte, '#', '\'') || (byte) == '*' || (byte) == '+' || (byte) == '.' || \
     (byte) == '^' || (byte) == '_' || (byte) == '`' || (byte) == '|' || (byte) == '~')
#define KIND(byte) \
    ((IS_NAME(byte) ? NAME | TOKEN : 0) | (IS_MARK(byte) ? TOKEN : 0) | \
     (IN(byte, '!', '~') && (byte) != '#' ? TARGET : 0) | \
     (IN(byte, 'A', 'Z') || (byte) == '-' ? METHOD : 0) | (IN(byte, '!', '~') ? VISIBLE : 0))
#define KINDS4(byte) KIND(byte), KIND((byte) + 1), KIND((byte) + 2), KIND((byte) + 3)
#define KINDS16(byte) KINDS4(byte), KINDS4((byte) + 4), KINDS4((byte) + 8), KINDS4((byte) + 12)
#define KINDS64(byte) KINDS16(byte), KINDS16((byte) + 16), KINDS16((byte) + 32), KINDS16((byte) + 48)

static const unsigned char kinds[256] = {KINDS64(0), KINDS64(64), KINDS64(128), KINDS64(192)};

/* Behind the bytes of a kind at data[at:end]. */
static size_t skip(const unsigned char *data, size_t at, size_t end, unsigned kind) {
    while (at < end && kinds[data[at]] & kind) at++;
    return at;
}

#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Whether one of eight bytes is a control byte. */
static bool has_control(const unsigned char *data) {
    uint64_t word;
    memcpy(&word, data, sizeof word);
    uint64_t deleted = word ^ EACH(0x7f);
    uint64_t low = (word - EACH(0x20)) & ~word, zero = (deleted - EACH(1)) & ~deleted;
    return (low | zero) & EACH(0x80);
}

/* Behind the bytes at data[at:end] that are no control bytes. */
static size_t skip_text(const unsigned char *data, size_t at, size_t end) {
    while (end - at >= 8 && !has_control(data + at)) at += 8;
    while (at < end && data[at] >= 0x20 && data[at] != 0x7f) at++;
    return at;
}

static bool is_crlf(const unsigned char *data, size_t at, size_t end) {
    return end - at >= 2 && data[at] == '\r' && data[at + 1] == '\n';
}

static bool begins(const unsigned char *data, size_t at, size_t end, const char *word, size_t size) {
    return end - at >= size && memcmp(data + at, word, size) == 0;
}

#define BEGINS(data, at, end, word) begins(data, at, end, word, sizeof(word) - 1)

/* The same without regard to case; `word` is in lower case, of letters, digits and hyphens. */
static bool is_like(const unsigned char *data, size_t at, size_t end, const char *word, size_t size) {
    if (end - at < size) return false;
    for (size_t n = 0; n < size; n++) {
        unsigned byte = data[at + n];
        if ((IN(byte, 'A', 'Z') ? byte | 32 : byte) != (unsigned char)word[n]) return false;
    }
    return true;
}

#define IS_LIKE(data, at, end, word) is_like(data, at, end, word, sizeof(word) - 1)

/* Whether data[at:end] begins with keep-alive; K and A may be capital. */
static bool is_keep_alive(const unsigned char *data, size_t at, size_t end) {
    return end - at >= KEEP_ALIVE && (data[at] | 32) == 'k' && BEGINS(data, at + 1, end, "eep-") &&
           (data[at + 5] | 32) == 'a' && BEGINS(data, at + 6, end, "live");
}

/* -- requests -- */

/* Whether a name is one that usual.py leaves to the parsers; some only begin alike. */
static bool is_special(const unsigned char *data, size_t at, size_t end) {
    switch (data[at] | 32) {
    case 'c': return IS_LIKE(data, at, end, "content-length") || IS_LIKE(data, at, end, "connection");
    case 'e': return IS_LIKE(data, at, end, "expect");
    case 'f': return IS_LIKE(data, at, end, "forwarded");
    case 'h': return IS_LIKE(data, at, end, "host") || IS_LIKE(data, at, end, "http2-settings");
    case 'k': return IS_LIKE(data, at, end, "keep-alive");
    case 'p': return IS_LIKE(data, at, end, "proxy-connection");
    case 't':
        return IS_LIKE(data, at, end, "transfer-encoding") || IS_LIKE(data, at, end, "trailer") ||
               (end - at == 2 && IS_LIKE(data, at, end, "te"));
    case 'u': return end - at == 7 && IS_LIKE(data, at, end, "upgrade");
    case 'x': return IS_LIKE(data, at, end, "x-forwarded") || IS_LIKE(data, at, end, "x-real-ip");
    default: return false;
    }
}

/* Note the value at data[at:end] if its line ends there; gives the next line, or 0. */
static size_t note(const unsigned char *data, size_t at, size_t end, size_t size, span_t *value) {
    if (value->size || at == end || !is_crlf(data, end, size)) return 0; /* or it was said before */
    *value = (span_t){at, end - at};
    return end + 2;
}

/* The end of the line at data[at:], which has Host or Connection as they are usual; else 0. */
static size_t read_special(const unsigned char *data, size_t at, size_t size, request_head_t *head) {
    if (BEGINS(data, at, size, "Host: ")) {
        size_t value = at + sizeof "Host: " - 1, end = skip(data, value, size, VISIBLE);
        return end - value <= MOST_HOST ? note(data, value, end, size, &head->host) : 0;
    }
    if (BEGINS(data, at, size, "Connection: ")) {
        size_t value = at + sizeof "Connection: " - 1;
        if (!is_keep_alive(data, value, size)) return 0;
        return note(data, value, value + KEEP_ALIVE, size, &head->connection);
    }
    return 0;
}

/* The end of the line at data[at:] whose name ends at data[colon]; 0 if it is not usual. */
static size_t read_other(const unsigned char *data, size_t colon, size_t size) {
    size_t end = skip_text(data, colon + 1, size);
    return is_crlf(data, end, size) && data[end - 1] != ' ' ? end + 2 : 0;
}

bool read_block(const unsigned char *data, size_t at, size_t size, request_head_t *head) {
    span_t *run = head->runs;
    unsigned fields = 0;
    *head = (request_head_t){.line = at};
    if (!is_crlf(data, at, size)) return false;
    at += 2;
    run->at = at;
    while (at < size && data[at] != '\r') {
        size_t colon = skip(data, at, size, NAME);
        if (colon == at || colon == size || data[colon] != ':' || ++fields > MOST_FIELDS) return false;
        if (is_special(data, at, colon)) {
            if (!(at = read_special(data, at, size, head))) return false;
            *++run = (span_t){at, 0}; /* at most two: each can be noted once */
        } else {
            if (!(at = read_other(data, colon, size))) return false;
            run->size = at - run->at;
        }
    }
    return head->host.size && is_crlf(data, at, size) && at + 2 == size;
}

/* The end of the usual request line that data[:size] begins with; 0: none. */
static size_t read_line(const unsigned char *data, size_t size, bool *is_head) {
    size_t end = skip(data, 0, size, METHOD);
    if (!end || end > MOST_METHOD || !BEGINS(data, end, size, " /")) return 0;
    if (end == sizeof "CONNECT" - 1 && BEGINS(data, 0, size, "CONNECT")) return 0;
    *is_head = end == sizeof "HEAD" - 1 && BEGINS(data, 0, size, "HEAD");
    size_t target = end + 2;
    end = skip(data, target, size, TARGET);
    if (end - target > MOST_TARGET || !BEGINS(data, end, size, " HTTP/1.1")) return 0;
    return end + sizeof " HTTP/1.1" - 1;
}

bool is_usual_line(const unsigned char *data, size_t size, bool *is_head) {
    return size && read_line(data, size, is_head) == size;
}

bool read_request(const unsigned char *data, size_t size, request_head_t *head) {
    bool is_head;
    size_t line = read_line(data, size, &is_head);
    if (!line || !read_block(data, line, size, head)) return false;
    head->is_head = is_head;
    return true;
}

/* -- responses -- */

/* Whether a line's name frames the message or ends the connection, in the pattern's own way. */
static bool frames(const unsigned char *data, size_t at, size_t colon) {
    unsigned first = data[at] | 32;
    if (first != 'c' && first != 't') return false;
    switch (colon - at) {
    case sizeof "ontent-length": return IS_LIKE(data, at + 1, colon, "ontent-length");
    case sizeof "ransfer-encoding": return IS_LIKE(data, at + 1, colon, "ransfer-encoding");
    case sizeof "onnection": return IS_LIKE(data, at + 1, colon, "onnection");
    default: return false;
    }
}

/* Behind the bytes of a value, blanks and tabs among them. */
static size_t skip_value(const unsigned char *data, size_t at, size_t end) {
    at = skip_text(data, at, end);
    while (at < end && data[at] == '\t') at = skip_text(data, at + 1, end);
    return at;
}

/* Read a length without needless zeros; gives the end of its digits, or 0. */
static size_t read_length(const unsigned char *data, size_t at, size_t size, uint64_t *length) {
    size_t begin = at;
    *length = 0;
    for (; at < size && IN(data[at], '0', '9') && at - begin <= MOST_DIGITS; at++)
        *length = *length * 10 + (data[at] - '0');
    bool is_good = at > begin && at - begin <= MOST_DIGITS && (data[begin] != '0' || at == begin + 1);
    return is_good ? at : 0;
}

/* The next line, behind one that frames the message as usual; else 0. */
static size_t read_framing(const unsigned char *data, size_t at, size_t size, bool *is_framed,
                           uint64_t *length) {
    size_t end = 0;
    if (BEGINS(data, at, size, "Content-Length: ") && !*is_framed) {
        end = read_length(data, at + sizeof "Content-Length: " - 1, size, length);
        *is_framed = true;
    } else if (BEGINS(data, at, size, "Connection: ")) {
        size_t value = at + sizeof "Connection: " - 1;
        if (is_keep_alive(data, value, size)) end = value + KEEP_ALIVE;
    }
    return end && is_crlf(data, end, size) ? end + 2 : 0;
}

/* Behind the status line; 0 if it is not one of a response with a body. */
static size_t read_status(const unsigned char *data, size_t size) {
    size_t at = sizeof "HTTP/1.1 200 " - 1;
    if (size <= at || !BEGINS(data, 0, size, "HTTP/1.1 ")) return 0;
    const unsigned char *status = data + sizeof "HTTP/1.1 " - 1;
    if (!IN(status[0], '2', '5') || !IN(status[1], '0', '9') || !IN(status[2], '0', '9')) return 0;
    if (memcmp(status, "204", 3) == 0 || memcmp(status, "304", 3) == 0 || status[3] != ' ') return 0;
    at = skip_value(data, at, size);
    return is_crlf(data, at, size) ? at + 2 : 0;
}

size_t read_response(const unsigned char *data, size_t size, uint64_t *length) {
    size_t at = read_status(data, size);
    bool is_framed = false;
    while (at && at < size && data[at] != '\r') {
        size_t colon = skip(data, at, size, TOKEN);
        if (colon == at || colon == size || data[colon] != ':') return 0;
        if (frames(data, at, colon)) {
            at = read_framing(data, at, size, &is_framed, length);
        } else {
            at = skip_value(data, colon + 1, size);
            at = is_crlf(data, at, size) ? at + 2 : 0;
        }
    }
    return at && is_framed && is_crlf(data, at, size) ? at + 2 : 0;
}
