/* Moves the bytes of plain TCP flows over the epoll in which Python watches its descriptors.
 *
 * Python registers descriptors as with select.epoll, and gets their events. Beside these there are
 * pairs: a client and its target, whose bytes are moved here while nothing unusual happens, by one
 * recv and one send for each message. `poll` goes on waiting and moving until there is something
 * that Python must know of, so the messages of quiet flows cost no Python at all.
 *
 * There is no policy here, and nothing is held while bytes move. What is unusual stops the pair: its
 * descriptors leave the epoll, and Python has them back with what the other end did not take. When
 * Python watches them again, the kernel reports what is there, so no edge is lost. Reasons:
 *
 *   FULL    the other end took only a part; the rest is given back
 *   BULK    full buffers came in a row: splice is better at that
 *   BROKE   a read or write failed; of which end, the flags say
 *   FAILED  the target could not be connected; what was to come first is given back
 *   MEMORY  the kernel or we had none
 *   ASKED   Python wanted it
 *   ODD     an error or urgent data is reported; nothing of it has been read
 *
 * Descriptors are edge-triggered: a short read has emptied the socket (epoll(7)). With EPOLLRDHUP in
 * the mask the end is behind a short read; bytes and FIN go on in one segment.
 *
 * A pair's number and the epoll's data name the generation of its slot, so that no stale event and no
 * stale number meets another pair. A dropped pair's descriptors are closed at once, but for one that
 * Python has watched until now: it may have an event of it to handle still, which must not meet a new
 * descriptor of that number.
 */
#include "_moves.h"
#include "_dial.h"

/* -- slots -- */

uint64_t number_of(const epoll_t *self, const slot_t *slot) {
    return (uint64_t)slot->generation << SLOT_BITS | (uint64_t)(slot - self->slots);
}

slot_t *find(epoll_t *self, uint64_t number) {
    uint32_t at = number & (MOST_SLOTS - 1);
    slot_t *slot = at < self->count ? &self->slots[at] : NULL;
    return slot && slot->state != FREE && slot->generation == number >> SLOT_BITS ? slot : NULL;
}

bool make_room(epoll_t *self, uint32_t more) {
    uint32_t needed = self->told + MOST_TOLD * self->active + more;
    if (needed <= self->room) return true;
    event_t *events = realloc(self->events, 2 * (size_t)needed * sizeof *events);
    if (!events) return false;
    self->events = events;
    self->room = 2 * needed;
    return true;
}

bool grow(epoll_t *self) {
    uint32_t count = self->count ? 2 * self->count : FIRST_SLOTS;
    if (count > MOST_SLOTS) return false;
    slot_t *slots = realloc(self->slots, count * sizeof *slots);
    if (!slots) return false;
    memset(slots + self->count, 0, (count - self->count) * sizeof *slots);
    for (uint32_t at = self->count; at < count; at++)
        slots[at].next = at + 1 < count ? at + 1 : self->free;
    self->slots = slots;
    self->free = self->count;
    self->count = count;
    return true;
}

void forget(epoll_t *self, slot_t *slot) {
    uint32_t generation = slot->generation + 1;
    PyObject *owner = slot->owner;
    free(slot->first);
    free(slot->held);
    memset(slot, 0, sizeof *slot);
    slot->generation = generation;
    slot->next = self->free;
    self->free = slot - self->slots;
    self->active--;
    Py_XDECREF(owner); /* last: it may call us */
}

static void tell(epoll_t *self, int who, uint64_t what) {
    if (self->told < self->room) /* always: see make_room */
        self->events[self->told++] = (event_t){what, who};
}

static void tell_of(epoll_t *self, const slot_t *slot, unsigned kind) {
    tell(self, PAIRS, number_of(self, slot) << KIND_BITS | kind);
}

/* Watch an end. `is_watched`: by Python, until now. */
static bool watch(epoll_t *self, slot_t *slot, int end, uint32_t mask, bool is_watched) {
    struct epoll_event event = {
        .events = mask,
        .data.u64 = IS_PAIR | number_of(self, slot) << 1 | (unsigned)end,
    };
    int operation = is_watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    return epoll_ctl(self->fd, operation, slot->end[end].fd, &event) == 0;
}

void stop(epoll_t *self, slot_t *slot, int reason) {
    if (slot->state == STANDING) return; /* the first reason counts */
    for (int end = CLIENT; end <= TARGET; end++) /* one that is not watched is no error */
        epoll_ctl(self->fd, EPOLL_CTL_DEL, slot->end[end].fd, NULL);
    slot->state = STANDING;
    slot->reason = reason;
    tell_of(self, slot, STOPPED);
}

static void broke(epoll_t *self, slot_t *slot, int end, int error) {
    slot->end[end].broke = 1;
    slot->error = error;
    stop(self, slot, BROKE);
}

static void failed(epoll_t *self, slot_t *slot, int error) {
    slot->error = error;
    stop(self, slot, FAILED);
}

/* -- moving bytes -- */

static ssize_t receive(int fd, unsigned char *buffer, size_t size) {
    ssize_t got;
    do got = recv(fd, buffer, size, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR); /* no second edge would tell */
    return got;
}

static bool keep(unsigned char **kept, uint32_t *kept_size, const unsigned char *data, size_t size) {
    unsigned char *copy = size ? malloc(size) : NULL;
    if (size && !copy) return false;
    if (size) memcpy(copy, data, size);
    free(*kept);
    *kept = copy;
    *kept_size = size;
    return true;
}

/* The other end did not take the last `size` bytes that were read here. */
static void is_full(epoll_t *self, slot_t *slot, int end, const unsigned char *data, size_t size) {
    slot->holder = end;
    if (keep(&slot->held, &slot->held_size, data, size)) {
        stop(self, slot, FULL);
        return;
    }
    slot->end[end].broke = 1; /* bytes are lost: the flow cannot go on */
    stop(self, slot, MEMORY);
}

/* Send what is in the buffer to the other end. False: the pair has stopped. */
static bool pass_on(epoll_t *self, slot_t *slot, int end, size_t size, int more) {
    int flags = MSG_DONTWAIT | MSG_NOSIGNAL | more;
    ssize_t sent = send(slot->end[OTHER(end)].fd, self->buffer, size, flags);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        broke(self, slot, OTHER(end), errno);
        return false;
    }
    if (sent < 0) sent = 0;
    slot->end[end].moved += sent;
    if ((size_t)sent < size) is_full(self, slot, end, self->buffer + sent, size - sent);
    return (size_t)sent == size;
}

static void pass_end_on(epoll_t *self, slot_t *slot, int end) {
    end_t *there = &slot->end[OTHER(end)];
    slot->end[end].ended = 1;
    if (there->ended) {
        slot->state = FINISHING;
        tell_of(self, slot, FINISHED);
    } else if (shutdown(there->fd, SHUT_WR) < 0) {
        broke(self, slot, OTHER(end), errno);
    }
}

/* Read until a short read: at most BULK_AFTER buffers, so the others soon have their turn. */
static void move(epoll_t *self, slot_t *slot, int end, bool hung_up) {
    end_t *here = &slot->end[end];
    for (;;) {
        ssize_t size = receive(here->fd, self->buffer, COPY_SIZE);
        if (size < 0) {
            if (errno != EAGAIN) broke(self, slot, end, errno);
            return;
        }
        bool is_short = size < COPY_SIZE, last = is_short && hung_up;
        if (size && !pass_on(self, slot, end, size, last ? MSG_MORE : 0)) return;
        if (!size || last) pass_end_on(self, slot, end);
        here->full = is_short ? 0 : here->full + 1;
        if (is_short) return;
        if (here->full >= BULK_AFTER) {
            stop(self, slot, BULK);
            return;
        }
    }
}

static void on_event(epoll_t *self, slot_t *slot, int end, uint32_t mask) {
    bool is_whole = !(slot->end[CLIENT].ended || slot->end[TARGET].ended);
    if (mask & (EPOLLERR | EPOLLPRI))
        stop(self, slot, ODD);
    else if (self->leaving && mask == EPOLLIN && is_whole)
        stop(self, slot, ASKED);
    else if (mask & (EPOLLIN | EPOLLRDHUP | EPOLLHUP) && !slot->end[end].ended)
        move(self, slot, end, mask & (EPOLLRDHUP | EPOLLHUP));
}

/* -- the connection to the target -- */

/* The target has all of what was to come first: move bytes from here on. */
static void begin(epoll_t *self, slot_t *slot, bool is_watched) {
    slot->state = MOVING;
    if ((!is_watched && !watch(self, slot, TARGET, READS, false)) ||
        !watch(self, slot, CLIENT, READS, false))
        stop(self, slot, MEMORY);
    else if (slot->end[CLIENT].ended)
        pass_end_on(self, slot, CLIENT);
}

void take_over(epoll_t *self, slot_t *slot) {
    slot->joined = 1;
    slot->since = self->polls;
    slot->state = MOVING;
    if (!watch(self, slot, TARGET, READS, true) || !watch(self, slot, CLIENT, READS, true))
        stop(self, slot, MEMORY);
}

/* Send what comes first, which is in the buffer. False: it is not connected yet.
 *
 * `is_watched`: it is waited for since an earlier call, and so Python is told. */
static bool speak(epoll_t *self, slot_t *slot, size_t size, bool is_watched) {
    int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    ssize_t sent = size ? send(slot->end[TARGET].fd, self->buffer, size, flags) : 0;
    if (sent < 0) {
        int error = errno;
        if (!keep(&slot->first, &slot->first_size, self->buffer, size))
            stop(self, slot, MEMORY);
        else if (error != EAGAIN && error != EINTR)
            failed(self, slot, error);
        return slot->state != CONNECTING;
    }
    slot->joined = 1;
    slot->end[CLIENT].moved = sent - (int64_t)slot->header_size;
    if (is_watched) tell_of(self, slot, CONNECTED);
    if ((size_t)sent < size)
        is_full(self, slot, CLIENT, self->buffer + sent, size - sent);
    else
        begin(self, slot, is_watched);
    keep(&slot->first, &slot->first_size, NULL, 0);
    return true;
}

/* Put what comes first into the buffer: `first`, and behind a header alone what the client has said.
 *
 * Gives the size; -1: the client is gone. */
static ssize_t gather(epoll_t *self, slot_t *slot, const void *first, size_t size) {
    end_t *client = &slot->end[CLIENT];
    if (size) memcpy(self->buffer, first, size);
    if (size > slot->header_size || client->ended) return size;
    ssize_t said = receive(client->fd, self->buffer + size, FIRST_SIZE);
    if (said == 0) client->ended = 1;
    if (said < 0 && errno != EAGAIN) {
        broke(self, slot, CLIENT, errno);
        return -1;
    }
    return said < 0 ? (ssize_t)size : (ssize_t)size + said;
}

/* Where there is nothing to send, a send would not tell whether it is connected. */
static void speak_at_once(epoll_t *self, slot_t *slot, ssize_t size) {
    if (size < 0 || (size && speak(self, slot, size, false))) return;
    if (!watch(self, slot, TARGET, READS | EPOLLOUT, false)) stop(self, slot, MEMORY);
}

void connect_pair(epoll_t *self, slot_t *slot, const void *first, size_t size) {
    speak_at_once(self, slot, gather(self, slot, first, size));
}

/* Connect, and write at once: across a bridge or loopback the handshake is done by then.
 *
 * A connect that fails is told as one that fails later. */
void dial(epoll_t *self, slot_t *slot, const struct sockaddr *address, socklen_t size,
                 int hop_limit, const void *header) {
    ssize_t first_size = gather(self, slot, header, slot->header_size);
    if (first_size < 0) return;
    if (connect_to(slot->end[TARGET].fd, address, size, hop_limit, first_size > 0) == 0) {
        speak_at_once(self, slot, first_size);
        return;
    }
    int error = errno;
    if (keep(&slot->first, &slot->first_size, self->buffer, first_size))
        failed(self, slot, error);
    else
        stop(self, slot, MEMORY);
}

/* The kernel has connected, or gave up. The target's first words may be there as well. */
static void on_connected(epoll_t *self, slot_t *slot, uint32_t mask) {
    int error = 0, fd = slot->end[TARGET].fd;
    socklen_t size = sizeof error;
    if (mask & (EPOLLERR | EPOLLHUP) &&
        (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error)) {
        failed(self, slot, error ? error : errno);
        return;
    }
    if (!(mask & EPOLLOUT)) return;
    ssize_t first_size = gather(self, slot, slot->first, slot->first_size);
    if (first_size < 0) return;
    if (speak(self, slot, first_size, true) && slot->state == MOVING)
        on_event(self, slot, TARGET, mask);
}

/* -- events -- */

void take(epoll_t *self, const struct epoll_event *event) {
    if (event->data.u64 == IS_TIMER) {
        self->timed = 0;
        return;
    }
    if (!(event->data.u64 & IS_PAIR)) {
        tell(self, (int)event->data.u64, event->events);
        return;
    }
    self->heard++;
    slot_t *slot = find(self, (event->data.u64 & ~IS_PAIR) >> 1);
    if (slot && slot->state == CONNECTING)
        on_connected(self, slot, event->events);
    else if (slot && slot->state == MOVING)
        on_event(self, slot, event->data.u64 & 1, event->events);
}
