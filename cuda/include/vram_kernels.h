/*
 * The interface of the kernels: entry points, launch shapes, and the one plain structure that each kernel takes by value.
 *
 * Written in the common subset of C11, C++11 and CUDA C++. Rust mirrors every structure; both sides assert the layout.
 * Every address is a device address held in 64 bits; every size is 64 bits wide. A kernel trusts its arguments: whoever
 * launches it has checked ranges, alignment and overlap.
 *
 * A digest, all on one stream, in this order:
 *   1. zero the 16 bytes of counters (a memset on the stream);
 *   2. for each chunk of the image: VRAM_LEAVES, then VRAM_NODES over the same scratch;
 *   3. VRAM_FINISH.
 * A count of the bytes that are not zero: zero the counters, VRAM_COUNT_NONZERO, VRAM_FINISH.
 * A keyed hash: zero the counters; VRAM_KEYED for each level, over sums that were zeroed; VRAM_FINISH.
 * The counters may be the two words of the result that they end up in (result + 8).
 */
#ifndef VRAM_KERNELS_H
#define VRAM_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* Entry points. */
#define VRAM_LEAVES "vram_verity_leaves"
#define VRAM_NODES "vram_verity_nodes"
#define VRAM_FINISH "vram_finish"
#define VRAM_COUNT_NONZERO "vram_count_nonzero"
#define VRAM_KEYED "vram_keyed_level"

/*
 * Launch shapes: one-dimensional grids and blocks, no dynamic shared memory.
 *   vram_verity_leaves   ceil(block_count / VRAM_LEAVES_THREADS) thread blocks: one thread hashes one block of the image
 *   vram_verity_nodes    ceil(entries / VRAM_NODES_THREADS): one thread hashes one block of leaf hashes
 *   vram_finish          1 thread block of 1 thread
 *   vram_count_nonzero   any number from 1; best ceil(bytes / VRAM_COUNT_SHARE), at most VRAM_COUNT_MOST_BLOCKS
 *   vram_keyed_level     ceil(block_count / (share * VRAM_KEYED_WARPS)): one warp hashes `share` blocks, one after the other
 */
#define VRAM_LEAVES_THREADS 128u
#define VRAM_NODES_THREADS 32u
#define VRAM_FINISH_THREADS 1u
#define VRAM_COUNT_THREADS 256u
/* Bytes that a thread block of the count should have to read, and the most thread blocks that are of use. */
#define VRAM_COUNT_SHARE 32768u
#define VRAM_COUNT_MOST_BLOCKS 4096u
#define VRAM_KEYED_THREADS 128u
#define VRAM_KEYED_WARPS (VRAM_KEYED_THREADS / 32u)
/* The most warps that are of use to a keyed level: beyond that, each takes a larger share. */
#define VRAM_KEYED_MOST_WARPS 32768u

#define VRAM_HASH_BYTES 32u
#define VRAM_RESULT_BYTES 32u
#define VRAM_COUNTERS_BYTES 16u
#define VRAM_LEAST_BLOCK_SIZE 1024u
#define VRAM_MOST_BLOCK_SIZE 65536u
/* Of the keyed hash: a block, whatever the tree's block size is; what it comes to; and a level's key, 257 times 16 bytes. */
#define VRAM_KEYED_BLOCK_BYTES 4096u
#define VRAM_KEYED_SUMS_BYTES 16u
#define VRAM_KEYED_KEY_BYTES 4112u
/* The value of every `one`: the compiler must not know it (see sha256.cuh). */
#define VRAM_ONE 1u

/* One stretch of the image. The table of regions is sorted by first_block and has no empty region. */
typedef struct vram_region {
    uint64_t ptr;         /* any alignment; 16-byte alignment is fastest */
    uint64_t bytes;       /* the last block is virtually padded with zeros; nothing past `bytes` is read */
    uint64_t first_block; /* blocks of the image before this region */
} vram_region;

/* Two counters, zeroed before the first kernel of a launch. */
typedef struct vram_counters {
    uint64_t covered; /* digest: blocks hashed; count: bytes read; keyed hash: bytes read, on all levels */
    uint64_t found;   /* digest: table entries written; count: bytes that are not zero; keyed hash: blocks, on all levels */
} vram_counters;

/* What a launch leaves behind. */
typedef struct vram_result {
    uint64_t nonce;
    uint64_t covered;
    uint64_t found;
    uint64_t reserved; /* zero */
} vram_result;

/* vram_verity_leaves: hashes blocks first_block to first_block + block_count of the image. */
typedef struct vram_leaves_args {
    uint64_t regions; /* vram_region[region_count], 8-byte aligned */
    uint64_t region_count;
    uint64_t first_block;
    uint64_t block_count;
    uint64_t hashes;       /* out: 32 * block_count bytes, 16-byte aligned */
    uint64_t counters;     /* vram_counters, 8-byte aligned: adds the blocks hashed to `covered` */
    uint32_t start[8];     /* SHA-256's state before the first byte of a block: after the salt block, or the initial value */
    uint32_t block_size;   /* a power of two from 1024 to 65536 */
    uint32_t message_bits; /* 8 * (block_size + (salted ? 64 : 0)) */
    uint32_t one;          /* VRAM_ONE */
    uint32_t reserved;
} vram_leaves_args;

/* vram_verity_nodes: the table entries over one chunk's leaf hashes. */
typedef struct vram_nodes_args {
    uint64_t hashes;     /* what vram_verity_leaves wrote, 16-byte aligned */
    uint64_t leaf_count; /* of them; a multiple of block_size / 32 in every chunk but the last */
    uint64_t table;      /* out: this chunk's first entry, 16-byte aligned; ceil(leaf_count / (block_size / 32)) entries */
    uint64_t counters;   /* vram_counters, 8-byte aligned: adds the entries written to `found` */
    uint32_t start[8];   /* as in vram_leaves_args */
    uint32_t block_size;
    uint32_t message_bits;
    uint32_t one;
    uint32_t single; /* 1: the image is one block, so that the leaf hash itself is the entry; else 0 */
} vram_nodes_args;

/* vram_finish: writes the result, last of all kernels of a launch. */
typedef struct vram_finish_args {
    uint64_t result;   /* out: vram_result, 8-byte aligned */
    uint64_t counters; /* vram_counters, 8-byte aligned; may be result + 8 */
    uint64_t nonce;
} vram_finish_args;

/* vram_count_nonzero: counts the bytes read and those that are not zero. */
typedef struct vram_count_args {
    uint64_t ptr; /* any alignment */
    uint64_t bytes;
    uint64_t counters; /* vram_counters, 8-byte aligned: adds to both */
} vram_count_args;

/* vram_keyed_level: one level of the keyed hash, of blocks first_block to first_block + block_count of the image or of what the
 * level below left. */
typedef struct vram_keyed_args {
    uint64_t regions;      /* vram_region[region_count], 8-byte aligned; or, where region_count is 0, `bytes` bytes, 16-byte aligned */
    uint64_t region_count;
    uint64_t bytes;
    uint64_t first_block;  /* of VRAM_KEYED_BLOCK_BYTES, unlike those that regions begin at */
    uint64_t block_count;
    uint64_t key;          /* the level's: VRAM_KEYED_KEY_BYTES, 16-byte aligned */
    uint64_t sums;         /* in, out: adds two sums of 64 bits for each block, 8-byte aligned */
    uint64_t counters;     /* vram_counters, 8-byte aligned: adds to both */
    uint32_t block_shift;  /* of the image's block size: 10 to 16 */
    uint32_t share;        /* blocks that a warp takes, from 1 */
} vram_keyed_args;

#if defined(__cplusplus)
#define VRAM_KERNELS_ASSERT(condition, text) static_assert(condition, text)
#else
#define VRAM_KERNELS_ASSERT(condition, text) _Static_assert(condition, text)
#endif
#define VRAM_KERNELS_FIELD(type, field, offset) \
    VRAM_KERNELS_ASSERT(offsetof(type, field) == (offset), #type "." #field " has moved")

VRAM_KERNELS_ASSERT(sizeof(vram_region) == 24, "vram_region");
VRAM_KERNELS_FIELD(vram_region, ptr, 0);
VRAM_KERNELS_FIELD(vram_region, bytes, 8);
VRAM_KERNELS_FIELD(vram_region, first_block, 16);
VRAM_KERNELS_ASSERT(sizeof(vram_counters) == VRAM_COUNTERS_BYTES, "vram_counters");
VRAM_KERNELS_FIELD(vram_counters, found, 8);
VRAM_KERNELS_ASSERT(sizeof(vram_result) == VRAM_RESULT_BYTES, "vram_result");
VRAM_KERNELS_FIELD(vram_result, covered, 8);
VRAM_KERNELS_FIELD(vram_result, found, 16);
VRAM_KERNELS_FIELD(vram_result, reserved, 24);
VRAM_KERNELS_ASSERT(sizeof(vram_leaves_args) == 96, "vram_leaves_args");
VRAM_KERNELS_FIELD(vram_leaves_args, region_count, 8);
VRAM_KERNELS_FIELD(vram_leaves_args, first_block, 16);
VRAM_KERNELS_FIELD(vram_leaves_args, block_count, 24);
VRAM_KERNELS_FIELD(vram_leaves_args, hashes, 32);
VRAM_KERNELS_FIELD(vram_leaves_args, counters, 40);
VRAM_KERNELS_FIELD(vram_leaves_args, start, 48);
VRAM_KERNELS_FIELD(vram_leaves_args, block_size, 80);
VRAM_KERNELS_FIELD(vram_leaves_args, message_bits, 84);
VRAM_KERNELS_FIELD(vram_leaves_args, one, 88);
VRAM_KERNELS_ASSERT(sizeof(vram_nodes_args) == 80, "vram_nodes_args");
VRAM_KERNELS_FIELD(vram_nodes_args, leaf_count, 8);
VRAM_KERNELS_FIELD(vram_nodes_args, table, 16);
VRAM_KERNELS_FIELD(vram_nodes_args, counters, 24);
VRAM_KERNELS_FIELD(vram_nodes_args, start, 32);
VRAM_KERNELS_FIELD(vram_nodes_args, block_size, 64);
VRAM_KERNELS_FIELD(vram_nodes_args, message_bits, 68);
VRAM_KERNELS_FIELD(vram_nodes_args, one, 72);
VRAM_KERNELS_FIELD(vram_nodes_args, single, 76);
VRAM_KERNELS_ASSERT(sizeof(vram_finish_args) == 24, "vram_finish_args");
VRAM_KERNELS_FIELD(vram_finish_args, counters, 8);
VRAM_KERNELS_FIELD(vram_finish_args, nonce, 16);
VRAM_KERNELS_ASSERT(sizeof(vram_count_args) == 24, "vram_count_args");
VRAM_KERNELS_FIELD(vram_count_args, bytes, 8);
VRAM_KERNELS_FIELD(vram_count_args, counters, 16);
VRAM_KERNELS_ASSERT(sizeof(vram_keyed_args) == 72, "vram_keyed_args");
VRAM_KERNELS_FIELD(vram_keyed_args, region_count, 8);
VRAM_KERNELS_FIELD(vram_keyed_args, bytes, 16);
VRAM_KERNELS_FIELD(vram_keyed_args, first_block, 24);
VRAM_KERNELS_FIELD(vram_keyed_args, block_count, 32);
VRAM_KERNELS_FIELD(vram_keyed_args, key, 40);
VRAM_KERNELS_FIELD(vram_keyed_args, sums, 48);
VRAM_KERNELS_FIELD(vram_keyed_args, counters, 56);
VRAM_KERNELS_FIELD(vram_keyed_args, block_shift, 64);
VRAM_KERNELS_FIELD(vram_keyed_args, share, 68);

#endif
