/* Device memory by the virtual-memory API. */
#include "fake.h"

#include <sys/mman.h>
#include <unistd.h>

/* Larger allocations come zeroed: nobody wants to wait. */
static const uint64_t MOST_POISONED = 64u << 20;

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

std::map<uint64_t, Reservation>::iterator mapping_of(State &on, uint64_t ptr)
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
