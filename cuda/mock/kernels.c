/*
 * What the digest kernel computes: the level-1 table of an fs-verity tree, chunk by chunk through the scratch area, as the
 * CUDA kernel does it. Large chunks are shared between threads; the result does not depend on how many.
 */
#include "internal.h"

/* Below this many bytes of work a second thread costs more than it saves. */
#define PARALLEL_BYTES ((uint64_t)4 << 20)
#define MOST_THREADS 8u

static uint64_t block_count(uint64_t bytes, uint32_t block_size)
{
    return bytes / block_size + (bytes % block_size != 0 ? 1 : 0);
}

/* Table entries for so many leaves: the leaf itself if there is one, else one for each block of leaf hashes. */
static uint64_t entry_count(uint64_t leaves, uint32_t block_size)
{
    return leaves <= 1 ? leaves : block_count(leaves, block_size / HASH_BYTES);
}

typedef struct leaf_work {
    const device *on;
    const op *job;
    const uint32_t *start;
    uint64_t from; /* leaves from here … */
    uint64_t to;   /* … to before here */
    uint64_t base; /* the leaf whose hash is the first in `out` */
    const uint8_t *blank_hash;
    uint8_t *out;
} leaf_work;

static void *hash_leaves(void *argument)
{
    const leaf_work *work = argument;
    const op *job = work->job;
    uint64_t leaf = work->from;
    uint64_t first = 0; /* of the region */
    for (uint64_t r = 0; r < job->region_count && leaf < work->to; r++) {
        const range *region = &job->regions[r];
        const uint64_t blocks = block_count(region->bytes, job->block_size);
        const allocation *in = still_there(work->on, region);
        for (; leaf < work->to && leaf - first < blocks; leaf++) {
            const uint64_t offset = (leaf - first) * job->block_size;
            const uint64_t have = least(region->bytes - offset, job->block_size);
            uint8_t *out = work->out + (leaf - work->base) * HASH_BYTES;
            if (blank(in, region->ptr + offset, have)) {
                memcpy(out, work->blank_hash, HASH_BYTES);
            } else {
                vram_verity_block(work->start, job->salt_bytes, address(region->ptr) + offset, have, job->block_size, out);
            }
        }
        first += blocks;
    }
    return NULL;
}

static void hash_chunk(const device *on, const op *job, const uint32_t start[8], uint64_t from, uint64_t to, uint8_t *out)
{
    uint8_t blank_hash[HASH_BYTES];
    leaf_work work[MOST_THREADS];
    pthread_t threads[MOST_THREADS];
    bool started[MOST_THREADS] = {false};
    uint32_t shares = 1;
    if ((to - from) * job->block_size >= PARALLEL_BYTES) {
        const long cores = sysconf(_SC_NPROCESSORS_ONLN);
        shares = cores < 2 ? 2u : (uint32_t)least((uint64_t)cores, MOST_THREADS);
    }
    vram_verity_block(start, job->salt_bytes, out, 0, job->block_size, blank_hash); /* of padding alone */
    const uint64_t each = (to - from + shares - 1) / shares;
    for (uint32_t i = 0; i < shares; i++) {
        const uint64_t at = least(from + i * each, to);
        work[i] = (leaf_work){on, job, start, at, least(at + each, to), from, blank_hash, out};
        /* The last share is this thread's; so is any for which no thread could be made. */
        started[i] = i + 1 < shares && pthread_create(&threads[i], NULL, hash_leaves, &work[i]) == 0;
        if (!started[i]) {
            hash_leaves(&work[i]);
        }
    }
    for (uint32_t i = 0; i < shares; i++) {
        if (started[i]) {
            pthread_join(threads[i], NULL);
        }
    }
}

/* Hashes the first `leaves` blocks of the image and writes the table of just those. All ranges have been checked. */
static void digest_table(const device *on, const op *job, uint64_t leaves)
{
    uint32_t start[8];
    uint8_t *scratch = address(job->scratch.ptr);
    uint8_t *table_at = address(job->table.ptr);
    const uint64_t arity = job->block_size / HASH_BYTES;
    const uint64_t room = job->scratch.bytes / HASH_BYTES;
    vram_verity_start(start, job->salt, job->salt_bytes);
    for (uint64_t from = 0; from < leaves; from += room) {
        const uint64_t count = least(leaves - from, room);
        hash_chunk(on, job, start, from, from + count, scratch);
        if (leaves == 1) {
            memcpy(table_at, scratch, HASH_BYTES);
            break;
        }
        /* `room` is a multiple of `arity` unless one chunk holds all leaves, so no node straddles two chunks. */
        for (uint64_t node = 0; node * arity < count; node++) {
            vram_verity_block(start, job->salt_bytes, scratch + node * arity * HASH_BYTES,
                              least(count - node * arity, arity) * HASH_BYTES, job->block_size,
                              table_at + (from / arity + node) * HASH_BYTES);
        }
    }
}
