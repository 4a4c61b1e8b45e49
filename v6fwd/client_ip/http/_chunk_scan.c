/* Finds where a run of plain chunks ends: strict, with data, without extensions (RFC 9112, 7.1).
 *
 * It takes and refuses exactly what chunk_runs.py does, which serves where this is not built. The
 * bytes are a client's: an index is compared with the end before it is used, a size before it is
 * added, and nothing is allocated.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <stdint.h>

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

static PyMethodDef functions[] = {
    {"plain_end", (PyCFunction)(void (*)(void))plain_end, METH_FASTCALL,
     "Return the end of the plain chunks that are complete at data[at:]; `at` if there are none."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_chunk_scan", .m_size = 0, .m_methods = functions,
};

PyMODINIT_FUNC PyInit__chunk_scan(void) {
    return PyModuleDef_Init(&definition);
}
