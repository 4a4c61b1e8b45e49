/* What _pairs.c does with the flows of a ring, for _ring.c, which is Python's side of it. */
#ifndef V6FWD_PAIRS_H
#define V6FWD_PAIRS_H

#include "../pairs/_contract.h"

#include <liburing.h>
#include <poll.h>
#include <unistd.h>

enum { BUFFERS = 256, BUFFER_SIZE = 16 * 1024, GROUP = 0 }; /* 4 MiB, touched when used */
enum { ENTRIES = 1024, COMPLETIONS = 8192, BATCH = 256 };
enum { MOST_AT_ONCE = 4 * BUFFER_SIZE, BULK_AFTER = 2 };

/* What a completion is about: user_data is generation (32 bits), slot (24), operation (8). */
enum {
    RECV_CLIENT = CLIENT,
    RECV_TARGET = TARGET,
    SEND_CLIENT, /* what the client said, to the target */
    SEND_TARGET,
    CONNECT,
    POLL,
    CANCEL
};

enum { ONE = 1, MANY }; /* how a recv reads */
enum { FREE, CONNECTING, MOVING, FINISHING, STOPPING, STANDING, CLOSING };

typedef struct {
    int64_t moved;    /* bytes read here that the other end has taken; headers are not counted */
    unsigned char *held;
    uint32_t held_size;
    uint32_t sending; /* bytes of a send to the other end that is under way, 0: none is */
    int fd;
    uint16_t buffer;  /* where they are */
    uint8_t reading;  /* a recv is under way: ONE buffer or MANY */
    uint8_t ended;    /* the end of stream was read */
    uint8_t broke;
    uint8_t full;     /* full buffers in a row */
} end_t;

typedef struct {
    end_t end[2];
    PyObject *owner;      /* who hears of it */
    PyObject *address;    /* of the target, until it is dialled: a struct sockaddr */
    unsigned char *first; /* what the target gets before the client's bytes */
    uint32_t first_size;
    uint32_t header_size;
    uint32_t generation;
    uint32_t next;        /* of the free ones */
    int error;
    int hop_limit;
    uint8_t state;
    uint8_t reason;
    uint8_t connecting;   /* the poll for the target's connection is under way */
    uint8_t greeting;     /* what comes first is to be sent by the next enter */
    uint8_t lonely;       /* one end had ended at the last sweep */
    uint8_t said;         /* the client's bytes are in `first` already: no more until connected */
    uint8_t joined;       /* what comes first is on its way to the target */
} slot_t;

typedef struct {
    PyObject_HEAD
    struct io_uring ring;
    struct io_uring_buf_ring *pool;
    unsigned char *buffers;
    slot_t *slots;
    uint32_t count;     /* slots in the table */
    uint32_t free;      /* the first free one, NONE if there is none */
    uint32_t active;    /* slots in use */
    uint32_t under_way; /* operations whose completion is to come, polls of Python's not counted */
    uint32_t sends;     /* sends among them */
    uint32_t *soon;     /* (slot << 1) | end of what is to be sent by the next enter */
    uint32_t waiting;   /* of these */
    uint64_t *events;
    uint32_t told, room;
    uint32_t heard;     /* reads of flows, and begins fourfold, since Python has asked */
    uint32_t waits;     /* since then */
    unsigned char scratch[BUFFER_SIZE];
    int bell;           /* an eventfd, which the kernel rings while we rest */
    bool asks;          /* an end may have come for what is to be sent */
    bool rests;
    pid_t opener;       /* the process whose ring it is: a child of it has a copy */
    bool is_open;
    bool once;          /* the kernel knows no limit for a multishot recv */
} ring_t;

/* Of each flow: waiting, connected, and finished or stopped; and that the epoll can be read. */
#define MOST_TOLD(ring) (3 * (ring)->active + 1)

#pragma GCC visibility push(hidden)

/* The ring itself, with its pool. Gives 0 or a negative errno. */
int open_ring(ring_t *self);
void close_ring(ring_t *self);
void prepare(ring_t *self);
int submit(ring_t *self, double seconds);
unsigned take_completions(ring_t *self);
/* Room for so many events more. */
bool make_room(ring_t *self, uint32_t more);
/* NULL: the ring is full. */
struct io_uring_sqe *next_sqe(ring_t *self);
/* More slots. */
bool grow(ring_t *self);
uint64_t number_of(const ring_t *self, uint32_t at);
/* NULL: it has been given back. */
slot_t *find(ring_t *self, uint64_t number);
/* Give a slot back; its descriptors have another owner, or none. */
void forget(ring_t *self, uint32_t at);
bool is_quiet(const slot_t *slot);
void settle(ring_t *self, uint32_t at);
bool keep_first(slot_t *slot, const char *first, Py_ssize_t size, uint32_t header_size);
bool read_first(ring_t *self, uint32_t at);
void try_at_once(ring_t *self, uint32_t at);
void dial(ring_t *self, uint32_t at);
void wait_if_not_joined(ring_t *self, uint32_t at);
void read_end(ring_t *self, uint32_t at, int end, bool is_empty);
/* Stop a flow: it is told once nothing of it is under way. */
void stop(ring_t *self, uint32_t at, int reason);
void broke(ring_t *self, uint32_t at, int end, int error);
void cancel_all(ring_t *self, uint32_t at);

#pragma GCC visibility pop

#endif
