/* A socket for a target, made as relay/sockets.py and relay/targets/direct.py make theirs. */
#ifndef V6FWD_DIAL_H
#define V6FWD_DIAL_H

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

/* Tuned as sockets.tune() does. Gives -1 with errno set. */
static inline int target_socket(int family) {
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd >= 0 && (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
                    setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on) < 0)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

/* `speaks`: it is written to as soon as it is connected; see sockets.save_ack(). */
static inline int connect_to(int fd, const struct sockaddr *address, socklen_t size, int hop_limit,
                             int speaks) {
    int off = 0;
    if (speaks) setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &off, sizeof off);
    if (hop_limit) { /* of a v4-mapped address it is a TTL */
        if (address->sa_family == AF_INET6)
            setsockopt(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &hop_limit, sizeof hop_limit);
        setsockopt(fd, IPPROTO_IP, IP_TTL, &hop_limit, sizeof hop_limit);
    }
    return connect(fd, address, size) < 0 && errno != EINPROGRESS ? -1 : 0;
}

#endif
