/* What both native pumps, here and in relay/ring/, have in common with Python: see relay/pump.py. */
#ifndef V6FWD_CONTRACT_H
#define V6FWD_CONTRACT_H

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define CLIENT 0
#define TARGET 1
#define OTHER(end) (1 - (end))

/* What Python is told of a pair: number << KIND_BITS | kind. READABLE and WAITING are the ring's. */
enum { CONNECTED, FINISHED, STOPPED, READABLE, WAITING, KIND_BITS = 3 };

/* Why a pair has stopped. */
enum { FULL = 1, BULK, BROKE, FAILED, MEMORY, ASKED, LONELY, ODD };

/* What was read of the two ends before. */
enum {
    ENDED_CLIENT = 1,
    ENDED_TARGET = 2,
    BROKE_CLIENT = 4,
    BROKE_TARGET = 8,
    BULK_CLIENT = 16,
    BULK_TARGET = 32
};

#define NONE UINT32_MAX /* no slot */

/* A pair's number: generation (32 bits) and place of its slot. No stale number, and no stale event,
 * meets another pair. */
enum { SLOT_BITS = 20, MOST_SLOTS = 1 << SLOT_BITS, FIRST_SLOTS = 64 };

/* What waits bring is counted: events of pairs, and the begin of one for BEGIN_COUNTS of these. */
enum { BEGIN_COUNTS = 4 };

#endif
