/* Physical memory, places in the address space, and the virtual-memory API. */
#include "internal.h"

/* The place that holds all of `bytes` bytes at `ptr`, or none. */
static place *place_of(const machine *in, uint64_t ptr, uint64_t bytes)
{
    const size_t after = table_after(&in->places, ptr);
    if (after == 0) {
        return NULL;
    }
    place *at = in->places.at[after - 1].value;
    const uint64_t offset = ptr - at->base;
    return offset <= at->bytes && bytes <= at->bytes - offset ? at : NULL;
}

/*
 * Whether an operation of the device may use the memory: now, or `later`, when what the access is may have changed. With an id only
 * if it is still the same place. What is not there is INVALID_VALUE; with the setting STRICT it ends the context when it is used.
 */
static status use(machine *in, device *on, const range *of, bool writes, bool later, place **out)
{
    place *at = place_of(in, of->ptr, of->bytes);
    const bool fatal = setting(in, VRAM_MOCK_STRICT) != 0;
    const bool there = at != NULL && at->of != NULL && at->ordinal == on->ordinal && (of->id == 0 || at->id == of->id) &&
                       (later || (at->access & READS) != 0);
    status result = !there ? INVALID_VALUE : writes && at->access != WRITES && !(later && fatal) ? READ_ONLY : OK;
    if (result != OK && fatal && !later) {
        on->sticky = result = ILLEGAL_ADDRESS;
    }
    *out = at;
    return result;
}

static host_buffer *host_of(const machine *in, uint64_t ptr, uint64_t bytes)
{
    const size_t after = table_after(&in->hosts, ptr);
    if (after == 0) {
        return NULL;
    }
    host_buffer *at = in->hosts.at[after - 1].value;
    const uint64_t offset = ptr - at->base;
    return offset <= at->bytes && bytes <= at->bytes - offset ? at : NULL;
}

/* Pages come from the kernel, unreserved and zero, so that a device larger than the host can be mocked. */
static memory *memory_new(const machine *in, uint64_t bytes)
{
    memory *made = bytes > UINT64_MAX / 2 ? NULL : calloc(1, sizeof *made);
    if (made == NULL) {
        return NULL;
    }
    const bool sparse = setting(in, VRAM_MOCK_SPARSE) != 0;
    made->pages = bytes >= 4096;
    made->bytes = bytes;
    made->written_from = UINT64_MAX;
    if (made->pages) {
        void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        made->at = at == MAP_FAILED ? NULL : at;
    } else {
        made->at = calloc(1, bytes);
    }
    made->touched = sparse && made->at != NULL ? calloc((bytes - 1) / CHUNK_BYTES + 1, 1) : NULL;
    if (made->at != NULL && (!sparse || made->touched != NULL)) {
        return made;
    }
    if (made->at != NULL && made->pages) {
        munmap(made->at, bytes);
    } else {
        free(made->at);
    }
    free(made);
    return NULL;
}

static void memory_free(memory *of)
{
    if (of->pages) {
        munmap(of->at, of->bytes);
    } else if (!of->foreign) {
        free(of->at);
    }
    free(of->touched);
    free(of);
}

static void let_go(machine *in, memory *of)
{
    if (--of->references == 0) {
        in->devices[of->made.where.id].used -= of->bytes;
        table_take(&in->memories, of->handle);
        memory_free(of);
    }
}

static void memory_drop(machine *in)
{
    for (size_t i = 0; i < in->places.len; i++) {
        place *at = in->places.at[i].value;
        if (at->of != NULL && at->of->handle == 0) {
            memory_free(at->of);
        }
    }
    for (size_t i = 0; i < in->memories.len; i++) {
        memory_free(in->memories.at[i].value);
    }
    free(in->memories.at);
    for (size_t i = 0; i < in->hosts.len; i++) {
        free((void *)(uintptr_t)in->hosts.at[i].key);
    }
    table_drop(&in->hosts);
    table_drop(&in->places);
}

/* The first gap of so many bytes: addresses are given out again as soon as they can be. */
static place *place_new(machine *in, uint32_t ordinal, uint64_t bytes)
{
    const uint64_t unit = setting(in, VRAM_MOCK_GRANULARITY);
    uint64_t base = FIRST_ADDRESS;
    if (bytes > FIRST_ADDRESS) {
        return NULL;
    }
    for (size_t i = table_after(&in->places, FIRST_ADDRESS - 1); i < in->places.len; i++) {
        const place *at = in->places.at[i].value;
        if (at->base - base >= bytes) {
            break;
        }
        base = (at->base + at->bytes + unit - 1) / unit * unit;
    }
    place *made = calloc(1, sizeof *made);
    if (made == NULL || !table_put(&in->places, base, made)) {
        free(made);
        return NULL;
    }
    *made = (place){.base = base, .bytes = bytes, .id = in->next_id++, .ordinal = ordinal};
    return made;
}

/* Bytes that are free. A driver takes some for contexts and code, which no allocation of anybody's accounts for. */
static uint64_t room_on(const machine *in, const device *on)
{
    const uint64_t taken = on->used + setting(in, VRAM_MOCK_OVERHEAD), all = setting(in, VRAM_MOCK_CAPACITY);
    return all > taken ? all - taken : 0;
}

/* An engine may make memory that it can export: handle type 1 is a file descriptor. */
static bool is_possible(const properties *wanted, const device *on)
{
    return wanted->kind == 1 && wanted->handle_types <= 1 && wanted->where.kind == 1 &&
           wanted->where.id == (int32_t)on->ordinal;
}

static status vram_mock_cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
    BEGIN(cuMemGetInfo_v2);
    *total = setting(in, VRAM_MOCK_CAPACITY);
    *free_bytes = here.what.kind == VRAM_MOCK_FREE_BYTES ? here.what.value : room_on(in, on);
    END(OK);
}

static status vram_mock_cuMemGetAllocationGranularity(size_t *out, const properties *wanted, uint32_t option)
{
    BEGIN(cuMemGetAllocationGranularity);
    *out = setting(in, VRAM_MOCK_GRANULARITY);
    END(!is_possible(wanted, on) || option != 0 ? INVALID_VALUE : OK);
}

static status vram_mock_cuMemAddressReserve(uint64_t *out, size_t bytes, size_t alignment, uint64_t fixed, uint64_t flags)
{
    BEGIN(cuMemAddressReserve);
    if (bytes == 0 || bytes % setting(in, VRAM_MOCK_GRANULARITY) != 0 || alignment != 0 || fixed != 0 || flags != 0) {
        END(INVALID_VALUE);
    }
    place *made = place_new(in, on->ordinal, bytes);
    if (made == NULL) {
        END(OUT_OF_MEMORY);
    }
    made->reserved = true;
    *out = made->base;
    END(OK);
}

/* The whole reservation at an address, or none. */
static place *reservation(const machine *in, uint64_t ptr, uint64_t bytes, bool mapped)
{
    place *at = table_find(&in->places, ptr);
    return at != NULL && at->reserved && at->bytes == bytes && (at->of != NULL) == mapped ? at : NULL;
}

static status vram_mock_cuMemAddressFree(uint64_t ptr, size_t bytes)
{
    BEGIN(cuMemAddressFree);
    if (reservation(in, ptr, bytes, false) == NULL) {
        END(INVALID_VALUE);
    }
    free(table_take(&in->places, ptr));
    END(OK);
}

static status vram_mock_cuMemCreate(uint64_t *out, size_t bytes, const properties *wanted, uint64_t flags)
{
    BEGIN(cuMemCreate);
    if (bytes == 0 || bytes % setting(in, VRAM_MOCK_GRANULARITY) != 0 || flags != 0 || !is_possible(wanted, on)) {
        END(INVALID_VALUE);
    }
    memory *made = bytes > room_on(in, on) ? NULL : memory_new(in, bytes);
    if (made == NULL) {
        END(OUT_OF_MEMORY);
    }
    if (!table_put(&in->memories, in->next_id, made)) {
        memory_free(made);
        END(OUT_OF_MEMORY);
    }
    *out = made->handle = in->next_id++;
    made->references = 1;
    made->made = *wanted;
    on->used += bytes;
    END(OK);
}

static status vram_mock_cuMemRelease(uint64_t handle)
{
    BEGIN(cuMemRelease);
    memory *of = table_find(&in->memories, handle);
    if (of == NULL) {
        END(INVALID_VALUE);
    }
    let_go(in, of);
    END(OK);
}

static status vram_mock_cuMemMap(uint64_t ptr, size_t bytes, size_t offset, uint64_t handle, uint64_t flags)
{
    BEGIN(cuMemMap);
    place *at = reservation(in, ptr, bytes, false);
    memory *of = table_find(&in->memories, handle);
    if (at == NULL || of == NULL || offset != 0 || flags != 0 || of->bytes != bytes) {
        END(INVALID_VALUE);
    }
    if (!of->poisoned && setting(in, VRAM_MOCK_POISON) != 0) {
        poison(of);
    }
    of->poisoned = true;
    of->references++;
    of->mappings++;
    at->of = of;
    at->access = at->claimed = 0;
    END(OK);
}

/* An attacker's second mapping goes unnoticed, as it would on a GPU. */
static status vram_mock_cuMemUnmap(uint64_t ptr, size_t bytes)
{
    BEGIN(cuMemUnmap);
    place *at = reservation(in, ptr, bytes, true);
    if (at == NULL) {
        END(INVALID_VALUE);
    }
    if (in_use(in, ptr, bytes)) {
        violation(in, "memory was unmapped while queued work uses it");
    }
    memory *of = at->of;
    if (at->access != 0 && of->mappings == 1 && of->written_from < of->written_to) {
        on->unwiped_device_bytes += nonzero_in(of, of->written_from, of->written_to - of->written_from);
    }
    of->mappings--;
    at->of = NULL;
    at->access = at->claimed = 0;
    at->id = in->next_id++;
    let_go(in, of);
    END(OK);
}

/* A change at rest: no mapping stands in its way. What someone else never gave for writing is not ours to change. */
static status flip(place *at, uint64_t offset, uint32_t bit)
{
    if (at->of->foreign && at->access != WRITES) {
        return READ_ONLY;
    }
    at->of->at[offset] = (uint8_t)(at->of->at[offset] ^ (1u << bit));
    written(at->of, offset, 1);
    return OK;
}

/* Memory gets its first access when it is allocated; what comes later is a switch. */
static status vram_mock_cuMemSetAccess(uint64_t ptr, size_t bytes, const access_desc *wanted, size_t count)
{
    BEGIN(cuMemSetAccess);
    place *at = reservation(in, ptr, bytes, true);
    if (at == NULL || count != 1 || wanted->where.kind != 1 || wanted->where.id != (int32_t)on->ordinal ||
        (wanted->flags != READS && wanted->flags != WRITES)) {
        END(INVALID_VALUE);
    }
    if (at->access != 0 && here.operation == VRAM_MOCK_ANY) {
        here.operation = VRAM_MOCK_PROTECT;
        const status ordered = faults_meet(in, on, VRAM_MOCK_ANY, VRAM_MOCK_PROTECT, &here.what);
        if (ordered != OK) {
            END(ordered);
        }
    }
    if (wanted->flags == READS && setting(in, VRAM_MOCK_REFUSE_READ_ONLY) != 0) {
        END((status)setting(in, VRAM_MOCK_REFUSE_READ_ONLY));
    }
    if (here.what.kind == VRAM_MOCK_CORRUPT) {
        (void)flip(at, (here.what.value / 8) % bytes, (uint32_t)(here.what.value % 8));
    }
    if (here.what.kind != VRAM_MOCK_SKIP) {
        at->access = wanted->flags;
    }
    at->claimed = here.what.kind == VRAM_MOCK_UNCONFIRMED ? READS + WRITES - wanted->flags : wanted->flags;
    END(OK);
}

static status vram_mock_cuMemGetAccess(uint64_t *out, const location *where, uint64_t ptr)
{
    BEGIN(cuMemGetAccess);
    const place *at = table_find(&in->places, ptr);
    if (at == NULL || at->of == NULL || where->kind != 1 || where->id != (int32_t)on->ordinal) {
        END(INVALID_VALUE);
    }
    *out = at->claimed;
    END(OK);
}
