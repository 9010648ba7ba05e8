/*
 * Reading and writing physical memory. Of a sparse device a chunk that was not written since it was last zero is blank: zeros are
 * not copied to it, it is not counted, and its blocks are hashed once for all. So zeros cost next to nothing of the host, in
 * memory or in time. To any other memory everything here does the same, byte by byte.
 */
#include "internal.h"

#define CHUNK_BYTES ((uint64_t)2 << 20)

static uint64_t nonzero(const uint8_t *at, uint64_t bytes)
{
    uint64_t count = 0;
    uint64_t i = 0;
    /* Whole words first: nearly all of what is counted is zero. */
    for (; i + 8 <= bytes; i += 8) {
        uint64_t word;
        memcpy(&word, at + i, 8);
        for (uint64_t j = 0; word != 0 && j < 8; j++) {
            count += at[i + j] != 0 ? 1 : 0;
        }
    }
    for (; i < bytes; i++) {
        count += at[i] != 0 ? 1 : 0;
    }
    return count;
}

/* Bytes from `offset` to the end of its chunk, and no more than `bytes`. */
static uint64_t piece(uint64_t offset, uint64_t bytes)
{
    return least(CHUNK_BYTES - offset % CHUNK_BYTES, bytes);
}

static bool blank(const memory *of, uint64_t offset, uint64_t bytes)
{
    if (of->touched == NULL) {
        return false;
    }
    while (bytes > 0) {
        const uint64_t part = piece(offset, bytes);
        if (of->touched[offset / CHUNK_BYTES] != 0) {
            return false;
        }
        offset += part;
        bytes -= part;
    }
    return true;
}

static void touch(memory *of, uint64_t offset, uint64_t bytes)
{
    if (of->touched != NULL && bytes != 0) {
        memset(of->touched + offset / CHUNK_BYTES, 1, (offset + bytes - 1) / CHUNK_BYTES - offset / CHUNK_BYTES + 1);
    }
}

static void written(memory *of, uint64_t offset, uint64_t bytes)
{
    if (bytes != 0) {
        touch(of, offset, bytes);
        of->written_from = least(of->written_from, offset);
        of->written_to = offset + bytes > of->written_to ? offset + bytes : of->written_to;
    }
}

static uint64_t nonzero_in(const memory *of, uint64_t offset, uint64_t bytes)
{
    uint64_t count = 0;
    while (bytes > 0) {
        const uint64_t part = of->touched == NULL ? bytes : piece(offset, bytes);
        count += blank(of, offset, part) ? 0 : nonzero(of->at + offset, part);
        offset += part;
        bytes -= part;
    }
    return count;
}

static void fill_in(memory *of, uint64_t offset, uint8_t value, uint64_t bytes)
{
    if (value != 0 || of->touched == NULL) {
        written(of, offset, bytes);
        memset(of->at + offset, value, bytes);
        return;
    }
    while (bytes > 0) {
        const uint64_t part = piece(offset, bytes);
        const bool whole = offset % CHUNK_BYTES == 0 && (part == CHUNK_BYTES || offset + part == of->bytes);
        if (blank(of, offset, part)) {
            /* It is zero. */
        } else if (whole && of->pages && madvise(of->at + offset, part, MADV_DONTNEED) == 0) {
            of->touched[offset / CHUNK_BYTES] = 0;
        } else {
            memset(of->at + offset, 0, part);
        }
        offset += part;
        bytes -= part;
    }
}

static void copy_in(memory *of, uint64_t offset, const uint8_t *from, uint64_t bytes)
{
    while (bytes > 0) {
        const uint64_t part = of->touched == NULL ? bytes : piece(offset, bytes);
        if (!blank(of, offset, part) || nonzero(from, part) != 0) {
            written(of, offset, part);
            memmove(of->at + offset, from, part);
        }
        offset += part;
        from += part;
        bytes -= part;
    }
}

/* Fills fresh memory with garbage, of a sparse device at its ends. That is not written by anybody. */
static void poison(memory *of)
{
    const uint64_t edge = of->touched == NULL ? of->bytes : least(of->bytes, CHUNK_BYTES / 2);
    touch(of, 0, edge);
    touch(of, of->bytes - edge, edge);
    memset(of->at, POISON, edge);
    memset(of->at + of->bytes - edge, POISON, edge);
}
