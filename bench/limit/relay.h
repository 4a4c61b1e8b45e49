/* What the two relays of this folder share: their arguments, their sockets, and how they give up. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PROGRAM_USAGE "LISTEN_IPV6 LISTEN_PORT TARGET_IPV4 TARGET_PORT"

/* The program ends: a benchmark shall miss a round rather than measure half a relay. */
static _Noreturn void die(const char *what, int error)
{
    fprintf(stderr, "%s: %s\n", what, strerror(error));
    exit(1);
}

static int checked(int result, const char *what)
{
    if (result < 0)
        die(what, errno);
    return result;
}

static void *allocated(void *memory)
{
    if (!memory)
        die("malloc", ENOMEM);
    return memory;
}

static in_port_t port_of(const char *text)
{
    char *end;
    unsigned long port = strtoul(text, &end, 10);
    if (!port || port > UINT16_MAX || *end)
        die(text, EINVAL);
    return htons((uint16_t)port);
}

static struct sockaddr_in target_of(char **words)
{
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = port_of(words[1])};
    if (inet_pton(AF_INET, words[0], &target.sin_addr) != 1)
        die(words[0], EINVAL);
    return target;
}

static void set(int fd, int level, int option, int value)
{
    checked(setsockopt(fd, level, option, &value, sizeof value), "setsockopt");
}

/* splice(2) has no MSG_NOSIGNAL: into a socket that was reset it would end the program. */
static void ignore_broken_pipes(void)
{
    signal(SIGPIPE, SIG_IGN);
}

/* Both families, as v6fwd listens. Accepted sockets inherit TCP_NODELAY: no call for each. */
static int listener_of(char **words, int flags)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = port_of(words[1])};
    if (inet_pton(AF_INET6, words[0], &address.sin6_addr) != 1)
        die(words[0], EINVAL);
    int fd = checked(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | flags, 0), "socket");
    set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    checked(bind(fd, (struct sockaddr *)&address, sizeof address), "bind");
    checked(listen(fd, 4096), "listen");
    return fd;
}

static int target_socket(int flags)
{
    int fd = checked(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0), "socket");
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    return fd;
}

/* Makes close(2) send a reset: a stream that was cut must not look whole. */
static void reset_at_close(int fd)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    checked(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), "setsockopt");
}
