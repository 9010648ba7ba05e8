/* Machines and devices, the tables that hold everything, and the two ends of each call. */
#include "internal.h"

/* The index of the first entry whose key is greater than `key`. */
static size_t table_after(const table *in, uint64_t key)
{
    size_t low = 0;
    size_t high = in->len;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (in->at[middle].key <= key) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void *table_find(const table *in, uint64_t key)
{
    const size_t after = table_after(in, key);
    return after != 0 && in->at[after - 1].key == key ? in->at[after - 1].value : NULL;
}

/* False when the host has no memory; the table is then unchanged. The key must be new. */
static bool table_put(table *in, uint64_t key, void *value)
{
    if (in->len == in->cap) {
        const size_t cap = in->cap == 0 ? 16 : in->cap * 2;
        struct entry *at = realloc(in->at, cap * sizeof *at);
        if (at == NULL) {
            return false;
        }
        in->at = at;
        in->cap = cap;
    }
    const size_t after = table_after(in, key);
    memmove(in->at + after + 1, in->at + after, (in->len - after) * sizeof *in->at);
    in->at[after].key = key;
    in->at[after].value = value;
    in->len++;
    return true;
}

static void *table_take(table *in, uint64_t key)
{
    const size_t after = table_after(in, key);
    if (after == 0 || in->at[after - 1].key != key) {
        return NULL;
    }
    void *value = in->at[after - 1].value;
    memmove(in->at + after - 1, in->at + after, (in->len - after) * sizeof *in->at);
    in->len--;
    return value;
}

/* Locks the device, refuses if it is dead, and lets ordered faults meet the call. Holds the lock only on success. */
static status enter(vram_mock_machine *machine, uint32_t ordinal, uint32_t call, device **out, hit *what)
{
    if (what != NULL) {
        *what = (hit){0, 0};
    }
    if (machine == NULL || ordinal >= machine->config.devices) {
        return VRAM_MOCK_INVALID_DEVICE;
    }
    device *on = &machine->devices[ordinal];
    pthread_mutex_lock(&on->lock);
    status result = on->sticky;
    if (result == VRAM_MOCK_OK && call != VRAM_MOCK_CALL_ANY) {
        hit met = {0, 0};
        result = faults_meet(on, call, &met);
        if (what != NULL) {
            *what = met;
        }
    }
    if (result != VRAM_MOCK_OK) {
        pthread_mutex_unlock(&on->lock);
        return result;
    }
    *out = on;
    return VRAM_MOCK_OK;
}

/* Counts a call that succeeded (queued operations count when they run: they leave with CALL_ANY) and unlocks. */
static status leave(device *on, uint32_t call, status result)
{
    if (result == VRAM_MOCK_OK && call != VRAM_MOCK_CALL_ANY) {
        on->stats.runs[call]++;
    }
    pthread_mutex_unlock(&on->lock);
    return result;
}

uint32_t vram_mock_abi_version(void)
{
    return VRAM_MOCK_ABI_VERSION;
}

uint64_t vram_mock_layout(uint64_t *out, uint64_t room)
{
#define WHOLE(type) sizeof(type), _Alignof(type)
#define AT(type, field) offsetof(type, field)
    const uint64_t layout[] = {
        WHOLE(vram_mock_config), AT(vram_mock_config, abi_version), AT(vram_mock_config, devices),
        AT(vram_mock_config, capacity_bytes), AT(vram_mock_config, granularity), AT(vram_mock_config, late_streams),
        AT(vram_mock_config, poison), AT(vram_mock_config, read_only), AT(vram_mock_config, sparse),
        AT(vram_mock_config, seed),
        WHOLE(vram_mock_span), AT(vram_mock_span, ptr), AT(vram_mock_span, bytes),
        WHOLE(vram_mock_residency), AT(vram_mock_residency, kind), AT(vram_mock_residency, host_mapped),
        AT(vram_mock_residency, exportable), AT(vram_mock_residency, has_ordinal), AT(vram_mock_residency, ordinal),
        AT(vram_mock_residency, range),
        WHOLE(vram_mock_digest_job), AT(vram_mock_digest_job, regions), AT(vram_mock_digest_job, region_count),
        AT(vram_mock_digest_job, block_size), AT(vram_mock_digest_job, salt_bytes), AT(vram_mock_digest_job, salt),
        AT(vram_mock_digest_job, scratch), AT(vram_mock_digest_job, table), AT(vram_mock_digest_job, result),
        AT(vram_mock_digest_job, nonce),
        WHOLE(vram_mock_fault), AT(vram_mock_fault, kind), AT(vram_mock_fault, call), AT(vram_mock_fault, code),
        AT(vram_mock_fault, value), AT(vram_mock_fault, nth), AT(vram_mock_fault, times),
        WHOLE(vram_mock_stats), AT(vram_mock_stats, live_allocations), AT(vram_mock_stats, live_bytes),
        AT(vram_mock_stats, live_foreign), AT(vram_mock_stats, live_streams), AT(vram_mock_stats, live_events),
        AT(vram_mock_stats, live_host_buffers), AT(vram_mock_stats, live_host_bytes),
        AT(vram_mock_stats, pending_operations), AT(vram_mock_stats, unmet_faults),
        AT(vram_mock_stats, unwiped_device_bytes), AT(vram_mock_stats, unwiped_host_bytes), AT(vram_mock_stats, runs),
    };
#undef WHOLE
#undef AT
    const uint64_t count = sizeof layout / sizeof *layout;
    for (uint64_t i = 0; i < least(room, count); i++) {
        out[i] = layout[i];
    }
    return count;
}

status vram_mock_create(const vram_mock_config *config, vram_mock_machine **out)
{
    if (config == NULL || out == NULL || config->abi_version != VRAM_MOCK_ABI_VERSION || config->devices == 0 ||
        config->granularity < 256 || (config->granularity & (config->granularity - 1)) != 0) {
        return VRAM_MOCK_INVALID_VALUE;
    }
    vram_mock_machine *machine = calloc(1, sizeof *machine);
    if (machine == NULL) {
        return VRAM_MOCK_OUT_OF_MEMORY;
    }
    machine->config = *config;
    machine->devices = calloc(config->devices, sizeof *machine->devices);
    if (machine->devices == NULL) {
        free(machine);
        return VRAM_MOCK_OUT_OF_MEMORY;
    }
    for (uint32_t i = 0; i < config->devices; i++) {
        device *on = &machine->devices[i];
        if (pthread_mutex_init(&on->lock, NULL) != 0) {
            while (i-- > 0) {
                pthread_mutex_destroy(&machine->devices[i].lock);
            }
            free(machine->devices);
            free(machine);
            return VRAM_MOCK_UNKNOWN;
        }
        on->machine = machine;
        on->ordinal = i;
        on->next_id = 1;
    }
    *out = machine;
    return VRAM_MOCK_OK;
}

void vram_mock_destroy(vram_mock_machine *machine)
{
    if (machine == NULL) {
        return;
    }
    for (uint32_t i = 0; i < machine->config.devices; i++) {
        device *on = &machine->devices[i];
        streams_drop(on);
        memory_drop(on);
        faults_clear(on);
        free(on->last_table);
        pthread_mutex_destroy(&on->lock);
    }
    free(machine->devices);
    free(machine);
}

/* SHA-256 of seed and ordinal: the same machine names its devices alike every time, two machines never do. */
status vram_mock_uuid(vram_mock_machine *machine, uint32_t ordinal, uint8_t out[16])
{
    if (machine == NULL || out == NULL || ordinal >= machine->config.devices) {
        return VRAM_MOCK_INVALID_DEVICE;
    }
    uint8_t message[20];
    uint8_t hash[HASH_BYTES];
    uint32_t state[8];
    memcpy(message, machine->config.seed, 16);
    for (uint32_t i = 0; i < 4; i++) {
        message[16 + i] = (uint8_t)((ordinal >> (8 * i)) & 0xff);
    }
    vram_sha256_init(state);
    vram_sha256_compress_short(state, message, sizeof message);
    vram_sha256_finish(state, VRAM_SHA256_BLOCK, hash);
    memcpy(out, hash, 16);
    return VRAM_MOCK_OK;
}

status vram_mock_stats_of(vram_mock_machine *machine, uint32_t ordinal, vram_mock_stats *out)
{
    if (machine == NULL || out == NULL || ordinal >= machine->config.devices) {
        return VRAM_MOCK_INVALID_DEVICE;
    }
    device *on = &machine->devices[ordinal];
    pthread_mutex_lock(&on->lock);
    *out = on->stats;
    out->live_streams = on->streams.len;
    out->live_events = on->events.len;
    out->live_host_buffers = on->hosts.len;
    for (size_t i = 0; i < on->streams.len; i++) {
        const stream *of = on->streams.at[i].value;
        out->pending_operations += of->enqueued - of->done;
    }
    for (size_t i = 0; i < on->allocations.len; i++) {
        const allocation *of = on->allocations.at[i].value;
        out->live_foreign += of->foreign ? 1 : 0;
        out->live_allocations += of->foreign ? 0 : 1;
        out->live_bytes += of->foreign ? 0 : of->bytes;
    }
    for (const fault *of = on->faults; of != NULL; of = of->next) {
        out->unmet_faults += of->met ? 0 : 1;
    }
    for (size_t i = 0; i < on->hosts.len; i++) {
        out->live_host_bytes += ((const host_buffer *)on->hosts.at[i].value)->bytes;
    }
    pthread_mutex_unlock(&on->lock);
    return VRAM_MOCK_OK;
}
