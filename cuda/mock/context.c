/* The driver, its devices, and contexts. */
#include "internal.h"

/* A context besides the primary one. The handle of a primary context is the address of its device. */
typedef struct context {
    uint64_t ordinal;
} context;

static uint64_t primary(const device *on)
{
    return (uint64_t)(uintptr_t)on;
}

/* The device of this thread's current context, if it is one of the machine's. */
static device *current(const machine *in)
{
    if (context_count == 0) {
        return NULL;
    }
    const uint64_t top = contexts[context_count - 1];
    const context *made = table_find(&in->contexts, top);
    if (made != NULL) {
        return &in->devices[made->ordinal];
    }
    const uint64_t first = (uint64_t)(uintptr_t)in->devices;
    const uint64_t offset = top - first;
    if (top < first || offset % sizeof(device) != 0 || offset / sizeof(device) >= in->device_count) {
        return NULL;
    }
    device *on = &in->devices[offset / sizeof(device)];
    return on->retained != 0 ? on : NULL;
}

static status vram_mock_cuInit(uint32_t flags)
{
    BEGIN(cuInit);
    END(flags == 0 ? OK : INVALID_VALUE);
}

static status vram_mock_cuDriverGetVersion(int32_t *out)
{
    BEGIN(cuDriverGetVersion);
    *out = (int32_t)setting(in, VRAM_MOCK_VERSION);
    END(OK);
}

static status vram_mock_cuDeviceGetCount(int32_t *out)
{
    BEGIN(cuDeviceGetCount);
    *out = (int32_t)setting(in, VRAM_MOCK_DEVICES);
    END(OK);
}

static device *device_of(const machine *in, int32_t ordinal)
{
    const bool there = ordinal >= 0 && (uint32_t)ordinal < in->device_count &&
                       (uint64_t)ordinal < setting(in, VRAM_MOCK_DEVICES);
    return there ? &in->devices[ordinal] : NULL;
}

static status vram_mock_cuDeviceGet(int32_t *out, int32_t ordinal)
{
    BEGIN(cuDeviceGet);
    *out = ordinal;
    END(device_of(in, ordinal) == NULL ? INVALID_DEVICE : OK);
}

static status vram_mock_cuDeviceGetName(char *out, int32_t room, int32_t ordinal)
{
    BEGIN(cuDeviceGetName);
    if (device_of(in, ordinal) == NULL) {
        END(INVALID_DEVICE);
    }
    snprintf(out, (size_t)room, "mock device");
    END(OK);
}

static status vram_mock_cuDeviceGetUuid_v2(uint8_t *out, int32_t ordinal)
{
    BEGIN(cuDeviceGetUuid_v2);
    if (device_of(in, ordinal) == NULL) {
        END(INVALID_DEVICE);
    }
    memcpy(out, in->seed, sizeof in->seed);
    for (uint32_t i = 0; i < 4; i++) {
        out[i] = (uint8_t)(out[i] ^ (uint8_t)((uint32_t)ordinal >> (8 * i)));
    }
    END(OK);
}

static status vram_mock_cuDeviceTotalMem_v2(size_t *out, int32_t ordinal)
{
    BEGIN(cuDeviceTotalMem_v2);
    *out = setting(in, VRAM_MOCK_CAPACITY);
    END(device_of(in, ordinal) == NULL ? INVALID_DEVICE : OK);
}

static status vram_mock_cuDeviceGetAttribute(int32_t *out, uint32_t attribute, int32_t ordinal)
{
    BEGIN(cuDeviceGetAttribute);
    if (device_of(in, ordinal) == NULL) {
        END(INVALID_DEVICE);
    }
    const uint64_t answers[][2] = {
        {13, 1000000}, /* clock, kHz */
        {16, 2},       /* multiprocessors */
        {32, 0},       /* ECC */
        {38, 1 << 20}, /* bytes of level 2 cache */
        {75, setting(in, VRAM_MOCK_MAJOR)},
        {76, setting(in, VRAM_MOCK_MINOR)},
        {102, setting(in, VRAM_MOCK_VIRTUAL_MEMORY)},
    };
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        if (answers[i][0] == attribute) {
            *out = (int32_t)answers[i][1];
            END(OK);
        }
    }
    END(INVALID_VALUE);
}

static status vram_mock_cuDevicePrimaryCtxRetain(uint64_t *out, int32_t ordinal)
{
    BEGIN(cuDevicePrimaryCtxRetain);
    device *of = device_of(in, ordinal);
    if (of == NULL) {
        END(INVALID_DEVICE);
    }
    of->retained++;
    *out = primary(of);
    END(OK);
}

static status vram_mock_cuDevicePrimaryCtxRelease_v2(int32_t ordinal)
{
    BEGIN(cuDevicePrimaryCtxRelease_v2);
    device *of = device_of(in, ordinal);
    if (of == NULL || of->retained == 0) {
        END(INVALID_CONTEXT);
    }
    of->retained--;
    END(OK);
}

/* A context that is in use by somebody else is not reset here. */
static status vram_mock_cuDevicePrimaryCtxReset_v2(int32_t ordinal)
{
    BEGIN(cuDevicePrimaryCtxReset_v2);
    const device *of = device_of(in, ordinal);
    END(of == NULL ? INVALID_DEVICE : of->sticky);
}

static status push(uint64_t handle)
{
    if (context_count == MOST_CONTEXTS) {
        return INVALID_VALUE;
    }
    contexts[context_count++] = handle;
    return OK;
}

static status vram_mock_cuCtxCreate_v2(uint64_t *out, uint32_t flags, int32_t ordinal)
{
    BEGIN(cuCtxCreate_v2);
    context *made = flags != 0 || device_of(in, ordinal) == NULL ? NULL : make(in, &in->contexts, sizeof(context), out);
    if (made == NULL) {
        END(INVALID_VALUE);
    }
    made->ordinal = (uint64_t)ordinal;
    END(push(*out));
}

static status vram_mock_cuCtxDestroy_v2(uint64_t handle)
{
    BEGIN(cuCtxDestroy_v2);
    context *gone = table_take(&in->contexts, handle);
    free(gone);
    END(gone == NULL ? INVALID_CONTEXT : OK);
}

static status vram_mock_cuCtxPushCurrent_v2(uint64_t handle)
{
    BEGIN(cuCtxPushCurrent_v2);
    END(push(handle));
}

static status vram_mock_cuCtxPopCurrent_v2(uint64_t *out)
{
    BEGIN(cuCtxPopCurrent_v2);
    if (context_count == 0) {
        END(INVALID_CONTEXT);
    }
    *out = contexts[--context_count];
    END(OK);
}

static status vram_mock_cuCtxGetStreamPriorityRange(int32_t *lowest, int32_t *greatest)
{
    BEGIN(cuCtxGetStreamPriorityRange);
    *lowest = 0;
    *greatest = -5;
    END(OK);
}
