/* Passes a usual HTTP message on: one recv, a look at its head (_heads.c), one send.
 *
 * The caller says when the next byte begins a message, and does with everything else what it does
 * without this module: what is no usual message comes back as bytes, and nothing of it has been sent.
 * The bytes are a stranger's. They stay in two buffers of this module, whose size every length is
 * compared with; both are used within one call, which holds the interpreter's lock.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "../../client_ip/http/_heads.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

enum { HEAD_SIZE = 16 * 1024, OUT_SIZE = 2 * HEAD_SIZE }; /* as side.py: HEAD_SIZE */

static unsigned char in[HEAD_SIZE], out[OUT_SIZE];

typedef struct {
    const char *data;
    size_t size;
} bytes_t;

/* What RequestStream.known has. */
typedef struct {
    bytes_t block, rewritten;                 /* the last head's */
    bytes_t host, connection, before, behind; /* the frame of usual ones */
} known_t;

static bool get_bytes(PyObject *tuple, Py_ssize_t at, bytes_t *to) {
    char *data;
    Py_ssize_t size;
    PyObject *item = PyTuple_GetItem(tuple, at);
    if (!item || PyBytes_AsStringAndSize(item, &data, &size) < 0) return false;
    *to = (bytes_t){data, (size_t)size};
    return true;
}

static bool get_known(PyObject *told, known_t *known) {
    PyObject *frame = PyTuple_GetItem(told, 2);
    return frame && get_bytes(told, 0, &known->block) && get_bytes(told, 1, &known->rewritten) &&
           get_bytes(frame, 0, &known->host) && get_bytes(frame, 1, &known->connection) &&
           get_bytes(frame, 2, &known->before) && get_bytes(frame, 3, &known->behind);
}

/* -- moving -- */

/* Fill `in`. Gives -1 where Python is told something else, with an exception set or not. */
static ssize_t receive(int fd) {
    ssize_t size;
    do size = recv(fd, in, sizeof in, MSG_DONTWAIT);
    while (size < 0 && errno == EINTR); /* no second edge would tell */
    if (size < 0 && errno != EAGAIN && errno != EWOULDBLOCK) PyErr_SetFromErrno(PyExc_OSError);
    return size;
}

static PyObject *nothing(void) {
    return PyErr_Occurred() ? NULL : PyLong_FromLong(0);
}

static PyObject *not_usual(ssize_t size) {
    return PyBytes_FromStringAndSize((const char *)in, size);
}

/* Send, and say how much was taken; with the rest, and -1 for a broken connection, if not all. */
static PyObject *pass(int fd, const unsigned char *data, size_t size) {
    ssize_t sent;
    do sent = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent == (ssize_t)size) return PyLong_FromSsize_t(sent);
    if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return Py_BuildValue("(iy)", -1, "");
    if (sent < 0) sent = 0;
    return Py_BuildValue("(ny#)", (Py_ssize_t)sent, (const char *)data + sent,
                         (Py_ssize_t)size - sent);
}

/* -- requests -- */

/* Append to `out`; gives the new size, over OUT_SIZE if it does not fit. */
static size_t append(size_t size, const void *data, size_t more) {
    if (size > OUT_SIZE || more > OUT_SIZE - size) return OUT_SIZE + 1;
    memcpy(out + size, data, more);
    return size + more;
}

static bool is_same(const bytes_t *known, span_t span) {
    return known->size == span.size && memcmp(known->data, in + span.at, span.size) == 0;
}

/* Rewrite a head whose block is the last one; gives its size, 0 if it is not usual. */
static size_t rewrite_known(size_t size, const known_t *known) {
    bool is_head;
    size_t line = size - known->block.size;
    if (!is_usual_line(in, line, &is_head) || is_head) return 0;
    return append(append(0, in, line), known->rewritten.data, known->rewritten.size);
}

/* Rewrite a head with new fields, but Host and Connection of the last one; 0 as above. */
static size_t rewrite_new(size_t size, const known_t *known) {
    request_head_t head;
    if (size > USUAL_BLOCK || !read_request(in, size, &head) || head.is_head) return 0;
    if (!is_same(&known->host, head.host) || !is_same(&known->connection, head.connection)) return 0;
    size_t made = append(append(0, in, head.line), known->before.data, known->before.size);
    for (int n = 0; n < MOST_RUNS; n++) made = append(made, in + head.runs[n].at, head.runs[n].size);
    return append(made, known->behind.data, known->behind.size);
}

static bool ends_as_known(size_t size, const bytes_t *block) {
    return block->size && size > block->size &&
           memcmp(in + size - block->size, block->data, block->size) == 0;
}

static bool get_fds(PyObject *const *given, Py_ssize_t count, Py_ssize_t wanted, int *from, int *to) {
    if (count != wanted) {
        PyErr_SetString(PyExc_TypeError, "wrong number of arguments");
        return false;
    }
    *from = (int)PyLong_AsLong(given[0]);
    if (PyErr_Occurred()) return false;
    *to = (int)PyLong_AsLong(given[1]);
    return !PyErr_Occurred();
}

static PyObject *pass_request(PyObject *module, PyObject *const *given, Py_ssize_t count) {
    (void)module;
    int from, to;
    known_t known;
    if (!get_fds(given, count, 3, &from, &to) || !get_known(given[2], &known)) return NULL;
    ssize_t size = receive(from);
    if (size < 0) return nothing();
    if (size == 0 || size == HEAD_SIZE) return not_usual(size);
    size_t made = ends_as_known((size_t)size, &known.block) ? rewrite_known((size_t)size, &known)
                                                            : rewrite_new((size_t)size, &known);
    return made && made <= OUT_SIZE ? pass(to, out, made) : not_usual(size);
}

/* -- responses -- */

static PyObject *pass_response(PyObject *module, PyObject *const *given, Py_ssize_t count) {
    (void)module;
    int from, to;
    uint64_t length;
    if (!get_fds(given, count, 2, &from, &to)) return NULL;
    ssize_t size = receive(from);
    if (size < 0) return nothing();
    size_t end = size < HEAD_SIZE ? read_response(in, (size_t)size, &length) : 0;
    if (!end || length != (uint64_t)size - end) return not_usual(size);
    return pass(to, in, (size_t)size);
}

static PyMethodDef functions[] = {
    {"pass_request", (PyCFunction)(void (*)(void))pass_request, METH_FASTCALL,
     "Pass one usual request on: (from, to, known) -> the number of bytes; 0: there is nothing;"
     " (taken, rest) if not all was taken, with -1 where the connection broke; or what came, if it is"
     " no usual request. Raises OSError where `from` broke."},
    {"pass_response", (PyCFunction)(void (*)(void))pass_response, METH_FASTCALL,
     "The same for a whole usual response: (from, to)."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_pass", .m_size = 0, .m_methods = functions,
};

PyMODINIT_FUNC PyInit__pass(void) {
    return PyModuleDef_Init(&definition);
}
