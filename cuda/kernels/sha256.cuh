/*
 * SHA-256's compression function, in the common subset of C11 and CUDA C++: nvcc compiles it for the device, a C compiler for the
 * mock. Owns no memory, allocates nothing, calls nothing. Source: FIPS 180-4 (functions: 4.1.2, constants: 4.2.2, computation:
 * 6.2.2).
 */
#ifndef VRAM_RESIDENCY_SHA256_CUH
#define VRAM_RESIDENCY_SHA256_CUH

#include <stdint.h>

#if defined(__CUDACC__)
#define VRAM_SHA256_FN __host__ __device__ __forceinline__
#else
#define VRAM_SHA256_FN static inline
#endif

/* FIPS 180-4, 4.1.2. */
#define VRAM_SHA256_ROTR(x, n) (((x) >> (n)) | ((x) << (32 - (n))))
#define VRAM_SHA256_CH(x, y, z) ((z) ^ ((x) & ((y) ^ (z))))
#define VRAM_SHA256_MAJ(x, y, z) (((x) & (y)) | ((z) & ((x) | (y))))
#define VRAM_SHA256_S0(x) (VRAM_SHA256_ROTR(x, 2) ^ VRAM_SHA256_ROTR(x, 13) ^ VRAM_SHA256_ROTR(x, 22))
#define VRAM_SHA256_S1(x) (VRAM_SHA256_ROTR(x, 6) ^ VRAM_SHA256_ROTR(x, 11) ^ VRAM_SHA256_ROTR(x, 25))
#define VRAM_SHA256_G0(x) (VRAM_SHA256_ROTR(x, 7) ^ VRAM_SHA256_ROTR(x, 18) ^ VRAM_SHA256_SHR(x, 3))
#define VRAM_SHA256_G1(x) (VRAM_SHA256_ROTR(x, 17) ^ VRAM_SHA256_ROTR(x, 19) ^ VRAM_SHA256_SHR(x, 10))

/*
 * How additions and shifts are written. A GPU's integer pipe is what limits SHA-256, while its multiply-add pipe is idle. With
 * VRAM_SHA256_MAD an addition is `a * one + b` and a shift is the high half of a product: as long as the compiler cannot
 * know that `one` is 1 (it is a kernel parameter), both run on the multiply-add pipe. On the host plain operators are faster.
 */
#ifndef VRAM_SHA256_MAD
#if defined(__CUDACC__)
#define VRAM_SHA256_MAD 1
#else
#define VRAM_SHA256_MAD 0
#endif
#endif
#if VRAM_SHA256_MAD
#define VRAM_SHA256_ADD(a, b) ((a) * one + (b))
#define VRAM_SHA256_SHR(x, n) ((uint32_t)(((uint64_t)(x) * (one << (32 - (n)))) >> 32))
#else
#define VRAM_SHA256_ADD(a, b) ((a) + (b))
#define VRAM_SHA256_SHR(x, n) ((x) >> (n))
#endif

/*
 * One round (6.2.2 step 3). The eight working variables do not move: the caller's argument order rotates instead, so the
 * unrolled code has no copies. Only 16 schedule words are kept; a later round overwrites the word it no longer needs.
 */
#define VRAM_SHA256_FIRST(a, b, c, d, e, f, g, h, k, i)                                                                    \
    {                                                                                                                      \
        uint32_t t1 = VRAM_SHA256_ADD(w[i], k);                                                                            \
        t1 = VRAM_SHA256_ADD(t1, h);                                                                                       \
        t1 = VRAM_SHA256_ADD(t1, VRAM_SHA256_CH(e, f, g));                                                                 \
        t1 = VRAM_SHA256_ADD(t1, VRAM_SHA256_S1(e));                                                                       \
        (d) = VRAM_SHA256_ADD(d, t1);                                                                                      \
        (h) = VRAM_SHA256_ADD(VRAM_SHA256_ADD(VRAM_SHA256_MAJ(a, b, c), t1), VRAM_SHA256_S0(a));                           \
    }
#define VRAM_SHA256_LATER(a, b, c, d, e, f, g, h, k, i)                                                                    \
    w[i] = VRAM_SHA256_ADD(w[i], w[((i) + 9) & 15]);                                                                       \
    w[i] = VRAM_SHA256_ADD(w[i], VRAM_SHA256_G0(w[((i) + 1) & 15]));                                                       \
    w[i] = VRAM_SHA256_ADD(w[i], VRAM_SHA256_G1(w[((i) + 14) & 15]));                                                      \
    VRAM_SHA256_FIRST(a, b, c, d, e, f, g, h, k, i)

/*
 * Compresses one input block, given as 16 big-endian words already in registers. Destroys `w`. `one` is 1, and of use only
 * with VRAM_SHA256_MAD.
 */
VRAM_SHA256_FN void vram_sha256_rounds(uint32_t state[8], uint32_t w[16], uint32_t one)
{
    (void)one;
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];

    /* Rounds 0 to 15. */
    VRAM_SHA256_FIRST(a, b, c, d, e, f, g, h, 0x428a2f98u, 0)
    VRAM_SHA256_FIRST(h, a, b, c, d, e, f, g, 0x71374491u, 1)
    VRAM_SHA256_FIRST(g, h, a, b, c, d, e, f, 0xb5c0fbcfu, 2)
    VRAM_SHA256_FIRST(f, g, h, a, b, c, d, e, 0xe9b5dba5u, 3)
    VRAM_SHA256_FIRST(e, f, g, h, a, b, c, d, 0x3956c25bu, 4)
    VRAM_SHA256_FIRST(d, e, f, g, h, a, b, c, 0x59f111f1u, 5)
    VRAM_SHA256_FIRST(c, d, e, f, g, h, a, b, 0x923f82a4u, 6)
    VRAM_SHA256_FIRST(b, c, d, e, f, g, h, a, 0xab1c5ed5u, 7)
    VRAM_SHA256_FIRST(a, b, c, d, e, f, g, h, 0xd807aa98u, 8)
    VRAM_SHA256_FIRST(h, a, b, c, d, e, f, g, 0x12835b01u, 9)
    VRAM_SHA256_FIRST(g, h, a, b, c, d, e, f, 0x243185beu, 10)
    VRAM_SHA256_FIRST(f, g, h, a, b, c, d, e, 0x550c7dc3u, 11)
    VRAM_SHA256_FIRST(e, f, g, h, a, b, c, d, 0x72be5d74u, 12)
    VRAM_SHA256_FIRST(d, e, f, g, h, a, b, c, 0x80deb1feu, 13)
    VRAM_SHA256_FIRST(c, d, e, f, g, h, a, b, 0x9bdc06a7u, 14)
    VRAM_SHA256_FIRST(b, c, d, e, f, g, h, a, 0xc19bf174u, 15)

    /* Rounds 16 to 31. */
    VRAM_SHA256_LATER(a, b, c, d, e, f, g, h, 0xe49b69c1u, 0)
    VRAM_SHA256_LATER(h, a, b, c, d, e, f, g, 0xefbe4786u, 1)
    VRAM_SHA256_LATER(g, h, a, b, c, d, e, f, 0x0fc19dc6u, 2)
    VRAM_SHA256_LATER(f, g, h, a, b, c, d, e, 0x240ca1ccu, 3)
    VRAM_SHA256_LATER(e, f, g, h, a, b, c, d, 0x2de92c6fu, 4)
    VRAM_SHA256_LATER(d, e, f, g, h, a, b, c, 0x4a7484aau, 5)
    VRAM_SHA256_LATER(c, d, e, f, g, h, a, b, 0x5cb0a9dcu, 6)
    VRAM_SHA256_LATER(b, c, d, e, f, g, h, a, 0x76f988dau, 7)
    VRAM_SHA256_LATER(a, b, c, d, e, f, g, h, 0x983e5152u, 8)
    VRAM_SHA256_LATER(h, a, b, c, d, e, f, g, 0xa831c66du, 9)
    VRAM_SHA256_LATER(g, h, a, b, c, d, e, f, 0xb00327c8u, 10)
    VRAM_SHA256_LATER(f, g, h, a, b, c, d, e, 0xbf597fc7u, 11)
    VRAM_SHA256_LATER(e, f, g, h, a, b, c, d, 0xc6e00bf3u, 12)
    VRAM_SHA256_LATER(d, e, f, g, h, a, b, c, 0xd5a79147u, 13)
    VRAM_SHA256_LATER(c, d, e, f, g, h, a, b, 0x06ca6351u, 14)
    VRAM_SHA256_LATER(b, c, d, e, f, g, h, a, 0x14292967u, 15)

    /* Rounds 32 to 47. */
    VRAM_SHA256_LATER(a, b, c, d, e, f, g, h, 0x27b70a85u, 0)
    VRAM_SHA256_LATER(h, a, b, c, d, e, f, g, 0x2e1b2138u, 1)
    VRAM_SHA256_LATER(g, h, a, b, c, d, e, f, 0x4d2c6dfcu, 2)
    VRAM_SHA256_LATER(f, g, h, a, b, c, d, e, 0x53380d13u, 3)
    VRAM_SHA256_LATER(e, f, g, h, a, b, c, d, 0x650a7354u, 4)
    VRAM_SHA256_LATER(d, e, f, g, h, a, b, c, 0x766a0abbu, 5)
    VRAM_SHA256_LATER(c, d, e, f, g, h, a, b, 0x81c2c92eu, 6)
    VRAM_SHA256_LATER(b, c, d, e, f, g, h, a, 0x92722c85u, 7)
    VRAM_SHA256_LATER(a, b, c, d, e, f, g, h, 0xa2bfe8a1u, 8)
    VRAM_SHA256_LATER(h, a, b, c, d, e, f, g, 0xa81a664bu, 9)
    VRAM_SHA256_LATER(g, h, a, b, c, d, e, f, 0xc24b8b70u, 10)
    VRAM_SHA256_LATER(f, g, h, a, b, c, d, e, 0xc76c51a3u, 11)
    VRAM_SHA256_LATER(e, f, g, h, a, b, c, d, 0xd192e819u, 12)
    VRAM_SHA256_LATER(d, e, f, g, h, a, b, c, 0xd6990624u, 13)
    VRAM_SHA256_LATER(c, d, e, f, g, h, a, b, 0xf40e3585u, 14)
    VRAM_SHA256_LATER(b, c, d, e, f, g, h, a, 0x106aa070u, 15)

    /* Rounds 48 to 63. */
    VRAM_SHA256_LATER(a, b, c, d, e, f, g, h, 0x19a4c116u, 0)
    VRAM_SHA256_LATER(h, a, b, c, d, e, f, g, 0x1e376c08u, 1)
    VRAM_SHA256_LATER(g, h, a, b, c, d, e, f, 0x2748774cu, 2)
    VRAM_SHA256_LATER(f, g, h, a, b, c, d, e, 0x34b0bcb5u, 3)
    VRAM_SHA256_LATER(e, f, g, h, a, b, c, d, 0x391c0cb3u, 4)
    VRAM_SHA256_LATER(d, e, f, g, h, a, b, c, 0x4ed8aa4au, 5)
    VRAM_SHA256_LATER(c, d, e, f, g, h, a, b, 0x5b9cca4fu, 6)
    VRAM_SHA256_LATER(b, c, d, e, f, g, h, a, 0x682e6ff3u, 7)
    VRAM_SHA256_LATER(a, b, c, d, e, f, g, h, 0x748f82eeu, 8)
    VRAM_SHA256_LATER(h, a, b, c, d, e, f, g, 0x78a5636fu, 9)
    VRAM_SHA256_LATER(g, h, a, b, c, d, e, f, 0x84c87814u, 10)
    VRAM_SHA256_LATER(f, g, h, a, b, c, d, e, 0x8cc70208u, 11)
    VRAM_SHA256_LATER(e, f, g, h, a, b, c, d, 0x90befffau, 12)
    VRAM_SHA256_LATER(d, e, f, g, h, a, b, c, 0xa4506cebu, 13)
    VRAM_SHA256_LATER(c, d, e, f, g, h, a, b, 0xbef9a3f7u, 14)
    VRAM_SHA256_LATER(b, c, d, e, f, g, h, a, 0xc67178f2u, 15)

    state[0] = VRAM_SHA256_ADD(state[0], a);
    state[1] = VRAM_SHA256_ADD(state[1], b);
    state[2] = VRAM_SHA256_ADD(state[2], c);
    state[3] = VRAM_SHA256_ADD(state[3], d);
    state[4] = VRAM_SHA256_ADD(state[4], e);
    state[5] = VRAM_SHA256_ADD(state[5], f);
    state[6] = VRAM_SHA256_ADD(state[6], g);
    state[7] = VRAM_SHA256_ADD(state[7], h);
}

#endif
