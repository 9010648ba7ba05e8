/*
 * The functions of the CUDA driver API that the mock has: name, the operation that a call is by itself, and what it needs:
 * NOTHING, a current CONTEXT, or a CONTEXT_DEAD_OR_ALIVE.
 */
#ifndef VRAM_MOCK_FUNCTIONS_H
#define VRAM_MOCK_FUNCTIONS_H

#define VRAM_MOCK_FUNCTIONS(X) \
    X(cuInit, ANY, NOTHING) \
    X(cuDriverGetVersion, ANY, NOTHING) \
    X(cuDeviceGetCount, ANY, NOTHING) \
    X(cuDeviceGet, ANY, NOTHING) \
    X(cuDeviceGetName, ANY, NOTHING) \
    X(cuDeviceGetUuid_v2, ANY, NOTHING) \
    X(cuDeviceTotalMem_v2, ANY, NOTHING) \
    X(cuDeviceGetAttribute, ANY, NOTHING) \
    X(cuDevicePrimaryCtxRetain, ANY, NOTHING) \
    X(cuDevicePrimaryCtxRelease_v2, ANY, NOTHING) \
    X(cuDevicePrimaryCtxReset_v2, ANY, NOTHING) \
    X(cuCtxCreate_v2, ANY, NOTHING) \
    X(cuCtxDestroy_v2, ANY, NOTHING) \
    X(cuCtxPushCurrent_v2, ANY, NOTHING) \
    X(cuCtxPopCurrent_v2, ANY, NOTHING) \
    X(cuCtxGetStreamPriorityRange, ANY, CONTEXT) \
    X(cuMemGetInfo_v2, MEMORY_INFO, CONTEXT) \
    X(cuMemGetAllocationGranularity, ANY, CONTEXT) \
    X(cuMemAddressReserve, ANY, CONTEXT) \
    X(cuMemAddressFree, ANY, CONTEXT) \
    X(cuMemCreate, ALLOC, CONTEXT) \
    X(cuMemRelease, ANY, CONTEXT) \
    X(cuMemMap, ANY, CONTEXT) \
    X(cuMemUnmap, FREE, CONTEXT) \
    X(cuMemSetAccess, ANY, CONTEXT) \
    X(cuMemGetAccess, ANY, CONTEXT) \
    X(cuMemRetainAllocationHandle, ANY, CONTEXT) \
    X(cuMemGetAllocationPropertiesFromHandle, ANY, CONTEXT) \
    X(cuPointerGetAttributes, RESIDENCY, CONTEXT) \
    X(cuMemAlloc_v2, ANY, CONTEXT) \
    X(cuMemAllocManaged, ANY, CONTEXT) \
    X(cuMemFree_v2, ANY, CONTEXT) \
    X(cuMemHostAlloc, HOST_ALLOC, CONTEXT) \
    X(cuMemFreeHost, ANY, CONTEXT_DEAD_OR_ALIVE) \
    X(cuMemcpyHtoD_v2, ANY, CONTEXT) \
    X(cuMemcpyDtoH_v2, ANY, CONTEXT) \
    X(cuMemcpyHtoDAsync_v2, COPY_TO_DEVICE, CONTEXT) \
    X(cuMemcpyDtoHAsync_v2, COPY_TO_HOST, CONTEXT) \
    X(cuMemcpyDtoDAsync_v2, ANY, CONTEXT) \
    X(cuMemsetD8Async, FILL, CONTEXT) \
    X(cuStreamCreate, STREAM, CONTEXT) \
    X(cuStreamCreateWithPriority, STREAM, CONTEXT) \
    X(cuStreamDestroy_v2, ANY, CONTEXT) \
    X(cuStreamSynchronize, SYNCHRONIZE, CONTEXT) \
    X(cuStreamQuery, ANY, CONTEXT) \
    X(cuStreamWaitEvent, EVENT, CONTEXT) \
    X(cuStreamIsCapturing, ANY, CONTEXT) \
    X(cuStreamBeginCapture_v2, ANY, CONTEXT) \
    X(cuStreamEndCapture, ANY, CONTEXT) \
    X(cuGraphDestroy, ANY, CONTEXT) \
    X(cuThreadExchangeStreamCaptureMode, ANY, NOTHING) \
    X(cuEventCreate, EVENT, CONTEXT) \
    X(cuEventDestroy_v2, ANY, CONTEXT) \
    X(cuEventRecord, EVENT, CONTEXT) \
    X(cuEventQuery, EVENT, CONTEXT) \
    X(cuEventSynchronize, SYNCHRONIZE, CONTEXT) \
    X(cuModuleLoadData, ANY, CONTEXT) \
    X(cuModuleUnload, ANY, CONTEXT) \
    X(cuModuleGetFunction, ANY, CONTEXT) \
    X(cuLaunchKernel, ANY, CONTEXT)

enum needs { NOTHING, CONTEXT, CONTEXT_DEAD_OR_ALIVE };

#define X(name, operation, needs) NUMBER_##name,
enum { VRAM_MOCK_BEFORE_FUNCTIONS = VRAM_MOCK_OPERATIONS - 1, VRAM_MOCK_FUNCTIONS(X) VRAM_MOCK_FUNCTIONS_END };
#undef X

/* Takes the lock, counts the call, and says what was ordered for it, or what it fails with anyway. */
#define BEGIN(name) \
    api_call here; \
    const status refused = begin(&here, NUMBER_##name); \
    if (refused != OK) { \
        return refused; \
    } \
    machine *const in = here.in; \
    device *const on = here.on; \
    (void)in; \
    (void)on
#define END(result) return end(&here, result)

#endif
