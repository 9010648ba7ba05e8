/* What only attackers and benches call: contexts besides the primary one, streams with a priority, copies within the device. */
#include "fake.h"

FAKE_API Status cuCtxCreate_v2(uint64_t *out, uint32_t flags, int32_t device)
{
    ENTER(cuCtxCreate_v2, false);
    if (flags != 0 || device < 0 || (uint64_t)device >= on.setting("devices")) {
        return INVALID_VALUE;
    }
    *out = CREATED_CONTEXT + 16 * on.next_handle++ + (uint64_t)device;
    on.counts["contexts"]++;
    push_context(*out);
    return OK;
}

FAKE_API Status cuCtxDestroy_v2(uint64_t context)
{
    ENTER(cuCtxDestroy_v2, false);
    if (context < CREATED_CONTEXT || on.counts["contexts"] == 0) {
        return INVALID_CONTEXT;
    }
    on.counts["contexts"]--;
    return OK;
}

/* A context that is in use by somebody else is not reset here. */
FAKE_API Status cuDevicePrimaryCtxReset_v2(int32_t device)
{
    ENTER(cuDevicePrimaryCtxReset_v2, false);
    return device == 0 ? on.sticky : INVALID_DEVICE;
}

FAKE_API Status cuCtxGetStreamPriorityRange(int32_t *least, int32_t *greatest)
{
    ENTER(cuCtxGetStreamPriorityRange, true);
    *least = 0;
    *greatest = -5;
    return OK;
}

FAKE_API Status cuStreamCreateWithPriority(uint64_t *out, uint32_t flags, int32_t priority)
{
    ENTER(cuStreamCreateWithPriority, true);
    if (flags != 1 || priority > 0 || priority < -5) {
        return INVALID_VALUE;
    }
    auto made = std::make_unique<Stream>();
    *out = (uint64_t)(uintptr_t)made.get();
    on.streams[*out] = std::move(made);
    return OK;
}

FAKE_API Status cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t handle)
{
    ENTER(cuMemcpyDtoDAsync_v2, true);
    Stream *stream = find_stream(handle);
    if (stream == nullptr) {
        return INVALID_HANDLE;
    }
    const Range source = {from, bytes}, target = {to, bytes};
    if (!accessible(source, false) || !accessible(target, true)) {
        return INVALID_VALUE;
    }
    Op op;
    op.uses = {source, target};
    op.run = [=] {
        if (accessible(source, false) && accessible(target, true)) {
            memmove((void *)(uintptr_t)to, (const void *)(uintptr_t)from, bytes);
        } else {
            state().sticky = ILLEGAL_ADDRESS;
        }
    };
    enqueue(stream, std::move(op));
    return OK;
}
