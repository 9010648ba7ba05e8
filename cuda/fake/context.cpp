/* The library, its devices and contexts, and what tests order. */
#include "fake.h"

#include <cstdio>
#include <sys/mman.h>

static const uint64_t CONTEXT = 0x1000;
static thread_local std::vector<uint64_t> stack;

State &state()
{
    static State *only = new State();
    return *only;
}

size_t context_depth()
{
    return stack.size();
}

int32_t current_device()
{
    if (!stack.empty() && stack.back() >= CREATED_CONTEXT) {
        return (int32_t)(stack.back() % 16);
    }
    return stack.empty() ? -1 : (int32_t)(stack.back() - CONTEXT);
}

void push_context(uint64_t context)
{
    stack.push_back(context);
}

void violation(const char *what)
{
    fprintf(stderr, "stand-in driver: %s\n", what);
    state().counts["violations"]++;
}

Status entered(const char *call, bool needs_context)
{
    State &on = state();
    on.counts[std::string("calls ") + call]++;
    on.trace += std::string(call) + "\n";
    auto order = on.orders.find(call);
    if (order != on.orders.end()) {
        Order &what = order->second;
        if (what.nth > 1) {
            what.nth--;
        } else if (what.times > 0) {
            what.times--;
            return what.code;
        }
    }
    if (!needs_context) {
        return OK;
    }
    if (stack.empty() || stack.back() < CONTEXT || on.retained[current_device()] == 0) {
        violation(call);
        return INVALID_CONTEXT;
    }
    return on.sticky;
}

FAKE_API Status cuInit(uint32_t flags)
{
    ENTER(cuInit, false);
    return flags == 0 ? OK : INVALID_VALUE;
}

FAKE_API Status cuDriverGetVersion(int32_t *out)
{
    ENTER(cuDriverGetVersion, false);
    *out = (int32_t)on.setting("version");
    return OK;
}

FAKE_API Status cuDeviceGetCount(int32_t *out)
{
    ENTER(cuDeviceGetCount, false);
    *out = (int32_t)on.setting("devices");
    return OK;
}

static bool no_device(State &on, int32_t device)
{
    return device < 0 || (uint64_t)device >= on.setting("devices");
}

FAKE_API Status cuDeviceGet(int32_t *out, int32_t ordinal)
{
    ENTER(cuDeviceGet, false);
    if (no_device(on, ordinal)) {
        return INVALID_DEVICE;
    }
    *out = ordinal;
    return OK;
}

FAKE_API Status cuDeviceGetName(char *out, int32_t room, int32_t device)
{
    ENTER(cuDeviceGetName, false);
    if (no_device(on, device)) {
        return INVALID_DEVICE;
    }
    snprintf(out, (size_t)room, "Stand-in GPU %d", device);
    return OK;
}

FAKE_API Status cuDeviceGetUuid_v2(uint8_t *out, int32_t device)
{
    ENTER(cuDeviceGetUuid_v2, false);
    if (no_device(on, device)) {
        return INVALID_DEVICE;
    }
    memset(out, 0x11 * (device + 1), 16);
    return OK;
}

FAKE_API Status cuDeviceTotalMem_v2(size_t *out, int32_t device)
{
    ENTER(cuDeviceTotalMem_v2, false);
    if (no_device(on, device)) {
        return INVALID_DEVICE;
    }
    *out = on.setting("capacity");
    return OK;
}

FAKE_API Status cuDeviceGetAttribute(int32_t *out, uint32_t attribute, int32_t device)
{
    ENTER(cuDeviceGetAttribute, false);
    if (no_device(on, device)) {
        return INVALID_DEVICE;
    }
    switch (attribute) {
    case 13: /* clock, kHz */
        *out = 1000000;
        return OK;
    case 16: /* multiprocessors */
        *out = 2;
        return OK;
    case 32: /* ECC */
        *out = 0;
        return OK;
    case 38: /* bytes of level 2 cache */
        *out = 1 << 20;
        return OK;
    case 75:
        *out = (int32_t)on.setting("major");
        return OK;
    case 76:
        *out = (int32_t)on.setting("minor");
        return OK;
    case 102:
        *out = (int32_t)on.setting("virtual_memory");
        return OK;
    default:
        return INVALID_VALUE;
    }
}

FAKE_API Status cuDevicePrimaryCtxRetain(uint64_t *out, int32_t device)
{
    ENTER(cuDevicePrimaryCtxRetain, false);
    if (no_device(on, device)) {
        return INVALID_DEVICE;
    }
    on.retained[device]++;
    *out = CONTEXT + (uint64_t)device;
    return OK;
}

FAKE_API Status cuDevicePrimaryCtxRelease_v2(int32_t device)
{
    ENTER(cuDevicePrimaryCtxRelease_v2, false);
    if (no_device(on, device) || on.retained[device] == 0) {
        return INVALID_CONTEXT;
    }
    on.retained[device]--;
    return OK;
}

FAKE_API Status cuCtxPushCurrent_v2(uint64_t context)
{
    ENTER(cuCtxPushCurrent_v2, false);
    stack.push_back(context);
    return OK;
}

FAKE_API Status cuCtxPopCurrent_v2(uint64_t *out)
{
    ENTER(cuCtxPopCurrent_v2, false);
    if (stack.empty()) {
        return INVALID_CONTEXT;
    }
    *out = stack.back();
    stack.pop_back();
    return OK;
}

FAKE_API Status cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
    ENTER(cuMemGetInfo_v2, true);
    *total = on.setting("capacity");
    *free_bytes = on.happens("nothing free") ? 0 : on.room_on(current_device());
    return OK;
}

/* What tests do. */

FAKE_API void fake_set(const char *name, uint64_t value)
{
    std::lock_guard<std::recursive_mutex> guard(state().lock);
    state().settings[name] = value;
}

FAKE_API void fake_lie(uint32_t attribute, uint64_t value)
{
    std::lock_guard<std::recursive_mutex> guard(state().lock);
    state().lies[attribute] = value;
}

FAKE_API void fake_tell_the_truth(void)
{
    std::lock_guard<std::recursive_mutex> guard(state().lock);
    state().lies.clear();
    state().orders.clear();
    state().quirks.clear();
}

FAKE_API void fake_order(const char *call, uint32_t code, uint64_t nth, uint64_t times)
{
    std::lock_guard<std::recursive_mutex> guard(state().lock);
    state().orders[call] = Order{code, nth, times};
}

/* Takes the names of the calls made since the last time. Without room for them they stay; returns their length. */
FAKE_API uint64_t fake_trace(char *out, uint64_t room)
{
    std::lock_guard<std::recursive_mutex> guard(state().lock);
    std::string &trace = state().trace;
    const uint64_t bytes = trace.size();
    if (bytes <= room) {
        memcpy(out, trace.data(), bytes);
        trace.clear();
    }
    return bytes;
}

/* From the `nth` occasion on, `times` times: "fill skipped", "kernel skipped", "kernel faults", "half hashed", "half claimed",
 * "upload corrupted", "stream wait fails", "event wait fails", "nothing free", "managed", "no answer". */
FAKE_API void fake_quirk(const char *name, uint64_t nth, uint64_t times)
{
    std::lock_guard<std::recursive_mutex> guard(state().lock);
    state().quirks[name] = Order{0, nth, times};
}

FAKE_API uint64_t fake_get(const char *name)
{
    std::lock_guard<std::recursive_mutex> guard(state().lock);
    State &on = state();
    const std::string what = name;
    uint64_t sum = 0;
    if (what == "reservations") {
        return on.reservations.size();
    } else if (what == "physical") {
        return on.physical.size();
    } else if (what == "streams") {
        return on.streams.size();
    } else if (what == "events") {
        return on.events.size();
    } else if (what == "pinned") {
        return on.pinned.size();
    } else if (what == "modules") {
        return on.modules.size();
    } else if (what == "used") {
        return on.used;
    } else if (what == "depth") {
        return stack.size();
    } else if (what == "top") {
        return stack.empty() ? 0 : stack.back();
    } else if (what == "retained") {
        for (const auto &entry : on.retained) {
            sum += entry.second;
        }
        return sum;
    } else if (what == "pending") {
        for (const auto &entry : on.streams) {
            sum += entry.second->ops.size();
        }
        return sum;
    } else if (what == "unmet") { /* of what was ordered for so many times, not for good */
        for (const auto *ordered : {&on.orders, &on.quirks}) {
            for (const auto &entry : *ordered) {
                sum += entry.second.times < UINT32_MAX ? entry.second.times : 0;
            }
        }
        return sum;
    } else if (what == "work") { /* queued, without marks and waits */
        for (const auto &entry : on.streams) {
            for (const Op &op : entry.second->ops) {
                sum += op.run ? 1u : 0u;
            }
        }
        return sum;
    }
    return on.counts[what];
}

/* An engine's own context on this thread's stack, or off it again. */
FAKE_API void fake_engine_context(uint32_t push)
{
    if (push != 0) {
        stack.push_back(7);
    } else {
        stack.pop_back();
    }
}
