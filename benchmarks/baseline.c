/* The physical limit: an event stream server that does nothing but send.
 *
 *     baseline PORT
 *
 * One thread, one epoll, one send() per delivery: any server that writes each event to
 * each subscriber's socket must pay for that. It has the route /publish of
 * servers/control.py, and just enough HTTP for the load generator and the driver.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "measure.h"

#define DESCRIPTORS 65536 /* more than the driver asks for */
#define REQUEST 512       /* bytes of a request's head */
#define BACKLOG 1024
#define READY 512
#define FULL_MS 1000   /* that a subscriber's socket can be full; then it is cut off */
#define IDLE_MS 600000 /* without a request, after which the driver counts as gone */
#define DATA_BYTES 64

struct client {
    size_t length;
    size_t place; /* among the subscribers, from 1; 0 if it is none */
    char request[REQUEST];
};

static struct client clients[DESCRIPTORS]; /* by descriptor; untouched costs nothing */
static int subscribers[DESCRIPTORS];
static size_t subscribed;
static int epoll;

static void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (fd >= DESCRIPTORS || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
        close(fd);
}

static void subscribe(int fd) {
    subscribers[subscribed++] = fd;
    clients[fd].place = subscribed;
}

static void leave(int fd) {
    size_t place = clients[fd].place;
    if (place) {
        int last = subscribers[--subscribed];
        subscribers[place - 1] = last;
        clients[last].place = place;
    }
    clients[fd].length = clients[fd].place = 0;
    close(fd);
}

/* The driver's subscribers read at once, so a socket is hardly ever full. Waiting for it
 * keeps the count exact, and is not what is measured. */
static void send_all(int fd, const char *bytes, size_t length) {
    while (length) {
        ssize_t sent = send(fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        struct pollfd full = {.fd = fd, .events = POLLOUT};
        if (sent < 0 && poll(&full, 1, FULL_MS) != 1) {
            shutdown(fd, SHUT_RDWR);
            return;
        }
        if (sent > 0) {
            bytes += sent;
            length -= (size_t)sent;
        }
    }
}

static void publish(unsigned long first, unsigned long count) {
    char frame[6 + DATA_BYTES + 3];
    for (unsigned long seq = first; seq < first + count; seq++) {
        memset(frame, 'x', sizeof frame);
        int head = sprintf(frame, "data: %lu %lu ", seq, now_ns());
        frame[head] = 'x'; /* over the NUL that sprintf has written */
        memcpy(frame + 6 + DATA_BYTES, "\n\n", 2);
        for (size_t i = 0; i < subscribed; i++)
            send_all(subscribers[i], frame, 6 + DATA_BYTES + 2);
    }
}

static void answer(int fd, const char *status, const char *body) {
    char response[256];
    int length = snprintf(response, sizeof response,
                          "HTTP/1.1 %s\r\nContent-Type: application/json\r\n"
                          "Content-Length: %zu\r\nConnection: close\r\n\r\n%s",
                          status, strlen(body), body);
    send_all(fd, response, (size_t)length);
    leave(fd);
}

static void answer_stream(int fd) {
    static const char opening[] = "HTTP/1.1 200 OK\r\n"
                                  "Content-Type: text/event-stream\r\n"
                                  "Connection: close\r\n\r\n: hello\n\n";
    send_all(fd, opening, sizeof opening - 1);
    subscribe(fd);
}

static void handle(int fd, const char *request) {
    unsigned long first, count;
    if (sscanf(request, "POST /publish?first=%lu&count=%lu ", &first, &count) == 2) {
        publish(first, count);
        answer(fd, "200 OK", "{}");
    } else if (!strncmp(request, "GET /stream", 11))
        answer_stream(fd);
    else
        answer(fd, "404 Not Found", "{}");
}

static void read_request(int fd) {
    struct client *c = &clients[fd];
    char *room = c->request + c->length;
    ssize_t length = recv(fd, room, REQUEST - 1 - c->length, MSG_DONTWAIT);
    if (length <= 0 || c->place) { /* it has left, or is a subscriber that talks */
        leave(fd);
        return;
    }
    c->length += (size_t)length;
    c->request[c->length] = '\0';
    if (strstr(c->request, "\r\n\r\n"))
        handle(fd, c->request);
}

static int listen_on(uint16_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) ||
        listen(listener, BACKLOG)) {
        perror("baseline");
        exit(EXIT_FAILURE);
    }
    return listener;
}

int main(int argc, char **argv) {
    struct epoll_event ready[READY];
    int listener = listen_on((uint16_t)atoi(argc > 1 ? argv[1] : "0")), count;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(listener);
    while ((count = epoll_wait(epoll, ready, READY, IDLE_MS)) > 0)
        for (int i = 0; i < count; i++)
            if (ready[i].data.fd == listener)
                watch(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
            else
                read_request(ready[i].data.fd);
    return 0;
}
