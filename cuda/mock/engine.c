/* What engines and attackers allocate, host buffers, registered memory, and memory seen and changed from outside. */
#include "internal.h"

static status engine_alloc(const api_call *c, uint64_t *out, size_t bytes, bool managed)
{
    machine *in = c->in;
    if (bytes == 0) {
        return INVALID_VALUE;
    }
    place *made = bytes > room_on(in, c->on) ? NULL : place_new(in, c->on->ordinal, (bytes + 255) / 256 * 256);
    memory *of = made == NULL ? NULL : memory_new(in, made->bytes);
    if (of == NULL) {
        free(made == NULL ? NULL : table_take(&in->places, made->base));
        return OUT_OF_MEMORY;
    }
    if (setting(in, VRAM_MOCK_POISON) != 0) {
        poison(of);
    }
    made->of = of;
    made->bytes = bytes;
    made->access = made->claimed = WRITES;
    made->managed = managed;
    *out = made->base;
    return OK;
}

static status vram_mock_cuMemAlloc_v2(uint64_t *out, size_t bytes)
{
    BEGIN(cuMemAlloc_v2);
    END(engine_alloc(&here, out, bytes, false));
}

static status vram_mock_cuMemAllocManaged(uint64_t *out, size_t bytes, uint32_t flags)
{
    BEGIN(cuMemAllocManaged);
    END(flags != 1 ? INVALID_VALUE : engine_alloc(&here, out, bytes, true));
}

static status vram_mock_cuMemFree_v2(uint64_t ptr)
{
    BEGIN(cuMemFree_v2);
    place *at = table_find(&in->places, ptr);
    if (at == NULL || at->reserved || at->of->foreign) {
        END(INVALID_VALUE);
    }
    if (in_use(in, ptr, at->bytes)) {
        violation(in, "an engine's memory was freed while queued work uses it");
    }
    memory_free(at->of);
    free(table_take(&in->places, ptr));
    END(OK);
}

static status vram_mock_cuMemHostAlloc(void **out, size_t bytes, uint32_t flags)
{
    BEGIN(cuMemHostAlloc);
    if (flags != 1) {
        violation(in, "pinned memory with flags other than portable");
    }
    if (bytes == 0 || bytes > UINT64_MAX / 2) {
        END(INVALID_VALUE);
    }
    host_buffer *made = calloc(1, sizeof *made);
    uint8_t *at = made == NULL ? NULL : aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (at == NULL || !table_put(&in->hosts, (uint64_t)(uintptr_t)at, made)) {
        free(at);
        free(made);
        END(OUT_OF_MEMORY);
    }
    memset(at, POISON, bytes);
    *made = (host_buffer){(uint64_t)(uintptr_t)at, bytes, in->next_id++};
    *out = at;
    END(OK);
}

/* A dead context takes it back too, and says that it is dead. */
static status vram_mock_cuMemFreeHost(void *ptr)
{
    BEGIN(cuMemFreeHost);
    host_buffer *at = table_take(&in->hosts, (uint64_t)(uintptr_t)ptr);
    if (at == NULL) {
        END(INVALID_VALUE);
    }
    if (in_use(in, at->base, at->bytes)) {
        violation(in, "pinned memory was freed while a queued copy uses it");
    }
    on->unwiped_host_bytes += nonzero(ptr, at->bytes);
    free(ptr);
    free(at);
    END(on->sticky);
}

uint32_t vram_mock_register(vram_mock_machine *in, uint32_t ordinal, uint64_t ptr, uint64_t bytes, uint32_t writable)
{
    if (ordinal >= in->device_count || ptr == 0 || bytes == 0 || bytes > UINT64_MAX - ptr) {
        return INVALID_VALUE;
    }
    pthread_mutex_lock(&in->lock);
    status result = in->devices[ordinal].sticky;
    const place *known = place_of(in, ptr, bytes);
    if (result == OK && known != NULL && known->of != NULL && known->of->foreign) {
        result = INVALID_VALUE;
    } else if (result == OK && known == NULL && setting(in, VRAM_MOCK_STRICT) == 0) {
        const size_t after = table_after(&in->places, ptr);
        const place *before = after == 0 ? NULL : in->places.at[after - 1].value;
        const bool overlaps = (before != NULL && ptr - before->base < before->bytes) ||
                              (after < in->places.len && in->places.at[after].key - ptr < bytes) ||
                              ptr + bytes > FIRST_ADDRESS || host_of(in, ptr, 1) != NULL;
        place *made = overlaps ? NULL : calloc(1, sizeof *made);
        memory *of = made == NULL ? NULL : calloc(1, sizeof *of);
        if (of == NULL || !table_put(&in->places, ptr, made)) {
            free(of);
            free(made);
            result = overlaps ? INVALID_VALUE : OUT_OF_MEMORY;
        } else {
            *of = (memory){.bytes = bytes, .at = (uint8_t *)(uintptr_t)ptr, .foreign = true, .made = {.where = {1, -1}}};
            const uint32_t access = writable != 0 ? WRITES : READS;
            *made = (place){ptr, bytes, in->next_id++, ordinal, false, false, of, access, access};
        }
    }
    pthread_mutex_unlock(&in->lock);
    return result;
}

uint32_t vram_mock_unregister(vram_mock_machine *in, uint32_t ordinal, uint64_t ptr)
{
    (void)ordinal;
    pthread_mutex_lock(&in->lock);
    place *at = table_find(&in->places, ptr);
    if (at != NULL && at->of != NULL && at->of->foreign) {
        memory_free(at->of);
        free(table_take(&in->places, ptr));
    }
    pthread_mutex_unlock(&in->lock);
    return OK;
}

uint32_t vram_mock_look(vram_mock_machine *in, uint64_t ptr, uint8_t *out, uint64_t bytes)
{
    pthread_mutex_lock(&in->lock);
    const place *at = place_of(in, ptr, bytes);
    const bool there = at != NULL && at->of != NULL;
    if (there && bytes != 0) {
        memcpy(out, at->of->at + (ptr - at->base), bytes);
    }
    pthread_mutex_unlock(&in->lock);
    return there ? OK : INVALID_VALUE;
}

uint32_t vram_mock_flip(vram_mock_machine *in, uint64_t ptr, uint32_t bit)
{
    pthread_mutex_lock(&in->lock);
    place *at = place_of(in, ptr, 1);
    const status result = at == NULL || at->of == NULL || bit > 7 ? INVALID_VALUE : flip(at, ptr - at->base, bit);
    pthread_mutex_unlock(&in->lock);
    return result;
}

uint64_t vram_mock_mapping(vram_mock_machine *in, uint64_t n, uint64_t *bytes, uint32_t *access)
{
    uint64_t found = 0;
    pthread_mutex_lock(&in->lock);
    for (size_t i = 0; found == 0 && i < in->places.len; i++) {
        const place *at = in->places.at[i].value;
        if (at->reserved && at->of != NULL && n-- == 0) {
            found = at->base;
            *bytes = at->bytes;
            *access = at->access;
        }
    }
    pthread_mutex_unlock(&in->lock);
    return found;
}

static uint64_t word_of(const op *what, uint32_t at)
{
    uint64_t word = 1;
    if (at != VRAM_MOCK_NO_WORD) {
        memcpy(&word, what->args + 8 * at, sizeof word);
    }
    return word;
}

/* A make-believe engine's kernel. */
static status run_engine(machine *in, device *on, op *what)
{
    const vram_mock_kernel *of = what->runs;
    _Alignas(16) uint8_t args[MOST_ARGS];
    memcpy(args, what->args, sizeof args);
    for (uint32_t i = 0; i < of->use_count; i++) {
        const vram_mock_use *use_of = &of->uses[i];
        uint64_t ptr = word_of(what, use_of->word);
        const uint64_t bytes = use_of->unit * word_of(what, use_of->by[0]) * word_of(what, use_of->by[1]);
        const status result = translate(in, on, &ptr, bytes, use_of->writes != 0, use_of->alignment, NULL);
        if (result != OK) {
            return result;
        }
        memcpy(args + 8 * use_of->word, &ptr, sizeof ptr);
    }
    body(in, what, args, what->grid);
    return OK;
}
