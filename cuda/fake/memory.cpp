/* Device memory by the virtual-memory API, engines' memory, pinned memory, and what is said of addresses. */
#include "fake.h"

#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>

static const uint8_t POISON = 0xA5;
/* Larger allocations come zeroed: nobody wants to wait. */
static const uint64_t MOST_POISONED = 64u << 20;

static uint8_t *at(uint64_t ptr)
{
    return (uint8_t *)(uintptr_t)ptr;
}

bool accessible(const Range &range, bool writes)
{
    State &on = state();
    for (const auto &entry : on.reservations) {
        if (Range{entry.first, entry.second.bytes}.holds(range)) {
            return entry.second.handle != 0 && (entry.second.access & (writes ? 2u : 1u)) != 0;
        }
    }
    for (const auto &entry : on.engines) {
        if (Range{entry.first, entry.second}.holds(range)) {
            return true;
        }
    }
    return false;
}

bool in_use(const Range &range)
{
    for (const auto &entry : state().streams) {
        for (const Op &op : entry.second->ops) {
            for (const Range &use : op.uses) {
                if (use.overlaps(range)) {
                    return true;
                }
            }
        }
    }
    return false;
}

/* Bytes that somebody wrote: neither zero nor as they came. */
uint64_t written(uint64_t ptr, uint64_t bytes)
{
    uint64_t found = 0;
    for (uint64_t i = 0; i < bytes; i++) {
        found += at(ptr)[i] != 0 && at(ptr)[i] != POISON ? 1u : 0u;
    }
    return found;
}

static bool is_ours(const Properties *wanted)
{
    /* An engine may make memory that it can export: handle type 1 is a file descriptor. */
    return wanted->kind == 1 && wanted->handle_types <= 1 && wanted->location.kind == 1 &&
           wanted->location.id == current_device();
}

FAKE_API Status cuMemGetAllocationGranularity(size_t *out, const Properties *wanted, uint32_t option)
{
    ENTER(cuMemGetAllocationGranularity, true);
    if (!is_ours(wanted) || option != 0) {
        return INVALID_VALUE;
    }
    *out = on.setting("granularity");
    return OK;
}

FAKE_API Status cuMemAddressReserve(uint64_t *out, size_t bytes, size_t alignment, uint64_t fixed, uint64_t flags)
{
    ENTER(cuMemAddressReserve, true);
    const uint64_t unit = on.setting("granularity");
    if (bytes == 0 || bytes % unit != 0 || alignment != 0 || fixed != 0 || flags != 0) {
        return INVALID_VALUE;
    }
    void *raw = mmap(nullptr, bytes + unit, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED) {
        return OUT_OF_MEMORY;
    }
    const uint64_t base = ((uint64_t)(uintptr_t)raw + unit - 1) / unit * unit;
    on.reservations[base] = Reservation{bytes, 0, 0};
    *out = base;
    return OK;
}

FAKE_API Status cuMemAddressFree(uint64_t ptr, size_t bytes)
{
    ENTER(cuMemAddressFree, true);
    auto found = on.reservations.find(ptr);
    if (found == on.reservations.end() || found->second.bytes != bytes || found->second.handle != 0) {
        return INVALID_VALUE;
    }
    on.reservations.erase(found);
    munmap(at(ptr), bytes);
    return OK;
}

FAKE_API Status cuMemCreate(uint64_t *out, size_t bytes, const Properties *wanted, uint64_t flags)
{
    ENTER(cuMemCreate, true);
    if (bytes == 0 || bytes % on.setting("granularity") != 0 || flags != 0 || !is_ours(wanted)) {
        return INVALID_VALUE;
    }
    if (bytes > on.room_on(current_device())) {
        return OUT_OF_MEMORY;
    }
    const int file = memfd_create("stand-in", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, (off_t)bytes) != 0) {
        return OUT_OF_MEMORY;
    }
    on.used += bytes;
    *out = 0x500000000ull + on.next_handle++;
    on.physical[*out] = Physical{bytes, file, 1, *wanted};
    return OK;
}

static void let_go(State &on, uint64_t handle)
{
    Physical &memory = on.physical[handle];
    if (--memory.references == 0) {
        close(memory.file);
        on.used -= memory.bytes;
        on.physical.erase(handle);
    }
}

FAKE_API Status cuMemRelease(uint64_t handle)
{
    ENTER(cuMemRelease, true);
    if (on.physical.count(handle) == 0) {
        return INVALID_VALUE;
    }
    let_go(on, handle);
    return OK;
}

/* How often physical memory is mapped: an attacker may map it once more. */
static size_t mappings_of(State &on, uint64_t handle)
{
    size_t found = 0;
    for (const auto &entry : on.reservations) {
        found += entry.second.handle == handle ? 1u : 0u;
    }
    return found;
}

FAKE_API Status cuMemMap(uint64_t ptr, size_t bytes, size_t offset, uint64_t handle, uint64_t flags)
{
    ENTER(cuMemMap, true);
    auto place = on.reservations.find(ptr);
    auto memory = on.physical.find(handle);
    if (place == on.reservations.end() || memory == on.physical.end() || place->second.handle != 0 || offset != 0 ||
        flags != 0 || place->second.bytes != bytes || memory->second.bytes != bytes) {
        return INVALID_VALUE;
    }
    if (mmap(at(ptr), bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory->second.file, 0) == MAP_FAILED) {
        return OUT_OF_MEMORY;
    }
    const bool first = mappings_of(on, handle) == 0;
    if (first && bytes <= MOST_POISONED) {
        memset(at(ptr), POISON, bytes);
    }
    place->second.handle = handle;
    place->second.access = 0;
    memory->second.references++;
    return OK;
}

FAKE_API Status cuMemUnmap(uint64_t ptr, size_t bytes)
{
    ENTER(cuMemUnmap, true);
    auto place = on.reservations.find(ptr);
    if (place == on.reservations.end() || place->second.bytes != bytes || place->second.handle == 0) {
        return INVALID_VALUE;
    }
    if (in_use(Range{ptr, bytes})) {
        violation("memory was unmapped while queued work uses it");
    }
    /* An attacker's second mapping goes unnoticed, as it would on a GPU. */
    if (place->second.access != 0 && mappings_of(on, place->second.handle) == 1) {
        on.counts["unmapped"]++;
        on.counts["unwiped"] += bytes <= MOST_POISONED ? written(ptr, bytes) : 0;
    }
    const uint64_t handle = place->second.handle;
    place->second.handle = 0;
    mmap(at(ptr), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    let_go(on, handle);
    return OK;
}

FAKE_API Status cuMemSetAccess(uint64_t ptr, size_t bytes, const AccessDesc *wanted, size_t count)
{
    ENTER(cuMemSetAccess, true);
    auto place = on.reservations.find(ptr);
    if (place == on.reservations.end() || place->second.bytes != bytes || place->second.handle == 0 || count != 1 ||
        wanted->location.kind != 1 || wanted->location.id != current_device()) {
        return INVALID_VALUE;
    }
    /* Memory gets its first access when it is allocated; later calls switch it. */
    if (place->second.access != 0 && on.happens("switch fails")) {
        return UNKNOWN;
    }
    if (place->second.access != 0 && on.happens("switch flips")) {
        at(ptr)[on.setting("flip_on_switch")] ^= 4;
    }
    if (wanted->flags == 1 && on.setting("refuse_read_only") != 0) {
        return (Status)on.setting("refuse_read_only");
    }
    if (wanted->flags == 1 && on.setting("flip_on_read_only") != 0) {
        at(ptr)[on.setting("flip_on_read_only")] ^= 1;
    }
    place->second.access = wanted->flags;
    return OK;
}

FAKE_API Status cuMemGetAccess(uint64_t *out, const Location *location, uint64_t ptr)
{
    ENTER(cuMemGetAccess, true);
    auto place = on.reservations.find(ptr);
    if (place == on.reservations.end() || location->kind != 1 || location->id != current_device()) {
        return INVALID_VALUE;
    }
    *out = on.setting("unconfirmed") != 0 || on.happens("switch unconfirmed") ? 3u : place->second.access;
    return OK;
}

static auto mapping_of(State &on, uint64_t ptr)
{
    auto found = on.reservations.begin();
    while (found != on.reservations.end() &&
           (found->second.handle == 0 || !Range{found->first, found->second.bytes}.holds(Range{ptr, 1}))) {
        ++found;
    }
    return found;
}

FAKE_API Status cuMemRetainAllocationHandle(uint64_t *out, uint64_t ptr)
{
    ENTER(cuMemRetainAllocationHandle, true);
    auto found = mapping_of(on, ptr);
    if (found == on.reservations.end()) {
        return INVALID_VALUE;
    }
    *out = found->second.handle;
    on.physical[*out].references++;
    return OK;
}

FAKE_API Status cuMemGetAllocationPropertiesFromHandle(Properties *out, uint64_t handle)
{
    ENTER(cuMemGetAllocationPropertiesFromHandle, true);
    auto found = on.physical.find(handle);
    if (found == on.physical.end()) {
        return INVALID_VALUE;
    }
    *out = found->second.properties;
    if (on.settings.count("property_kind") != 0) {
        out->kind = (uint32_t)on.setting("property_kind");
    }
    if (on.settings.count("property_location") != 0) {
        out->location.kind = (uint32_t)on.setting("property_location");
    }
    return OK;
}

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

/* What tests do. */

FAKE_API uint32_t fake_peek(uint64_t ptr, uint8_t *out, uint64_t bytes)
{
    std::lock_guard<std::recursive_mutex> guard(state().lock);
    if (!accessible(Range{ptr, bytes}, false)) {
        return INVALID_VALUE;
    }
    memcpy(out, at(ptr), bytes);
    return OK;
}

/* Past every check, as an attacker with another mapping of the same memory would: also where it is read-only. */
FAKE_API uint32_t fake_flip(uint64_t ptr, uint32_t bit)
{
    std::lock_guard<std::recursive_mutex> guard(state().lock);
    auto found = mapping_of(state(), ptr);
    if (found == state().reservations.end()) {
        return INVALID_VALUE;
    }
    const uint64_t bytes = found->second.bytes;
    const int file = state().physical[found->second.handle].file;
    void *alias = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (alias == MAP_FAILED) {
        return OUT_OF_MEMORY;
    }
    ((uint8_t *)alias)[ptr - found->first] ^= (uint8_t)(1u << bit);
    munmap(alias, bytes);
    return OK;
}

/* The address of the n-th live mapping, in order of addresses; 0 when there is none. */
FAKE_API uint64_t fake_mapping(uint64_t n, uint64_t *bytes)
{
    std::lock_guard<std::recursive_mutex> guard(state().lock);
    for (const auto &entry : state().reservations) {
        if (entry.second.handle != 0 && n-- == 0) {
            *bytes = entry.second.bytes;
            return entry.first;
        }
    }
    return 0;
}

/* What the mapping at this address allows: 0 nothing, 1 reading, 3 reading and writing. */
FAKE_API uint32_t fake_access(uint64_t ptr)
{
    std::lock_guard<std::recursive_mutex> guard(state().lock);
    auto found = mapping_of(state(), ptr);
    return found == state().reservations.end() ? 0 : found->second.access;
}

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
