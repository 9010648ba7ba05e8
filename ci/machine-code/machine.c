/*
 * A warp on the CPU: each lane is a coroutine, which runs a kernel's translated machine code up to its next shuffle. Owns the checks:
 * every access is aligned and lies in one span that the launch names, every load reads what was stored, every shuffle finds all
 * 32 lanes at the same instruction, together. The first thing that is wrong ends the launch. Driven by run.py.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int16_t i16;
typedef int32_t i32;
typedef int64_t i64;

enum { KNOWN = 1, WRITABLE = 2, WARP = 32, BRANCHES = 1 << 22 };
/* Where a kernel's arguments lie, for no other address. */
#define ARGUMENTS (1ull << 63)

/* `state`: of each byte, whether it is KNOWN and WRITABLE. */
typedef struct {
    u64 at, bytes;
    u8 *host, *state;
} span;

/* Lanes of the same `path` run together: they have taken the same branches since they last met. */
typedef struct lane {
    u32 tid, ntid, ctaid, nctaid, value, site, branches;
    u64 path;
    int ended;
    ucontext_t context;
} lane;

static const span *spans;
static u32 span_count, sent[WARP];
static u64 atomics;
static char wrong[128];
static lane lanes[WARP], *running;
static void (*kernel)(lane *);
static ucontext_t host;
static u8 stacks[WARP][1 << 18];

/* Says what is wrong, for good: nothing resumes the lane. */
static void fail(lane *t, const char *what, u64 at)
{
    snprintf(wrong, sizeof wrong, "%s: 0x%llx, thread %u of block %u", what, (unsigned long long)at, t->tid, t->ctaid);
    swapcontext(&t->context, &host);
}

static u8 *memory(lane *t, u64 at, u32 bytes, u8 need)
{
    if (at % bytes != 0) fail(t, "misaligned", at);
    for (const span *s = spans; s < spans + span_count; s++) {
        if (at < s->at || s->bytes < bytes || at - s->at > s->bytes - bytes) continue;
        for (u8 *state = s->state + (at - s->at), *end = state + bytes; state < end; state++) {
            if ((*state & need) == 0) fail(t, need == KNOWN ? "loads what was never stored" : "stores where it may not", at);
            *state |= KNOWN;
        }
        return s->host + (at - s->at);
    }
    fail(t, "out of bounds", at);
    return NULL;
}
static inline void load(lane *t, u64 at, u32 size, u32 count, u64 *v)
{
    const u8 *from = memory(t, at, size * count, KNOWN);
    for (u32 i = 0; i < count; i++) v[i] = 0, memcpy(v + i, from + size * i, size);
}
static inline void store(lane *t, u64 at, u32 size, u32 count, const u64 *v)
{
    u8 *to = memory(t, at, size * count, WRITABLE);
    for (u32 i = 0; i < count; i++) memcpy(to + size * i, v + i, size);
}
static inline u64 atomic_add(lane *t, u64 at, u64 value)
{
    u64 old;
    load(t, at, 8, 1, &old);
    store(t, at, 8, 1, &(u64){old + value});
    atomics++;
    return old;
}
static inline u32 argument(lane *t, u64 at)
{
    u64 v;
    load(t, ARGUMENTS + at, 4, 1, &v);
    return (u32)v;
}

static inline int branch(lane *t, int taken)
{
    t->path = (t->path + 1 + (u64)taken) * 0x9e3779b97f4a7c15u;
    if (++t->branches == BRANCHES) fail(t, "never ends", t->branches);
    return taken;
}

static inline u32 lane_down(const lane *t, u32 by) { return (u32)(t - lanes) + by; }
static inline u32 shuffle_down(lane *t, u32 value, u32 by, u32 clamp, u32 mask, u32 site)
{
    if (clamp != WARP - 1 || mask != ~0u) fail(t, "shuffles a part of the warp", mask);
    t->value = value;
    t->site = site;
    swapcontext(&t->context, &host);
    return lane_down(t, by) < WARP ? sent[lane_down(t, by)] : value;
}

/* What C has no operator for. */
static inline u64 ones(u64 count) { return count < 64 ? (1ull << count) - 1 : ~0ull; }
static inline u64 pair(u32 low, u32 high) { return (u64)high << 32 | low; }
static inline u32 permute(u32 low, u32 high, u32 selector)
{
    u32 result = 0;
    for (u32 i = 0; i < 4; i++) {
        const u32 pick = selector >> (4 * i) & 15, byte = (u32)(pair(low, high) >> (8 * (pick & 7))) & 255;
        result |= ((pick & 8) == 0 ? byte : byte >> 7 ? 255u : 0u) << (8 * i);
    }
    return result;
}
static inline u32 logic(u32 a, u32 b, u32 c, u32 table)
{
    u32 result = 0;
    for (u32 i = 0; i < 8; i++)
        if (table >> i & 1) result |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    return result;
}

static void live(void)
{
    lane *t = running;
    kernel(t);
    t->ended = 1;
    swapcontext(&t->context, &host);
}

/* Runs `count` lanes from shuffle to shuffle. */
static void warp(u32 count)
{
    for (u32 ended = 0; ended != count && wrong[0] == 0;) {
        ended = 0;
        for (running = lanes; running < lanes + count && wrong[0] == 0; running++) {
            if (!running->ended) swapcontext(&host, &running->context);
            ended += running->ended != 0;
        }
        for (lane *t = lanes; t < lanes + count && wrong[0] == 0 && ended != count; t++) {
            if (ended != 0 || count != WARP || t->site != lanes->site || t->path != lanes->path)
                snprintf(wrong, sizeof wrong, "shuffles apart: thread %u of block %u, %u lanes have ended", t->tid, t->ctaid, ended);
            sent[t - lanes] = t->value;
        }
    }
}

/* Runs a grid; gives what went wrong, or an empty text, and how many atomic operations there were. */
const char *launch(void (*entry)(lane *), const span *given, u32 count, u32 grid, u32 threads, u64 *counted)
{
    kernel = entry, spans = given, span_count = count, atomics = 0, wrong[0] = 0;
    for (u32 block = 0; block < grid; block++) {
        for (u32 first = 0; first < threads && wrong[0] == 0; first += WARP) {
            const u32 here = threads - first < WARP ? threads - first : WARP;
            for (u32 i = 0; i < here; i++) {
                lanes[i] = (lane){.tid = first + i, .ntid = threads, .ctaid = block, .nctaid = grid};
                getcontext(&lanes[i].context);
                lanes[i].context.uc_stack = (stack_t){.ss_sp = stacks[i], .ss_size = sizeof stacks[i]};
                makecontext(&lanes[i].context, live, 0);
            }
            warp(here);
        }
    }
    *counted = atomics;
    return wrong;
}
