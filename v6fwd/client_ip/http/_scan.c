/* Finds the parts of usual heads (_heads.c), and where a run of plain chunks ends: strict, with data,
 * without extensions (RFC 9112, 7.1).
 *
 * It takes and refuses exactly what the patterns in usual.py, usual_response.py and chunk_runs.py do, which
 * serve where this is not built. The bytes are a client's: an index is compared with the end before it
 * is used, a size before it is added.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "_heads.h"

#include <string.h>

/* -- chunks -- */

enum { MOST_DIGITS = 15 }; /* so a size has 60 bits at most */
enum { NO_DIGIT = 16 };

static unsigned digit(unsigned char byte) {
    unsigned value = (unsigned)byte - '0';
    if (value < 10) return value;
    value = (unsigned)(byte | 0x20) - 'a'; /* no other byte gets into a to f by this bit */
    return value < 6 ? 10 + value : NO_DIGIT;
}

static int is_crlf(const unsigned char *data) {
    return data[0] == '\r' && data[1] == '\n';
}

static Py_ssize_t find_end(const unsigned char *data, Py_ssize_t at, Py_ssize_t end) {
    for (;;) {
        Py_ssize_t next = at;
        Py_ssize_t limit = end - at < MOST_DIGITS ? end : at + MOST_DIGITS;
        uint64_t size = 0;
        unsigned value;
        for (; next < limit && (value = digit(data[next])) != NO_DIGIT; next++)
            size = size << 4 | value;
        if (!size || end - next < 4 || !is_crlf(data + next)) return at;
        next += 2;
        if (size > (uint64_t)(end - next - 2)) return at; /* not complete */
        next += (Py_ssize_t)size;
        if (!is_crlf(data + next)) return at;
        at = next + 2;
    }
}

static PyObject *plain_end(PyObject *module, PyObject *const *given, Py_ssize_t count) {
    (void)module;
    char *data;
    Py_ssize_t size;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "plain_end takes bytes and an offset");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(given[0], &data, &size) < 0) return NULL;
    Py_ssize_t at = PyLong_AsSsize_t(given[1]);
    if (at == -1 && PyErr_Occurred()) return NULL;
    if (at < 0 || at > size) {
        PyErr_SetString(PyExc_ValueError, "the offset is outside of the bytes");
        return NULL;
    }
    return PyLong_FromSsize_t(find_end((const unsigned char *)data, at, size));
}

/* -- heads -- */

static PyObject *bytes_of(const char *data, span_t span) {
    return PyBytes_FromStringAndSize(data + span.at, (Py_ssize_t)span.size);
}

/* The lines of the fields that are passed on as they are. */
static PyObject *others_of(const char *data, const request_head_t *head) {
    size_t size = 0;
    for (int n = 0; n < MOST_RUNS; n++) size += head->runs[n].size;
    PyObject *others = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    char *to = others ? PyBytes_AsString(others) : NULL;
    for (int n = 0; to && n < MOST_RUNS; to += head->runs[n++].size)
        memcpy(to, data + head->runs[n].at, head->runs[n].size);
    return others;
}

static PyObject *parts_of(const char *data, const request_head_t *head) {
    return Py_BuildValue("(Ny#NN(N))", bytes_of(data, (span_t){0, head->line}), "HEAD",
                         (Py_ssize_t)(head->is_head ? 4 : 0), bytes_of(data, head->host),
                         bytes_of(data, head->connection), others_of(data, head));
}

static PyObject *parts(PyObject *given, bool has_line) {
    char *data;
    Py_ssize_t size;
    request_head_t head;
    if (PyBytes_AsStringAndSize(given, &data, &size) < 0) return NULL;
    bool is_usual = has_line ? read_request((const unsigned char *)data, (size_t)size, &head)
                             : read_block((const unsigned char *)data, 0, (size_t)size, &head);
    if (!is_usual) Py_RETURN_NONE;
    return parts_of(data, &head);
}

static PyObject *head_parts(PyObject *module, PyObject *given) {
    (void)module;
    return parts(given, true);
}

static PyObject *block_parts(PyObject *module, PyObject *given) {
    (void)module;
    return parts(given, false);
}

static PyObject *response_parts(PyObject *module, PyObject *given) {
    (void)module;
    char *data;
    Py_ssize_t size;
    uint64_t length;
    if (PyBytes_AsStringAndSize(given, &data, &size) < 0) return NULL;
    size_t end = read_response((const unsigned char *)data, (size_t)size, &length);
    if (!end) Py_RETURN_NONE;
    return Py_BuildValue("(nK)", (Py_ssize_t)end, (unsigned long long)length);
}

static PyMethodDef functions[] = {
    {"plain_end", (PyCFunction)(void (*)(void))plain_end, METH_FASTCALL,
     "Return the end of the plain chunks that are complete at data[at:]; `at` if there are none."},
    {"head_parts", head_parts, METH_O,
     "Return line, b'HEAD' or b'', Host, Connection and the others of a usual head; or None."},
    {"block_parts", block_parts, METH_O, "The same for a block; its line is b''."},
    {"response_parts", response_parts, METH_O,
     "Return the end of a usual response head and the length of its body; or None."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_scan", .m_size = 0, .m_methods = functions,
};

PyMODINIT_FUNC PyInit__scan(void) {
    return PyModuleDef_Init(&definition);
}
