/* Engines' memory, pinned memory, and what is said of addresses. */
#include "fake.h"

#include <cstdlib>

/* What engines and attackers call, and the library does not. */

FAKE_API Status cuMemAlloc_v2(uint64_t *out, size_t bytes)
{
    ENTER(cuMemAlloc_v2, true);
    if (bytes == 0) {
        return INVALID_VALUE;
    }
    if (bytes > on.room_on(current_device())) {
        return OUT_OF_MEMORY;
    }
    void *raw = aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset(raw, POISON, bytes);
    on.engines[(uint64_t)(uintptr_t)raw] = bytes;
    *out = (uint64_t)(uintptr_t)raw;
    return OK;
}

FAKE_API Status cuMemAllocManaged(uint64_t *out, size_t bytes, uint32_t flags)
{
    const Status status = flags == 1 ? cuMemAlloc_v2(out, bytes) : INVALID_VALUE;
    if (status == OK) {
        std::lock_guard<std::recursive_mutex> guard(state().lock);
        state().managed.insert(*out);
    }
    return status;
}

FAKE_API Status cuMemFree_v2(uint64_t ptr)
{
    ENTER(cuMemFree_v2, true);
    auto found = on.engines.find(ptr);
    if (found == on.engines.end()) {
        return INVALID_VALUE;
    }
    if (in_use(Range{ptr, found->second})) {
        violation("an engine's memory was freed while queued work uses it");
    }
    on.engines.erase(found);
    on.managed.erase(ptr);
    free(at(ptr));
    return OK;
}

static Status copy_now(State &on, uint64_t device, uint64_t host, uint64_t bytes, bool to_device)
{
    run_all(&on.default_stream);
    if (!accessible(Range{device, bytes}, to_device)) {
        return INVALID_VALUE;
    }
    memcpy(at(to_device ? device : host), at(to_device ? host : device), bytes);
    return OK;
}

FAKE_API Status cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes)
{
    ENTER(cuMemcpyHtoD_v2, true);
    return copy_now(on, to, (uint64_t)(uintptr_t)from, bytes, true);
}

FAKE_API Status cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes)
{
    ENTER(cuMemcpyDtoH_v2, true);
    return copy_now(on, from, (uint64_t)(uintptr_t)to, bytes, false);
}

/* Unknown addresses succeed with zeros, as the documentation has it. */
FAKE_API Status cuPointerGetAttributes(uint32_t count, const uint32_t *asked, void **out, uint64_t ptr)
{
    ENTER(cuPointerGetAttributes, true);
    uint64_t memory_type = 0, host = 0, ordinal = 0, legacy = 0, managed = 0, handle_types = 0;
    Range range = {0, 0};
    auto mapped = mapping_of(on, ptr);
    if (mapped != on.reservations.end()) {
        memory_type = 2;
        ordinal = (uint64_t)on.physical[mapped->second.handle].properties.location.id;
        handle_types = on.physical[mapped->second.handle].properties.handle_types;
        range = Range{mapped->first, mapped->second.bytes};
    }
    for (const auto &entry : on.engines) {
        if (Range{entry.first, entry.second}.holds(Range{ptr, 1})) {
            memory_type = 2;
            legacy = 1;
            managed = on.managed.count(entry.first);
            host = managed != 0 ? ptr : 0;
            range = Range{entry.first, entry.second};
        }
    }
    for (const auto &entry : on.pinned) {
        if (Range{entry.first, entry.second}.holds(Range{ptr, 1})) {
            memory_type = 1;
            host = ptr;
            range = Range{entry.first, entry.second};
        }
    }
    const bool lies_managed = on.happens("managed"), silent = on.happens("no answer");
    for (uint32_t i = 0; i < count; i++) {
        uint64_t value = 0;
        size_t width = 8;
        switch (asked[i]) {
        case 2:
            value = memory_type;
            width = 4;
            break;
        case 4:
            value = host;
            break;
        case 8:
            value = managed;
            width = 1;
            break;
        case 9:
            value = ordinal;
            width = 4;
            break;
        case 10:
            value = legacy;
            width = 1;
            break;
        case 11:
            value = range.ptr;
            break;
        case 12:
            value = range.bytes;
            break;
        case 14:
            value = handle_types;
            break;
        case 18:
            value = mapped != on.reservations.end() ? range.bytes : 0;
            break;
        case 19:
            value = mapped != on.reservations.end() ? range.ptr : 0;
            break;
        default:
            return INVALID_VALUE;
        }
        if (on.lies.count(asked[i]) != 0) {
            value = on.lies[asked[i]];
        }
        if (lies_managed && asked[i] == 8) {
            value = 1;
        }
        if (silent || on.setting("lie_zeros") != 0) {
            value = 0;
        }
        memcpy(out[i], &value, width);
    }
    return OK;
}

FAKE_API Status cuMemHostAlloc(void **out, size_t bytes, uint32_t flags)
{
    ENTER(cuMemHostAlloc, true);
    if (flags != 1) {
        violation("pinned memory with flags other than portable");
    }
    *out = malloc(bytes);
    if (*out == nullptr) {
        return OUT_OF_MEMORY;
    }
    memset(*out, POISON, bytes);
    on.pinned[(uint64_t)(uintptr_t)*out] = bytes;
    return OK;
}

FAKE_API Status cuMemFreeHost(void *ptr)
{
    ENTER(cuMemFreeHost, true);
    auto found = on.pinned.find((uint64_t)(uintptr_t)ptr);
    if (found == on.pinned.end()) {
        return INVALID_VALUE;
    }
    if (in_use(Range{found->first, found->second})) {
        violation("pinned memory was freed while a queued copy uses it");
    }
    on.counts["unwiped host"] += written(found->first, found->second);
    on.pinned.erase(found);
    free(ptr);
    return OK;
}

/* What tests do, as an engine would. */

FAKE_API uint64_t fake_engine_alloc(uint64_t bytes)
{
    std::lock_guard<std::recursive_mutex> guard(state().lock);
    void *raw = calloc(1, bytes);
    state().engines[(uint64_t)(uintptr_t)raw] = bytes;
    return (uint64_t)(uintptr_t)raw;
}

FAKE_API void fake_engine_free(uint64_t ptr)
{
    std::lock_guard<std::recursive_mutex> guard(state().lock);
    if (in_use(Range{ptr, state().engines[ptr]})) {
        violation("an engine's memory was freed while queued work uses it");
    }
    state().engines.erase(ptr);
    free(at(ptr));
}
