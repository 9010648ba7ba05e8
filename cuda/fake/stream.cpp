/* Streams, events, copies, fills and kernels. A stream runs when something waits for it, and not before. */
#include "fake.h"

#include "../engine/engine.h"
#include "../engine/host_engine.h"
#include "../include/vram_host_kernels.h"
#include "../include/vram_kernels.h"

/* Polls of an event after which what it waits for runs. */
static const uint64_t MOST_POLLS = 64;

static uint8_t *at(uint64_t ptr)
{
    return (uint8_t *)(uintptr_t)ptr;
}

static bool fault(void)
{
    state().sticky = ILLEGAL_ADDRESS;
    return false;
}

Stream *find_stream(uint64_t handle)
{
    State &on = state();
    if (handle == 0) {
        return &on.default_stream;
    }
    auto found = on.streams.find(handle);
    return found == on.streams.end() ? nullptr : found->second.get();
}

static void run_first(Stream *stream);

/* Runs a stream until an event has passed. */
static void run_to(Stream *stream, const std::shared_ptr<Event> &event, uint64_t version)
{
    while (event->passed < version && stream != nullptr && !stream->ops.empty()) {
        run_first(stream);
    }
}

static void run_first(Stream *stream)
{
    const std::shared_ptr<Event> waits = stream->ops.front().waits;
    if (waits != nullptr) {
        run_to(stream->ops.front().other, waits, stream->ops.front().version);
    }
    const Op op = std::move(stream->ops.front());
    stream->ops.pop_front();
    /* On a dead context nothing runs; events pass all the same, so that nobody waits for ever. */
    if (op.run && state().sticky == OK) {
        op.run();
    }
    if (op.marks != nullptr && op.marks->passed < op.version) {
        op.marks->passed = op.version;
    }
}

void run_all(Stream *stream)
{
    while (!stream->ops.empty()) {
        run_first(stream);
    }
}

void enqueue(Stream *stream, Op op)
{
    stream->ops.push_back(std::move(op));
    if (state().setting("late") == 0) {
        run_all(stream);
    }
}

FAKE_API Status cuStreamCreate(uint64_t *out, uint32_t flags)
{
    ENTER(cuStreamCreate, true);
    if (flags != 1) {
        violation("a stream that synchronises with the default one");
    }
    auto made = std::make_unique<Stream>();
    *out = (uint64_t)(uintptr_t)made.get();
    on.streams[*out] = std::move(made);
    return OK;
}

FAKE_API Status cuStreamDestroy_v2(uint64_t handle)
{
    ENTER(cuStreamDestroy_v2, true);
    Stream *stream = handle == 0 ? nullptr : find_stream(handle);
    if (stream == nullptr) {
        return INVALID_HANDLE;
    }
    run_all(stream);
    on.streams.erase(handle);
    return OK;
}

FAKE_API Status cuStreamSynchronize(uint64_t handle)
{
    ENTER(cuStreamSynchronize, true);
    if (on.happens("stream wait fails")) {
        return UNKNOWN;
    }
    Stream *stream = find_stream(handle);
    if (stream == nullptr) {
        return INVALID_HANDLE;
    }
    run_all(stream);
    return on.sticky;
}

FAKE_API Status cuStreamQuery(uint64_t handle)
{
    ENTER(cuStreamQuery, true);
    Stream *stream = find_stream(handle);
    if (stream == nullptr) {
        return INVALID_HANDLE;
    }
    return stream->ops.empty() ? on.sticky : NOT_READY;
}

static std::shared_ptr<Event> find_event(uint64_t handle)
{
    auto found = state().events.find(handle);
    return found == state().events.end() ? nullptr : found->second;
}

FAKE_API Status cuEventCreate(uint64_t *out, uint32_t flags)
{
    ENTER(cuEventCreate, true);
    if (flags != 2) {
        violation("an event with a clock");
    }
    auto made = std::make_shared<Event>();
    *out = (uint64_t)(uintptr_t)made.get();
    on.events[*out] = made;
    return OK;
}

FAKE_API Status cuEventDestroy_v2(uint64_t handle)
{
    ENTER(cuEventDestroy_v2, true);
    return on.events.erase(handle) == 1 ? OK : INVALID_HANDLE;
}

FAKE_API Status cuEventRecord(uint64_t handle, uint64_t stream_handle)
{
    ENTER(cuEventRecord, true);
    const auto event = find_event(handle);
    Stream *stream = find_stream(stream_handle);
    if (event == nullptr || stream == nullptr) {
        return INVALID_HANDLE;
    }
    event->recorded++;
    event->on = stream;
    event->polls = 0;
    Op op;
    op.marks = event;
    op.version = event->recorded;
    enqueue(stream, std::move(op));
    return OK;
}

FAKE_API Status cuStreamWaitEvent(uint64_t stream_handle, uint64_t handle, uint32_t flags)
{
    ENTER(cuStreamWaitEvent, true);
    const auto event = find_event(handle);
    Stream *stream = find_stream(stream_handle);
    if (event == nullptr || stream == nullptr || flags != 0) {
        return INVALID_HANDLE;
    }
    Op op;
    op.waits = event;
    op.version = event->recorded;
    op.other = event->on;
    enqueue(stream, std::move(op));
    return OK;
}

/* The stream that the event was recorded on last, if it still is one. */
static Stream *still(Stream *stream)
{
    return find_stream((uint64_t)(uintptr_t)stream);
}

FAKE_API Status cuEventSynchronize(uint64_t handle)
{
    ENTER(cuEventSynchronize, true);
    if (on.happens("event wait fails")) {
        return UNKNOWN;
    }
    const auto event = find_event(handle);
    if (event == nullptr) {
        return INVALID_HANDLE;
    }
    run_to(event->on == nullptr ? nullptr : still(event->on), event, event->recorded);
    return on.sticky;
}

FAKE_API Status cuEventQuery(uint64_t handle)
{
    ENTER(cuEventQuery, true);
    const auto event = find_event(handle);
    if (event == nullptr) {
        return INVALID_HANDLE;
    }
    if (event->passed >= event->recorded) {
        return OK;
    }
    if (++event->polls > MOST_POLLS) {
        run_to(still(event->on), event, event->recorded);
    }
    return event->passed >= event->recorded ? on.sticky : NOT_READY;
}

static Status copy(uint64_t stream_handle, uint64_t device, uint64_t host, uint64_t bytes, bool to_device)
{
    Stream *stream = find_stream(stream_handle);
    if (stream == nullptr) {
        return INVALID_HANDLE;
    }
    const Range range = {device, bytes};
    if (!accessible(range, false)) {
        return INVALID_VALUE;
    }
    const bool corrupted = to_device && bytes > 0 && state().happens("upload corrupted");
    Op op;
    op.uses = {range, Range{host, bytes}};
    op.run = [=] {
        if (!accessible(range, to_device)) {
            fault();
        } else if (to_device) {
            memcpy(at(device), at(host), bytes);
            at(device)[bytes / 2] ^= corrupted ? 2u : 0u;
        } else {
            memcpy(at(host), at(device), bytes);
        }
    };
    enqueue(stream, std::move(op));
    return OK;
}

FAKE_API Status cuMemcpyHtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream)
{
    ENTER(cuMemcpyHtoDAsync_v2, true);
    return copy(stream, to, from, bytes, true);
}

FAKE_API Status cuMemcpyDtoHAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream)
{
    ENTER(cuMemcpyDtoHAsync_v2, true);
    return copy(stream, from, to, bytes, false);
}

FAKE_API Status cuMemsetD8Async(uint64_t ptr, uint8_t value, size_t bytes, uint64_t stream_handle)
{
    ENTER(cuMemsetD8Async, true);
    Stream *stream = find_stream(stream_handle);
    if (stream == nullptr) {
        return INVALID_HANDLE;
    }
    const Range range = {ptr, bytes};
    if (!accessible(range, false)) {
        return INVALID_VALUE;
    }
    const bool skipped = on.happens("fill skipped") || on.setting("skip_fills") != 0;
    Op op;
    op.uses = {range};
    op.run = [=] {
        if (!accessible(range, true)) {
            fault();
        } else if (!skipped) {
            memset(at(ptr), value, bytes);
        }
    };
    enqueue(stream, std::move(op));
    return OK;
}

FAKE_API Status cuModuleLoadData(uint64_t *out, const void *image)
{
    ENTER(cuModuleLoadData, true);
    if (image == nullptr || (uintptr_t)image % 16 != 0) {
        return INVALID_VALUE;
    }
    *out = 0x700000000ull + on.next_handle++;
    on.modules[*out] = 1;
    return OK;
}

FAKE_API Status cuModuleUnload(uint64_t module)
{
    ENTER(cuModuleUnload, true);
    if (on.modules.erase(module) != 1) {
        return INVALID_HANDLE;
    }
    for (auto found = on.functions.begin(); found != on.functions.end();) {
        found = found->second->module == module ? on.functions.erase(found) : std::next(found);
    }
    return OK;
}

/* Of the library's kernels and of the engine's. */
static uint64_t args_bytes(const char *name)
{
    const uint64_t ours = vram_host_args_bytes(name);
    return ours != 0 ? ours : engine_host_args_bytes(name);
}

FAKE_API Status cuModuleGetFunction(uint64_t *out, uint64_t module, const char *name)
{
    ENTER(cuModuleGetFunction, true);
    if (on.modules.count(module) == 0) {
        return INVALID_HANDLE;
    }
    if (args_bytes(name) == 0) {
        return NOT_FOUND;
    }
    auto made = std::make_unique<Function>(Function{name, module});
    *out = (uint64_t)(uintptr_t)made.get();
    on.functions[*out] = std::move(made);
    return OK;
}

struct Need {
    Range range;
    bool writes;
};

/* The memory that a kernel uses. The table of regions is looked into, so it must be there by then. */
static bool needs_of(const std::string &name, const uint8_t *args, std::vector<Need> &needs, bool look)
{
    if (name == VRAM_LEAVES) {
        vram_leaves_args a;
        memcpy(&a, args, sizeof a);
        const Range table = {a.regions, a.region_count * sizeof(vram_region)};
        needs = {{table, false}, {{a.hashes, 32 * a.block_count}, true}, {{a.counters, 16}, true}};
        if (look && accessible(table, false)) {
            for (uint64_t i = 0; i < a.region_count; i++) {
                vram_region region;
                memcpy(&region, at(a.regions) + i * sizeof region, sizeof region);
                needs.push_back({{region.ptr, region.bytes}, false});
            }
        }
    } else if (name == VRAM_NODES) {
        vram_nodes_args a;
        memcpy(&a, args, sizeof a);
        const uint64_t arity = a.block_size / 32;
        const uint64_t entries = (a.leaf_count + arity - 1) / arity;
        needs = {{{a.hashes, 32 * a.leaf_count}, false}, {{a.table, 32 * entries}, true}, {{a.counters, 16}, true}};
    } else if (name == VRAM_FINISH) {
        vram_finish_args a;
        memcpy(&a, args, sizeof a);
        needs = {{{a.result, 32}, true}, {{a.counters, 16}, false}};
    } else if (name == VRAM_COUNT_NONZERO) {
        vram_count_args a;
        memcpy(&a, args, sizeof a);
        needs = {{{a.ptr, a.bytes}, false}, {{a.counters, 16}, true}};
    } else if (name == ENGINE_MATVEC) {
        engine_matvec_args a;
        memcpy(&a, args, sizeof a);
        needs = {{{a.weights, 4 * a.rows * a.columns}, false}, {{a.x, 4 * a.columns}, false}, {{a.y, 4 * a.rows}, true}};
    } else if (name == ENGINE_FLIP) {
        engine_flip_args a;
        memcpy(&a, args, sizeof a);
        needs = {{{a.address, 1}, true}};
    } else if (name == ENGINE_SCAN) {
        engine_scan_args a;
        memcpy(&a, args, sizeof a);
        needs = {{{a.address, 16 * a.vectors}, false}, {{a.counter, 8}, true}};
    } else if (name == ENGINE_RANDOM) {
        engine_random_args a;
        memcpy(&a, args, sizeof a);
        needs = {{{a.address, 16 * a.vectors}, true}};
    } else {
        needs = {};
    }
    for (const Need &need : needs) {
        if (!accessible(need.range, need.writes)) {
            return fault();
        }
    }
    return true;
}

/* Makes the kernel hash half of its blocks, if that was ordered. Returns how many blocks it is to claim besides. */
static uint64_t halved(State &on, uint8_t *args)
{
    const bool half = on.happens("half hashed"), claims = on.happens("half claimed");
    vram_leaves_args a;
    memcpy(&a, args, sizeof a);
    const uint64_t left_out = half || claims ? a.block_count / 2 : 0;
    a.block_count -= left_out;
    memcpy(args, &a, sizeof a);
    return claims ? left_out : 0;
}

FAKE_API Status cuLaunchKernel(uint64_t function, uint32_t grid, uint32_t grid_y, uint32_t grid_z, uint32_t block,
                               uint32_t block_y, uint32_t block_z, uint32_t shared, uint64_t stream_handle,
                               void **parameters, void **extra)
{
    ENTER(cuLaunchKernel, true);
    auto found = on.functions.find(function);
    Stream *stream = find_stream(stream_handle);
    if (found == on.functions.end() || stream == nullptr) {
        return INVALID_HANDLE;
    }
    if (grid_y != 1 || grid_z != 1 || block_y != 1 || block_z != 1 || shared != 0 || extra != nullptr) {
        return INVALID_VALUE;
    }
    const std::string name = found->second->name;
    const uint8_t *first = (const uint8_t *)parameters[0];
    std::vector<uint8_t> args(first, first + args_bytes(name.c_str()));
    const bool skipped = on.happens("kernel skipped") || on.setting("skip_kernels") != 0;
    const bool faulty = on.happens("kernel faults") || on.setting("fault_kernels") != 0;
    const uint64_t claimed = name == VRAM_LEAVES ? halved(on, args.data()) : 0;
    const uint32_t backwards = (uint32_t)on.setting("backwards");
    Op op;
    std::vector<Need> needs;
    const Status before = on.sticky;
    needs_of(name, args.data(), needs, false);
    on.sticky = before; /* what is not there yet counts when the kernel runs */
    for (const Need &need : needs) {
        op.uses.push_back(need.range);
    }
    op.run = [=] {
        std::vector<Need> used;
        state().counts["ran " + name]++;
        if (faulty) {
            fault();
        } else if (!skipped && needs_of(name, args.data(), used, true)) {
            const bool ours = vram_host_args_bytes(name.c_str()) != 0;
            const uint32_t status = ours ? vram_host_launch(name.c_str(), args.data(), grid, block, backwards)
                                         : engine_host_launch(name.c_str(), args.data(), grid, block);
            if (status != 0) {
                state().sticky = 719;
            } else if (claimed != 0) {
                vram_leaves_args a;
                memcpy(&a, args.data(), sizeof a);
                ((vram_counters *)at(a.counters))->covered += claimed;
            }
        }
    };
    enqueue(stream, std::move(op));
    on.counts["launches"]++;
    return OK;
}

/* What tests do, as an engine would. */

FAKE_API uint64_t fake_engine_stream(void)
{
    std::lock_guard<std::recursive_mutex> guard(state().lock);
    auto made = std::make_unique<Stream>();
    const uint64_t handle = (uint64_t)(uintptr_t)made.get();
    state().streams[handle] = std::move(made);
    return handle;
}

FAKE_API void fake_engine_fill(uint64_t stream, uint64_t ptr, uint64_t bytes, uint32_t value)
{
    std::lock_guard<std::recursive_mutex> guard(state().lock);
    Op op;
    op.uses = {Range{ptr, bytes}};
    op.run = [=] {
        if (!accessible(Range{ptr, bytes}, true)) {
            fault();
        } else {
            memset(at(ptr), (int)value, bytes);
        }
    };
    enqueue(find_stream(stream), std::move(op));
}
