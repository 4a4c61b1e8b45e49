/* A TCP relay on io_uring, one enter a batch: a limit to measure v6fwd against.
 *
 * As epoll.c it moves bytes soundly and does nothing else, but for one thing: a reset from an end that
 * has closed its half before is noticed by the next send only. Multishot accept and recv with provided
 * buffers, which all flows share: enough flows that stand still stop the others. Bulk data is copied,
 * since the ring would hand each splice to a kernel thread.
 */
#define _GNU_SOURCE
#include "relay.h"

#include <liburing.h>

enum {
    ENTRIES = 4096,
    BUFFERS = 128, /* a power of two; shared by all flows */
    BUFFER_SIZE = 64 << 10,
    PAUSE_AT = 8, /* buffers that wait in one direction: its recv stops until they are sent */
    GROUP = 0,
};

/* In the low bits of user_data; above them the side. */
enum operation { ACCEPT, CONNECT, RECEIVE, SEND, OTHER };
enum { OPERATION_BITS = 7 };

/* One socket of a flow, and the buffers on their way from there to the other socket. */
struct side {
    int fd;
    struct side *other;
    struct flow *flow;
    bool receiving, pausing, sending;
    bool at_end; /* of its stream */
    bool ended;  /* that has been passed on */
    unsigned first, last, waiting;
    bool queued; /* in `todo` */
    struct side *next_todo;
};

struct flow {
    struct side client, target;
    unsigned pending; /* operations that will still report a side, and sides in `todo` */
    bool connected, broken;
};

static struct io_uring ring;
static struct io_uring_buf_ring *provided;
static char *memory;
static struct {
    unsigned next, size;
} buffers[BUFFERS];
static struct sockaddr_in target;
static unsigned taken;    /* buffers that hold bytes */
static struct side *todo; /* directions that a batch of completions has changed */

static struct io_uring_sqe *next_sqe(void)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    if (!sqe) { /* more than ENTRIES in one batch */
        int error = io_uring_submit(&ring);
        if (error < 0)
            die("io_uring_submit", -error);
        sqe = io_uring_get_sqe(&ring);
    }
    if (!sqe)
        die("io_uring_get_sqe", EBUSY);
    return sqe;
}

static uint64_t name_of(enum operation operation, struct side *side)
{
    return (uint64_t)(uintptr_t)side | operation;
}

static void expect(struct io_uring_sqe *sqe, enum operation operation, struct side *side)
{
    io_uring_sqe_set_data64(sqe, name_of(operation, side));
    side->flow->pending++;
}

/* What a direction does next is decided behind the batch, when all that has happened is known. */
static void decide_later(struct side *side)
{
    if (side->queued)
        return;
    side->queued = true;
    side->flow->pending++;
    side->next_todo = todo;
    todo = side;
}

/* Nobody hears how it went. */
static void forget(struct io_uring_sqe *sqe)
{
    io_uring_sqe_set_data64(sqe, OTHER);
    io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
}

static void provide(unsigned id)
{
    char *start = memory + (size_t)id * BUFFER_SIZE;
    io_uring_buf_ring_add(provided, start, BUFFER_SIZE, (unsigned short)id,
                          io_uring_buf_ring_mask(BUFFERS), 0);
    io_uring_buf_ring_advance(provided, 1);
}

/* The first buffer of a direction has been sent, or never will be. */
static void drop(struct side *from)
{
    unsigned id = from->first;
    from->first = buffers[id].next;
    from->waiting--;
    taken--;
    provide(id);
}

static void close_side(struct side *side)
{
    while (side->waiting)
        drop(side);
    struct io_uring_sqe *sqe = next_sqe();
    io_uring_prep_close(sqe, side->fd);
    forget(sqe);
}

/* Closes a flow that has ended or broken, once nothing of it is under way. */
static void close_if_done(struct flow *flow)
{
    if (flow->pending || !(flow->broken || (flow->client.ended && flow->target.ended)))
        return;
    close_side(&flow->client);
    close_side(&flow->target);
    free(flow);
}

static void cancel_all(int fd)
{
    struct io_uring_sqe *sqe = next_sqe();
    io_uring_prep_cancel_fd(sqe, fd, IORING_ASYNC_CANCEL_ALL);
    forget(sqe);
}

/* Resets both ends, as soon as nothing is under way. */
static void break_flow(struct flow *flow)
{
    if (flow->broken)
        return;
    flow->broken = true;
    reset_at_close(flow->client.fd);
    reset_at_close(flow->target.fd);
    cancel_all(flow->client.fd);
    cancel_all(flow->target.fd);
}

static void receive(struct side *from)
{
    struct io_uring_sqe *sqe = next_sqe();
    io_uring_prep_recv_multishot(sqe, from->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = GROUP;
    expect(sqe, RECEIVE, from);
    from->receiving = true;
    from->pausing = false;
}

static void pause_receiving(struct side *from)
{
    struct io_uring_sqe *sqe = next_sqe();
    io_uring_prep_cancel64(sqe, name_of(RECEIVE, from), 0);
    forget(sqe);
    from->pausing = true;
}

/* One send at a time keeps the order. MSG_WAITALL has the kernel go on after a short one; MSG_MORE puts
 * the end, which follows, into the last segment. */
static void send_first(struct side *from)
{
    int more = from->at_end && from->waiting == 1 ? MSG_MORE : 0;
    char *bytes = memory + (size_t)from->first * BUFFER_SIZE;
    struct io_uring_sqe *sqe = next_sqe();
    io_uring_prep_send(sqe, from->other->fd, bytes, buffers[from->first].size,
                       MSG_NOSIGNAL | MSG_WAITALL | more);
    expect(sqe, SEND, from);
    from->sending = true;
}

/* By system call: the ring would hand the shutdown to a kernel thread, an eighth more CPU a flow. */
static void end(struct side *from)
{
    from->ended = true;
    if (!from->other->ended && shutdown(from->other->fd, SHUT_WR))
        break_flow(from->flow);
}

static void proceed(struct side *from)
{
    if (from->flow->broken)
        return;
    if (from->waiting && !from->sending && from->flow->connected)
        send_first(from);
    if (from->waiting >= PAUSE_AT && from->receiving && !from->pausing)
        pause_receiving(from);
    if (!from->waiting && !from->receiving && !from->at_end) {
        if (taken < BUFFERS)
            receive(from);
        else
            decide_later(from);
    }
    if (from->at_end && !from->waiting && !from->ended && from->flow->connected)
        end(from);
}

static void accepted(int client)
{
    struct flow *flow = allocated(calloc(1, sizeof *flow));
    int fd = target_socket(0);
    flow->client = (struct side){.fd = client, .flow = flow, .other = &flow->target};
    flow->target = (struct side){.fd = fd, .flow = flow, .other = &flow->client};
    struct io_uring_sqe *sqe = next_sqe();
    io_uring_prep_connect(sqe, fd, (struct sockaddr *)&target, sizeof target);
    expect(sqe, CONNECT, &flow->target);
    receive(&flow->client);
}

static void connected(struct side *side, int result)
{
    if (result < 0)
        break_flow(side->flow);
    else
        side->flow->connected = true;
    decide_later(side->other);
}

static void take(struct side *from, unsigned id, unsigned size)
{
    if (id >= BUFFERS || size > BUFFER_SIZE)
        die("buffer", ERANGE);
    buffers[id].size = size;
    taken++;
    if (from->waiting++)
        buffers[from->last].next = id;
    else
        from->first = id;
    from->last = id;
}

static void received(struct side *from, int result, unsigned flags)
{
    from->receiving = flags & IORING_CQE_F_MORE;
    unsigned id = flags >> IORING_CQE_BUFFER_SHIFT;
    if (result > 0)
        take(from, id, (unsigned)result);
    else if (flags & IORING_CQE_F_BUFFER)
        provide(id);
    if (result == 0)
        from->at_end = true;
    else if (result < 0 && result != -ECANCELED && result != -ENOBUFS)
        break_flow(from->flow);
}

static void sent(struct side *from, int result)
{
    bool whole = result >= 0 && (unsigned)result == buffers[from->first].size;
    from->sending = false;
    drop(from);
    if (!whole)
        break_flow(from->flow);
}

static void accept_clients(int listener)
{
    struct io_uring_sqe *sqe = next_sqe();
    io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, SOCK_CLOEXEC);
    io_uring_sqe_set_data64(sqe, ACCEPT);
}

static void on_completion(const struct io_uring_cqe *cqe, int listener)
{
    enum operation operation = cqe->user_data & OPERATION_BITS;
    struct side *side = (struct side *)(uintptr_t)(cqe->user_data & ~(uint64_t)OPERATION_BITS);
    if (operation == ACCEPT) {
        if (cqe->res >= 0)
            accepted(cqe->res);
        else if (cqe->res != -ECONNABORTED)
            die("accept", -cqe->res);
        if (!(cqe->flags & IORING_CQE_F_MORE))
            accept_clients(listener);
    } else if (side) {
        if (!(cqe->flags & IORING_CQE_F_MORE))
            side->flow->pending--;
        if (operation == CONNECT)
            connected(side, cqe->res);
        else if (operation == RECEIVE)
            received(side, cqe->res, cqe->flags);
        else
            sent(side, cqe->res);
        decide_later(side);
    }
}

static void decide(void)
{
    struct side *side = todo;
    todo = NULL;
    while (side) {
        struct side *next = side->next_todo;
        side->queued = false;
        side->flow->pending--;
        proceed(side);
        close_if_done(side->flow);
        side = next;
    }
}

/* SINGLE_ISSUER and DEFER_TASKRUN are of Linux 6.1; an older one answers EINVAL. */
static void set_up_ring(void)
{
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    int error = io_uring_queue_init_params(ENTRIES, &ring, &params);
    if (error < 0)
        die("io_uring_setup", -error);
    size_t size = BUFFERS * sizeof(struct io_uring_buf);
    provided = allocated(aligned_alloc(4096, (size + 4095) & ~(size_t)4095));
    memory = allocated(aligned_alloc(4096, (size_t)BUFFERS * BUFFER_SIZE));
    struct io_uring_buf_reg registration = {
        .ring_addr = (uint64_t)(uintptr_t)provided, .ring_entries = BUFFERS, .bgid = GROUP};
    error = io_uring_register_buf_ring(&ring, &registration, 0);
    if (error)
        die("io_uring_register_buf_ring", -error);
    io_uring_buf_ring_init(provided);
    for (unsigned id = 0; id < BUFFERS; id++)
        provide(id);
}

int main(int count, char **words)
{
    bool check = count == 2 && !strcmp(words[1], "--check");
    if (count != 5 && !check) {
        fprintf(stderr, "usage: %s --check | " PROGRAM_USAGE "\n", words[0]);
        return 2;
    }
    set_up_ring();
    if (check)
        return 0;
    ignore_broken_pipes();
    target = target_of(words + 3);
    int listener = listener_of(words + 1, 0);
    accept_clients(listener);
    for (;;) {
        int error = io_uring_submit_and_wait(&ring, 1);
        if (error < 0 && error != -EINTR)
            die("io_uring_submit_and_wait", -error);
        struct io_uring_cqe *cqe;
        unsigned head, seen = 0;
        io_uring_for_each_cqe(&ring, head, cqe)
        {
            on_completion(cqe, listener);
            seen++;
        }
        io_uring_cq_advance(&ring, seen);
        decide();
    }
}
