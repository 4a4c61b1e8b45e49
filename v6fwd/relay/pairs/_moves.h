/* What _moves.c does with pairs, for _epoll.c, which is Python's side of it. */
#ifndef V6FWD_MOVES_H
#define V6FWD_MOVES_H

#include "_contract.h"

#include <sys/epoll.h>

enum { COPY_SIZE = 64 * 1024, FIRST_SIZE = 16 * 1024, BULK_AFTER = 2, BATCH = 256 };
enum { MOST_TOLD = 3 }; /* of one pair: connected; finished; stopped */

/* The descriptor whose events tell of pairs. */
enum { PAIRS = -1 };

enum { FREE, CONNECTING, MOVING, FINISHING, STANDING };

#define READS (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET)
#define IS_PAIR (1ULL << 63) /* in the epoll's data: number << 1 | end; else a descriptor */
#define IS_TIMER (1ULL << 62)

typedef struct {
    int64_t moved; /* bytes read here that the other end has taken; headers are not counted */
    int fd;
    uint8_t ended; /* the end of stream was read */
    uint8_t broke;
    uint8_t full;  /* full buffers in a row */
} end_t;

typedef struct {
    end_t end[2];
    PyObject *owner;      /* who hears of it */
    unsigned char *first; /* what the target gets first, until it has it */
    unsigned char *held;  /* what it, or the client, did not take */
    uint32_t first_size;
    uint32_t header_size;
    uint32_t held_size;
    uint32_t generation;
    uint32_t next;        /* of the free ones */
    int error;
    uint8_t state;
    uint8_t reason;
    uint8_t holder;       /* the end where `held` was read */
    uint8_t joined;       /* the target has what was to come first */
    uint32_t since;       /* the poll in which Python gave it up; 0: it never watched it */
} slot_t;

typedef struct {
    uint64_t what; /* a mask; number << KIND_BITS | kind */
    int who;       /* a descriptor of Python's, or PAIRS */
} event_t;

typedef struct {
    PyObject_HEAD
    slot_t *slots;
    event_t *events;   /* to be told */
    uint32_t told, room;
    uint32_t count;    /* slots in the table */
    uint32_t free;     /* the first free one */
    uint32_t active;   /* slots in use */
    uint32_t polls;    /* counted from 1 */
    uint32_t heard;    /* events of pairs, and begins fourfold, since the last wait */
    double load;       /* what a wait brings of them, smoothed */
    bool leaving;      /* pairs are asked to stop by their next event */
    int fd;
    int timer;         /* a timerfd, which the epoll watches */
    double timed;      /* what it was set to, in seconds; 0: it has ended */
    struct epoll_event ready[BATCH];
    unsigned char buffer[COPY_SIZE + FIRST_SIZE]; /* through which all bytes go */
} epoll_t;

#pragma GCC visibility push(hidden)

/* More slots. */
bool grow(epoll_t *self);
/* Room for so many events beside those of the pairs. */
bool make_room(epoll_t *self, uint32_t more);
uint64_t number_of(const epoll_t *self, const slot_t *slot);
/* NULL: it has been given back. */
slot_t *find(epoll_t *self, uint64_t number);
/* Give a slot back; its descriptors have another owner, or none. */
void forget(epoll_t *self, slot_t *slot);
/* Do what an event asks for, or keep it to be told. */
void take(epoll_t *self, const struct epoll_event *event);
/* Give both ends back: to be told. */
void stop(epoll_t *self, slot_t *slot, int reason);
/* Move bytes from here on: both are connected, and watched by Python until now. */
void take_over(epoll_t *self, slot_t *slot);
/* Move bytes once the target is connected, which has got `first` by then. */
void connect_pair(epoll_t *self, slot_t *slot, const void *first, size_t size);
/* The same with a socket that is not being connected yet. */
void dial(epoll_t *self, slot_t *slot, const struct sockaddr *address, socklen_t size,
          int hop_limit, const void *header);

#pragma GCC visibility pop

#endif
