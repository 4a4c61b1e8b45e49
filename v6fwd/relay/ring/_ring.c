/* The type `Ring`: Python's side of _pairs.c. Arguments are checked here, each flow's number too. */
#include "_pairs.h"
#include "../pairs/_dial.h"

#include <netinet/in.h>

static bool check_open(ring_t *self) {
    if (!self->is_open) PyErr_SetString(PyExc_ValueError, "the ring is closed");
    return self->is_open;
}

static slot_t *slot_of(ring_t *self, PyObject *number) {
    unsigned long long value = PyLong_AsUnsignedLongLong(number);
    if (PyErr_Occurred() || !check_open(self)) return NULL;
    slot_t *slot = find(self, value);
    if (!slot) PyErr_SetString(PyExc_ValueError, "no such flow");
    return slot;
}

static void be_awake(ring_t *self) {
    uint64_t rings;
    self->rests = false;
    io_uring_cq_eventfd_toggle(&self->ring, false);
    while (read(self->bell, &rings, sizeof rings) < 0 && errno == EINTR) continue;
}

static PyObject *ring_wait(ring_t *self, PyObject *argument) {
    double seconds = PyFloat_AsDouble(argument);
    if (PyErr_Occurred() || !check_open(self)) return NULL;
    if (!make_room(self, MOST_TOLD(self))) return PyErr_NoMemory();
    if (self->rests) be_awake(self);
    prepare(self);
    if (self->told || io_uring_cq_ready(&self->ring)) seconds = 0;
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = submit(self, seconds);
    Py_END_ALLOW_THREADS
    if (result == -EINTR && (PyErr_CheckSignals() < 0 || !check_open(self))) return NULL;
    unsigned count = take_completions(self);
    self->waits++;
    if (!count && !self->told) Py_RETURN_NONE;
    PyObject *list = PyList_New(self->told);
    for (uint32_t i = 0; list && i < self->told; i++) {
        PyObject *event = PyLong_FromUnsignedLongLong(self->events[i]);
        if (!event || PyList_SetItem(list, i, event) < 0) Py_CLEAR(list);
    }
    if (list) self->told = 0; /* without memory they are told by the next wait */
    return list;
}

/* Submit, and let the bell ring from now on, until the next wait.
 *
 * The ring's own descriptor will not do: with DEFER_TASKRUN nothing is completed before we ask, and
 * an epoll that watches it is not woken. What came before the bell was on is told by the result.
 */
static PyObject *ring_rest(ring_t *self, PyObject *unused) {
    (void)unused;
    if (!check_open(self)) return NULL;
    io_uring_cq_eventfd_toggle(&self->ring, true);
    self->rests = true;
    bool has_room = make_room(self, MOST_TOLD(self)); /* else all waits until the next wait */
    if (has_room) prepare(self);
    submit(self, 0);
    if (has_room) take_completions(self); /* of sends */
    bool is_more = self->told || self->waiting || io_uring_cq_ready(&self->ring) || io_uring_sq_ready(&self->ring);
    return PyBool_FromLong(is_more);
}

/* Take a free slot. NULL with an exception set if there is no memory.
 *
 * `number` is what Python gets: made before, so that nothing fails once the descriptors are ours. */
static slot_t *new_slot(ring_t *self, PyObject *owner, int client, int target, PyObject **number) {
    if (!make_room(self, 1) || (self->free == NONE && !grow(self))) {
        PyErr_NoMemory();
        return NULL;
    }
    if (!(*number = PyLong_FromUnsignedLongLong(number_of(self, self->free)))) return NULL;
    slot_t *slot = &self->slots[self->free];
    slot->owner = Py_NewRef(owner);
    self->free = slot->next;
    self->active++;
    slot->end[CLIENT].fd = client;
    slot->end[TARGET].fd = target;
    slot->error = slot->reason = slot->lonely = slot->said = slot->greeting = slot->hop_limit = 0;
    return slot;
}

static PyObject *ring_connect(ring_t *self, PyObject *args) {
    PyObject *owner, *number;
    int client, target;
    const char *first;
    Py_ssize_t size;
    unsigned header_size;
    if (!PyArg_ParseTuple(args, "Oiiy#I", &owner, &client, &target, &first, &size, &header_size) ||
        !check_open(self))
        return NULL;
    if (size > INT32_MAX || header_size > size) {
        PyErr_SetString(PyExc_ValueError, "no such header");
        return NULL;
    }
    slot_t *slot = new_slot(self, owner, client, target, &number);
    if (!slot) return NULL;
    uint32_t at = slot - self->slots;
    if (!keep_first(slot, first, size, header_size)) {
        Py_DECREF(number);
        forget(self, at);
        return PyErr_NoMemory();
    }
    self->heard += BEGIN_COUNTS;
    if (slot->said || read_first(self, at))
        try_at_once(self, at);
    else
        broke(self, at, CLIENT, errno);
    wait_if_not_joined(self, at);
    return number;
}

static PyObject *ring_dial(ring_t *self, PyObject *args) {
    PyObject *owner, *number, *address;
    int client, hop_limit;
    const char *header, *bytes;
    Py_ssize_t header_size, size;
    if (!PyArg_ParseTuple(args, "OiSy#i", &owner, &client, &address, &header, &header_size,
                          &hop_limit) ||
        !check_open(self))
        return NULL;
    if (!(bytes = PyBytes_AsString(address))) return NULL;
    if ((size = PyBytes_Size(address)) < (Py_ssize_t)sizeof(struct sockaddr_in) ||
        size > (Py_ssize_t)sizeof(struct sockaddr_storage) || header_size > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "no such address or header");
        return NULL;
    }
    int fd = target_socket(((const struct sockaddr *)bytes)->sa_family);
    if (fd < 0) return PyErr_SetFromErrno(PyExc_OSError);
    slot_t *slot = new_slot(self, owner, client, fd, &number);
    if (!slot) {
        close(fd);
        return NULL;
    }
    uint32_t at = slot - self->slots;
    PyObject *dialled = Py_BuildValue("[NiO]", number, fd, Py_False);
    if (!dialled || !keep_first(slot, header, header_size, header_size)) {
        Py_XDECREF(dialled);
        close(fd);
        forget(self, at);
        return PyErr_NoMemory();
    }
    slot->address = Py_NewRef(address);
    slot->hop_limit = hop_limit;
    self->heard += BEGIN_COUNTS;
    dial(self, at);
    wait_if_not_joined(self, at);
    if (slot->greeting) PyList_SetItem(dialled, 2, Py_NewRef(Py_True)); /* cannot fail: it is there */
    return dialled;
}

static PyObject *ring_join(ring_t *self, PyObject *args) {
    PyObject *owner, *number;
    int client, target;
    long long up, down;
    if (!PyArg_ParseTuple(args, "OiiLL", &owner, &client, &target, &up, &down) ||
        !check_open(self))
        return NULL;
    slot_t *slot = new_slot(self, owner, client, target, &number);
    if (!slot) return NULL;
    uint32_t at = slot - self->slots;
    slot->end[CLIENT].moved = up;
    slot->end[TARGET].moved = down;
    slot->state = MOVING;
    slot->joined = 1;
    read_end(self, at, CLIENT, false);
    if (slot->state == MOVING) read_end(self, at, TARGET, false);
    settle(self, at);
    return number;
}

/* Who hears of a flow; None if it has been given up since the event. */
static PyObject *ring_owner(ring_t *self, PyObject *number) {
    unsigned long long value = PyLong_AsUnsignedLongLong(number);
    if (PyErr_Occurred() || !check_open(self)) return NULL;
    slot_t *slot = find(self, value);
    return Py_NewRef(slot ? slot->owner : Py_None);
}

static PyObject *ring_is_connected(ring_t *self, PyObject *number) {
    slot_t *slot = slot_of(self, number);
    return slot ? PyBool_FromLong(slot->joined) : NULL;
}

static PyObject *ring_stop(ring_t *self, PyObject *number) {
    slot_t *slot = slot_of(self, number);
    if (!slot) return NULL;
    uint32_t at = slot - self->slots;
    if (slot->state == STANDING) Py_RETURN_NONE; /* it has been told */
    if (!make_room(self, 1)) return PyErr_NoMemory();
    stop(self, at, ASKED);
    settle(self, at);
    io_uring_submit(&self->ring);
    Py_RETURN_NONE;
}

/* Stop the flows that are half-closed since the sweep before, and so many of the others. */
static PyObject *ring_sweep(ring_t *self, PyObject *number) {
    unsigned long most = PyLong_AsUnsignedLong(number);
    if (PyErr_Occurred() || !check_open(self)) return NULL;
    if (!make_room(self, self->active)) return PyErr_NoMemory();
    for (uint32_t at = 0; at < self->count; at++) {
        slot_t *slot = &self->slots[at];
        if (slot->state != MOVING) continue;
        bool is_whole = slot->end[CLIENT].ended == slot->end[TARGET].ended;
        bool leaves = is_whole ? most > 0 : slot->lonely;
        slot->lonely = !is_whole;
        if (!leaves) continue;
        if (is_whole) most--;
        stop(self, at, is_whole ? ASKED : LONELY);
        settle(self, at);
    }
    Py_RETURN_NONE;
}

static PyObject *bytes_of(const unsigned char *data, uint32_t size) {
    return PyBytes_FromStringAndSize((const char *)data, size);
}

static PyObject *ring_take(ring_t *self, PyObject *number) {
    slot_t *slot = slot_of(self, number);
    if (!slot) return NULL;
    if (slot->state != STANDING) {
        PyErr_SetString(PyExc_ValueError, "the flow has not stopped");
        return NULL;
    }
    end_t *client = &slot->end[CLIENT], *target = &slot->end[TARGET];
    unsigned flags = (client->ended ? ENDED_CLIENT : 0) | (target->ended ? ENDED_TARGET : 0) |
                     (client->broke ? BROKE_CLIENT : 0) | (target->broke ? BROKE_TARGET : 0) |
                     (client->full >= BULK_AFTER ? BULK_CLIENT : 0) |
                     (target->full >= BULK_AFTER ? BULK_TARGET : 0);
    PyObject *first = bytes_of(slot->first, slot->first_size);
    PyObject *up = bytes_of(client->held, client->held_size);
    PyObject *down = bytes_of(target->held, target->held_size);
    PyObject *taken = NULL;
    if (first && up && down)
        taken = Py_BuildValue("(IiIOOOLL)", slot->reason, slot->error, flags, first, up, down,
                              (long long)client->moved, (long long)target->moved);
    Py_XDECREF(first);
    Py_XDECREF(up);
    Py_XDECREF(down);
    if (taken) forget(self, slot - self->slots);
    return taken;
}

static PyObject *ring_reset(ring_t *self, PyObject *number) {
    slot_t *slot = slot_of(self, number);
    if (!slot) return NULL;
    struct linger now = {.l_onoff = 1, .l_linger = 0}; /* close(2) sends RST then */
    for (int end = CLIENT; end <= TARGET; end++)
        setsockopt(slot->end[end].fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    Py_RETURN_NONE;
}

static PyObject *ring_drop(ring_t *self, PyObject *number) {
    slot_t *slot = slot_of(self, number);
    if (!slot) return NULL;
    uint32_t at = slot - self->slots;
    bool waits = !is_quiet(slot) && slot->state != STOPPING; /* else it is cancelled already */
    slot->state = CLOSING;
    Py_CLEAR(slot->owner);
    if (waits) {
        cancel_all(self, at);
        io_uring_submit(&self->ring);
    }
    settle(self, at);
    Py_RETURN_NONE;
}

static PyObject *ring_moved(ring_t *self, PyObject *number) {
    slot_t *slot = slot_of(self, number);
    if (!slot) return NULL;
    long long up = slot->end[CLIENT].moved, down = slot->end[TARGET].moved;
    return Py_BuildValue("(LL)", up > 0 ? up : 0, down);
}

static PyObject *ring_is_half_closed(ring_t *self, PyObject *number) {
    slot_t *slot = slot_of(self, number);
    if (!slot) return NULL;
    return PyBool_FromLong(slot->end[CLIENT].ended != slot->end[TARGET].ended);
}

static PyObject *ring_poll(ring_t *self, PyObject *number) {
    long fd = PyLong_AsLong(number);
    if (PyErr_Occurred() || !check_open(self)) return NULL;
    struct io_uring_sqe *sqe = next_sqe(self);
    if (!sqe) return PyErr_NoMemory();
    io_uring_prep_poll_add(sqe, (int)fd, POLLIN);
    io_uring_sqe_set_data64(sqe, POLL);
    Py_RETURN_NONE;
}

static PyObject *ring_fileno(ring_t *self, PyObject *unused) {
    (void)unused;
    return check_open(self) ? PyLong_FromLong(self->bell) : NULL;
}

static PyObject *ring_active(ring_t *self, void *unused) {
    (void)unused;
    return PyLong_FromUnsignedLong(self->active);
}

static PyObject *ring_load(ring_t *self, PyObject *unused) {
    (void)unused;
    double load = self->waits ? (double)self->heard / self->waits : 0;
    self->heard = self->waits = 0;
    return PyFloat_FromDouble(load);
}

static PyObject *ring_close(ring_t *self, PyObject *unused) {
    (void)unused;
    close_ring(self);
    Py_RETURN_NONE;
}

static void ring_dealloc(ring_t *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    close_ring(self);
    free(self->slots);
    free(self->events);
    free(self->soon);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *ring_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    int once = false;
    if (kwargs && PyObject_Size(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "Ring() takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "|p", &once)) return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    ring_t *self = (ring_t *)allocate(type, 0); /* all zero */
    if (!self) return NULL;
    self->free = NONE;
    self->bell = -1;
    self->once = once;
    int result = open_ring(self);
    if (result < 0) {
        errno = -result;
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyMethodDef methods[] = {
    {"fileno", (PyCFunction)ring_fileno, METH_NOARGS, "The descriptor to watch while the ring rests."},
    {"wait", (PyCFunction)ring_wait, METH_O, "Submit, wait for so many seconds, give the events; None: nothing came."},
    {"rest", (PyCFunction)ring_rest, METH_NOARGS,
     "Submit, and watch by descriptor from now on; True if there is something to wait for."},
    {"poll", (PyCFunction)ring_poll, METH_O, "Tell once when a descriptor is readable."},
    {"connect", (PyCFunction)ring_connect, METH_VARARGS,
     "Move bytes once the target is connected: (owner, client, target, first,"
     " header_size) -> slot."},
    {"dial", (PyCFunction)ring_dial, METH_VARARGS,
     "Connect to a struct sockaddr, and move bytes then: (owner, client, address, header,"
     " hop_limit) -> [slot, descriptor, whether WAITING tells if it takes time]. Raises OSError."},
    {"join", (PyCFunction)ring_join, METH_VARARGS,
     "Move bytes between connected sockets: (owner, client, target, up, down) -> slot."},
    {"owner", (PyCFunction)ring_owner, METH_O, "Who hears of a flow; None if it has closed."},
    {"is_connected", (PyCFunction)ring_is_connected, METH_O, "Whether the target has the first bytes."},
    {"stop", (PyCFunction)ring_stop, METH_O, "Stop a flow; STOPPED tells that it can be taken."},
    {"sweep", (PyCFunction)ring_sweep, METH_O,
     "Stop what was half-closed at the last one, and so many others."},
    {"load", (PyCFunction)ring_load, METH_NOARGS,
     "What a wait has brought since the last call: reads of flows, their begins fourfold."},
    {"take", (PyCFunction)ring_take, METH_O,
     "Take a stopped flow: (reason, errno, flags, first, held up, held down, up, down)."},
    {"reset", (PyCFunction)ring_reset, METH_O, "Let the end of both be RST."},
    {"drop", (PyCFunction)ring_drop, METH_O, "Close both once nothing is under way."},
    {"moved", (PyCFunction)ring_moved, METH_O, "Bytes up and down."},
    {"is_half_closed", (PyCFunction)ring_is_half_closed, METH_O, "Whether one end has ended."},
    {"close", (PyCFunction)ring_close, METH_NOARGS, "Close every flow, and the ring."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
    {"active", (getter)ring_active, NULL, "Flows that are not given back yet.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, ring_new},       {Py_tp_dealloc, ring_dealloc},
    {Py_tp_methods, methods},    {Py_tp_getset, attributes},
    {Py_tp_doc, "An io_uring that moves the bytes of TCP flows. Raises OSError."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "v6fwd.relay.ring._ring.Ring",
    .basicsize = sizeof(ring_t),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

static struct PyModuleDef module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_ring",
    .m_doc = "Moves the bytes of plain TCP flows over io_uring.",
    .m_size = -1,
};

PyMODINIT_FUNC PyInit__ring(void) {
    PyObject *self = PyModule_Create(&module);
    PyObject *type = self ? PyType_FromSpec(&spec) : NULL;
    if (!type || PyModule_AddObjectRef(self, "Ring", type) < 0) Py_CLEAR(self);
    Py_XDECREF(type);
    return self;
}
