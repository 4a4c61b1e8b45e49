/* Moves the bytes of plain TCP flows over io_uring, and tells Python what happened.
 *
 * A flow is a slot with two ends: 0 the client, 1 the target. Each end has one recv under way, which
 * goes on by itself (multishot) for MOST_AT_ONCE bytes, with buffers from a pool that all share. What
 * it brings is sent to the other end by one send at a time, which the next io_uring_enter(2) executes
 * and which does not wait. What comes meanwhile is held, MOST_AT_ONCE bytes and one buffer at most.
 * Linux before 6.17 cannot limit a multishot recv: there each recv brings one buffer.
 *
 * All sends of a turn are submitted together (`soon`): first the flows' bytes are read and new targets
 * dialled, then all is sent without a return to user space, at which a receiver that has been woken
 * could take the processor away. What a dialled target gets first is among them.
 *
 * Bytes that an end of stream follows go by send(2) with MSG_MORE and shutdown(2): one segment. The
 * ring would hand each shutdown to a kernel thread. An end often comes a moment after the bytes.
 *
 * There is no policy here. What is unusual stops the flow: its reads are cancelled, and when none is
 * under way Python takes the flow with all that is held of it. A slot's reasons:
 *
 *   FULL    the other end took only a part; the rest is held
 *   BULK    full buffers came in a row: splice is better at that
 *   BROKE   an end was reset or died; which one, the flags say
 *   FAILED  the target could not be connected; what the client said is held
 *   MEMORY  the kernel or we had none
 *   ASKED   Python wanted it
 *   LONELY  one end has ended a while ago: no read is under way that would tell of its reset
 *
 * Slots are freed only when the kernel has nothing to tell of them any more. As a second safeguard
 * each completion names the generation of its slot, as a flow's number does: what Python has still
 * to hear of a flow that it gave up meets no other flow.
 *
 * Nothing that the kernel writes to belongs to a slot: the table may be moved by realloc.
 */
#include "_pairs.h"
#include "../pairs/_dial.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

/* -- what is told -- */

bool make_room(ring_t *self, uint32_t more) {
    if (self->told + more <= self->room) return true;
    uint32_t room = 2 * (self->told + more);
    uint64_t *events = realloc(self->events, room * sizeof *events);
    if (!events) return false;
    self->events = events;
    self->room = room;
    return true;
}

static void tell(ring_t *self, uint32_t at, unsigned kind) {
    if (make_room(self, 1)) /* a batch has its room before it begins: see wait */
        self->events[self->told++] = number_of(self, at) << KIND_BITS | kind;
}

/* -- submissions -- */

static uint64_t name_of(const slot_t *slot, uint32_t at, unsigned operation) {
    return (uint64_t)slot->generation << 32 | (uint64_t)at << 8 | operation;
}

struct io_uring_sqe *next_sqe(ring_t *self) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&self->ring);
    if (!sqe) {
        io_uring_submit(&self->ring);
        sqe = io_uring_get_sqe(&self->ring);
    }
    return sqe;
}

static void prepare_recv(struct io_uring_sqe *sqe, int fd, bool many) {
    io_uring_prep_recv(sqe, fd, NULL, many ? 0 : BUFFER_SIZE, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = GROUP;
    if (!many) return;
    sqe->ioprio |= IORING_RECV_MULTISHOT;
    sqe->file_index = MOST_AT_ONCE; /* `optlen` in newer headers: then it is over */
}

/* Before the target has what comes first, one buffer of the client's is enough. */
void read_end(ring_t *self, uint32_t at, int end, bool is_empty) {
    slot_t *slot = &self->slots[at];
    struct io_uring_sqe *sqe = next_sqe(self);
    if (!sqe) {
        stop(self, at, MEMORY);
        return;
    }
    bool many = slot->joined && !self->once;
    prepare_recv(sqe, slot->end[end].fd, many);
    if (is_empty) sqe->ioprio |= IORING_RECVSEND_POLL_FIRST; /* saves a vain attempt */
    io_uring_sqe_set_data64(sqe, name_of(slot, at, RECV_CLIENT + end));
    slot->end[end].reading = many ? MANY : ONE;
    self->under_way++;
}

static void cancel(ring_t *self, uint32_t at, unsigned operation) {
    struct io_uring_sqe *sqe = next_sqe(self);
    if (!sqe) return; /* it completes with the next bytes, or when the peer gives up */
    io_uring_prep_cancel64(sqe, name_of(&self->slots[at], at, operation), 0);
    io_uring_sqe_set_data64(sqe, CANCEL);
    self->under_way++;
}

void cancel_all(ring_t *self, uint32_t at) {
    slot_t *slot = &self->slots[at];
    for (int end = CLIENT; end <= TARGET; end++)
        if (slot->end[end].reading) cancel(self, at, RECV_CLIENT + end);
    if (slot->connecting) cancel(self, at, CONNECT);
}

static void give_buffer_back(ring_t *self, unsigned id) {
    int mask = io_uring_buf_ring_mask(BUFFERS);
    unsigned char *at = self->buffers + (size_t)id * BUFFER_SIZE;
    io_uring_buf_ring_add(self->pool, at, BUFFER_SIZE, id, mask, 0);
    io_uring_buf_ring_advance(self->pool, 1);
}

/* -- slots -- */

uint64_t number_of(const ring_t *self, uint32_t at) {
    return (uint64_t)self->slots[at].generation << SLOT_BITS | at;
}

slot_t *find(ring_t *self, uint64_t number) {
    uint32_t at = number & (MOST_SLOTS - 1);
    slot_t *slot = at < self->count ? &self->slots[at] : NULL;
    bool is_there = slot && slot->state != FREE && slot->state != CLOSING;
    return is_there && slot->generation == number >> SLOT_BITS ? slot : NULL;
}

bool grow(ring_t *self) {
    uint32_t count = self->count ? 2 * self->count : FIRST_SLOTS;
    if (count > MOST_SLOTS) return false;
    slot_t *slots = realloc(self->slots, count * sizeof *slots);
    if (!slots) return false;
    self->slots = slots;
    uint32_t *soon = realloc(self->soon, 2 * count * sizeof *soon);
    if (!soon) return false;
    self->soon = soon;
    memset(slots + self->count, 0, (count - self->count) * sizeof *slots);
    for (uint32_t at = self->count; at < count; at++)
        slots[at].next = at + 1 < count ? at + 1 : self->free;
    self->free = self->count;
    self->count = count;
    return true;
}

void forget(ring_t *self, uint32_t at) {
    slot_t *slot = &self->slots[at];
    PyObject *owner = slot->owner;
    for (int end = CLIENT; end <= TARGET; end++) free(slot->end[end].held);
    free(slot->first);
    memset(slot->end, 0, sizeof slot->end);
    slot->first = NULL;
    slot->owner = NULL;
    Py_CLEAR(slot->address);
    slot->generation++;
    slot->state = FREE;
    slot->next = self->free;
    self->free = at;
    self->active--;
    Py_XDECREF(owner); /* last: it may call us */
}

bool is_quiet(const slot_t *slot) {
    const end_t *client = &slot->end[CLIENT], *target = &slot->end[TARGET];
    return !(client->reading || target->reading || client->sending || target->sending ||
             slot->connecting || slot->greeting);
}

/* An operation has completed: was it the last one that a stop or a close waits for? */
void settle(ring_t *self, uint32_t at) {
    slot_t *slot = &self->slots[at];
    if (!is_quiet(slot)) return;
    if (slot->state == STOPPING) {
        slot->state = STANDING;
        tell(self, at, STOPPED);
    } else if (slot->state == CLOSING) {
        close(slot->end[CLIENT].fd);
        close(slot->end[TARGET].fd);
        forget(self, at);
    }
}

void stop(ring_t *self, uint32_t at, int reason) {
    slot_t *slot = &self->slots[at];
    if (slot->state == STOPPING || slot->state == CLOSING) return; /* the first reason counts */
    slot->state = STOPPING;
    slot->reason = reason;
    cancel_all(self, at);
}

void broke(ring_t *self, uint32_t at, int end, int error) {
    slot_t *slot = &self->slots[at];
    slot->end[end].broke = 1;
    slot->error = error;
    stop(self, at, BROKE);
}

/* -- moving bytes -- */

/* Hold bytes of a direction: behind the others, or before them. */
static void hold(ring_t *self, uint32_t at, int end, const unsigned char *data, size_t size,
                 bool before) {
    end_t *here = &self->slots[at].end[end];
    unsigned char *held = realloc(here->held, here->held_size + size);
    if (!held) { /* bytes are lost: the flow cannot go on */
        here->broke = 1;
        stop(self, at, MEMORY);
        return;
    }
    if (before) memmove(held + size, held, here->held_size);
    memcpy(held + (before ? 0 : here->held_size), data, size);
    here->held = held;
    here->held_size += size;
}

static void hold_no_more(end_t *here) {
    free(here->held);
    here->held = NULL;
    here->held_size = 0;
}

static ssize_t send_now(int fd, const unsigned char *data, size_t size, int more) {
    ssize_t sent = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL | more);
    return sent < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : sent;
}

/* Send these bytes at once. The rest of them is held, and the flow stops. */
static void write_now(ring_t *self, uint32_t at, int end, const unsigned char *data, size_t size,
                      int more) {
    end_t *here = &self->slots[at].end[end];
    ssize_t sent = send_now(self->slots[at].end[OTHER(end)].fd, data, size, more);
    if (sent < 0) {
        broke(self, at, OTHER(end), errno);
        return;
    }
    here->moved += sent;
    if ((size_t)sent == size) return;
    hold(self, at, end, data + sent, size - sent, false);
    stop(self, at, FULL);
}

/* Let the next enter send a buffer; an end that comes before it goes in the same segment. */
static void send_soon(ring_t *self, uint32_t at, int end, unsigned id, size_t size) {
    slot_t *slot = &self->slots[at];
    slot->end[end].sending = size;
    slot->end[end].buffer = id;
    self->soon[self->waiting++] = at << 1 | end; /* has room for all: see grow */
    if (end == TARGET && !slot->end[end].moved) self->asks = true;
}

/* Pass a buffer's bytes on. True: the buffer is still in use. */
static bool pass_on(ring_t *self, uint32_t at, int end, unsigned id, size_t size) {
    slot_t *slot = &self->slots[at];
    end_t *here = &slot->end[end];
    const unsigned char *data = self->buffers + (size_t)id * BUFFER_SIZE;
    if (slot->end[OTHER(end)].broke || slot->state == CLOSING) return false; /* nobody takes it */
    if (size < BUFFER_SIZE)
        here->full = 0;
    else if (here->full < BULK_AFTER)
        here->full++;
    bool waits = slot->joined && !here->held && !here->sending;
    if (waits)
        send_soon(self, at, end, id, size);
    else
        hold(self, at, end, data, size, false);
    if (slot->joined && here->full >= BULK_AFTER) stop(self, at, BULK);
    return waits;
}

static void pass_end_on(ring_t *self, uint32_t at, int end) {
    slot_t *slot = &self->slots[at];
    end_t *here = &slot->end[end], *there = &slot->end[OTHER(end)];
    if (here->broke) return; /* a failed send has taken the error, and recv gives 0 in its place */
    here->ended = 1;
    if (!slot->joined || here->held || here->sending) return; /* once the rest is sent */
    if (there->ended && !there->held && !there->sending) {
        if (slot->state == MOVING) {
            slot->state = FINISHING;
            tell(self, at, FINISHED);
        }
    } else if (slot->state != CLOSING && shutdown(there->fd, SHUT_WR) < 0) {
        broke(self, at, OTHER(end), errno);
    }
}

/* A send is over: what was held meanwhile follows, and an end behind it. */
static void was_sent(ring_t *self, uint32_t at, int end, int result) {
    slot_t *slot = &self->slots[at];
    end_t *here = &slot->end[end];
    const unsigned char *data = self->buffers + (size_t)here->buffer * BUFFER_SIZE;
    uint32_t size = here->sending, sent = result < 0 ? 0 : result;
    here->sending = 0;
    if (sent > size) sent = size;
    here->moved += sent;
    if (result < 0 && result != -EAGAIN && result != -EINTR && slot->state != CLOSING) {
        broke(self, at, OTHER(end), -result);
    } else if (sent < size) {
        hold(self, at, end, data + sent, size - sent, true);
        stop(self, at, FULL);
    } else if (here->held && slot->state != CLOSING) {
        unsigned char *held = here->held;
        uint32_t held_size = here->held_size;
        here->held = NULL;
        here->held_size = 0;
        write_now(self, at, end, held, held_size, here->ended ? MSG_MORE : 0);
        free(held);
    }
    give_buffer_back(self, here->buffer);
    if (here->ended && slot->state != CLOSING) pass_end_on(self, at, end);
}

static bool is_failure(int result) {
    return result < 0 && result != -ENOBUFS && result != -EAGAIN && result != -EINTR &&
           result != -ECANCELED;
}

static void received(ring_t *self, uint32_t at, int end, int result, unsigned flags) {
    slot_t *slot = &self->slots[at];
    bool is_unknown = result == -EINVAL && slot->end[end].reading == MANY; /* before Linux 6.17 */
    if (!(flags & IORING_CQE_F_MORE)) slot->end[end].reading = 0;
    if (flags & IORING_CQE_F_BUFFER) {
        unsigned id = flags >> IORING_CQE_BUFFER_SHIFT;
        bool is_data = id < BUFFERS && result > 0 && result <= BUFFER_SIZE;
        if (!(is_data && pass_on(self, at, end, id, result)) && id < BUFFERS)
            give_buffer_back(self, id);
    }
    if (result == 0)
        pass_end_on(self, at, end);
    else if (is_unknown)
        self->once = true;
    else if (is_failure(result))
        broke(self, at, end, -result);
    if (slot->end[end].reading) return;
    if (slot->state == MOVING && !slot->end[end].ended)
        read_end(self, at, end, result > 0 && !(flags & IORING_CQE_F_SOCK_NONEMPTY));
    else if (slot->state == CONNECTING && result < 0)
        read_end(self, at, end, false);
}

/* -- the connection to the target -- */

/* Put what the client has said behind the header. False: there was no memory. */
static bool gather_first(ring_t *self, uint32_t at) {
    slot_t *slot = &self->slots[at];
    end_t *client = &slot->end[CLIENT];
    if (!client->held_size) return true;
    unsigned char *first = realloc(slot->first, slot->first_size + client->held_size);
    if (!first) {
        stop(self, at, MEMORY);
        return false;
    }
    memcpy(first + slot->first_size, client->held, client->held_size);
    slot->first = first;
    slot->first_size += client->held_size;
    hold_no_more(client);
    slot->said = 1;
    return true;
}

/* The target took so much of what comes first. The rest is held, and the flow stops. */
static void first_was_taken(ring_t *self, uint32_t at, uint32_t sent) {
    slot_t *slot = &self->slots[at];
    if (sent > slot->first_size) sent = slot->first_size;
    slot->end[CLIENT].moved = (int64_t)sent - slot->header_size;
    if (sent < slot->first_size) {
        hold(self, at, CLIENT, slot->first + sent, slot->first_size - sent, false);
        stop(self, at, FULL);
    }
    free(slot->first);
    slot->first = NULL;
    slot->first_size = 0;
}

/* Send the header and what the client has said in one segment. False: the target is gone.
 *
 * `first` is empty afterwards unless the target took nothing. */
static bool send_first(ring_t *self, uint32_t at) {
    slot_t *slot = &self->slots[at];
    if (!gather_first(self, at) || !slot->first_size) return true;
    ssize_t sent = send_now(slot->end[TARGET].fd, slot->first, slot->first_size, 0);
    if (sent > 0) first_was_taken(self, at, sent);
    return sent >= 0;
}

static void failed(ring_t *self, uint32_t at, int error) {
    self->slots[at].error = error;
    stop(self, at, FAILED);
}

/* The target is there, and has what was to come first: move bytes from here on. */
static void begin(ring_t *self, uint32_t at, bool is_empty) {
    slot_t *slot = &self->slots[at];
    slot->joined = 1;
    if (slot->end[CLIENT].ended) pass_end_on(self, at, CLIENT);
    for (int end = CLIENT; end <= TARGET; end++)
        if (slot->state == MOVING && !slot->end[end].ended && !slot->end[end].reading)
            read_end(self, at, end, is_empty);
}

/* Read what the client has said already, without waiting. False: it was reset; see errno. */
bool read_first(ring_t *self, uint32_t at) {
    end_t *client = &self->slots[at].end[CLIENT];
    ssize_t size = recv(client->fd, self->scratch, BUFFER_SIZE, MSG_DONTWAIT);
    if (size > 0)
        hold(self, at, CLIENT, self->scratch, size, false);
    else if (size == 0)
        client->ended = 1;
    return size >= 0 || errno == EAGAIN || errno == EINTR;
}

/* Across a bridge or loopback the handshake is done when connect(2) returns: write at once. */
void try_at_once(ring_t *self, uint32_t at) {
    slot_t *slot = &self->slots[at];
    if (slot->state != CONNECTING) return; /* no memory for what the client has said */
    if (!slot->first_size && !slot->end[CLIENT].held_size) return; /* a write would tell nothing */
    slot->state = MOVING;
    if (!send_first(self, at))
        failed(self, at, errno);
    else if (slot->state == MOVING && slot->first_size)
        slot->state = CONNECTING; /* not one byte was taken */
    else
        begin(self, at, true);
}

/* Let the next enter send what comes first: no return to user space, at which the woken target could
 * take the processor away, before the other flows of this batch have been dialled. */
static void greet_soon(ring_t *self, uint32_t at) {
    slot_t *slot = &self->slots[at];
    if (!gather_first(self, at) || !slot->first_size) return; /* a write would tell nothing */
    slot->greeting = 1;
    self->soon[self->waiting++] = at << 1 | CLIENT;
}

static void wait_for_target(ring_t *self, uint32_t at) {
    slot_t *slot = &self->slots[at];
    struct io_uring_sqe *sqe = next_sqe(self);
    if (!sqe) {
        stop(self, at, MEMORY);
        return;
    }
    io_uring_prep_poll_add(sqe, slot->end[TARGET].fd, POLLOUT);
    io_uring_sqe_set_data64(sqe, name_of(slot, at, CONNECT));
    slot->connecting = 1;
    self->under_way++;
    end_t *client = &slot->end[CLIENT];
    if (!client->ended && !client->held_size && !slot->said) read_end(self, at, CLIENT, true);
}

/* What comes first was sent: it tells whether the target is connected. */
static void greeted(ring_t *self, uint32_t at, int result) {
    slot_t *slot = &self->slots[at];
    bool goes_on = slot->state == CONNECTING;
    slot->greeting = 0;
    if (result > 0) {
        if (goes_on) slot->state = MOVING;
        first_was_taken(self, at, result);
        begin(self, at, true);
    } else if (goes_on && (result == 0 || result == -EAGAIN || result == -EINTR)) {
        wait_for_target(self, at);
        tell(self, at, WAITING);
    } else if (goes_on) {
        failed(self, at, -result);
    }
}

static void connected(ring_t *self, uint32_t at, int result) {
    slot_t *slot = &self->slots[at];
    slot->connecting = 0;
    if (slot->state != CONNECTING) return;
    if (result < 0) {
        failed(self, at, -result);
        return;
    }
    int error = 0;
    socklen_t size = sizeof error;
    if (result & (POLLERR | POLLHUP) &&
        (getsockopt(slot->end[TARGET].fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error)) {
        failed(self, at, error ? error : errno);
        return;
    }
    slot->state = MOVING;
    if (!send_first(self, at)) {
        failed(self, at, errno);
        return;
    }
    if (slot->first_size) { /* writable, and yet it took nothing: the rest is for others */
        hold(self, at, CLIENT, slot->first, slot->first_size, false);
        slot->first_size = 0;
        slot->end[CLIENT].moved = -(int64_t)slot->header_size;
        stop(self, at, FULL);
    }
    tell(self, at, CONNECTED);
    begin(self, at, false);
}

/* Keep what the target gets before anything that is read from the client. */
bool keep_first(slot_t *slot, const char *first, Py_ssize_t size, uint32_t header_size) {
    if (size && !(slot->first = malloc(size))) return false;
    if (size) memcpy(slot->first, first, size);
    slot->first_size = size;
    slot->header_size = header_size;
    slot->said = size > header_size; /* then its bytes have been read already */
    slot->state = CONNECTING;
    slot->joined = 0;
    return true;
}

void wait_if_not_joined(ring_t *self, uint32_t at) {
    if (self->slots[at].state == CONNECTING && !self->slots[at].greeting) wait_for_target(self, at);
    settle(self, at);
}

/* Connect, without waiting. A failure stops the flow; it is told as one that comes later. */
static void connect_target(ring_t *self, uint32_t at) {
    slot_t *slot = &self->slots[at];
    const struct sockaddr *address = (const struct sockaddr *)PyBytes_AsString(slot->address);
    bool speaks = slot->first_size || slot->end[CLIENT].held_size;
    if (connect_to(slot->end[TARGET].fd, address, PyBytes_Size(slot->address), slot->hop_limit,
                   speaks) < 0)
        failed(self, at, errno);
    else
        greet_soon(self, at);
    Py_CLEAR(slot->address);
}

/* Read what the client has said, and connect. Whoever says nothing yet is read again before the next
 * enter: by then its first bytes are here often, which save an acknowledgement and a wait. */
void dial(ring_t *self, uint32_t at) {
    slot_t *slot = &self->slots[at];
    end_t *client = &slot->end[CLIENT];
    bool is_again = slot->greeting;
    slot->greeting = 0;
    if (!read_first(self, at)) {
        broke(self, at, CLIENT, errno);
    } else if (slot->state != CONNECTING) { /* no memory for what the client has said */
        return;
    } else if (client->held_size || client->ended || is_again) {
        connect_target(self, at);
    } else {
        slot->greeting = 1;
        self->soon[self->waiting++] = at << 1 | CLIENT;
    }
}

/* -- what is sent -- */

static void dial_again(ring_t *self, uint32_t at) {
    slot_t *slot = &self->slots[at];
    if (slot->state == CONNECTING) dial(self, at);
    slot->greeting = slot->greeting && slot->state == CONNECTING;
    if (slot->state != CONNECTING || slot->greeting) return;
    wait_for_target(self, at);
    tell(self, at, WAITING);
}

static void sent(ring_t *self, uint32_t at, int end, int result) {
    if (self->slots[at].greeting)
        greeted(self, at, result);
    else
        was_sent(self, at, end, result);
}

/* Let the next enter send what waits for that, unless its end has come meanwhile. */
static void send_all(ring_t *self) {
    for (uint32_t i = 0; i < self->waiting; i++) {
        uint32_t at = self->soon[i] >> 1;
        int end = self->soon[i] & 1;
        slot_t *slot = &self->slots[at];
        end_t *here = &slot->end[end];
        int fd = slot->end[OTHER(end)].fd;
        bool is_first = slot->greeting, is_last = !is_first && here->ended && !here->held;
        const unsigned char *data = self->buffers + (size_t)here->buffer * BUFFER_SIZE;
        uint32_t size = is_first ? slot->first_size : here->sending;
        if (is_first) data = slot->first;
        struct io_uring_sqe *sqe = NULL;
        if (slot->state == CLOSING) {
            sent(self, at, end, -ECANCELED);
        } else if (slot->address) {
            dial_again(self, at);
        } else if (is_last || !(sqe = next_sqe(self))) {
            ssize_t result = send_now(fd, data, size, is_last ? MSG_MORE : 0);
            sent(self, at, end, result < 0 ? -errno : result);
        } else {
            io_uring_prep_send(sqe, fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
            io_uring_sqe_set_data64(sqe, name_of(slot, at, SEND_CLIENT + end));
            self->under_way++;
            self->sends++;
        }
        settle(self, at);
    }
    self->waiting = 0;
}

/* -- completions -- */

static void complete(ring_t *self, const struct io_uring_cqe *cqe) {
    unsigned operation = cqe->user_data & 0xFF, flags = cqe->flags;
    uint32_t at = cqe->user_data >> 8 & 0xFFFFFF;
    if (operation == POLL) {
        if (make_room(self, 1)) self->events[self->told++] = READABLE;
        return;
    }
    if (!(flags & IORING_CQE_F_MORE)) self->under_way--;
    if (operation == SEND_CLIENT || operation == SEND_TARGET) self->sends--;
    if (operation > CONNECT || at >= self->count) return; /* a CANCEL is of no interest */
    if (operation <= RECV_TARGET) self->heard++;
    slot_t *slot = &self->slots[at];
    if (slot->state == FREE || slot->generation != (uint32_t)(cqe->user_data >> 32)) {
        if (flags & IORING_CQE_F_BUFFER && flags >> IORING_CQE_BUFFER_SHIFT < BUFFERS)
            give_buffer_back(self, flags >> IORING_CQE_BUFFER_SHIFT);
        return;
    }
    if (operation == CONNECT)
        connected(self, at, cqe->res);
    else if (operation >= SEND_CLIENT)
        sent(self, at, operation - SEND_CLIENT, cqe->res);
    else
        received(self, at, operation - RECV_CLIENT, cqe->res, flags);
    settle(self, at);
}

unsigned take_completions(ring_t *self) {
    struct io_uring_cqe *cqes[BATCH];
    unsigned count = io_uring_peek_batch_cqe(&self->ring, cqes, BATCH);
    for (unsigned i = 0; i < count; i++) {
        struct io_uring_cqe cqe = *cqes[i];
        complete(self, &cqe);
    }
    io_uring_cq_advance(&self->ring, count);
    return count;
}

/* Have what waits sent by the next enter, unless there is an end for its segment by now.
 *
 * A target's first bytes are often its last. Of others an end is too rare to be asked for. */
void prepare(ring_t *self) {
    if (self->asks) take_completions(self);
    self->asks = false;
    send_all(self);
}

/* Submit, and wait for that time at most. Gives 0 or a negative errno.
 *
 * Sends are complete when they are submitted: wait for something else beside them. */
int submit(ring_t *self, double seconds) {
    if (seconds <= 0) return io_uring_submit_and_get_events(&self->ring);
    struct io_uring_cqe *cqe;
    struct __kernel_timespec most = {
        .tv_sec = (int64_t)seconds,
        .tv_nsec = (int64_t)((seconds - (double)(int64_t)seconds) * 1e9),
    };
    return io_uring_submit_and_wait_timeout(&self->ring, &cqe, self->sends + 1, &most, NULL);
}

/* -- the beginning and the end -- */

static int restrict_to_what_is_used(struct io_uring *ring) {
    struct io_uring_restriction allowed[] = {
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_RECV},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_SEND},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_POLL_ADD},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_ASYNC_CANCEL},
        {.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_BUFFER_SELECT},
    };
    /* Not by io_uring_register_restrictions(): the library of Debian 12 forgets to export it. */
    return io_uring_register(ring->ring_fd, IORING_REGISTER_RESTRICTIONS, allowed,
                             sizeof allowed / sizeof *allowed);
}

static int add_pool(ring_t *self) {
    size_t size = (size_t)BUFFERS * BUFFER_SIZE, table = BUFFERS * sizeof(struct io_uring_buf);
    int shared = MAP_PRIVATE | MAP_ANONYMOUS;
    void *pool = mmap(NULL, table, PROT_READ | PROT_WRITE, shared, -1, 0);
    if (pool == MAP_FAILED) return -errno;
    self->pool = pool;
    void *buffers = mmap(NULL, size, PROT_READ | PROT_WRITE, shared, -1, 0);
    if (buffers == MAP_FAILED) return -errno;
    self->buffers = buffers;
    struct io_uring_buf_reg place = {
        .ring_addr = (uintptr_t)pool, .ring_entries = BUFFERS, .bgid = GROUP};
    int result = io_uring_register_buf_ring(&self->ring, &place, 0);
    if (result < 0) return result;
    io_uring_buf_ring_init(self->pool);
    for (unsigned id = 0; id < BUFFERS; id++) give_buffer_back(self, id);
    return 0;
}

int open_ring(ring_t *self) {
    struct io_uring_params params = {
        .flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_CQSIZE |
                 IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                 IORING_SETUP_SUBMIT_ALL, /* what follows an operation that is refused, too */
        .cq_entries = COMPLETIONS,
    };
    int result = io_uring_queue_init_params(ENTRIES, &self->ring, &params);
    if (result < 0) return result;
    self->is_open = true;
    self->opener = getpid();
    if (!(params.features & IORING_FEAT_NODROP && params.features & IORING_FEAT_EXT_ARG))
        return -ENOSYS;
    if ((self->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0) return -errno;
    if ((result = io_uring_register_eventfd(&self->ring, self->bell)) < 0) return result;
    if ((result = add_pool(self)) < 0 || (result = restrict_to_what_is_used(&self->ring)) < 0)
        return result;
    result = io_uring_register(self->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    if (result == 0) io_uring_cq_eventfd_toggle(&self->ring, false);
    return result;
}

/* Close what is left, and wait for the kernel to let go of it: a second at most. False: it did not. */
static bool let_go(ring_t *self) {
    for (uint32_t at = 0; at < self->count; at++)
        if (self->slots[at].state != FREE) {
            bool waits = self->slots[at].state != STOPPING && self->slots[at].state != CLOSING;
            self->slots[at].state = CLOSING;
            if (waits) cancel_all(self, at);
            settle(self, at);
        }
    send_all(self); /* nothing: it lets go of the flows */
    for (int tries = 0; self->under_way && tries < 100; tries++) {
        submit(self, 0.01);
        take_completions(self);
        self->told = 0;
    }
    return !self->under_way;
}

/* A child of the process that opened it shares the queues, but neither submits nor completes: what it
 * took of them would be lacking there. So does another thread, which the kernel refuses. */
void close_ring(ring_t *self) {
    if (!self->is_open) return;
    self->is_open = false; /* an owner that goes away may call us */
    bool is_quiet = getpid() == self->opener && let_go(self);
    io_uring_queue_exit(&self->ring);
    if (self->bell >= 0) close(self->bell);
    for (uint32_t at = 0; at < self->count; at++)
        if (self->slots[at].state != FREE) {
            close(self->slots[at].end[CLIENT].fd);
            close(self->slots[at].end[TARGET].fd);
            forget(self, at);
        }
    if (!is_quiet) return; /* the kernel may write to the buffers still: they are left to it */
    if (self->buffers) munmap(self->buffers, (size_t)BUFFERS * BUFFER_SIZE);
    if (self->pool) munmap(self->pool, BUFFERS * sizeof(struct io_uring_buf));
}
