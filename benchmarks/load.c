/* The load generator: many subscribers in one process, on one core.
 *
 *     load PORT STREAM_PATH [EVENT_PATH]
 *
 * The server makes the events when /publish of servers/control.py asks for them. With
 * EVENT_PATH, each event is posted there instead, as the body of a request of its own.
 * In STREAM_PATH, {} stands for the subscriber's number, from 0.
 *
 * Commands come on stdin, one a line, each answered by one line of JSON on stdout:
 *
 *     open N                open N more subscribers, and wait for each one's first block
 *     round EVENTS BATCH    publish EVENTS events, BATCH in one request, each request
 *                           only after every subscriber has all the events before it
 *     scatter EVENTS BATCH  the same, but each event is for one subscriber only:
 *                           /scatter of servers/ours_at_scale.py chooses it
 *     beside EVENTS PATH    publish EVENTS events without a pause, and ask for PATH
 *                           again and again meanwhile
 *     resume EVENTS         have all subscribers leave and come back at once, each with
 *                           its Last-Event-ID, for EVENTS events that were published
 *                           meanwhile: the same for each, numbered as the next round's
 *     visit COUNT PATH      connect, ask for PATH, read its first block, leave: COUNT
 *                           times, one after the other; {} in PATH is the visit's
 *                           number, from 0
 *     end PATH              post to PATH, and wait until the server has ended all
 *                           streams properly; nobody comes back
 *
 * What lives here: connections, rounds and their tally. What the bytes mean is in
 * stream.h, and what the figures mean to the reader in report.py.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "measure.h"
#include "stream.h"

#define CONNECTING 100     /* at once without an answer: less than any server's backlog */
#define COMING_BACK 1500   /* the same for a resume: gunicorn's backlog is 2048 */
#define STALL_MS 15000     /* without progress, after which what is missing is lost */
#define SETTLE_MS 50       /* after the last expected event, for events that come twice */
#define SEND_TIMEOUT_S 5   /* for connect and send; on loopback both are immediate */
#define LIFE_S 600         /* for a command and the wait for it; then SIGALRM ends us */
#define READY 512          /* sockets per epoll_wait */
#define RECEIVE (1 << 18)  /* bytes per recv: many times a burst for one subscriber */
#define ROUND_EVENTS 64    /* at most: `seen` has a bit for each */
#define SCATTERED 100000   /* events of a scatter, at most */
#define REQUEST 512        /* bytes of one */
#define BESIDE_NS 10000000 /* from one ordinary request to the next */

struct subscriber {
    int fd;
    uint64_t number;
    struct stream stream;
    uint64_t seen;   /* the events of this round, one bit each */
    uint64_t latest; /* the last scattered event */
};

struct exchange { /* a request and its answer; the connection ends with the answer */
    int fd;
    uint64_t due_ns;
    char answer[11]; /* "HTTP/1.1 2": nothing more is looked at */
    size_t length;
};

static struct tally {
    uint64_t delivered, duplicated, misordered, stray;
    uint64_t closed; /* by the server */
    uint64_t ended;  /* of these: properly, by a last chunk */
    struct histogram latency;
} tally;

static int epoll;
static struct sockaddr_in server;
static const char *stream_path, *event_path;
static struct subscriber **subscribers;
static size_t subscribed, opened;
static struct exchange publisher = {.fd = -1}, bystander = {.fd = -1};
static struct histogram answers; /* to the bystander's requests */
static event_sink *deliver;      /* how the events of this round are counted */
static uint64_t next_seq = 1, round_first, round_events; /* 0: an event of no round */
static bool scattered[SCATTERED];
static uint64_t received_ns; /* when the bytes being read were received */
static uint64_t progress_ns; /* of the latest new delivery, subscriber, or end */

static void fail(const char *what, const char *why) {
    printf("{\"error\": \"%s: %s\"}\n", what, why);
    exit(EXIT_FAILURE);
}

static void check(bool fine, const char *what) {
    if (!fine)
        fail(what, strerror(errno));
}

/* -- connections ---------------------------------------------------------------- */

static int connect_and_send(const char *request, void *owner) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = SEND_TIMEOUT_S};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = owner};
    check(fd >= 0, "socket");
    check(!setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), "timeout");
    check(!connect(fd, (struct sockaddr *)&server, sizeof server), "connect");
    check(send(fd, request, strlen(request), MSG_NOSIGNAL) > 0, "send");
    check(!epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), "epoll");
    return fd;
}

static void ask_for_stream(struct subscriber *s, const char *path) {
    char request[REQUEST];
    const char *hole = strstr(path, "{}");
    int head = hole ? (int)(hole - path) : (int)strlen(path);
    bool knows = s->stream.id[0];
    char number[24] = "";
    if (hole)
        sprintf(number, "%lu", s->number);
    snprintf(request, sizeof request,
             "GET %.*s%s%s HTTP/1.1\r\nHost: 127.0.0.1\r\n"
             "Accept: text/event-stream\r\n%s%s%s\r\n",
             head, path, number, hole ? hole + 2 : "", knows ? "Last-Event-ID: " : "",
             s->stream.id, knows ? "\r\n" : "");
    s->fd = connect_and_send(request, s);
}

static void subscribe(void) {
    struct subscriber *s = calloc(1, sizeof *s);
    check(s, "memory");
    s->number = subscribed;
    subscribers[subscribed++] = s;
    ask_for_stream(s, stream_path);
}

static void leave(struct subscriber *s) {
    struct stream fresh = {0};
    close(s->fd);
    memcpy(fresh.id, s->stream.id, ID_BYTES);
    s->stream = fresh;
}

static int write_event(char *request, uint64_t seq, bool last) {
    char data[DATA_BYTES + 1];
    memset(data, 'x', DATA_BYTES);
    data[sprintf(data, "%lu %lu ", seq, now_ns())] = 'x'; /* where its end was put */
    return snprintf(request, REQUEST,
                    "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: %s\r\n"
                    "Content-Length: %d\r\n\r\n%.*s",
                    event_path, last ? "close" : "keep-alive", DATA_BYTES, DATA_BYTES,
                    data);
}

static void begin(struct exchange *e, const char *request) {
    *e = (struct exchange){.due_ns = e->due_ns};
    e->fd = connect_and_send(request, e);
}

static void publish(uint64_t first, uint64_t count) {
    static char requests[ROUND_EVENTS * REQUEST];
    size_t length = 0;
    if (!event_path)
        snprintf(requests, sizeof requests,
                 "POST /publish?first=%lu&count=%lu HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                 "Content-Length: 0\r\nConnection: close\r\n\r\n",
                 first, count);
    for (uint64_t i = 0; event_path && i < count; i++)
        length += (size_t)write_event(requests + length, first + i, i + 1 == count);
    begin(&publisher, requests);
}

static void scatter(uint64_t first, uint64_t count) {
    char request[REQUEST];
    snprintf(request, sizeof request,
             "POST /scatter?first=%lu&count=%lu&channels=%lu HTTP/1.1\r\n"
             "Host: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
             first, count, subscribed);
    begin(&publisher, request);
}

static void read_answer(struct exchange *e, const char *p, ssize_t length) {
    size_t room = sizeof e->answer - 1 - e->length;
    if (length > 0) {
        size_t kept = (size_t)length < room ? (size_t)length : room;
        memcpy(e->answer + e->length, p, kept);
        e->length += kept;
        return;
    }
    close(e->fd);
    e->fd = -1;
    if (strcmp(e->answer, "HTTP/1.1 2"))
        fail("request", "not answered by a success");
    if (e == &bystander)
        histogram_add(&answers, received_ns - e->due_ns);
}

/* -- deliveries ----------------------------------------------------------------- */

static void count_delivery(void *owner, uint64_t seq, uint64_t stamp) {
    struct subscriber *s = owner;
    uint64_t index = seq - round_first; /* huge for an older event, which is a stray */
    if (!seq)
        return;
    if (index >= round_events) {
        tally.stray++;
        return;
    }
    uint64_t seen_from_here = s->seen >> index;
    if (seen_from_here & 1) {
        tally.duplicated++;
        return;
    }
    tally.misordered += seen_from_here != 0;
    s->seen |= (uint64_t)1 << index;
    tally.delivered++;
    progress_ns = received_ns;
    histogram_add(&tally.latency, received_ns - stamp);
}

/* The number of a scattered event names its subscriber: servers/ours_at_scale.py. */
static void count_scattered(void *owner, uint64_t seq, uint64_t stamp) {
    struct subscriber *s = owner;
    uint64_t turn = seq / subscribed, index = turn - round_first;
    if (!seq)
        return;
    if (index >= round_events || seq % subscribed != s->number) {
        tally.stray++;
        return;
    }
    if (scattered[index]) {
        tally.duplicated++;
        return;
    }
    tally.misordered += turn < s->latest;
    s->latest = turn;
    scattered[index] = true;
    tally.delivered++;
    progress_ns = received_ns;
    histogram_add(&tally.latency, received_ns - stamp);
}

static void read_stream(struct subscriber *s, const char *p, ssize_t length) {
    bool was_open = s->stream.opened;
    if (length > 0)
        feed(&s->stream, p, p + length, deliver, s);
    if (length <= 0 || s->stream.part >= AT_END) {
        close(s->fd);
        tally.closed++;
        tally.ended += s->stream.part == AT_END;
        progress_ns = received_ns;
    }
    if (s->stream.opened && !was_open) {
        opened++;
        progress_ns = received_ns;
    }
}

static void read_socket(void *owner) {
    static char buffer[RECEIVE];
    bool is_exchange = owner == &publisher || owner == &bystander;
    int fd = is_exchange ? ((struct exchange *)owner)->fd
                         : ((struct subscriber *)owner)->fd;
    ssize_t length = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (length < 0 && errno == EAGAIN)
        return;
    received_ns = now_ns();
    if (is_exchange)
        read_answer(owner, buffer, length);
    else
        read_stream(owner, buffer, length);
}

static void read_ready(int timeout_ms) {
    struct epoll_event ready[READY];
    int count = epoll_wait(epoll, ready, READY, timeout_ms);
    for (int i = 0; i < count; i++)
        read_socket(ready[i].data.ptr);
}

/* Waits for more. False when there was no progress in time; heartbeats are none. */
static bool progress(void) {
    uint64_t waited_ms = (now_ns() - progress_ns) / 1000000;
    if (waited_ms >= STALL_MS)
        return false;
    read_ready(STALL_MS - (int)waited_ms);
    return true;
}

/* -- commands ------------------------------------------------------------------- */

static void open_more(size_t count) {
    uint64_t start = progress_ns = now_ns();
    size_t wanted = subscribed + count;
    subscribers = realloc(subscribers, wanted * sizeof *subscribers);
    check(subscribers, "memory");
    while (opened < wanted) {
        while (subscribed < wanted && subscribed - opened < CONNECTING)
            subscribe();
        if (!progress() || tally.closed)
            fail("open", "a subscriber did not get the head and the first block");
    }
    printf("{\"subscribers\": %zu, \"seconds\": %.6f}\n", opened,
           (double)(now_ns() - start) / 1e9);
}

static void begin_round(uint64_t events, event_sink *sink) {
    tally = (struct tally){0};
    deliver = sink;
    round_first = next_seq;
    round_events = events;
    next_seq += events;
    memset(scattered, 0, sizeof scattered);
    for (size_t i = 0; i < subscribed; i++)
        subscribers[i]->seen = 0;
}

/* True when so many deliveries were made in this round and the publish is answered. */
static bool wait_for(uint64_t deliveries) {
    while (tally.delivered < deliveries || publisher.fd >= 0)
        if (!progress())
            return false;
    return true;
}

static void settle(void) {
    uint64_t end = now_ns() + SETTLE_MS * 1000000ull;
    while (now_ns() < end)
        read_ready(SETTLE_MS);
}

static void print_latency(const char *of, const struct histogram *latency) {
    printf("\"%sp50_ms\": %.3f, \"%sp99_ms\": %.3f, \"%smax_ms\": %.3f", of,
           (double)histogram_quantile(latency, 0.5) / 1e6, of,
           (double)histogram_quantile(latency, 0.99) / 1e6, of,
           (double)latency->max / 1e6);
}

static void print_tally(uint64_t expected, double seconds, double cpu) {
    printf("\"expected\": %lu, \"delivered\": %lu, \"duplicated\": %lu, "
           "\"misordered\": %lu, \"stray\": %lu, \"closed\": %lu, "
           "\"seconds\": %.6f, \"load_cpu_seconds\": %.6f, ",
           expected, tally.delivered, tally.duplicated, tally.misordered, tally.stray,
           tally.closed, seconds, cpu);
    print_latency("", &tally.latency);
}

static void report_round(uint64_t expected, uint64_t start, double cpu) {
    double seconds = (double)(progress_ns - start) / 1e9;
    cpu = cpu_seconds() - cpu;
    settle();
    printf("{");
    print_tally(expected, seconds, cpu);
    printf("}\n");
}

/* Publishes batch by batch. `each` is how many subscribers get an event. */
static void run(uint64_t events, uint64_t batch, uint64_t each,
                void (*publish_batch)(uint64_t first, uint64_t count)) {
    double cpu = cpu_seconds();
    uint64_t start = progress_ns = now_ns();
    for (uint64_t done = 0; done < events; done += batch) {
        publish_batch(round_first + done, batch);
        if (!wait_for((done + batch) * each))
            break;
    }
    report_round(events * each, start, cpu);
}

static void run_round(uint64_t events, uint64_t batch) {
    if (!events || events > ROUND_EVENTS || !batch || events % batch)
        fail("round", "1 to 64 events, in batches of one size");
    begin_round(events, count_delivery);
    run(events, batch, subscribed, publish);
}

static void run_scatter(uint64_t events, uint64_t batch) {
    if (!events || events > SCATTERED || !batch || events % batch)
        fail("scatter", "1 to 100,000 events, in batches of one size");
    begin_round(events, count_scattered);
    run(events, batch, 1, scatter);
}

/* Sends the next ordinary request when it is due and the one before is answered. Its
 * time counts from when it was due: a long answer also delays the requests behind it. */
static void ask_beside(const char *request) {
    if (bystander.fd < 0 && now_ns() >= bystander.due_ns + BESIDE_NS) {
        bystander.due_ns += BESIDE_NS;
        begin(&bystander, request);
    }
}

/* Waits like wait_for, and sends ordinary requests meanwhile, each when it is due. */
static bool wait_beside(uint64_t deliveries, const char *request) {
    while (tally.delivered < deliveries || publisher.fd >= 0) {
        if (now_ns() - progress_ns > STALL_MS * 1000000ull)
            return false;
        ask_beside(request);
        read_ready(1);
    }
    return true;
}

/* Each event is published while the one before is still being delivered, so that the
 * server always has something to send. */
static void run_beside(uint64_t events, const char *path) {
    char request[REQUEST];
    bool going = true;
    if (!events || events > ROUND_EVENTS)
        fail("beside", "1 to 64 events");
    snprintf(request, sizeof request,
             "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", path);
    begin_round(events, count_delivery);
    histogram_reset(&answers);
    double cpu = cpu_seconds();
    uint64_t start = progress_ns = bystander.due_ns = now_ns();
    for (uint64_t done = 0; going && done < events; done++) {
        publish(round_first + done, 1);
        going = wait_beside(done * subscribed, request);
    }
    if (going)
        wait_beside(events * subscribed, request);
    double seconds = (double)(progress_ns - start) / 1e9;
    cpu = cpu_seconds() - cpu;
    while (bystander.fd >= 0)
        read_ready(SETTLE_MS);
    settle();
    printf("{\"requests\": %lu, ", answers.count);
    print_latency("request_", &answers);
    printf(", ");
    print_tally(events * subscribed, seconds, cpu);
    printf("}\n");
}

static void run_resumption(uint64_t events) {
    size_t back = 0;
    if (!events || events > ROUND_EVENTS)
        fail("resume", "1 to 64 events");
    for (size_t i = 0; i < subscribed; i++)
        leave(subscribers[i]);
    opened = 0;
    begin_round(events, count_delivery);
    double cpu = cpu_seconds();
    uint64_t start = progress_ns = now_ns();
    while (tally.delivered < events * subscribed) {
        while (back < subscribed && back - opened < COMING_BACK)
            ask_for_stream(subscribers[back++], stream_path);
        if (!progress())
            break;
    }
    report_round(events * subscribed, start, cpu);
}

static void visit(uint64_t number, const char *path) {
    struct subscriber visitor = {.number = number};
    size_t opened_before = opened;
    progress_ns = now_ns();
    ask_for_stream(&visitor, path);
    while (opened == opened_before)
        if (!progress() || tally.closed)
            fail("visit", "not answered by a block");
    opened = opened_before;
    close(visitor.fd);
}

static void run_visits(uint64_t count, const char *path) {
    uint64_t start = now_ns();
    tally = (struct tally){0};
    for (uint64_t i = 0; i < count; i++)
        visit(i, path);
    double seconds = (double)(now_ns() - start) / 1e9;
    settle(); /* so that the server sees that the last visitor has left */
    printf("{\"visits\": %lu, \"seconds\": %.6f}\n", count, seconds);
}

static void run_end(const char *path) {
    char request[REQUEST];
    uint64_t start = progress_ns = now_ns(), answered_ns = 0;
    tally = (struct tally){0};
    snprintf(request, sizeof request,
             "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n"
             "Connection: close\r\n\r\n",
             path);
    begin(&publisher, request);
    while (tally.closed < subscribed || publisher.fd >= 0) {
        if (!progress())
            fail("end", "some streams were not ended");
        if (!answered_ns && publisher.fd < 0)
            answered_ns = received_ns;
    }
    if (tally.ended != subscribed)
        fail("end", "some streams were cut");
    for (size_t i = 0; i < subscribed; i++)
        free(subscribers[i]);
    subscribed = opened = 0;
    tally = (struct tally){0};
    printf("{\"seconds\": %.6f, \"answered_seconds\": %.6f}\n",
           (double)(progress_ns - start) / 1e9, (double)(answered_ns - start) / 1e9);
}

static void obey(const char *command) {
    uint64_t count, batch;
    char path[128];
    if (sscanf(command, "open %lu", &count) == 1)
        open_more(count);
    else if (sscanf(command, "round %lu %lu", &count, &batch) == 2)
        run_round(count, batch);
    else if (sscanf(command, "scatter %lu %lu", &count, &batch) == 2)
        run_scatter(count, batch);
    else if (sscanf(command, "beside %lu %127s", &count, path) == 2)
        run_beside(count, path);
    else if (sscanf(command, "resume %lu", &count) == 1)
        run_resumption(count);
    else if (sscanf(command, "visit %lu %127s", &count, path) == 2)
        run_visits(count, path);
    else if (sscanf(command, "end %127s", path) == 1)
        run_end(path);
    else
        fail("load", "not a command");
}

int main(int argc, char **argv) {
    char command[256];
    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: load PORT STREAM_PATH [EVENT_PATH]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)atoi(argv[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    deliver = count_delivery;
    stream_path = argv[2];
    event_path = argv[3]; /* or NULL */
    epoll = epoll_create1(EPOLL_CLOEXEC);
    for (alarm(LIFE_S); fgets(command, sizeof command, stdin); alarm(LIFE_S))
        obey(command);
    return 0;
}
