/* The type `Epoll`: Python's side of _moves.c. Arguments are checked here, each pair's number too. */
#include "_moves.h"
#include "_dial.h"

#include <sys/timerfd.h>

/* Let the epoll itself end the waits of this turn: one setting of the clock for all of them, where
 * each timeout of epoll_wait(2) sets it twice. What still runs from the last turn will do. */
static bool set_timer(epoll_t *self, double seconds) {
    if (self->timed == seconds) return true;
    struct itimerspec once = {.it_value = {
        .tv_sec = (time_t)seconds,
        .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9),
    }};
    if (timerfd_settime(self->timer, 0, &once, NULL) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return false;
    }
    self->timed = seconds;
    return true;
}

enum { SMOOTHING = 32 }; /* waits */

/* Wait once, and do what has to be done. Gives the number of events; -1 with an exception set. */
static int turn(epoll_t *self, int most, int milliseconds) {
    int count;
    Py_BEGIN_ALLOW_THREADS
    count = epoll_wait(self->fd, self->ready, most, milliseconds);
    Py_END_ALLOW_THREADS
    if (count < 0 && errno != EINTR) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (count < 0) return PyErr_CheckSignals() < 0 ? -1 : 0;
    for (int i = 0; i < count; i++) take(self, &self->ready[i]);
    self->load += (self->heard - self->load) / SMOOTHING;
    self->heard = 0;
    return count;
}

static PyObject *event_of(const event_t *event) {
    PyObject *who = PyLong_FromLong(event->who), *what = PyLong_FromUnsignedLongLong(event->what);
    PyObject *told = who && what ? PyTuple_Pack(2, who, what) : NULL;
    Py_XDECREF(who);
    Py_XDECREF(what);
    return told;
}

/* What Python is told; without memory it is told by the next poll. */
static PyObject *list_of(epoll_t *self) {
    PyObject *list = PyList_New(self->told);
    for (uint32_t i = 0; list && i < self->told; i++) {
        PyObject *event = event_of(&self->events[i]);
        if (!event || PyList_SetItem(list, i, event) < 0) Py_CLEAR(list);
    }
    if (list) self->told = 0;
    return list;
}

/* -- Python's side -- */

static bool check_open(epoll_t *self) {
    if (self->fd < 0) PyErr_SetString(PyExc_ValueError, "I/O operation on closed epoll object");
    return self->fd >= 0;
}

static slot_t *slot_of(epoll_t *self, PyObject *number) {
    unsigned long long value = PyLong_AsUnsignedLongLong(number);
    if (PyErr_Occurred() || !check_open(self)) return NULL;
    slot_t *slot = find(self, value);
    if (!slot) PyErr_SetString(PyExc_ValueError, "no such flow");
    return slot;
}

/* Go on until there is something to tell, or the time is over. */
static PyObject *epoll_poll(epoll_t *self, PyObject *args) {
    double seconds;
    int most, count;
    if (!PyArg_ParseTuple(args, "di", &seconds, &most) || !check_open(self)) return NULL;
    if (most < 1 || most > BATCH) most = BATCH;
    if (!make_room(self, BATCH)) return PyErr_NoMemory();
    if (!++self->polls) self->polls = 1;
    bool waits = !self->told && seconds > 0;
    if (waits && !set_timer(self, seconds)) return NULL;
    do {
        if ((count = turn(self, most, waits ? -1 : 0)) < 0) return NULL;
    } while (count && waits && !self->told && self->timed);
    return list_of(self);
}

static PyObject *control(epoll_t *self, int operation, int fd, unsigned mask) {
    struct epoll_event event = {.events = mask, .data.u64 = (uint32_t)fd};
    if (!check_open(self)) return NULL;
    if (epoll_ctl(self->fd, operation, fd, &event) < 0) return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyObject *epoll_register(epoll_t *self, PyObject *args) {
    int fd;
    unsigned mask;
    if (!PyArg_ParseTuple(args, "iI", &fd, &mask)) return NULL;
    return control(self, EPOLL_CTL_ADD, fd, mask);
}

static PyObject *epoll_modify(epoll_t *self, PyObject *args) {
    int fd;
    unsigned mask;
    if (!PyArg_ParseTuple(args, "iI", &fd, &mask)) return NULL;
    return control(self, EPOLL_CTL_MOD, fd, mask);
}

static PyObject *epoll_unregister(epoll_t *self, PyObject *number) {
    long fd = PyLong_AsLong(number);
    return PyErr_Occurred() ? NULL : control(self, EPOLL_CTL_DEL, (int)fd, 0);
}

static PyObject *epoll_fileno(epoll_t *self, PyObject *unused) {
    (void)unused;
    return check_open(self) ? PyLong_FromLong(self->fd) : NULL;
}

/* Take a free slot. NULL with an exception set if there is no memory.
 *
 * `number` is what Python gets: made before, so that nothing fails once the descriptors are ours. */
static slot_t *new_slot(epoll_t *self, PyObject *owner, int client, int target, PyObject **number) {
    if (!make_room(self, MOST_TOLD) || (self->free == NONE && !grow(self))) {
        PyErr_NoMemory();
        return NULL;
    }
    slot_t *slot = &self->slots[self->free];
    if (!(*number = PyLong_FromUnsignedLongLong(number_of(self, slot)))) return NULL;
    self->free = slot->next;
    self->active++;
    slot->owner = Py_NewRef(owner);
    slot->state = CONNECTING;
    slot->end[CLIENT].fd = client;
    slot->end[TARGET].fd = target;
    return slot;
}

static PyObject *epoll_connect(epoll_t *self, PyObject *args) {
    PyObject *owner, *number;
    int client, target;
    const char *first;
    Py_ssize_t size;
    unsigned header_size;
    if (!PyArg_ParseTuple(args, "Oiiy#I", &owner, &client, &target, &first, &size, &header_size) ||
        !check_open(self))
        return NULL;
    if (size > COPY_SIZE + FIRST_SIZE || header_size > size || header_size > COPY_SIZE) {
        PyErr_SetString(PyExc_ValueError, "no such header");
        return NULL;
    }
    slot_t *slot = new_slot(self, owner, client, target, &number);
    if (!slot) return NULL;
    slot->header_size = header_size;
    self->heard += BEGIN_COUNTS;
    connect_pair(self, slot, first, size);
    return number;
}

static PyObject *epoll_dial(epoll_t *self, PyObject *args) {
    PyObject *owner, *number;
    int client, hop_limit;
    const char *header, *bytes;
    Py_ssize_t header_size, size;
    if (!PyArg_ParseTuple(args, "Oiy#y#i", &owner, &client, &bytes, &size, &header, &header_size,
                          &hop_limit) ||
        !check_open(self))
        return NULL;
    struct sockaddr_storage address;
    if (size < (Py_ssize_t)sizeof(struct sockaddr_in) || size > (Py_ssize_t)sizeof address ||
        header_size > COPY_SIZE) {
        PyErr_SetString(PyExc_ValueError, "no such address or header");
        return NULL;
    }
    memcpy(&address, bytes, size);
    int fd = target_socket(address.ss_family);
    if (fd < 0) return PyErr_SetFromErrno(PyExc_OSError);
    slot_t *slot = new_slot(self, owner, client, fd, &number);
    PyObject *dialled = slot ? Py_BuildValue("[NiO]", number, fd, Py_False) : NULL;
    if (!dialled) {
        close(fd);
        if (slot) forget(self, slot);
        return NULL;
    }
    slot->header_size = header_size;
    self->heard += BEGIN_COUNTS;
    dial(self, slot, (struct sockaddr *)&address, size, hop_limit, header);
    if (slot->joined) PyList_SetItem(dialled, 2, Py_NewRef(Py_True)); /* cannot fail: it is there */
    return dialled;
}

static PyObject *epoll_join(epoll_t *self, PyObject *args) {
    PyObject *owner, *number;
    int client, target;
    long long up, down;
    if (!PyArg_ParseTuple(args, "OiiLL", &owner, &client, &target, &up, &down) ||
        !check_open(self))
        return NULL;
    slot_t *slot = new_slot(self, owner, client, target, &number);
    if (!slot) return NULL;
    slot->end[CLIENT].moved = up;
    slot->end[TARGET].moved = down;
    take_over(self, slot);
    return number;
}

/* Who hears of a pair; None if it has been given up since the event. */
static PyObject *epoll_owner(epoll_t *self, PyObject *number) {
    unsigned long long value = PyLong_AsUnsignedLongLong(number);
    if (PyErr_Occurred() || !check_open(self)) return NULL;
    slot_t *slot = find(self, value);
    return Py_NewRef(slot ? slot->owner : Py_None);
}

static PyObject *epoll_is_connected(epoll_t *self, PyObject *number) {
    slot_t *slot = slot_of(self, number);
    return slot ? PyBool_FromLong(slot->joined) : NULL;
}

static PyObject *epoll_stop(epoll_t *self, PyObject *number) {
    slot_t *slot = slot_of(self, number);
    if (!slot) return NULL;
    stop(self, slot, ASKED);
    Py_RETURN_NONE;
}

static PyObject *bytes_of(const unsigned char *data, uint32_t size) {
    return PyBytes_FromStringAndSize((const char *)data, size);
}

static unsigned flags_of(const slot_t *slot) {
    const end_t *client = &slot->end[CLIENT], *target = &slot->end[TARGET];
    return (client->ended ? ENDED_CLIENT : 0) | (target->ended ? ENDED_TARGET : 0) |
           (client->broke ? BROKE_CLIENT : 0) | (target->broke ? BROKE_TARGET : 0) |
           (client->full >= BULK_AFTER ? BULK_CLIENT : 0) |
           (target->full >= BULK_AFTER ? BULK_TARGET : 0);
}

static PyObject *epoll_take(epoll_t *self, PyObject *number) {
    slot_t *slot = slot_of(self, number);
    if (!slot) return NULL;
    if (slot->state != STANDING) {
        PyErr_SetString(PyExc_ValueError, "the flow has not stopped");
        return NULL;
    }
    PyObject *first = bytes_of(slot->first, slot->first_size);
    PyObject *held = bytes_of(slot->held, slot->held_size), *none = bytes_of(NULL, 0);
    PyObject *up = slot->holder == CLIENT ? held : none, *down = up == held ? none : held;
    PyObject *taken = NULL;
    if (first && held && none)
        taken = Py_BuildValue("(IiIOOOLL)", slot->reason, slot->error, flags_of(slot), first, up,
                              down, (long long)slot->end[CLIENT].moved,
                              (long long)slot->end[TARGET].moved);
    Py_XDECREF(first);
    Py_XDECREF(held);
    Py_XDECREF(none);
    if (taken) forget(self, slot);
    return taken;
}

static PyObject *epoll_reset(epoll_t *self, PyObject *number) {
    slot_t *slot = slot_of(self, number);
    if (!slot) return NULL;
    struct linger at_once = {.l_onoff = 1, .l_linger = 0}; /* close(2) sends RST then */
    for (int end = CLIENT; end <= TARGET; end++)
        setsockopt(slot->end[end].fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    Py_RETURN_NONE;
}

static PyObject *epoll_drop(epoll_t *self, PyObject *number) {
    slot_t *slot = slot_of(self, number);
    if (!slot) return NULL;
    int client = slot->end[CLIENT].fd, target = slot->end[TARGET].fd;
    bool is_left = slot->since && slot->since == self->polls;
    PyObject *left = is_left ? Py_BuildValue("(ii)", client, target) : PyTuple_New(0);
    if (!left) return NULL;
    forget(self, slot);
    if (is_left) return left;
    close(client);
    close(target);
    return left;
}

static PyObject *epoll_moved(epoll_t *self, PyObject *number) {
    slot_t *slot = slot_of(self, number);
    if (!slot) return NULL;
    long long up = slot->end[CLIENT].moved, down = slot->end[TARGET].moved;
    return Py_BuildValue("(LL)", up > 0 ? up : 0, down);
}

static PyObject *epoll_is_half_closed(epoll_t *self, PyObject *number) {
    slot_t *slot = slot_of(self, number);
    return slot ? PyBool_FromLong(slot->end[CLIENT].ended != slot->end[TARGET].ended) : NULL;
}

static PyObject *epoll_active(epoll_t *self, void *unused) {
    (void)unused;
    return PyLong_FromUnsignedLong(self->active);
}

static PyObject *epoll_is_due(epoll_t *self, void *unused) {
    (void)unused;
    return PyBool_FromLong(self->told);
}

static PyObject *epoll_load(epoll_t *self, void *unused) {
    (void)unused;
    return PyFloat_FromDouble(self->load);
}

static PyObject *epoll_leaving(epoll_t *self, void *unused) {
    (void)unused;
    return PyBool_FromLong(self->leaving);
}

static int epoll_set_leaving(epoll_t *self, PyObject *value, void *unused) {
    (void)unused;
    int leaving = value ? PyObject_IsTrue(value) : false;
    if (leaving < 0) return -1;
    self->leaving = leaving;
    self->load = 0;
    return 0;
}

static void close_all(epoll_t *self) {
    if (self->fd < 0) return;
    close(self->fd);
    if (self->timer >= 0) close(self->timer);
    self->fd = -1;
    for (uint32_t at = 0; at < self->count; at++) {
        slot_t *slot = &self->slots[at];
        if (slot->state == FREE) continue;
        close(slot->end[CLIENT].fd);
        close(slot->end[TARGET].fd);
        forget(self, slot);
    }
    self->told = 0;
}

static PyObject *epoll_close(epoll_t *self, PyObject *unused) {
    (void)unused;
    close_all(self);
    Py_RETURN_NONE;
}

static void epoll_dealloc(epoll_t *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    close_all(self);
    free(self->slots);
    free(self->events);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* False: see errno. */
static bool open_epoll(epoll_t *self) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = IS_TIMER};
    return (self->fd = epoll_create1(EPOLL_CLOEXEC)) >= 0 &&
           (self->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) >= 0 &&
           epoll_ctl(self->fd, EPOLL_CTL_ADD, self->timer, &event) == 0;
}

static PyObject *epoll_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    if (PyTuple_Size(args) || (kwargs && PyObject_Size(kwargs))) {
        PyErr_SetString(PyExc_TypeError, "Epoll() takes no arguments");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    epoll_t *self = (epoll_t *)allocate(type, 0); /* all zero */
    if (!self) return NULL;
    self->free = NONE;
    self->timer = -1;
    self->polls = 1;
    if (!open_epoll(self)) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_CLEAR(self);
    } else if (!grow(self)) {
        PyErr_NoMemory();
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static PyMethodDef methods[] = {
    {"fileno", (PyCFunction)epoll_fileno, METH_NOARGS, "The epoll's own descriptor."},
    {"register", (PyCFunction)epoll_register, METH_VARARGS, "Watch a descriptor: (fd, mask)."},
    {"modify", (PyCFunction)epoll_modify, METH_VARARGS, "Watch it for other events: (fd, mask)."},
    {"unregister", (PyCFunction)epoll_unregister, METH_O, "Watch it no more."},
    {"poll", (PyCFunction)epoll_poll, METH_VARARGS,
     "Move bytes until something else happens: (seconds, most) -> [(fd, mask)]; of the pairs:"
     " (-1, pair << 3 | kind)."},
    {"connect", (PyCFunction)epoll_connect, METH_VARARGS,
     "Move bytes once the target is connected: (owner, client, target, first,"
     " header_size) -> pair."},
    {"dial", (PyCFunction)epoll_dial, METH_VARARGS,
     "Connect to a struct sockaddr, and move bytes then: (owner, client, address, header,"
     " hop_limit) -> [pair, descriptor, whether it is connected]. Raises OSError."},
    {"join", (PyCFunction)epoll_join, METH_VARARGS,
     "Move bytes between connected sockets that are registered: (owner, client, target, up, down)"
     " -> pair."},
    {"owner", (PyCFunction)epoll_owner, METH_O, "Who hears of a pair; None if it has closed."},
    {"is_connected", (PyCFunction)epoll_is_connected, METH_O, "Whether the target has the first bytes."},
    {"stop", (PyCFunction)epoll_stop, METH_O, "Stop a pair; STOPPED tells that it can be taken."},
    {"take", (PyCFunction)epoll_take, METH_O,
     "Take a stopped pair: (reason, errno, flags, first, held up, held down, up, down)."},
    {"reset", (PyCFunction)epoll_reset, METH_O, "Let the end of both be RST."},
    {"drop", (PyCFunction)epoll_drop, METH_O, "Close both; gives those that are to be closed after the batch."},
    {"moved", (PyCFunction)epoll_moved, METH_O, "Bytes up and down."},
    {"is_half_closed", (PyCFunction)epoll_is_half_closed, METH_O, "Whether one end has ended."},
    {"close", (PyCFunction)epoll_close, METH_NOARGS, "Close every pair, and the epoll."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
    {"active", (getter)epoll_active, NULL, "Pairs that are not given back yet.", NULL},
    {"is_due", (getter)epoll_is_due, NULL, "Whether the next poll has something to tell at once.", NULL},
    {"load", (getter)epoll_load, NULL, "What a wait brings, smoothed: events of pairs, their begins fourfold.", NULL},
    {"leaving", (getter)epoll_leaving, (setter)epoll_set_leaving,
     "Whether a pair is stopped by its next plain event. Setting it begins the load anew.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, epoll_new},       {Py_tp_dealloc, epoll_dealloc},
    {Py_tp_methods, methods},     {Py_tp_getset, attributes},
    {Py_tp_doc, "An epoll that moves the bytes of TCP flows. Raises OSError."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "v6fwd.relay.pairs._epoll.Epoll",
    .basicsize = sizeof(epoll_t),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

static struct PyModuleDef module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_epoll",
    .m_doc = "Moves the bytes of plain TCP flows over epoll.",
    .m_size = -1,
};

PyMODINIT_FUNC PyInit__epoll(void) {
    PyObject *self = PyModule_Create(&module);
    PyObject *type = self ? PyType_FromSpec(&spec) : NULL;
    if (!type || PyModule_AddObjectRef(self, "Epoll", type) < 0) Py_CLEAR(self);
    Py_XDECREF(type);
    return self;
}
