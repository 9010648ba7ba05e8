/*
 * The mock: a machine of GPUs over host memory, for tests on machines without a GPU. It answers the CUDA driver API.
 *
 * `vram_mock_function` gives a function of that API by its name, with the signature that cuda.h declares for it, handles and
 * device addresses as integers. No symbol of the mock begins with `cu`. What follows is what the API does not have: which machine
 * a thread speaks to, faults to order, and memory seen and changed behind the driver's back.
 *
 * Promises: every call may be made from any thread; every device address is looked up when an operation is enqueued and again
 * when it runs, so no address, however wrong, makes the mock touch memory that is not its own. Device addresses are no host
 * addresses, but for host memory that was registered. Operations run when something orders them (setting LATE). It protects
 * nothing and must never serve in production. src/ffi/mock.rs mirrors every structure; both sides assert the layout.
 */
#ifndef VRAM_MOCK_H
#define VRAM_MOCK_H

#include <stddef.h>
#include <stdint.h>

/* CUresult numbers of the mock's own. A write to memory that is mapped, or was registered, read-only. Not sticky. */
#define VRAM_MOCK_READ_ONLY 740u

/*
 * Operations, as faults and counters name them. Some are several calls of the API: `vram_mock_step` says so. A function of the
 * API has a number too, from VRAM_MOCK_OPERATIONS on: see vram_mock_number.
 */
enum {
    VRAM_MOCK_ANY,
    VRAM_MOCK_ALLOC,
    VRAM_MOCK_FREE,
    VRAM_MOCK_COPY_TO_DEVICE,
    VRAM_MOCK_COPY_TO_HOST,
    VRAM_MOCK_FILL,
    VRAM_MOCK_DIGEST,
    VRAM_MOCK_COUNT_NONZERO,
    VRAM_MOCK_SYNCHRONIZE, /* of a stream or an event */
    VRAM_MOCK_MEMORY_INFO,
    VRAM_MOCK_RESIDENCY,
    VRAM_MOCK_STREAM, /* make */
    VRAM_MOCK_EVENT,  /* make, record, wait, query */
    VRAM_MOCK_PROTECT,
    VRAM_MOCK_HOST_ALLOC,
    VRAM_MOCK_KEYED,
    VRAM_MOCK_PART, /* calls that are a part of something: no operation's faults meet them, and they are not counted */
    VRAM_MOCK_OPERATIONS
};

/* Faults: what goes wrong. The last two are ordered by the driver's own tests alone: add before them, and in src/ffi/mock.rs. */
enum {
    VRAM_MOCK_FAIL = 1,          /* the call returns `code` and does nothing */
    VRAM_MOCK_STICKY,            /* the same, and so does every later call on the device: the context is dead */
    VRAM_MOCK_CORRUPT,           /* a copy, or a switch of access, flips bit `value` (modulo its length) of its memory */
    VRAM_MOCK_SKIP,              /* the call succeeds and nothing happens */
    VRAM_MOCK_HALF,              /* a fill stops after half of its bytes */
    VRAM_MOCK_DIGEST_SHORT,      /* covers half of the blocks, and says so */
    VRAM_MOCK_DIGEST_SHORT_LIES, /* covers half of the blocks, and claims all */
    VRAM_MOCK_DIGEST_STALE,      /* repeats the previous digest's result and table */
    VRAM_MOCK_DIGEST_REPLAYED,   /* repeats the previous table under the new nonce and the full count */
    VRAM_MOCK_COUNT_ZERO,        /* a count of non-zero bytes finds none */
    VRAM_MOCK_FREE_BYTES,        /* memory information reports `value` bytes free */
    VRAM_MOCK_RESIDENCY_LIE,     /* an answer about an address tells lie `value` */
    VRAM_MOCK_UNCONFIRMED,       /* a switch of access takes effect, but is not confirmed */
    VRAM_MOCK_FLIP,              /* bit `code` of the byte at address `value` changes at rest before the call */
    VRAM_MOCK_ANSWER,            /* a question about an address or an allocation: member `code` is answered with `value` */
    VRAM_MOCK_CRASH              /* a launch runs into an illegal address */
};

/* The lies of VRAM_MOCK_RESIDENCY_LIE. */
enum {
    VRAM_MOCK_LIE_HOST = 1,
    VRAM_MOCK_LIE_MANAGED,
    VRAM_MOCK_LIE_HOST_MAPPED,
    VRAM_MOCK_LIE_EXPORTABLE,
    VRAM_MOCK_LIE_ORDINAL,
    VRAM_MOCK_LIE_ZEROS,
    VRAM_MOCK_LIE_SHORT_RANGE
};

/* Settings of a machine. Those up to SPARSE are fixed once memory was allocated. */
enum {
    VRAM_MOCK_DEVICES,          /* at most as many as the machine was made with */
    VRAM_MOCK_CAPACITY,         /* bytes of each device */
    VRAM_MOCK_GRANULARITY,      /* a power of two from 256, or what no driver may say */
    VRAM_MOCK_POISON,           /* fresh memory is full of garbage, else zero */
    VRAM_MOCK_SPARSE,           /* memory that is zero costs nothing; fresh memory has garbage at its ends only */
    VRAM_MOCK_LATE,             /* operations run when something orders them, else at once */
    VRAM_MOCK_REFUSE_READ_ONLY, /* the number with which a switch to read-only is refused; 0: it is not */
    VRAM_MOCK_STRICT,           /* as a GPU: an illegal access ends the context, and nothing is registered */
    VRAM_MOCK_BODIES,           /* digests, counts and keyed hashes run the kernels' bodies, else the host's own hash */
    VRAM_MOCK_BACKWARDS,        /* the bodies' threads run last to first */
    VRAM_MOCK_OVERHEAD,         /* bytes of each device that the driver takes for itself */
    VRAM_MOCK_VERSION,          /* CUDA version: 1000 × major + 10 × minor */
    VRAM_MOCK_MAJOR,
    VRAM_MOCK_MINOR, /* compute capability */
    VRAM_MOCK_VIRTUAL_MEMORY,
    VRAM_MOCK_TRACED, /* calls are noted for vram_mock_trace */
    VRAM_MOCK_SETTINGS
};

typedef struct vram_mock_machine vram_mock_machine;

typedef struct vram_mock_fault {
    uint32_t kind;
    uint32_t call; /* an operation or a function */
    uint32_t code;
    uint32_t reserved;
    uint64_t value;
    uint64_t nth;   /* 1: the next matching call */
    uint64_t times; /* consecutive matching calls that it hits; UINT64_MAX: all */
} vram_mock_fault;

typedef struct vram_mock_stats {
    uint64_t live_allocations; /* of the virtual-memory API */
    uint64_t live_bytes;
    uint64_t live_foreign; /* registered host memory */
    uint64_t live_streams;
    uint64_t live_events; /* but for marks */
    uint64_t live_host_buffers;
    uint64_t live_host_bytes;
    uint64_t pending_operations;
    uint64_t unmet_faults;         /* ordered, and no call has met them yet */
    uint64_t unwiped_device_bytes; /* written, and not zero when they were unmapped */
    uint64_t unwiped_host_bytes;   /* likewise, of host buffers */
    uint64_t reservations;
    uint64_t modules; /* these and violations of the whole machine, said of its first device; as is all of host buffers */
    uint64_t retained;   /* holds on the primary context */
    uint64_t violations; /* what a real driver would have made undefined */
    uint64_t live_marks; /* events that were made as a part of something, as those of host buffers are */
    uint64_t runs[VRAM_MOCK_OPERATIONS]; /* by operation: queued ones that ran, others that succeeded */
} vram_mock_stats;

/* A place in a kernel's arguments that holds a device address, and how much memory that means. Words are of 64 bits. */
typedef struct vram_mock_use {
    uint32_t word;
    uint32_t writes;
    uint32_t unit;  /* bytes, which are multiplied … */
    uint32_t by[2]; /* … by these words, but for those that are VRAM_MOCK_NO_WORD */
    uint32_t alignment;
} vram_mock_use;
#define VRAM_MOCK_NO_WORD 255u
#define VRAM_MOCK_MOST_USES 3u

/* A kernel besides the library's own: what a make-believe engine launches. */
typedef struct vram_mock_kernel {
    const char *name;
    uint32_t args_bytes;
    uint32_t threads;
    uint32_t use_count;
    uint32_t reserved;
    vram_mock_use uses[VRAM_MOCK_MOST_USES];
    /* Runs it; the addresses in `args` are host addresses by then. */
    void (*run)(const void *args, uint32_t grid, uint32_t block, uint32_t backwards);
} vram_mock_kernel;

/*
 * Hashes whole blocks that lie one after the other at `data`: 32 bytes each to `out`. `start` is SHA-256's state before the first
 * byte of a block, `salted` whether that is behind a salt block.
 */
typedef void (*vram_mock_hasher)(const uint32_t start[8], uint32_t salted, const uint8_t *data, uint64_t blocks,
                                 uint32_t block_size, uint8_t *out);

/* Adds the two sums of the keyed hash of whole blocks, which lie one after the other at `data`, to `sums`; `key` is the level's. */
typedef void (*vram_mock_keyed_hasher)(const uint8_t *key, const uint8_t *data, uint64_t blocks, uint64_t *sums);

_Static_assert(sizeof(void *) == 8, "the mock needs 64-bit addresses");
_Static_assert(VRAM_MOCK_OPERATIONS == 17 && VRAM_MOCK_SETTINGS == 16 && VRAM_MOCK_CRASH == 16, "numbers have moved: src/ffi/mock.rs has them too");
_Static_assert(sizeof(vram_mock_fault) == 40 && offsetof(vram_mock_fault, value) == 16, "vram_mock_fault");
_Static_assert(sizeof(vram_mock_stats) == 264 && offsetof(vram_mock_stats, runs) == 128, "vram_mock_stats");

/*
 * A machine with so many devices, and defaults for all settings. `seed` makes its devices' UUIDs its own. Without a keyed hasher
 * keyed hashes always run the kernel's body. NULL when the host has no memory. `drop` frees everything; no other call on the machine may be in progress.
 */
vram_mock_machine *vram_mock_machine_new(uint32_t devices, const uint8_t seed[16], vram_mock_hasher hasher,
                                         vram_mock_keyed_hasher keyed);
void vram_mock_machine_drop(vram_mock_machine *machine);
/* From now on this thread's calls of the API are to this machine. */
void vram_mock_enter(vram_mock_machine *machine);
/* A function of the API; NULL when the mock does not have it. */
void *vram_mock_function(const char *name);
/* Its number; 0 when there is none. */
uint32_t vram_mock_number(const char *name);

/*
 * What this thread calls until the matching `vram_mock_unstep` is one operation, or part of one: whoever orders faults and counts
 * sees it as that. Not 0 when the operation was ordered to fail, or the device is dead; then nothing was begun. An operation within
 * another is part of it. The device is that of the current context.
 */
uint32_t vram_mock_step(uint32_t operation);
void vram_mock_unstep(void);

void vram_mock_set(vram_mock_machine *machine, uint32_t setting, uint64_t value);
uint32_t vram_mock_stats_of_device(vram_mock_machine *machine, uint32_t device, vram_mock_stats *out);
/* Faults. One that the call does not know how to do wrong is INVALID_VALUE; on a dead device it is refused with its status. */
uint32_t vram_mock_order(vram_mock_machine *machine, uint32_t device, const vram_mock_fault *order);
/* Faults not met are forgotten. A device that is dead stays dead, which is the answer. */
uint32_t vram_mock_forget(vram_mock_machine *machine, uint32_t device);

/*
 * Makes host memory of someone else addressable by operations of a device until it is unregistered. Nothing is written by this, and
 * nothing ever, not even by a fault or a flip, unless `writable` is not 0. Of memory that it allocated, and with the setting STRICT
 * of any, the mock knows by itself; what then is not the device's it says when it is asked.
 */
uint32_t vram_mock_register(vram_mock_machine *machine, uint32_t device, uint64_t ptr, uint64_t bytes, uint32_t writable);
/* Works on a dead device too. */
uint32_t vram_mock_unregister(vram_mock_machine *machine, uint32_t device, uint64_t ptr);

/* Device memory seen and changed behind the driver's back, without running anything. A flip passes read-only mappings, but not
 * what was registered read-only: that may be memory which no write survives. */
uint32_t vram_mock_look(vram_mock_machine *machine, uint64_t ptr, uint8_t *out, uint64_t bytes);
uint32_t vram_mock_flip(vram_mock_machine *machine, uint64_t ptr, uint32_t bit);
/* The n-th live mapping, in order of addresses, and what it allows (1 reading, 3 writing too); 0 when there is none. */
uint64_t vram_mock_mapping(vram_mock_machine *machine, uint64_t n, uint64_t *bytes, uint32_t *access);

/* Calls of a function so far. */
uint64_t vram_mock_calls(vram_mock_machine *machine, uint32_t function);
/* Takes the numbers of the functions called since the last time; writes at most `room`, returns how many there were. */
uint64_t vram_mock_trace(vram_mock_machine *machine, uint32_t *out, uint64_t room);
/* This thread's stack of contexts: how many, and the topmost. */
uint64_t vram_mock_contexts(uint64_t *top);

/* Adds kernels to every machine of this process. They must live for ever. Call it before anything is launched. */
void vram_mock_add_kernels(const vram_mock_kernel *kernels, uint32_t count);

#endif
