/*
 * A stand-in for NVIDIA's driver library, over host memory, for this crate's own tests. Never part of a shipped build: tests
 * compile it and open it by its path.
 *
 * It answers the calls that src/ffi/cuda/table.rs names, checks what a real driver takes for granted (a current context, live
 * handles, no memory given back while work uses it), runs streams as late as it may, and fails to order. What it cannot show:
 * how a real driver answers where its documentation is silent.
 */
#ifndef VRAM_FAKE_CUDA_H
#define VRAM_FAKE_CUDA_H

#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#define FAKE_API extern "C" __attribute__((visibility("default")))

typedef uint32_t Status;

enum : Status {
    OK = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    MISALIGNED_ADDRESS = 716,
    UNKNOWN = 999,
};

/* As in cuda.h. */
struct Location {
    uint32_t kind;
    int32_t id;
};
struct Properties {
    uint32_t kind;
    uint32_t handle_types;
    Location location;
    void *win32;
    uint8_t flags[8];
};
struct AccessDesc {
    Location location;
    uint32_t flags;
};

struct Range {
    uint64_t ptr;
    uint64_t bytes;
    bool overlaps(const Range &other) const
    {
        return ptr < other.ptr + other.bytes && other.ptr < ptr + bytes;
    }
    bool holds(const Range &other) const
    {
        return other.ptr >= ptr && other.bytes <= bytes && other.ptr - ptr <= bytes - other.bytes;
    }
};

/* Physical memory: a file, so that it can be mapped twice. */
struct Physical {
    uint64_t bytes;
    int file;
    uint64_t references;
    Properties properties;
};

struct Reservation {
    uint64_t bytes;
    uint64_t handle; /* 0: nothing mapped */
    uint32_t access; /* 0 none, 1 read, 3 read and write */
};

struct Stream;

struct Event {
    uint64_t recorded = 0;
    uint64_t passed = 0;
    uint64_t polls = 0;
    Stream *on = nullptr;
};

struct Op {
    std::function<void()> run;
    std::vector<Range> uses; /* device and host memory */
    std::shared_ptr<Event> marks;
    std::shared_ptr<Event> waits;
    uint64_t version = 0;
    Stream *other = nullptr; /* that `waits` was recorded on */
};

struct Stream {
    std::deque<Op> ops;
};

struct Order {
    uint32_t code;
    uint64_t nth;
    uint64_t times;
};

struct Function {
    std::string name;
    uint64_t module;
};

struct State {
    std::recursive_mutex lock;
    std::map<std::string, uint64_t> settings = {
        {"devices", 2},     {"version", 13000},       {"capacity", 1ull << 32}, {"granularity", 2u << 20},
        {"major", 9},       {"minor", 0},             {"virtual_memory", 1},    {"late", 1},
        {"backwards", 1},   {"refuse_read_only", 0},  {"unconfirmed", 0},       {"lie_zeros", 0},
        {"skip_kernels", 0}, {"fault_kernels", 0},    {"skip_fills", 0},      {"flip_on_read_only", 0},
    };
    std::map<uint32_t, uint64_t> lies; /* attribute to answer */
    std::map<std::string, uint64_t> counts;
    std::string trace; /* the names of the calls since it was last taken, a line each */
    std::map<std::string, Order> orders;
    std::map<std::string, Order> quirks; /* what goes wrong without a call failing, by name */
    std::map<uint64_t, Reservation> reservations;
    std::map<uint64_t, Physical> physical;
    std::map<uint64_t, uint64_t> engines;
    std::set<uint64_t> managed; /* of the engines' */
    std::map<uint64_t, uint64_t> pinned;
    std::map<uint64_t, std::unique_ptr<Stream>> streams;
    std::map<uint64_t, std::shared_ptr<Event>> events;
    std::map<uint64_t, std::unique_ptr<Function>> functions;
    std::map<uint64_t, uint64_t> modules;
    std::map<int32_t, uint64_t> retained;
    uint64_t next_handle = 1;
    uint64_t used = 0;
    Status sticky = OK;
    Stream default_stream;

    uint64_t setting(const char *name)
    {
        return settings[name];
    }

    /* Whether a quirk was ordered for this occasion. Counts the occasion. */
    bool happens(const char *name)
    {
        auto found = quirks.find(name);
        if (found == quirks.end()) {
            return false;
        }
        Order &what = found->second;
        if (what.nth > 1) {
            what.nth--;
            return false;
        }
        return what.times > 0 && what.times-- > 0;
    }

    /* Bytes of physical memory of one device. */
    uint64_t used_on(int32_t device)
    {
        uint64_t sum = 0;
        for (const auto &entry : physical) {
            sum += entry.second.properties.location.id == device ? entry.second.bytes : 0;
        }
        return sum;
    }

    /* Bytes that are free. A driver takes some for contexts and code, which no allocation of anybody's accounts for. */
    uint64_t room_on(int32_t device)
    {
        const uint64_t taken = used_on(device) + setting("overhead"), all = setting("capacity");
        return all > taken ? all - taken : 0;
    }
};

State &state();
/* Takes the lock, counts the call, and says what was ordered for it, or what it fails with anyway. */
Status entered(const char *call, bool needs_context);
/* Handles of contexts that were created: this, plus a multiple of 16, plus the device. */
static const uint64_t CREATED_CONTEXT = 0x1000000;
void push_context(uint64_t context);
size_t context_depth();
int32_t current_device();

/* What memory that nobody has written is full of. */
static const uint8_t POISON = 0xA5;

static inline uint8_t *at(uint64_t ptr)
{
    return (uint8_t *)(uintptr_t)ptr;
}

/* Ends everything in this process's contexts; false. */
bool fault(Status what = ILLEGAL_ADDRESS);
/* The reservation with something mapped that the address lies in, or the end. */
std::map<uint64_t, Reservation>::iterator mapping_of(State &on, uint64_t ptr);
/* Whether work may use device memory now. */
bool accessible(const Range &range, bool writes);
/* Whether anything queued uses the range. */
bool in_use(const Range &range);
uint64_t written(uint64_t ptr, uint64_t bytes);
Stream *find_stream(uint64_t handle);
/* Queues an operation, or runs it where streams are not late. */
void enqueue(Stream *stream, Op op);
void run_all(Stream *stream);
void violation(const char *what);

#define ENTER(call, needs_context)                                                                                         \
    std::lock_guard<std::recursive_mutex> guard(state().lock);                                                            \
    if (const Status ordered = entered(#call, needs_context)) {                                                           \
        return ordered;                                                                                                   \
    }                                                                                                                     \
    State &on = state();                                                                                                  \
    (void)on

#endif
