/* Clocks, and a histogram of latencies. Knows no sockets and no events.
 *
 * The histogram is logarithmic, with linear steps inside each power of two. So any
 * latency costs one increment, and is exact to about 3 %.
 */
#ifndef MEASURE_H
#define MEASURE_H

#include <stdint.h>
#include <string.h>
#include <time.h>

#define STEP_BITS 5 /* 32 steps in each power of two: 1/32 = 3 % */
#define STEPS (1 << STEP_BITS)
#define BUCKETS ((65 - STEP_BITS) * STEPS)

struct histogram {
    uint64_t count, max;
    uint64_t buckets[BUCKETS];
};

static uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The clock of Python's time.monotonic_ns(): stamps of both can be subtracted. */
static inline uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

static inline double cpu_seconds(void) {
    return (double)clock_ns(CLOCK_PROCESS_CPUTIME_ID) / 1e9;
}

static inline unsigned bucket_of(uint64_t value) {
    if (value < STEPS)
        return (unsigned)value;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - STEP_BITS;
    return (shift << STEP_BITS) + (unsigned)(value >> shift);
}

static inline uint64_t bucket_floor(unsigned bucket) {
    if (bucket < 2 * STEPS)
        return bucket;
    unsigned shift = (bucket >> STEP_BITS) - 1;
    return (uint64_t)(bucket - (shift << STEP_BITS)) << shift;
}

static inline void histogram_reset(struct histogram *h) { memset(h, 0, sizeof *h); }

static inline void histogram_add(struct histogram *h, uint64_t value) {
    h->count++;
    h->buckets[bucket_of(value)]++;
    if (value > h->max)
        h->max = value;
}

static inline uint64_t histogram_quantile(const struct histogram *h, double quantile) {
    uint64_t wanted = (uint64_t)(quantile * (double)h->count), passed = 0;
    for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
        passed += h->buckets[bucket];
        if (passed > wanted)
            return bucket_floor(bucket);
    }
    return h->max;
}

#endif
