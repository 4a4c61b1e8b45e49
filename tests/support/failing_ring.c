/* For tests of what a ring's descriptor may be used for: it submits what the module never does. */
#include "_pairs.h"

/* The result of an operation on a descriptor, a negative errno; 1 if it was not told at once. */
int operate(PyObject *ring, int operation, int flags, int fd) {
    ring_t *self = (ring_t *)ring;
    struct io_uring_sqe *sqe = next_sqe(self);
    if (!sqe) return -ENOMEM;
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = operation;
    sqe->flags = flags;
    sqe->fd = fd;
    sqe->user_data = 1 + operation; /* no other has that, which ASYNC_CANCEL may end */
    submit(self, 0);
    struct io_uring_cqe *cqe;
    while (io_uring_peek_cqe(&self->ring, &cqe) == 0) {
        int result = cqe->res;
        bool is_its_own = cqe->user_data == 1ULL + operation;
        io_uring_cqe_seen(&self->ring, cqe);
        if (is_its_own) return result;
    }
    return 1;
}
