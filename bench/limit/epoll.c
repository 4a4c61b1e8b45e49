/* A TCP relay with the fewest system calls and segments that an epoll design needs: a limit to measure
 * v6fwd against.
 *
 * It moves bytes and does nothing else: no log, no counters, no time limits, no urgent data, one target.
 * What it moves it moves soundly: bounded buffers, half-close passed on, a reset for a reset.
 */
#define _GNU_SOURCE
#include "relay.h"

#include <fcntl.h>
#include <sys/epoll.h>

enum {
    COPY_SIZE = 64 << 10,
    PIPE_SIZE = 1 << 20,
    FULL_READS = 2, /* in a row; then splice(2) costs less than a copy */
    SPLICE_MIN = 16 << 10, /* a splice of less is a message again, and goes back to copies */
    TURNS = 16,     /* buffers or pipes of one side, before the others get their turn */
    MOST_ACCEPTS = 16,
    EVENTS = 256,
};

/* One socket of a flow, and what is on its way from there to the other socket. */
struct side {
    int fd;
    int pipe[2]; /* 0, 0 until the first splice */
    struct side *other;
    struct flow *flow;
    bool hung_up; /* its FIN is here: no edge follows, and the end is behind the first short read */
    bool blocked; /* the other socket is full, or not connected */
    bool ended;   /* the end of the stream has been passed on */
    unsigned full_reads;
    char *held; /* what the other socket did not take; COPY_SIZE at most */
    size_t held_at, held_size, piped;
};

struct flow {
    struct side client, target;
    bool connected, closed;
    struct flow *next_closed;
};

enum outcome { MORE, EMPTY, FULL, END, BROKEN };

static int epoll;
static struct sockaddr_in target;
static struct flow *closed;
static char buffer[COPY_SIZE];

static void close_side(struct side *side)
{
    close(side->fd);
    free(side->held);
    if (side->pipe[1]) {
        close(side->pipe[0]);
        close(side->pipe[1]);
    }
}

/* Events of this batch may still name the flow: it is freed behind the batch. */
static void close_flow(struct flow *flow, bool broken)
{
    if (broken) {
        reset_at_close(flow->client.fd);
        reset_at_close(flow->target.fd);
    }
    close_side(&flow->client);
    close_side(&flow->target);
    flow->closed = true;
    flow->next_closed = closed;
    closed = flow;
}

static void free_closed(void)
{
    while (closed) {
        struct flow *flow = closed;
        closed = flow->next_closed;
        free(flow);
    }
}

static void hold(struct side *from, const char *bytes, size_t size)
{
    from->held = allocated(malloc(size));
    memcpy(from->held, bytes, size);
    from->held_at = 0;
    from->held_size = size;
}

/* Passes on what was read before. */
static enum outcome flush(struct side *from)
{
    while (from->held_size) {
        ssize_t put = send(from->other->fd, from->held + from->held_at, from->held_size, MSG_NOSIGNAL);
        if (put < 0)
            return errno == EAGAIN ? FULL : BROKEN;
        from->held_at += (size_t)put;
        from->held_size -= (size_t)put;
    }
    free(from->held);
    from->held = NULL;
    while (from->piped) {
        ssize_t put = splice(from->pipe[0], NULL, from->other->fd, NULL, from->piped, SPLICE_F_NONBLOCK);
        if (put < 0)
            return errno == EAGAIN ? FULL : BROKEN;
        from->piped -= (size_t)put;
    }
    return MORE;
}

/* Passes on what is in the buffer, and holds what does not fit. */
static enum outcome pass_on(struct side *from, size_t size, int flags)
{
    ssize_t put = send(from->other->fd, buffer, size, MSG_NOSIGNAL | flags);
    if (put < 0 && errno != EAGAIN)
        return BROKEN;
    size_t taken = put < 0 ? 0 : (size_t)put;
    if (taken)
        from->flow->connected = true;
    if (taken == size)
        return MORE;
    hold(from, buffer + taken, size - taken);
    return FULL;
}

/* Behind a short read is nothing, or the end: then its FIN goes in one segment with these bytes. */
static enum outcome copy(struct side *from)
{
    ssize_t got = recv(from->fd, buffer, sizeof buffer, 0);
    if (got <= 0)
        return got == 0 ? END : errno == EAGAIN ? EMPTY : BROKEN;
    bool is_short = got < COPY_SIZE;
    enum outcome outcome = pass_on(from, (size_t)got, is_short && from->hung_up ? MSG_MORE : 0);
    from->full_reads = is_short ? 0 : from->full_reads + 1;
    if (outcome != MORE || !is_short)
        return outcome;
    return from->hung_up ? END : EMPTY;
}

/* Through the pipe, which is empty before: so EAGAIN means an empty socket, not a full pipe. */
static enum outcome through_pipe(struct side *from)
{
    if (!from->pipe[1]) {
        checked(pipe2(from->pipe, O_CLOEXEC | O_NONBLOCK), "pipe2");
        checked(fcntl(from->pipe[1], F_SETPIPE_SZ, PIPE_SIZE), "F_SETPIPE_SZ");
    }
    ssize_t got = splice(from->fd, NULL, from->pipe[1], NULL, PIPE_SIZE, SPLICE_F_NONBLOCK);
    if (got < 0)
        return errno == EAGAIN ? EMPTY : BROKEN;
    if (got < SPLICE_MIN) /* 0 may also be an urgent mark: recv(2) tells it from an end */
        from->full_reads = 0;
    from->piped = (size_t)got;
    return flush(from);
}

/* shutdown(2) would cut a connect short that is under way. */
static void end(struct side *from)
{
    struct flow *flow = from->flow;
    if (from == &flow->client && !flow->connected) {
        from->blocked = true;
        return;
    }
    from->ended = true;
    if (from->other->ended)
        close_flow(flow, false);
    else if (shutdown(from->other->fd, SHUT_WR))
        close_flow(flow, true);
}

static void watch(int operation, int fd, uint32_t mask, struct side *side)
{
    struct epoll_event event = {.events = mask, .data.ptr = side};
    checked(epoll_ctl(epoll, operation, fd, &event), "epoll_ctl");
}

/* Both directions from the start and edge-triggered: no epoll_ctl(2) while the flow lives. */
static void watch_side(int operation, struct side *side)
{
    watch(operation, side->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, side);
}

static void pump(struct side *from)
{
    enum outcome outcome = flush(from);
    for (int turn = 0; outcome == MORE && turn < TURNS; turn++)
        outcome = from->full_reads < FULL_READS ? copy(from) : through_pipe(from);
    from->blocked = outcome == FULL;
    if (outcome == END)
        end(from);
    else if (outcome == BROKEN)
        close_flow(from->flow, true);
    else if (outcome == MORE)
        watch_side(EPOLL_CTL_MOD, from); /* which reports the socket once more */
}

static void on_event(struct side *side, uint32_t mask)
{
    struct flow *flow = side->flow;
    if (flow->closed)
        return;
    if (mask & EPOLLERR) {
        close_flow(flow, true);
        return;
    }
    if (mask & (EPOLLRDHUP | EPOLLHUP))
        side->hung_up = true;
    if (mask & EPOLLOUT) {
        if (side == &flow->target)
            flow->connected = true;
        if (side->other->blocked)
            pump(side->other);
    }
    if (mask & ~(uint32_t)EPOLLOUT && !flow->closed && !side->blocked && !side->ended)
        pump(side);
}

static void begin(int client)
{
    struct flow *flow = allocated(calloc(1, sizeof *flow));
    int fd = target_socket(SOCK_NONBLOCK);
    flow->client = (struct side){.fd = client, .flow = flow, .other = &flow->target};
    flow->target = (struct side){.fd = fd, .flow = flow, .other = &flow->client};
    ssize_t first = recv(client, buffer, sizeof buffer, 0);
    if (first > 0) /* the first bytes acknowledge the target's SYN; what else there is the event tells */
        set(fd, IPPROTO_TCP, TCP_QUICKACK, 0);
    if (connect(fd, (struct sockaddr *)&target, sizeof target) && errno != EINPROGRESS) {
        close_flow(flow, true);
        return;
    }
    if (first > 0)
        flow->client.blocked = pass_on(&flow->client, (size_t)first, 0) == FULL;
    watch_side(EPOLL_CTL_ADD, &flow->target);
    watch_side(EPOLL_CTL_ADD, &flow->client);
}

/* Takes twice as many as last time, or one after a look too many: that costs a call. */
static void accept_clients(int listener)
{
    static int hoped_for = 1;
    for (int taken = 0; taken < hoped_for; taken++) {
        int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client >= 0) {
            begin(client);
        } else if (errno == EAGAIN) {
            hoped_for = 1;
            return;
        } else if (errno != ECONNABORTED) {
            die("accept4", errno);
        }
    }
    if (hoped_for < MOST_ACCEPTS)
        hoped_for *= 2;
}

int main(int count, char **words)
{
    if (count != 5) {
        fprintf(stderr, "usage: %s " PROGRAM_USAGE "\n", words[0]);
        return 2;
    }
    ignore_broken_pipes();
    target = target_of(words + 3);
    epoll = checked(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    int listener = listener_of(words + 1, SOCK_NONBLOCK);
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    for (;;) {
        static struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        if (ready < 0 && errno != EINTR)
            die("epoll_wait", errno);
        for (int at = 0; at < ready; at++) {
            if (events[at].data.ptr)
                on_event(events[at].data.ptr, events[at].events);
            else
                accept_clients(listener);
        }
        free_closed();
    }
}
