/* Reads an HTTP response that is an event stream, in pieces cut anywhere.
 *
 * Here live the head, the chunks, the lines and the blocks, and the benchmark's own
 * shape of data. Sockets, clocks and counting never do. A whole line is read where it
 * lies; only the beginning of a line whose end has not come is copied. Lines end with
 * LF or CR LF: none of the servers measured sends a lone CR.
 */
#ifndef STREAM_H
#define STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#define DATA_BYTES 64 /* of every measured event: "<seq> <publish time in ns> xxx…" */
#define ID_BYTES 64   /* with the NUL; a longer id counts as none */
#define LINE_BYTES 96 /* fits "data: " and the data; a longer line is cut, and not ours */

enum part {
    IN_HEAD,
    IN_PLAIN_BODY,
    IN_CHUNK_SIZE,
    IN_CHUNK,
    AFTER_CHUNK,
    AT_END, /* after the last chunk */
    BROKEN,
};

struct stream {
    enum part part;
    bool chunked;     /* the head says so */
    bool answered;    /* the status line has been read, and is a 200 */
    bool opened;      /* the first block has been read to its blank line */
    bool has_event;   /* the block being read holds data of the measured shape */
    uint8_t held;     /* bytes in `line` */
    size_t chunk;     /* size read so far, then bytes left */
    uint64_t seq, stamp;
    char id[ID_BYTES]; /* the last one, for Last-Event-ID */
    char line[LINE_BYTES];
};

typedef void event_sink(void *owner, uint64_t seq, uint64_t stamp);

static bool read_number(const char **at, const char *end, uint64_t *value) {
    const char *p = *at;
    for (*value = 0; p < end && *p >= '0' && *p <= '9'; p++)
        *value = *value * 10 + (uint64_t)(*p - '0');
    bool found = p > *at && p < end && *p == ' ';
    *at = p + 1;
    return found;
}

static void read_data(struct stream *s, const char *data, const char *end) {
    if (data < end && *data == ' ')
        data++;
    s->has_event = end - data == DATA_BYTES && read_number(&data, end, &s->seq) &&
                   read_number(&data, end, &s->stamp);
}

static void read_id(struct stream *s, const char *id, size_t length) {
    if (length && *id == ' ') {
        id++;
        length--;
    }
    if (length >= ID_BYTES)
        length = 0;
    memcpy(s->id, id, length);
    s->id[length] = 0;
}

static void end_block(struct stream *s, event_sink *deliver, void *owner) {
    s->opened = true;
    if (s->has_event)
        deliver(owner, s->seq, s->stamp);
    s->has_event = false;
}

static void read_head_line(struct stream *s, const char *line, size_t length) {
    static const char chunked[] = "transfer-encoding: chunked";
    if (!s->answered)
        s->answered = length >= 12 && !memcmp(line, "HTTP/1.1 200", 12);
    if (!s->answered)
        s->part = BROKEN;
    else if (length == 0)
        s->part = s->chunked ? IN_CHUNK_SIZE : IN_PLAIN_BODY;
    else if (length == sizeof chunked - 1 && !strncasecmp(line, chunked, length))
        s->chunked = true;
}

static void read_line(struct stream *s, const char *line, size_t length,
                      event_sink *deliver, void *owner) {
    if (length && line[length - 1] == '\r')
        length--;
    if (s->part == IN_HEAD)
        read_head_line(s, line, length);
    else if (length == 0)
        end_block(s, deliver, owner);
    else if (length > 5 && !memcmp(line, "data:", 5))
        read_data(s, line + 5, line + length);
    else if (length > 3 && !memcmp(line, "id:", 3))
        read_id(s, line + 3, length - 3);
}

static void hold(struct stream *s, const char *p, size_t length) {
    size_t room = LINE_BYTES - s->held;
    size_t kept = length < room ? length : room;
    memcpy(s->line + s->held, p, kept);
    s->held += (uint8_t)kept;
}

/* Reads one line, or keeps what has come of it; returns where it stopped. */
static const char *feed_line(struct stream *s, const char *p, const char *end,
                             event_sink *deliver, void *owner) {
    const char *newline = memchr(p, '\n', (size_t)(end - p));
    if (newline && !s->held) {
        read_line(s, p, (size_t)(newline - p), deliver, owner);
        return newline + 1;
    }
    hold(s, p, (size_t)((newline ? newline : end) - p));
    if (!newline)
        return end;
    size_t length = s->held;
    s->held = 0;
    read_line(s, s->line, length, deliver, owner);
    return newline + 1;
}

static const char *feed_chunk(struct stream *s, const char *p, const char *end,
                              event_sink *deliver, void *owner) {
    const char *stop = s->chunk < (size_t)(end - p) ? p + s->chunk : end;
    s->chunk -= (size_t)(stop - p);
    while (p < stop)
        p = feed_line(s, p, stop, deliver, owner);
    if (!s->chunk)
        s->part = AFTER_CHUNK;
    return stop;
}

/* A size of 0 is the end of the stream. */
static void feed_chunk_size(struct stream *s, char c) {
    static const char digits[] = "0123456789abcdef";
    const char *digit = c ? strchr(digits, c | 0x20) : NULL;
    if (c == '\n')
        s->part = s->chunk ? IN_CHUNK : AT_END;
    else if (digit)
        s->chunk = s->chunk * 16 + (size_t)(digit - digits);
    else if (c != '\r')
        s->part = BROKEN;
}

static void feed(struct stream *s, const char *p, const char *end, event_sink *deliver,
                 void *owner) {
    while (p < end && s->part < AT_END) {
        if (s->part == IN_CHUNK)
            p = feed_chunk(s, p, end, deliver, owner);
        else if (s->part == IN_CHUNK_SIZE)
            feed_chunk_size(s, *p++);
        else if (s->part == AFTER_CHUNK)
            s->part = *p++ == '\n' ? IN_CHUNK_SIZE : AFTER_CHUNK;
        else
            p = feed_line(s, p, end, deliver, owner);
    }
}

#endif
