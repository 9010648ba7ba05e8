/* Keyed hashes: whole blocks by the host, where it has a keyed hasher and the setting BODIES is off, all others by the kernel's body. */
#include "internal.h"

/* The bytes of the image from `at` on that one region holds without a gap, and where they lie. */
static uint64_t stretch(const vram_keyed_args *a, uint64_t at, const uint8_t **data)
{
    const vram_region all = {a->regions, a->bytes, 0};
    const vram_region *regions = a->region_count == 0 ? &all : (const vram_region *)(uintptr_t)a->regions;
    for (uint64_t r = 0; r < (a->region_count == 0 ? 1 : a->region_count); r++) {
        const uint64_t from = at - (regions[r].first_block << a->block_shift);
        if (from < regions[r].bytes) {
            *data = (const uint8_t *)(uintptr_t)(regions[r].ptr + from);
            return regions[r].bytes - from;
        }
    }
    return 0;
}

static void keyed_by_stretch(machine *in, const op *what, const vram_keyed_args *a)
{
    const uint64_t blocks = least(a->block_count, (uint64_t)what->grid * VRAM_KEYED_WARPS * a->share);
    vram_counters *counters = (vram_counters *)(uintptr_t)a->counters;
    for (uint64_t at = 0; at < blocks;) {
        const uint8_t *data = NULL;
        const uint64_t have = stretch(a, (a->first_block + at) * VRAM_KEYED_BLOCK_BYTES, &data);
        const uint64_t whole = least(have / VRAM_KEYED_BLOCK_BYTES, blocks - at);
        vram_keyed_args part = *a;
        part.sums += at * VRAM_KEYED_SUMS_BYTES;
        if (whole != 0) {
            in->keyed((const uint8_t *)(uintptr_t)a->key, data, whole, (uint64_t *)(uintptr_t)part.sums);
            counters->covered += whole * VRAM_KEYED_BLOCK_BYTES;
            counters->found += whole;
        } else {
            part.first_block += at;
            part.block_count = 1;
            body(in, what, &part, 1);
        }
        at += whole != 0 ? whole : 1;
    }
}

static status run_keyed(machine *in, device *on, const op *what)
{
    vram_keyed_args a;
    memory **memories = NULL;
    memcpy(&a, what->args, sizeof a);
    status result = a.region_count != 0 ? translate_regions(in, on, &a.regions, a.region_count, &memories)
                                        : translate(in, on, &a.regions, a.bytes, false, 16, NULL);
    result = result != OK ? result : translate(in, on, &a.key, VRAM_KEYED_KEY_BYTES, false, 16, NULL);
    result = result != OK ? result : translate(in, on, &a.sums, a.block_count * VRAM_KEYED_SUMS_BYTES, true, 8, NULL);
    result = result != OK ? result : translate(in, on, &a.counters, sizeof(vram_counters), true, 8, NULL);
    if (result == OK && setting(in, VRAM_MOCK_BODIES) == 0 && in->keyed != NULL) {
        keyed_by_stretch(in, what, &a);
    } else if (result == OK) {
        body(in, what, &a, what->grid);
    }
    if (a.region_count != 0) {
        free((void *)(uintptr_t)a.regions);
    }
    free(memories);
    return result;
}
