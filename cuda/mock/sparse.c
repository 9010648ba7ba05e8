/*
 * Sparse devices. A chunk of an allocation that was not written since it was last zero is blank: zeros are not copied to
 * it, it is not counted, and its blocks are hashed once for all. So zeros cost next to nothing of the host, in memory or in
 * time. To any other allocation everything here does the same, byte by byte.
 */
#include "internal.h"

#define CHUNK_BYTES ((uint64_t)2 << 20)
/* Poison at either end of fresh memory, at most. */
#define SPARSE_POISON_BYTES ((uint64_t)1 << 20)

/* Bytes from `ptr` to the end of its chunk, and no more than `bytes`. */
static uint64_t piece(const allocation *in, uint64_t ptr, uint64_t bytes)
{
    return least(CHUNK_BYTES - (ptr - in->base) % CHUNK_BYTES, bytes);
}

static bool blank(const allocation *in, uint64_t ptr, uint64_t bytes)
{
    if (in == NULL || in->touched == NULL) {
        return false;
    }
    while (bytes > 0) {
        const uint64_t part = piece(in, ptr, bytes);
        if (in->touched[(ptr - in->base) / CHUNK_BYTES] != 0) {
            return false;
        }
        ptr += part;
        bytes -= part;
    }
    return true;
}

static void written(allocation *in, uint64_t ptr, uint64_t bytes)
{
    const uint64_t from = ptr - in->base;
    if (bytes == 0) {
        return;
    }
    if (in->touched != NULL) {
        memset(in->touched + from / CHUNK_BYTES, 1, (from + bytes - 1) / CHUNK_BYTES - from / CHUNK_BYTES + 1);
    }
    in->written_from = least(in->written_from, from);
    in->written_to = from + bytes > in->written_to ? from + bytes : in->written_to;
}

/* False when the host has no memory for it. */
static bool make_sparse(allocation *in)
{
    in->touched = calloc((in->bytes - 1) / CHUNK_BYTES + 1, 1);
    return in->touched != NULL;
}

static uint64_t nonzero_in(const allocation *in, uint64_t ptr, uint64_t bytes)
{
    if (in->touched == NULL) {
        return nonzero(address(ptr), bytes);
    }
    uint64_t count = 0;
    while (bytes > 0) {
        const uint64_t part = piece(in, ptr, bytes);
        count += blank(in, ptr, part) ? 0 : nonzero(address(ptr), part);
        ptr += part;
        bytes -= part;
    }
    return count;
}

static void fill_in(allocation *in, uint64_t ptr, uint8_t value, uint64_t bytes)
{
    if (value != 0 || in->touched == NULL) {
        written(in, ptr, bytes);
        memset(address(ptr), value, bytes);
        return;
    }
    while (bytes > 0) {
        const uint64_t part = piece(in, ptr, bytes);
        const uint64_t chunk = (ptr - in->base) / CHUNK_BYTES;
        const bool ends = part == CHUNK_BYTES || ptr + part == in->base + in->bytes;
        const bool whole = ends && ptr == in->base + chunk * CHUNK_BYTES;
        if (blank(in, ptr, part)) {
            /* It is zero. */
        } else if (whole && madvise(address(ptr), part, MADV_DONTNEED) == 0) {
            in->touched[chunk] = 0;
        } else {
            memset(address(ptr), 0, part);
        }
        ptr += part;
        bytes -= part;
    }
}

static void copy_in(allocation *in, uint64_t ptr, const uint8_t *from, uint64_t bytes)
{
    while (bytes > 0) {
        const uint64_t part = in->touched == NULL ? bytes : piece(in, ptr, bytes);
        if (!blank(in, ptr, part) || nonzero(from, part) != 0) {
            written(in, ptr, part);
            memcpy(address(ptr), from, part);
        }
        ptr += part;
        from += part;
        bytes -= part;
    }
}

static void poison_fresh(allocation *in)
{
    const uint64_t edge = in->touched == NULL ? in->bytes : least(in->bytes, SPARSE_POISON_BYTES);
    fill_in(in, in->base, POISON_FRESH, edge);
    fill_in(in, in->base + in->bytes - edge, POISON_FRESH, edge);
}
