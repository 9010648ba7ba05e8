/*
 * The kernels' bodies under sanitizers: every region is an allocation of exactly its bytes, so that a read past its end is found.
 * A few answers are known, and two layouts of one image must agree; src/ffi/tests has the reference for the rest. Prints what
 * failed; exits 1 if anything did.
 */
// covers: DIG-1 VER-11
#include "../../include/vram_host_kernels.h"
#include "../../include/vram_kernels.h"
#include "../sha256.cuh"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_REGIONS 40u

static int failures;
/* What the blocks follow: anything, or SHA-256's own beginning (FIPS 180-4, 5.3.3). */
static const uint32_t ANY[8] = {1, 2, 3, 4, 5, 6, 7, 8};
static const uint32_t SHA256[8] = {0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au, 0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u};
static const uint32_t *start = ANY;

static void expect(bool truth, const char *what, uint64_t a, uint64_t b)
{
    if (!truth) {
        failures++;
        fprintf(stderr, "FAILED: %s (%llu, %llu)\n", what, (unsigned long long)a, (unsigned long long)b);
    }
}

static uint64_t number(uint64_t *seed) /* splitmix64 */
{
    uint64_t z = (*seed += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t address(const void *pointer)
{
    return (uint64_t)(uintptr_t)pointer;
}

static void *space(uint64_t bytes)
{
    void *at = aligned_alloc(16, (size_t)((bytes + 15) / 16 * 16));
    if (at == NULL) {
        exit(2);
    }
    memset(at, 0xEE, (size_t)bytes);
    return at;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* A digest launched as a driver would, `chunk` leaves at a time; the counters are those of the result. */
static void launch(const vram_region *regions, uint32_t count, uint64_t leaves, uint32_t block_size, bool salted,
                   uint64_t chunk, uint32_t backwards, uint64_t nonce, uint8_t *table, vram_result *result)
{
    const uint64_t arity = block_size / VRAM_HASH_BYTES;
    uint8_t *scratch = space(chunk * VRAM_HASH_BYTES);
    result->covered = 0;
    result->found = 0;
    for (uint64_t from = 0; from < leaves; from += chunk) {
        const uint64_t here = least(leaves - from, chunk);
        vram_leaves_args level0 = {
            .regions = address(regions), .region_count = count, .first_block = from, .block_count = here,
            .hashes = address(scratch), .counters = address(&result->covered),
            .block_size = block_size, .message_bits = 8 * (block_size + (salted ? 64u : 0u)), .one = VRAM_ONE};
        vram_nodes_args level1 = {
            .hashes = address(scratch), .leaf_count = here, .table = address(table + from / arity * VRAM_HASH_BYTES),
            .counters = address(&result->covered), .block_size = block_size, .message_bits = level0.message_bits,
            .one = VRAM_ONE, .single = leaves == 1};
        memcpy(level0.start, start, sizeof level0.start);
        memcpy(level1.start, start, sizeof level1.start);
        /* A grid may be larger than it need be. */
        const uint32_t grid0 = (uint32_t)(here / VRAM_LEAVES_THREADS + 1);
        const uint32_t grid1 = (uint32_t)(here / arity / VRAM_NODES_THREADS + 1);
        expect(vram_host_launch(VRAM_LEAVES, &level0, sizeof level0, grid0, VRAM_LEAVES_THREADS, backwards) == 0, "leaves", nonce, 0);
        expect(vram_host_launch(VRAM_NODES, &level1, sizeof level1, grid1, VRAM_NODES_THREADS, backwards) == 0, "nodes", nonce, 0);
    }
    const vram_finish_args finish = {address(result), address(&result->covered), nonce};
    expect(vram_host_launch(VRAM_FINISH, &finish, sizeof finish, 1, VRAM_FINISH_THREADS, 0) == 0, "finish", nonce, 0);
    free(scratch);
}

/* One digest of random regions, `room` nodes to a chunk; and of the same image laid out whole, padded, in one chunk. */
static void digest(uint64_t seed, uint32_t block_size, bool salted, uint32_t count, uint64_t room, uint32_t backwards)
{
    uint8_t *memory[MOST_REGIONS];
    vram_region *regions = space(count * sizeof(vram_region));
    uint8_t *image = space(3 * (uint64_t)count * block_size);
    uint64_t leaves = 0;
    memset(image, 0, 3 * (size_t)count * block_size);
    for (uint32_t r = 0; r < count; r++) {
        const uint64_t bytes = 1 + number(&seed) % (3 * (uint64_t)block_size);
        const uint64_t skew = number(&seed) % 16;
        memory[r] = malloc((size_t)(skew + bytes)); /* 16-byte aligned, and not a byte longer */
        if (memory[r] == NULL) {
            exit(2);
        }
        for (uint64_t i = 0; i < skew + bytes; i++) {
            memory[r][i] = (uint8_t)(number(&seed) & 0xff);
        }
        memcpy(image + leaves * block_size, memory[r] + skew, (size_t)bytes);
        regions[r] = (vram_region){address(memory[r] + skew), bytes, leaves};
        leaves += (bytes + block_size - 1) / block_size;
    }
    const uint64_t arity = block_size / VRAM_HASH_BYTES;
    const uint64_t entries = leaves == 1 ? 1 : (leaves + arity - 1) / arity;
    const vram_region whole = {address(image), leaves * block_size, 0};
    uint8_t *expected = space(entries * VRAM_HASH_BYTES), *table = space(entries * VRAM_HASH_BYTES);
    vram_result *result = space(sizeof(vram_result));
    launch(&whole, 1, leaves, block_size, salted, leaves, 0, seed, expected, result);
    launch(regions, count, leaves, block_size, salted, least(leaves, room * arity), backwards, seed, table, result);
    expect(memcmp(table, expected, (size_t)(entries * VRAM_HASH_BYTES)) == 0, "table", block_size, count);
    expect(result->nonce == seed && result->reserved == 0, "nonce", result->nonce, seed);
    expect(result->covered == leaves && result->found == entries, "counted", result->covered, result->found);
    for (uint32_t r = 0; r < count; r++) {
        free(memory[r]);
    }
    free(regions);
    free(image);
    free(expected);
    free(table);
    free(result);
}

/* RFC 8439, 2.3: a block of ChaCha20's stream, under the key 00 01 … 1f. */
static void chacha20(uint32_t counter, uint32_t level, uint32_t x[16])
{
    static const uint8_t ROUND[8][4] = {{0, 4, 8, 12}, {1, 5, 9, 13}, {2, 6, 10, 14}, {3, 7, 11, 15},
                                        {0, 5, 10, 15}, {1, 6, 11, 12}, {2, 7, 8, 13}, {3, 4, 9, 14}};
    static const uint32_t BY[4] = {16, 12, 8, 7};
    uint32_t from[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    for (uint32_t i = 0; i < 8; i++) {
        from[4 + i] = 0x03020100 + 0x04040404 * i;
    }
    from[12] = counter;
    from[13] = level;
    memcpy(x, from, sizeof from);
    for (uint32_t i = 0; i < 80; i++) {
        const uint8_t *q = ROUND[i % 8];
        for (uint32_t j = 0; j < 4; j++) {
            uint32_t *into = &x[q[j % 2 == 0 ? 0 : 2]], *other = &x[q[j % 2 == 0 ? 3 : 1]];
            *into += x[q[j % 2 == 0 ? 1 : 3]];
            *other ^= *into;
            *other = *other << BY[j] | *other >> (32 - BY[j]);
        }
    }
    for (uint32_t i = 0; i < 16; i++) {
        x[i] += from[i];
    }
}

/* The keyed hash of one image, its first level in chunks of 256 blocks where `chunked`. */
static void keyed(const vram_region *regions, uint32_t count, uint64_t bytes, uint32_t block_shift, bool chunked,
                  uint64_t top[2], vram_counters *counted)
{
    uint64_t blocks = (bytes + VRAM_KEYED_BLOCK_BYTES - 1) / VRAM_KEYED_BLOCK_BYTES;
    uint64_t *below = NULL;
    *counted = (vram_counters){0, 0};
    for (uint32_t n = 0; n == 0 || blocks > 1; n++) {
        uint32_t *key = space(65 * 64);
        for (uint32_t i = 0; i < 65; i++) {
            chacha20(i, n, key + 16 * i);
        }
        const uint64_t data = n == 0 ? 0 : blocks * VRAM_KEYED_SUMS_BYTES;
        blocks = n == 0 ? blocks : (data + VRAM_KEYED_BLOCK_BYTES - 1) / VRAM_KEYED_BLOCK_BYTES;
        uint64_t *sums = space(blocks * VRAM_KEYED_SUMS_BYTES);
        memset(sums, 0, (size_t)(blocks * VRAM_KEYED_SUMS_BYTES));
        const uint64_t chunk = chunked && n == 0 ? 256 : blocks;
        for (uint64_t from = 0; from < blocks; from += chunk) {
            const vram_keyed_args args = {
                .regions = n == 0 ? address(regions) : address(below), .region_count = n == 0 ? count : 0, .bytes = data,
                .first_block = from, .block_count = least(chunk, blocks - from), .key = address(key),
                .sums = address(sums + 2 * from), .counters = address(counted), .block_shift = block_shift,
                .share = chunked ? 3 : 1};
            const uint32_t grid = (uint32_t)(args.block_count / (args.share * VRAM_KEYED_WARPS) + 1);
            expect(vram_host_launch(VRAM_KEYED, &args, sizeof args, grid, VRAM_KEYED_THREADS, chunked) == 0, "keyed", bytes, n);
        }
        free(key);
        free(below);
        below = sums;
    }
    memcpy(top, below, VRAM_KEYED_SUMS_BYTES);
    free(below);
}

/* Random regions, and the same image laid out whole. */
static void keyed_regions(uint64_t seed, uint32_t block_shift, uint32_t count)
{
    const uint64_t block_size = (uint64_t)1 << block_shift;
    uint8_t *memory[MOST_REGIONS];
    vram_region *regions = space(count * sizeof(vram_region));
    uint8_t *image = space(3 * (uint64_t)count * block_size);
    uint64_t blocks = 0, held = 0, end = 0, top[2], expected[2];
    vram_counters counted, whole_counted;
    memset(image, 0, 3 * (size_t)count * block_size);
    for (uint32_t r = 0; r < count; r++) {
        const uint64_t bytes = 1 + number(&seed) % (3 * block_size);
        const uint64_t skew = number(&seed) % 3 == 0 ? 0 : number(&seed) % 16;
        memory[r] = malloc((size_t)(skew + bytes)); /* 16-byte aligned, and not a byte longer */
        if (memory[r] == NULL) {
            exit(2);
        }
        for (uint64_t i = 0; i < skew + bytes; i++) {
            memory[r][i] = (uint8_t)(number(&seed) & 0xff);
        }
        memcpy(image + blocks * block_size, memory[r] + skew, (size_t)bytes);
        regions[r] = (vram_region){address(memory[r] + skew), bytes, blocks};
        end = blocks * block_size + bytes;
        held += bytes;
        blocks += (bytes + block_size - 1) / block_size;
    }
    const vram_region whole = {address(image), end, 0};
    keyed(&whole, 1, end, block_shift, false, expected, &whole_counted);
    keyed(regions, count, end, block_shift, true, top, &counted);
    expect(memcmp(top, expected, sizeof top) == 0, "top", block_size, count);
    expect(counted.covered - held == whole_counted.covered - end, "bytes", counted.covered, held);
    expect(counted.found == whole_counted.found, "blocks", counted.found, whole_counted.found);
    for (uint32_t r = 0; r < count; r++) {
        free(memory[r]);
    }
    free(regions);
    free(image);
}

/* Of tests/data/keyed_vectors.txt, which says what the image is. */
static void keyed_vectors(void)
{
    static const struct { uint64_t bytes; uint64_t read; uint64_t blocks; uint8_t top[16]; } VECTORS[] = {
        {17, 17, 1, {0x7c, 0x19, 0x65, 0x39, 0xe5, 0x85, 0x08, 0x3b, 0x65, 0x84, 0xa1, 0x01, 0x1c, 0x97, 0x68, 0xe4}},
        {4097, 4097 + 32, 3, {0x65, 0xbe, 0xbd, 0x04, 0x18, 0x76, 0xd6, 0x7c, 0x30, 0x65, 0xbb, 0x87, 0x00, 0xdf, 0x86, 0xec}},
        {1048577, 1048577 + 257 * 16 + 32, 260, {0x0e, 0x9c, 0x4b, 0xc4, 0x75, 0xf2, 0x52, 0xeb, 0x14, 0x5b, 0x95, 0xfa, 0x6f, 0x17, 0x34, 0xdf}},
    };
    for (size_t v = 0; v < sizeof VECTORS / sizeof *VECTORS; v++) {
        const uint64_t bytes = VECTORS[v].bytes;
        uint8_t *image = space(bytes + 32);
        for (uint64_t at = 0; at < bytes; at += 32) {
            uint32_t state[8], w[16] = {__builtin_bswap32((uint32_t)(at / 32)), 0, 0x80000000u};
            w[15] = 64;
            memcpy(state, SHA256, sizeof state);
            vram_sha256_rounds(state, w, 1);
            for (uint32_t i = 0; i < 32; i++) {
                image[at + i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
            }
        }
        const vram_region region = {address(image), bytes, 0};
        uint64_t top[2];
        vram_counters counted;
        for (uint32_t chunked = 0; chunked < 2; chunked++) {
            keyed(&region, 1, bytes, 12, chunked != 0, top, &counted);
            expect(memcmp(top, VECTORS[v].top, sizeof top) == 0, "vector", bytes, chunked);
            expect(counted.covered == VECTORS[v].read && counted.found == VECTORS[v].blocks, "counted", counted.covered, counted.found);
        }
        free(image);
    }
}

static void count_nonzero(uint64_t seed, uint64_t bytes, uint64_t skew, uint32_t grid)
{
    uint8_t *memory = malloc((size_t)(skew + bytes + (skew + bytes == 0)));
    uint64_t found = 0;
    if (memory == NULL) {
        exit(2);
    }
    memset(memory, 0xff, (size_t)skew);
    for (uint64_t i = 0; i < bytes; i++) {
        memory[skew + i] = (uint8_t)(number(&seed) % 5 == 0 ? number(&seed) & 0xff : 0);
        found += memory[skew + i] != 0;
    }
    vram_counters counters = {0, 0};
    const vram_count_args args = {address(memory + skew), bytes, address(&counters)};
    expect(vram_host_launch(VRAM_COUNT_NONZERO, &args, sizeof args, grid, VRAM_COUNT_THREADS, 0) == 0, "count", bytes, skew);
    expect(counters.covered == bytes && counters.found == found, "counted", counters.found, found);
    free(memory);
}

/* `head -c 1024 /dev/zero | sha256sum` */
static void known_answer(void)
{
    static const uint8_t KNOWN[VRAM_HASH_BYTES] = {0x5f, 0x70, 0xbf, 0x18, 0xa0, 0x86, 0x00, 0x70, 0x16, 0xe9, 0x48, 0xb0, 0x4a, 0xed, 0x3b, 0x82,
                                                   0x10, 0x3a, 0x36, 0xbe, 0xa4, 0x17, 0x55, 0xb6, 0xcd, 0xdf, 0xaf, 0x10, 0xac, 0xe3, 0xc6, 0xef};
    uint8_t *zeros = space(1024), *table = space(VRAM_HASH_BYTES);
    vram_result *result = space(sizeof(vram_result));
    memset(zeros, 0, 1024);
    const vram_region region = {address(zeros), 1024, 0};
    start = SHA256;
    launch(&region, 1, 1, 1024, false, 1, 0, 1, table, result);
    start = ANY;
    expect(memcmp(table, KNOWN, sizeof KNOWN) == 0, "known answer", 0, 0);
    free(zeros);
    free(table);
    free(result);
}

int main(void)
{
    uint64_t seed = 1;
    known_answer();
    for (uint32_t block_size = VRAM_LEAST_BLOCK_SIZE; block_size <= VRAM_MOST_BLOCK_SIZE; block_size *= 2) {
        digest(seed++, block_size, true, 1, 1, 0);
        digest(seed++, block_size, false, 3, 1, 1);
        digest(seed++, block_size, true, block_size <= 4096 ? MOST_REGIONS : 5, 1, 0);
    }
    for (uint64_t bytes = 0; bytes < 100; bytes++) {
        for (uint64_t skew = 0; skew < 16; skew++) {
            count_nonzero(seed++, bytes, skew, 1);
        }
    }
    count_nonzero(seed++, 100001, 7, 3);
    count_nonzero(seed++, 70000, 0, 1);
    keyed_vectors();
    for (uint32_t block_shift = 10; block_shift <= 16; block_shift++) {
        keyed_regions(seed++, block_shift, 1);
        keyed_regions(seed++, block_shift, block_shift <= 12 ? MOST_REGIONS : 7);
    }
    puts(failures == 0 ? "kernels: all agree" : "kernels: see above");
    return failures == 0 ? 0 : 1;
}
