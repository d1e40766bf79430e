/* ISA-L on the same work as core/simd/benches/throughput.rs, in the same form:
 * a line `CASE GB/s DIGEST` for each case, GB/s of data. The matrix is made the
 * way our format makes it, with ISA-L's own arithmetic, so the digests must be
 * equal. Built and run by benches/erasure; nothing of ours links it. */
#define _GNU_SOURCE
#include <isa-l.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SHARD = 64 << 10, DATA_MAX = 32, PARITY_MAX = 8, LARGE = 128 << 20 };

struct code {
    int data, parity;
    unsigned char matrix[(DATA_MAX + PARITY_MAX) * DATA_MAX];
};

static void fail(const char *what) {
    fprintf(stderr, "isal: %s\n", what);
    exit(1);
}

/* A Vandermonde matrix times the inverse of its topmost square. */
static struct code make(int data, int parity) {
    unsigned char rows[(DATA_MAX + PARITY_MAX) * DATA_MAX];
    unsigned char top[DATA_MAX * DATA_MAX], inverse[DATA_MAX * DATA_MAX];
    struct code code = {data, parity, {0}};
    for (int row = 0; row < data + parity; row++) {
        unsigned char power = 1;
        for (int column = 0; column < data; column++) {
            rows[row * data + column] = power;
            power = gf_mul(power, row);
        }
    }
    memcpy(top, rows, data * data);
    if (gf_invert_matrix(top, inverse, data)) fail("no inverse");
    for (int row = 0; row < data + parity; row++)
        for (int column = 0; column < data; column++)
            for (int at = 0; at < data; at++)
                code.matrix[row * data + column] ^=
                    gf_mul(rows[row * data + at], inverse[at * data + column]);
    return code;
}

/* Page-aligned memory for `count` shards, filled as the other program does. */
static unsigned char *shards(size_t count) {
    unsigned char *memory = aligned_alloc(4096, count * SHARD);
    if (!memory) fail("no memory");
    uint64_t word = 1;
    for (size_t at = 0; at < count * SHARD; at++) {
        word = word * UINT64_C(6364136223846793005) + 1;
        memory[at] = word >> 56;
    }
    return memory;
}

struct work {
    int data, made;
    size_t rows;
    unsigned char tables[32 * DATA_MAX * PARITY_MAX];
    unsigned char *from[DATA_MAX], *into[PARITY_MAX];
};

static void run(struct work *work) {
    if (work->rows == 1) {
        ec_encode_data(SHARD, work->data, work->made, work->tables, work->from, work->into);
        return;
    }
    for (size_t row = 0; row < work->rows; row++) {
        unsigned char *from[DATA_MAX];
        for (int part = 0; part < work->data; part++)
            from[part] = work->from[part] + row * work->data * SHARD;
        ec_encode_data(SHARD, work->data, work->made, work->tables, from, work->into);
    }
}

/* What this thread has had of the processor: what others took does not count. */
static uint64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * UINT64_C(1000000000) + now.tv_nsec;
}

/* GB/s of the best of about a hundred stretches: what disturbs only ever slows down. */
static double measure(struct work *work, uint64_t time) {
    run(work);
    uint64_t started = nanoseconds();
    run(work);
    uint64_t once = nanoseconds() - started, rounds = time / 100 / (once ? once : 1);
    double best = 0, bytes = (double)work->rows * work->data * SHARD;
    uint64_t begun = nanoseconds();
    if (!rounds) rounds = 1;
    while (nanoseconds() - begun < time) {
        started = nanoseconds();
        for (uint64_t round = 0; round < rounds; round++) run(work);
        double rate = bytes * rounds / (nanoseconds() - started);
        if (rate > best) best = rate;
    }
    return best;
}

static void report(struct code *code, const char *what, struct work *work, uint64_t time) {
    double rate = measure(work, time);
    uint64_t digest = UINT64_C(0xcbf29ce484222325);
    for (int part = 0; part < work->made; part++)
        for (int at = 0; at < SHARD; at++)
            digest = (digest ^ work->into[part][at]) * UINT64_C(0x100000001b3);
    printf("%d+%d %s %.3f %016lx\n", code->data, code->parity, what, rate, digest);
}

static struct work encoding(struct code *code, unsigned char *memory, size_t rows) {
    struct work work = {.data = code->data, .made = code->parity, .rows = rows};
    for (int part = 0; part < code->data; part++) work.from[part] = memory + part * SHARD;
    for (int part = 0; part < code->parity; part++)
        work.into[part] = memory + (rows * code->data + part) * SHARD;
    ec_init_tables(code->data, code->parity, code->matrix + code->data * code->data, work.tables);
    return work;
}

static void encode(struct code *code, uint64_t time) {
    unsigned char *memory = shards(code->data + code->parity);
    struct work work = encoding(code, memory, 1);
    report(code, "encode", &work, time);
    free(memory);
}

static void large(struct code *code, uint64_t time) {
    size_t rows = LARGE / SHARD / code->data;
    unsigned char *memory = shards(rows * code->data + code->parity);
    struct work work = encoding(code, memory, rows);
    report(code, "encode-large", &work, time);
    free(memory);
}

/* The first `lost` data parts of the others and of parity. */
static void reconstruct(struct code *code, int lost, uint64_t time) {
    unsigned char *memory = shards(code->data + code->parity + lost);
    unsigned char square[DATA_MAX * DATA_MAX], inverse[DATA_MAX * DATA_MAX];
    struct work work = encoding(code, memory, 1);
    run(&work);
    memcpy(square, code->matrix + lost * code->data, code->data * code->data);
    if (gf_invert_matrix(square, inverse, code->data)) fail("no inverse");
    work.made = lost;
    ec_init_tables(code->data, lost, inverse, work.tables);
    for (int part = 0; part < code->data; part++) work.from[part] = memory + (part + lost) * SHARD;
    for (int part = 0; part < lost; part++)
        work.into[part] = memory + (code->data + code->parity + part) * SHARD;
    char what[32];
    snprintf(what, sizeof what, "reconstruct-%d", lost);
    report(code, what, &work, time);
    if (memcmp(memory, work.into[0], SHARD)) fail("it is not what was lost");
    free(memory);
}

int main(int count, char **arguments) {
    static const int shapes[][2] = {{2, 1}, {4, 2}, {8, 2}, {8, 3}, {16, 4}, {32, 8}};
    uint64_t time = 300;
    if (count == 3 && !strcmp(arguments[1], "--ms")) time = strtoull(arguments[2], NULL, 10);
    else if (count != 1) fail("usage: isal [--ms N]");
    time *= 1000000;
    for (size_t at = 0; at < sizeof shapes / sizeof *shapes; at++) {
        struct code code = make(shapes[at][0], shapes[at][1]);
        encode(&code, time);
        reconstruct(&code, 1, time);
        if (code.parity > 1) reconstruct(&code, code.parity, time);
        large(&code, time);
    }
    return 0;
}
