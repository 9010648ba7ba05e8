/* Streams, events, copies and fills. A stream runs when something waits for it, and not before. */
#include "fake.h"

/* Polls of an event after which what it waits for runs. */
static const uint64_t MOST_POLLS = 64;

bool fault(Status what)
{
    state().sticky = what;
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
