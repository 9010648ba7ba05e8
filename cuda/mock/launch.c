/*
 * Modules, kernels, and the faults of digests. A kernel is its own body, run on the CPU, or, for digests, counts and keyed hashes where the setting
 * BODIES is off, what the host has for the same. Either way it is launched with the arguments that a GPU would get, and counts
 * what it did as the body does.
 */
#include "internal.h"

static const vram_mock_kernel *engine_kernels;
static uint32_t engine_kernel_count;

void vram_mock_add_kernels(const vram_mock_kernel *kernels, uint32_t count)
{
    engine_kernels = kernels;
    engine_kernel_count = count;
}

static const vram_mock_kernel *kernel_named(const char *name)
{
    for (uint32_t i = 0; i < VRAM_HOST_KERNELS + engine_kernel_count; i++) {
        const vram_mock_kernel *of =
            i < VRAM_HOST_KERNELS ? &vram_host_kernels[i] : &engine_kernels[i - VRAM_HOST_KERNELS];
        if (strcmp(of->name, name) == 0) {
            return of;
        }
    }
    return NULL;
}

/* Any native image will do: what is in it is not looked at. */
static status vram_mock_cuModuleLoadData(uint64_t *out, const void *image)
{
    BEGIN(cuModuleLoadData);
    if (image == NULL || (uintptr_t)image % 16 != 0) {
        END(INVALID_VALUE);
    }
    if (memcmp(image, "\x7f" "ELF", 4) != 0) {
        END(INVALID_IMAGE);
    }
    END(make(in, &in->modules, 1, out) == NULL ? OUT_OF_MEMORY : OK);
}

static status vram_mock_cuModuleUnload(uint64_t module)
{
    BEGIN(cuModuleUnload);
    void *gone = table_take(&in->modules, module);
    for (size_t i = in->functions.len; gone != NULL && i-- > 0;) {
        loaded *of = in->functions.at[i].value;
        if (of->module == module) {
            free(table_take(&in->functions, in->functions.at[i].key));
        }
    }
    free(gone);
    END(gone == NULL ? INVALID_HANDLE : OK);
}

static status vram_mock_cuModuleGetFunction(uint64_t *out, uint64_t module, const char *name)
{
    BEGIN(cuModuleGetFunction);
    if (table_find(&in->modules, module) == NULL) {
        END(INVALID_HANDLE);
    }
    const vram_mock_kernel *of = kernel_named(name);
    loaded *made = of == NULL ? NULL : make(in, &in->functions, sizeof(loaded), out);
    if (made == NULL) {
        END(of == NULL ? NOT_FOUND : OUT_OF_MEMORY);
    }
    *made = (loaded){of, module};
    END(OK);
}

static uint64_t divided_up(uint64_t value, uint64_t by)
{
    return value / by + (value % by != 0 ? 1 : 0);
}

static uint64_t entries_of(const vram_nodes_args *a)
{
    return divided_up(a->leaf_count, a->block_size / VRAM_HASH_BYTES);
}

/* The memory that a launch is known to use before the list of regions is there to be read. */
static void note_uses(op *what)
{
    vram_leaves_args leaves;
    vram_nodes_args nodes;
    vram_count_args count;
    vram_keyed_args keyed;
    what->use_count = 0;
    if (what->runs == &vram_host_kernels[VRAM_HOST_LEAVES]) {
        memcpy(&leaves, what->args, sizeof leaves);
        what->uses[0] = (range){leaves.regions, leaves.region_count * sizeof(vram_region), 0};
        what->uses[1] = (range){leaves.hashes, leaves.block_count * VRAM_HASH_BYTES, 0};
        what->use_count = 2;
        step.claim.covered += leaves.block_count;
    } else if (what->runs == &vram_host_kernels[VRAM_HOST_NODES]) {
        memcpy(&nodes, what->args, sizeof nodes);
        what->uses[0] = (range){nodes.table, entries_of(&nodes) * VRAM_HASH_BYTES, 0};
        what->use_count = 1;
        step.claim.table = step.claim.table == 0 ? nodes.table : step.claim.table;
        step.claim.found += entries_of(&nodes);
    } else if (what->runs == &vram_host_kernels[VRAM_HOST_COUNT]) {
        memcpy(&count, what->args, sizeof count);
        what->uses[0] = (range){count.ptr, count.bytes, 0};
        what->use_count = 1;
        step.claim.covered += count.bytes;
    } else if (what->runs == &vram_host_kernels[VRAM_HOST_KEYED]) {
        memcpy(&keyed, what->args, sizeof keyed);
        what->uses[0] = (range){keyed.regions, keyed.region_count * sizeof(vram_region) + keyed.bytes, 0};
        what->uses[1] = (range){keyed.key, VRAM_KEYED_KEY_BYTES, 0};
        what->uses[2] = (range){keyed.sums, keyed.block_count * VRAM_KEYED_SUMS_BYTES, 0};
        what->use_count = 3;
    }
}

static status vram_mock_cuLaunchKernel(uint64_t handle, uint32_t grid, uint32_t grid_y, uint32_t grid_z, uint32_t block,
                                       uint32_t block_y, uint32_t block_z, uint32_t shared, uint64_t stream_handle,
                                       void **parameters, void **extra)
{
    BEGIN(cuLaunchKernel);
    const loaded *of = table_find(&in->functions, handle);
    stream *to = stream_of(in, on, stream_handle);
    if (of == NULL || to == NULL) {
        END(INVALID_HANDLE);
    }
    if (grid == 0 || grid_y != 1 || grid_z != 1 || block != of->runs->threads || block_y != 1 || block_z != 1 ||
        shared != 0 || extra != NULL) {
        END(INVALID_VALUE);
    }
    op what = {.kind = LAUNCH, .hit = here.what, .runs = of->runs, .grid = grid, .block = block};
    memcpy(what.args, parameters[0], of->runs->args_bytes);
    note_uses(&what);
    if (of->runs == &vram_host_kernels[VRAM_HOST_FINISH]) {
        what.counts = step.operation == VRAM_MOCK_PART ? VRAM_MOCK_ANY : step.operation;
        what.claim = step.claim;
    }
    END(enqueue(in, to, &what));
}

/* The host's address of memory that a kernel uses, instead of the device's. */
static status translate(machine *in, device *on, uint64_t *ptr, uint64_t bytes, bool writes, uint64_t alignment, memory **of)
{
    place *at = NULL;
    const status result = use(in, on, &(range){*ptr, bytes, 0}, writes, false, &at);
    if (result != OK) {
        return result;
    }
    if (*ptr % alignment != 0) {
        return on->sticky = MISALIGNED_ADDRESS;
    }
    const uint64_t offset = *ptr - at->base;
    if (writes) {
        written(at->of, offset, bytes);
    }
    if (of != NULL) {
        *of = at->of;
    }
    *ptr = (uint64_t)(uintptr_t)(at->of->at + offset);
    return OK;
}

static void body(const machine *in, const op *what, const void *args, uint64_t grid)
{
    what->runs->run(args, (uint32_t)grid, what->block, setting(in, VRAM_MOCK_BACKWARDS) != 0);
}

/* Blocks that are blank, or whole, or neither. */
enum sort { BLANK, WHOLE, PARTIAL };

static enum sort sort_of(const vram_region *region, const memory *in, uint64_t block, uint64_t block_size)
{
    const uint64_t offset = (block - region->first_block) * block_size;
    const uint64_t have = least(region->bytes - offset, block_size);
    if (blank(in, (uint64_t)((uint8_t *)(uintptr_t)region->ptr - in->at) + offset, have)) {
        return BLANK;
    }
    return have == block_size ? WHOLE : PARTIAL;
}

/* The leaves, stretch by stretch: blank blocks are hashed once, whole ones by the host, unless it is to be the kernel's body. */
static void leaves_by_stretch(machine *in, const op *what, vram_leaves_args *a, memory *const *memories)
{
    static const uint8_t ZEROS[VRAM_MOST_BLOCK_SIZE];
    const vram_region *regions = (const vram_region *)(uintptr_t)a->regions;
    vram_counters *counters = (vram_counters *)(uintptr_t)a->counters;
    const uint64_t last = a->first_block + least(a->block_count, (uint64_t)what->grid * what->block);
    const bool hosts = setting(in, VRAM_MOCK_BODIES) == 0;
    const uint32_t salted = a->message_bits != 8 * a->block_size;
    uint8_t blank_hash[VRAM_HASH_BYTES];
    in->hasher(a->start, salted, ZEROS, 1, a->block_size, blank_hash);
    for (uint64_t r = 0; r < a->region_count; r++) {
        const vram_region *region = &regions[r];
        const uint64_t end_of = least(region->first_block + divided_up(region->bytes, a->block_size), last);
        uint64_t at = region->first_block > a->first_block ? region->first_block : a->first_block;
        while (at < end_of) {
            const enum sort sort = sort_of(region, memories[r], at, a->block_size);
            uint64_t next = at + 1;
            while (next < end_of && sort_of(region, memories[r], next, a->block_size) == sort) {
                next++;
            }
            uint8_t *out = (uint8_t *)(uintptr_t)(a->hashes + VRAM_HASH_BYTES * (at - a->first_block));
            const uint8_t *data =
                (const uint8_t *)(uintptr_t)(region->ptr + (at - region->first_block) * a->block_size);
            if (sort == BLANK || (sort == WHOLE && hosts)) {
                for (uint64_t i = at; sort == BLANK && i < next; i++) {
                    memcpy(out + VRAM_HASH_BYTES * (i - at), blank_hash, VRAM_HASH_BYTES);
                }
                if (sort == WHOLE) {
                    in->hasher(a->start, salted, data, next - at, a->block_size, out);
                }
                counters->covered += next - at;
            } else {
                vram_leaves_args part = *a;
                part.first_block = at;
                part.block_count = next - at;
                part.hashes = (uint64_t)(uintptr_t)out;
                body(in, what, &part, divided_up(next - at, what->block));
            }
            at = next;
        }
    }
}

/*
 * A list of regions as the host has it: in place of `*list` a copy, with addresses of the host, and the memory of each region.
 * Whoever asks frees both.
 */
static status translate_regions(machine *in, device *on, uint64_t *list, uint64_t count, memory ***memories)
{
    status result = translate(in, on, list, count * sizeof(vram_region), false, 8, NULL);
    vram_region *regions = result != OK ? NULL : malloc((count + 1) * sizeof *regions);
    *memories = result != OK ? NULL : malloc((count + 1) * sizeof **memories);
    if (result == OK && (regions == NULL || *memories == NULL)) {
        result = OUT_OF_MEMORY;
    }
    if (result == OK) {
        memcpy(regions, (const void *)(uintptr_t)*list, count * sizeof *regions);
    }
    for (uint64_t i = 0; result == OK && i < count; i++) {
        result = translate(in, on, &regions[i].ptr, regions[i].bytes, false, 1, &(*memories)[i]);
    }
    *list = (uint64_t)(uintptr_t)regions;
    return result;
}

static status run_leaves(machine *in, device *on, const op *what)
{
    vram_leaves_args a;
    memcpy(&a, what->args, sizeof a);
    if (what->hit.kind == VRAM_MOCK_DIGEST_SHORT || what->hit.kind == VRAM_MOCK_DIGEST_SHORT_LIES) {
        a.block_count /= 2;
    }
    memory **memories = NULL;
    status result = translate_regions(in, on, &a.regions, a.region_count, &memories);
    result = result != OK ? result : translate(in, on, &a.hashes, a.block_count * VRAM_HASH_BYTES, true, 16, NULL);
    result = result != OK ? result : translate(in, on, &a.counters, sizeof(vram_counters), true, 8, NULL);
    bool sparse = false;
    for (uint64_t i = 0; result == OK && i < a.region_count; i++) {
        sparse = sparse || memories[i]->touched != NULL;
    }
    if (result == OK && setting(in, VRAM_MOCK_BODIES) != 0 && !sparse) {
        body(in, what, &a, what->grid);
    } else if (result == OK) {
        leaves_by_stretch(in, what, &a, memories);
    }
    free((void *)(uintptr_t)a.regions);
    free(memories);
    return result;
}

static status run_nodes(machine *in, device *on, const op *what)
{
    vram_nodes_args a;
    memcpy(&a, what->args, sizeof a);
    if (what->hit.kind == VRAM_MOCK_DIGEST_SHORT || what->hit.kind == VRAM_MOCK_DIGEST_SHORT_LIES) {
        a.leaf_count /= 2;
    }
    const uint64_t bytes = a.leaf_count * VRAM_HASH_BYTES;
    status result = translate(in, on, &a.hashes, bytes, false, 16, NULL);
    result = result != OK ? result : translate(in, on, &a.table, entries_of(&a) * VRAM_HASH_BYTES, true, 16, NULL);
    result = result != OK ? result : translate(in, on, &a.counters, sizeof(vram_counters), true, 8, NULL);
    if (result != OK) {
        return result;
    }
    const uint64_t whole = least(bytes / a.block_size, (uint64_t)what->grid * what->block);
    if (setting(in, VRAM_MOCK_BODIES) == 0 && a.single == 0 && whole != 0) {
        in->hasher(a.start, a.message_bits != 8 * a.block_size, (const uint8_t *)(uintptr_t)a.hashes, whole, a.block_size,
                   (uint8_t *)(uintptr_t)a.table);
        ((vram_counters *)(uintptr_t)a.counters)->found += whole;
        a.hashes += whole * a.block_size;
        a.table += whole * VRAM_HASH_BYTES;
        a.leaf_count -= whole * (a.block_size / VRAM_HASH_BYTES);
    }
    if (a.leaf_count != 0) {
        body(in, what, &a, what->grid);
    }
    return OK;
}

static status run_count(machine *in, device *on, const op *what)
{
    vram_count_args a;
    memory *of = NULL;
    memcpy(&a, what->args, sizeof a);
    status result = translate(in, on, &a.ptr, a.bytes, false, 1, &of);
    result = result != OK ? result : translate(in, on, &a.counters, sizeof(vram_counters), true, 8, NULL);
    if (result == OK && setting(in, VRAM_MOCK_BODIES) != 0 && of->touched == NULL) {
        body(in, what, &a, what->grid);
    } else if (result == OK) {
        vram_counters *counters = (vram_counters *)(uintptr_t)a.counters;
        counters->covered += a.bytes;
        counters->found += nonzero_in(of, (uint64_t)((uint8_t *)(uintptr_t)a.ptr - of->at), a.bytes);
    }
    return result;
}

/* Keeps what the digest left behind, for the faults that repeat it. Without memory for it, they repeat nothing. */
static void remember(device *on, const vram_result *result, const uint8_t *entries, uint64_t bytes)
{
    uint8_t *copy = realloc(on->last_table, bytes);
    if (copy != NULL) {
        on->last_table = copy;
        on->last_table_bytes = bytes;
        memcpy(copy, entries, bytes);
        on->last_result = *result;
    }
}

static status run_finish(machine *in, device *on, const op *what)
{
    vram_finish_args a;
    memcpy(&a, what->args, sizeof a);
    uint64_t first = what->claim.table;
    const uint64_t table_bytes = what->claim.found * VRAM_HASH_BYTES;
    const bool digests = what->counts == VRAM_MOCK_DIGEST && table_bytes != 0;
    status result = translate(in, on, &a.result, sizeof(vram_result), true, 8, NULL);
    result = result != OK ? result : translate(in, on, &a.counters, sizeof(vram_counters), false, 8, NULL);
    result = result != OK || !digests ? result : translate(in, on, &first, table_bytes, true, 16, NULL);
    if (result != OK) {
        return result;
    }
    vram_result *out = (vram_result *)(uintptr_t)a.result;
    uint8_t *entries = (uint8_t *)(uintptr_t)first;
    const bool repeats = what->hit.kind == VRAM_MOCK_DIGEST_STALE || what->hit.kind == VRAM_MOCK_DIGEST_REPLAYED;
    if (repeats && on->last_table != NULL) {
        memcpy(entries, on->last_table, least(table_bytes, on->last_table_bytes));
    }
    switch (what->hit.kind) {
    case VRAM_MOCK_DIGEST_STALE:
        if (on->last_table != NULL) {
            *out = on->last_result;
        }
        return OK;
    case VRAM_MOCK_DIGEST_REPLAYED:
    case VRAM_MOCK_DIGEST_SHORT_LIES:
        *out = (vram_result){a.nonce, what->claim.covered, what->claim.found, 0};
        return OK;
    case VRAM_MOCK_COUNT_ZERO:
        *out = (vram_result){a.nonce, what->claim.covered, 0, 0};
        return OK;
    default:
        body(in, what, &a, what->grid);
        if (digests && what->hit.kind != VRAM_MOCK_DIGEST_SHORT) {
            remember(on, out, entries, table_bytes);
        }
        return OK;
    }
}

static status launch_run(machine *in, device *on, op *what)
{
    const bool repeats = what->hit.kind == VRAM_MOCK_DIGEST_STALE || what->hit.kind == VRAM_MOCK_DIGEST_REPLAYED;
    if (what->hit.kind == VRAM_MOCK_CRASH) {
        return on->sticky = ILLEGAL_ADDRESS;
    }
    if (what->hit.kind == VRAM_MOCK_SKIP) {
        return OK;
    }
    if (what->runs == &vram_host_kernels[VRAM_HOST_LEAVES]) {
        return repeats ? OK : run_leaves(in, on, what);
    }
    if (what->runs == &vram_host_kernels[VRAM_HOST_NODES]) {
        return repeats ? OK : run_nodes(in, on, what);
    }
    if (what->runs == &vram_host_kernels[VRAM_HOST_FINISH]) {
        return run_finish(in, on, what);
    }
    if (what->runs == &vram_host_kernels[VRAM_HOST_KEYED]) {
        return run_keyed(in, on, what);
    }
    return what->runs == &vram_host_kernels[VRAM_HOST_COUNT] ? run_count(in, on, what) : run_engine(in, on, what);
}
