/* Finds the parts of usual heads in place, by the grammar of the patterns in usual.py and usual_response.py.
 *
 * The bytes are a stranger's: an index is compared with the end before it is used, nothing is
 * allocated and nothing is written but the result.
 */
#ifndef V6FWD_HEADS_H
#define V6FWD_HEADS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of a request's block, as memo.py: USUAL_BLOCK; with a usual line it stays below 16 KiB. */
enum { USUAL_BLOCK = 8192 };

typedef struct {
    size_t at, size;
} span_t;

/* Host and Connection can each stand between two others. */
enum { MOST_RUNS = 3 };

typedef struct {
    size_t line;            /* bytes of the request line without its CRLF */
    bool is_head;           /* the method is HEAD */
    span_t host;            /* values; a field that is missing has 0 bytes */
    span_t connection;
    span_t runs[MOST_RUNS]; /* the lines of the other fields, in their order */
} request_head_t;

#pragma GCC visibility push(hidden)

/* Whether all of data[:size] is a usual request line. Sets `is_head` if so. */
bool is_usual_line(const unsigned char *data, size_t size, bool *is_head);
/* Whether all of data[at:size] is a usual block, from the CRLF of the request line to the empty line. */
bool read_block(const unsigned char *data, size_t at, size_t size, request_head_t *head);
/* Whether all of data[:size] is a usual head. */
bool read_request(const unsigned char *data, size_t size, request_head_t *head);
/* The end of the usual response head that data[:size] begins with, and the length of its body; 0: none. */
size_t read_response(const unsigned char *data, size_t size, uint64_t *length);

#pragma GCC visibility pop

#endif
