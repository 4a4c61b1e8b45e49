/* hold FIFO PATIENCE SHIM FLAGS...: what the shim becomes while a daemon serves its port.
 *
 * It keeps the descriptors that dockerd gave the shim, and waits for signals: the daemon's, that
 * the port is served or not, and dockerd's, that it is over. docs/docker.md has the protocol.
 * There is one of it for every published port and family, hence no libc: it takes 5 kB of memory,
 * the smallest shell 60. Every signal is blocked and waited for, so none comes at a wrong moment.
 *
 * Without words it exits with 0, which shows that it runs here.
 * scripts/build-hold makes hold-x86_64 and hold-aarch64 of it.
 */

/* The numbers of system calls (arch/x86/entry/syscalls/syscall_64.tbl, asm-generic/unistd.h), and
 * what a program begins with: its stack, where the kernel has put argc, argv and the environment. */
#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, CLOSE = 3, SIGACTION = 13, SIGPROCMASK = 14, EXECVE = 59, FCNTL = 72,
    SIGTIMEDWAIT = 128, EXIT = 231, OPENAT = 257, DUP3 = 292 };
__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call begin");
#elif defined(__aarch64__)
enum { DUP3 = 24, FCNTL = 25, OPENAT = 56, CLOSE = 57, READ = 63, WRITE = 64, EXIT = 94, SIGACTION = 134,
    SIGPROCMASK = 135, SIGTIMEDWAIT = 137, EXECVE = 221 };
__asm__(".globl _start\n_start: mov x0, sp\n bl begin");
#endif
enum { PIDFD_OPEN = 434, PIDFD_GETFD = 438 }; /* the same everywhere */

enum { INT = 2, USR1 = 10, USR2 = 12, PIPE = 13, TERM = 15 }; /* asm-generic/signal.h */
enum { AT_FDCWD = -100, RDONLY = 0, WRONLY = 1, NONBLOCK = 04000, CLOEXEC = 02000000, SETFD = 2, EAGAIN = 11 };
enum { BLOCK = 0, UNBLOCK = 1, IGNORE = 1, QUEUED = -1 };
enum { STATUS = 3, LISTENER = 4, REST = 5, SPARE = 6 }; /* our descriptors */

#define BIT(number) (1UL << ((number) - 1))
static const unsigned long SIGNALS = BIT(INT) | BIT(TERM) | BIT(USR1) | BIT(USR2) | BIT(PIPE);

struct time { long seconds, nanoseconds; };
struct info { int number, error, code, pad, pid, uid, value, more[25]; }; /* siginfo_t, 128 bytes */

static long call(long number, long a, long b, long c, long d)
{
#if defined(__x86_64__)
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
#else
    register long x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d, x8 __asm__("x8") = number;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x1), "r"(x2), "r"(x3), "r"(x8) : "memory");
    return x0;
#endif
}

/* Put "PID START" into `line`; gives the size. START is in clock ticks since boot, and tells a
 * process id that was used again. Both are in /proc/PID/stat (proc(5)): fields 1 and 22.
 * Field 2 is the program's name in brackets, and ours has no blank in it. */
static int who_we_are(char *line)
{
    char stat[512];
    long fd = call(OPENAT, AT_FDCWD, (long)"/proc/self/stat", RDONLY | CLOEXEC, 0);
    long length = call(READ, fd, (long)stat, sizeof stat, 0);
    int field = 1, size = 0;
    call(CLOSE, fd, 0, 0, 0);
    for (long at = 0; at < length && field <= 22 && size < 48; at++) {
        if (stat[at] == ' ')
            field++;
        else if (field == 1 || field == 22)
            line[size++] = stat[at];
        if (stat[at] == ' ' && field == 2)
            line[size++] = ' ';
    }
    return size;
}

/* Write "PID START" and what else there is to say in one line; 0 if nobody hears it. */
static int tell(const char *fifo, const char *more)
{
    char line[64];
    int size = who_we_are(line);
    while (*more)
        line[size++] = *more++;
    /* fifo(7): with O_NONBLOCK, ENXIO while nobody has it open for reading */
    long fd = call(OPENAT, AT_FDCWD, (long)fifo, WRONLY | NONBLOCK | CLOEXEC, 0);
    int told = fd >= 0 && call(WRITE, fd, (long)line, size, 0) == size;
    call(CLOSE, fd, 0, 0, 0);
    return told;
}

/* Have the listening socket that the daemon `pid` has opened, in the place of dockerd's. */
static void pull(int pid, int fd)
{
    long daemon = call(PIDFD_OPEN, pid, 0, 0, 0);
    long pulled = call(PIDFD_GETFD, daemon, fd, 0, 0);
    call(CLOSE, daemon, 0, 0, 0); /* whose number may be the very one that is wanted */
    call(DUP3, pulled, LISTENER, CLOEXEC, 0); /* a relay that stands alone opens its own */
    call(CLOSE, pulled, 0, 0, 0);
}

/* The daemon has written the status: dockerd waits for the end of the pipe. Its number stays
 * taken, as what we may become writes there. */
static void end_status(void)
{
    long null = call(OPENAT, AT_FDCWD, (long)"/dev/null", WRONLY | CLOEXEC, 0);
    call(DUP3, null, STATUS, 0, 0);
    call(CLOSE, null, 0, 0, 0);
}

/* What to do with the daemon's signals, and the kernel's that a FIFO has lost its reader. */
static void on_signals(long handler)
{
    long action[4] = {handler, 0, 0, 0}; /* no flags, no restorer, no mask */
    call(SIGACTION, USR1, (long)action, 0, 8);
    call(SIGACTION, USR2, (long)action, 0, 8);
    call(SIGACTION, PIPE, (long)action, 0, 8);
}

static void never(void) {}

/* Become the shim again, which becomes a relay. A daemon that is late must not end that: what is
 * ignored now is dropped (signal(7)), and stays ignored over execve(2). */
static void stand_alone(char **words, char **environment)
{
    on_signals(IGNORE);
    call(SIGPROCMASK, UNBLOCK, (long)&SIGNALS, 0, 8);
    char **shim = words + 2;
    shim[0] = words[3];
    shim[1] = "alone";
    call(EXECVE, (long)shim[0], (long)shim, (long)environment, 0);
    call(EXIT, 127, 0, 0, 0);
}

__attribute__((used)) void begin(long *stack)
{
    char **words = (char **)(stack + 1), **environment = words + stack[0] + 1;
    struct time patience = {0, 0}, none = {0, 0};
    int is_served = 0, is_stopping = 0, gives_up = 0;
    if (stack[0] < 4)
        call(EXIT, 0, 0, 0, 0);
    for (const char *digit = words[2]; *digit >= '0' && *digit <= '9'; digit++)
        patience.seconds = patience.seconds * 10 + *digit - '0';
    call(SIGPROCMASK, BLOCK, (long)&SIGNALS, 0, 8);
    /* sigtimedwait(2) takes what it waits for out of the SigBlk that /proc/PID/status shows. Of a
     * handler SigCgt tells the daemon, though it never runs. */
    on_signals((long)never);
    call(FCNTL, REST, SETFD, 1, 0);
    call(DUP3, REST, SPARE, CLOEXEC, 0);
    /* A daemon that starts puts its FIFO there and then looks for who waits: we can be seen to
     * wait by now, so it finds us, or we find its FIFO. */
    if (!tell(words[1], "\n"))
        stand_alone(words, environment);
    for (;;) {
        struct info info;
        struct time *limit = gives_up ? &none : is_served && !is_stopping ? 0 : &patience;
        long number = call(SIGTIMEDWAIT, (long)&SIGNALS, (long)&info, (long)limit, 8);
        if ((number == INT || number == TERM) && !is_stopping) {
            if (!tell(words[1], " stop\n"))
                call(EXIT, 0, 0, 0, 0);
            is_stopping = 1;
        } else if (number == USR1 && !is_stopping) {
            is_served = 1;
            if (info.code == QUEUED)
                pull(info.pid, info.value);
            end_status();
            call(DUP3, SPARE, REST, CLOEXEC, 0);
        } else if (number == USR2 || number == -EAGAIN) {
            if (is_stopping)
                call(EXIT, 0, 0, 0, 0);
            if (number == USR2 || gives_up)
                stand_alone(words, environment);
            /* Nobody has served us. The daemon sends its signal and then looks at REST: it sees
             * that this is closed, or we see the signal when we look once more. */
            call(CLOSE, REST, 0, 0, 0);
        }
        gives_up = number == -EAGAIN;
    }
}
