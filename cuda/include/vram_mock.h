/*
 * The C interface of the mock device: a GPU driver over host memory, for tests on machines without a GPU.
 *
 * Promises: every call may be made from any thread; every device address is checked against the live allocations when an
 * operation is enqueued and again when it runs, so no address, however wrong, makes the mock touch memory that is not
 * its own. Refuses nothing silently: each call returns a status. It protects nothing and must never serve in production.
 *
 * A device address is a host address. Operations are queued on streams; with `late_streams` they run only when something
 * orders them. An operation that fails while it runs leaves its status on its stream: the next call that waits for that
 * stream reports it, once. src/ffi/mock.rs mirrors every structure; its tests compare both sides with vram_mock_layout.
 */
#ifndef VRAM_MOCK_H
#define VRAM_MOCK_H

#include <stddef.h>
#include <stdint.h>

/* Changes with every change of this file that a caller could notice. */
#define VRAM_MOCK_ABI_VERSION 5u

/* Statuses. Where CUDA has a number for the same thing, it is CUDA's. */
typedef uint32_t vram_mock_status;
#define VRAM_MOCK_OK 0u
#define VRAM_MOCK_INVALID_VALUE 1u
#define VRAM_MOCK_OUT_OF_MEMORY 2u
#define VRAM_MOCK_INVALID_DEVICE 101u
#define VRAM_MOCK_INVALID_HANDLE 400u
#define VRAM_MOCK_NOT_READY 600u
#define VRAM_MOCK_LAUNCH_FAILED 719u
/* CUDA has none: a write to an allocation that is mapped, or was registered, read-only. Not sticky. */
#define VRAM_MOCK_READ_ONLY 740u
#define VRAM_MOCK_NOT_SUPPORTED 801u
#define VRAM_MOCK_UNKNOWN 999u

/* Calls, as faults and counters name them. */
#define VRAM_MOCK_CALL_ANY 0u
#define VRAM_MOCK_CALL_ALLOC 1u
#define VRAM_MOCK_CALL_FREE 2u
#define VRAM_MOCK_CALL_COPY_TO_DEVICE 3u
#define VRAM_MOCK_CALL_COPY_TO_HOST 4u
#define VRAM_MOCK_CALL_FILL 5u
#define VRAM_MOCK_CALL_DIGEST 6u
#define VRAM_MOCK_CALL_COUNT_NONZERO 7u
#define VRAM_MOCK_CALL_SYNCHRONIZE 8u  /* of a stream or an event */
#define VRAM_MOCK_CALL_MEMORY_INFO 9u
#define VRAM_MOCK_CALL_RESIDENCY 10u
#define VRAM_MOCK_CALL_STREAM 11u      /* make */
#define VRAM_MOCK_CALL_EVENT 12u       /* make, record, wait, query */
#define VRAM_MOCK_CALL_PROTECT 13u
#define VRAM_MOCK_CALL_HOST_ALLOC 14u
#define VRAM_MOCK_CALLS 16u

/* Faults: what goes wrong. */
#define VRAM_MOCK_FAULT_FAIL 1u                /* the call returns `code` and does nothing */
#define VRAM_MOCK_FAULT_CORRUPT 2u             /* a copy, or protect, flips bit `value` (modulo its length) of its memory */
#define VRAM_MOCK_FAULT_SKIP 3u                /* the call succeeds and nothing happens */
#define VRAM_MOCK_FAULT_HALF 4u                /* a fill stops after half of its bytes */
#define VRAM_MOCK_FAULT_DIGEST_SHORT 5u        /* covers half of the blocks, and says so */
#define VRAM_MOCK_FAULT_DIGEST_SHORT_LIES 6u   /* covers half of the blocks, and claims all */
#define VRAM_MOCK_FAULT_DIGEST_STALE 7u        /* repeats the previous launch's result and table */
#define VRAM_MOCK_FAULT_DIGEST_REPLAYED 8u     /* repeats the previous table under the new nonce and the full count */
#define VRAM_MOCK_FAULT_COUNT_ZERO 9u          /* a count of non-zero bytes finds none */
#define VRAM_MOCK_FAULT_FREE_BYTES 10u         /* memory information reports `value` bytes free */
#define VRAM_MOCK_FAULT_RESIDENCY 11u          /* a residency answer tells lie `value` */
#define VRAM_MOCK_FAULT_UNCONFIRMED 12u        /* protect takes effect, but is not confirmed */
#define VRAM_MOCK_FAULT_STICKY 13u             /* this call and every later one on the device fails with `code` */

/* The lies of VRAM_MOCK_FAULT_RESIDENCY. */
#define VRAM_MOCK_LIE_HOST 1u
#define VRAM_MOCK_LIE_MANAGED 2u
#define VRAM_MOCK_LIE_HOST_MAPPED 3u
#define VRAM_MOCK_LIE_EXPORTABLE 4u
#define VRAM_MOCK_LIE_ORDINAL 5u
#define VRAM_MOCK_LIE_ZEROS 6u
#define VRAM_MOCK_LIE_SHORT_RANGE 7u

/* Where memory lies. */
#define VRAM_MOCK_MEMORY_UNKNOWN 0u
#define VRAM_MOCK_MEMORY_HOST 1u
#define VRAM_MOCK_MEMORY_DEVICE 2u
#define VRAM_MOCK_MEMORY_MANAGED 3u

typedef struct vram_mock_machine vram_mock_machine;

typedef struct vram_mock_config {
    uint32_t abi_version;
    uint32_t devices;
    uint64_t capacity_bytes; /* of each device */
    uint64_t granularity;    /* a power of two from 256 */
    uint32_t late_streams;
    uint32_t poison;
    uint32_t read_only; /* 0: protect refuses to map memory read-only, as not supported */
    uint32_t sparse;    /* memory that is zero costs nothing, and fresh memory is poisoned at its ends only */
    uint8_t seed[16]; /* tells the machines of one process apart */
} vram_mock_config;

typedef struct vram_mock_span {
    uint64_t ptr;
    uint64_t bytes;
} vram_mock_span;

typedef struct vram_mock_residency {
    uint32_t kind;
    uint32_t host_mapped;
    uint32_t exportable;
    uint32_t has_ordinal;
    uint32_t ordinal;
    uint32_t reserved;
    vram_mock_span range;
} vram_mock_residency;

typedef struct vram_mock_digest_job {
    const vram_mock_span *regions; /* copied before the call returns */
    uint64_t region_count;
    uint32_t block_size;
    uint32_t salt_bytes;
    uint8_t salt[32];
    vram_mock_span scratch;
    vram_mock_span table;
    uint64_t result;
    uint64_t nonce;
} vram_mock_digest_job;

typedef struct vram_mock_fault {
    uint32_t kind;
    uint32_t call;
    uint32_t code;
    uint32_t reserved;
    uint64_t value;
    uint64_t nth;   /* 1: the next matching call */
    uint64_t times; /* consecutive matching calls that it hits; UINT64_MAX: all */
} vram_mock_fault;

typedef struct vram_mock_stats {
    uint64_t live_allocations;
    uint64_t live_bytes;
    uint64_t live_foreign;
    uint64_t live_streams;
    uint64_t live_events;
    uint64_t live_host_buffers;
    uint64_t live_host_bytes;
    uint64_t pending_operations;
    uint64_t unmet_faults;         /* ordered, and no call has met them yet */
    uint64_t unwiped_device_bytes; /* not zero when they were freed */
    uint64_t unwiped_host_bytes;   /* likewise, of host buffers */
    uint64_t runs[VRAM_MOCK_CALLS]; /* by call: queued operations that ran, other calls that succeeded */
} vram_mock_stats;

#define VRAM_MOCK_LAYOUT(type, field, offset) \
    _Static_assert(offsetof(type, field) == (offset), #type "." #field " has moved")
_Static_assert(sizeof(void *) == 8, "the mock needs 64-bit addresses");
_Static_assert(sizeof(vram_mock_config) == 56, "vram_mock_config");
VRAM_MOCK_LAYOUT(vram_mock_config, capacity_bytes, 8);
VRAM_MOCK_LAYOUT(vram_mock_config, granularity, 16);
VRAM_MOCK_LAYOUT(vram_mock_config, late_streams, 24);
VRAM_MOCK_LAYOUT(vram_mock_config, seed, 40);
_Static_assert(sizeof(vram_mock_span) == 16, "vram_mock_span");
_Static_assert(sizeof(vram_mock_residency) == 40, "vram_mock_residency");
VRAM_MOCK_LAYOUT(vram_mock_residency, range, 24);
_Static_assert(sizeof(vram_mock_digest_job) == 104, "vram_mock_digest_job");
VRAM_MOCK_LAYOUT(vram_mock_digest_job, salt, 24);
VRAM_MOCK_LAYOUT(vram_mock_digest_job, scratch, 56);
VRAM_MOCK_LAYOUT(vram_mock_digest_job, nonce, 96);
_Static_assert(sizeof(vram_mock_fault) == 40, "vram_mock_fault");
VRAM_MOCK_LAYOUT(vram_mock_fault, value, 16);
_Static_assert(sizeof(vram_mock_stats) == 88 + 8 * VRAM_MOCK_CALLS, "vram_mock_stats");

/* Machines. `destroy` frees everything; no other call on the machine may be in progress, and no host buffer in use. */
uint32_t vram_mock_abi_version(void);
/* Writes up to `room` numbers (sizes, alignments, offsets; order: src/ffi/mock/abi.rs); returns how many there are. */
uint64_t vram_mock_layout(uint64_t *out, uint64_t room);
vram_mock_status vram_mock_create(const vram_mock_config *config, vram_mock_machine **out);
void vram_mock_destroy(vram_mock_machine *machine);
vram_mock_status vram_mock_uuid(vram_mock_machine *machine, uint32_t device, uint8_t out[16]);
vram_mock_status vram_mock_stats_of(vram_mock_machine *machine, uint32_t device, vram_mock_stats *out);

/* Memory. */
vram_mock_status vram_mock_memory_info(vram_mock_machine *machine, uint32_t device, uint64_t *free_bytes,
                                       uint64_t *total_bytes);
vram_mock_status vram_mock_alloc(vram_mock_machine *machine, uint32_t device, uint64_t bytes, uint64_t *out);
vram_mock_status vram_mock_free(vram_mock_machine *machine, uint32_t device, uint64_t ptr);
/*
 * Makes host memory of someone else addressable by operations until it is unregistered. Nothing is written by this, and
 * nothing ever, not even by a fault or a flip, unless `writable` is not 0.
 */
vram_mock_status vram_mock_register_foreign(vram_mock_machine *machine, uint32_t device, vram_mock_span span,
                                            uint32_t writable);
vram_mock_status vram_mock_unregister_foreign(vram_mock_machine *machine, uint32_t device, uint64_t ptr);
vram_mock_status vram_mock_residency_of(vram_mock_machine *machine, uint32_t device, uint64_t ptr,
                                        vram_mock_residency *out);
vram_mock_status vram_mock_protect(vram_mock_machine *machine, uint32_t device, vram_mock_span span, uint32_t read_only,
                                   uint32_t *confirmed);
vram_mock_status vram_mock_host_alloc(vram_mock_machine *machine, uint32_t device, uint64_t bytes, uint64_t *out);
/* Runs what still uses the buffer. Whatever it returns, nothing uses the buffer any more. */
vram_mock_status vram_mock_host_wait(vram_mock_machine *machine, uint32_t device, uint64_t ptr);
/* Waits, then frees, also on a device that is dead. */
vram_mock_status vram_mock_host_free(vram_mock_machine *machine, uint32_t device, uint64_t ptr);

/* Order. */
vram_mock_status vram_mock_stream_create(vram_mock_machine *machine, uint32_t device, uint64_t *out);
vram_mock_status vram_mock_stream_destroy(vram_mock_machine *machine, uint32_t device, uint64_t stream);
vram_mock_status vram_mock_stream_synchronize(vram_mock_machine *machine, uint32_t device, uint64_t stream);
vram_mock_status vram_mock_event_create(vram_mock_machine *machine, uint32_t device, uint64_t *out);
vram_mock_status vram_mock_event_destroy(vram_mock_machine *machine, uint32_t device, uint64_t event);
vram_mock_status vram_mock_event_record(vram_mock_machine *machine, uint32_t device, uint64_t event, uint64_t stream);
vram_mock_status vram_mock_event_wait(vram_mock_machine *machine, uint32_t device, uint64_t stream, uint64_t event);
vram_mock_status vram_mock_event_synchronize(vram_mock_machine *machine, uint32_t device, uint64_t event);
/* VRAM_MOCK_OK when it has passed, else VRAM_MOCK_NOT_READY. Many unanswered polls push the stream on, an operation each. */
vram_mock_status vram_mock_event_query(vram_mock_machine *machine, uint32_t device, uint64_t event);

/* Operations. The host side of a copy must lie in one live host buffer of the device. */
vram_mock_status vram_mock_copy_to_device(vram_mock_machine *machine, uint32_t device, uint64_t stream, uint64_t to,
                                          uint64_t host, uint64_t bytes);
vram_mock_status vram_mock_copy_to_host(vram_mock_machine *machine, uint32_t device, uint64_t stream, uint64_t host,
                                        uint64_t from, uint64_t bytes);
vram_mock_status vram_mock_fill(vram_mock_machine *machine, uint32_t device, uint64_t stream, vram_mock_span span,
                                uint32_t value);
vram_mock_status vram_mock_digest(vram_mock_machine *machine, uint32_t device, uint64_t stream,
                                  const vram_mock_digest_job *job);
vram_mock_status vram_mock_count_nonzero(vram_mock_machine *machine, uint32_t device, uint64_t stream,
                                         vram_mock_span span, uint64_t result, uint64_t nonce);

/* For tests: faults, and device memory seen and changed behind the driver's back, without running anything. A flip passes
 * read-only mappings, but not what was registered read-only: that may be memory which no write survives. */
vram_mock_status vram_mock_order_fault(vram_mock_machine *machine, uint32_t device, const vram_mock_fault *fault);
vram_mock_status vram_mock_clear_faults(vram_mock_machine *machine, uint32_t device);
vram_mock_status vram_mock_flip_bit(vram_mock_machine *machine, uint32_t device, uint64_t ptr, uint32_t bit);
vram_mock_status vram_mock_peek(vram_mock_machine *machine, uint32_t device, uint64_t ptr, uint8_t *out, uint64_t bytes);

#endif
