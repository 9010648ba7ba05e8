/* What is said of addresses and allocations, and how it is untrue. */
#include "internal.h"

/* CUpointer_attribute. */
enum {
    MEMORY_TYPE = 2, HOST_POINTER = 4, IS_MANAGED = 8, DEVICE_ORDINAL = 9, IS_LEGACY_IPC_CAPABLE = 10, RANGE_START = 11,
    RANGE_SIZE = 12, ALLOWED_HANDLE_TYPES = 14, MAPPING_SIZE = 18, MAPPING_BASE = 19, ATTRIBUTES
};

static void lie(uint64_t answers[ATTRIBUTES], uint64_t which, uint64_t ptr)
{
    if (which == VRAM_MOCK_LIE_ZEROS) {
        memset(answers, 0, ATTRIBUTES * sizeof *answers);
        return;
    }
    const uint64_t lies[][2] = {
        [VRAM_MOCK_LIE_HOST] = {MEMORY_TYPE, 1},
        [VRAM_MOCK_LIE_MANAGED] = {IS_MANAGED, 1},
        [VRAM_MOCK_LIE_HOST_MAPPED] = {HOST_POINTER, ptr},
        [VRAM_MOCK_LIE_EXPORTABLE] = {ALLOWED_HANDLE_TYPES, 1},
        [VRAM_MOCK_LIE_ORDINAL] = {DEVICE_ORDINAL, answers[DEVICE_ORDINAL] + 1},
        [VRAM_MOCK_LIE_SHORT_RANGE] = {RANGE_SIZE, answers[RANGE_SIZE] - 1},
    };
    answers[lies[which][0]] = lies[which][1];
}

/* Unknown addresses succeed with zeros, as the documentation has it. */
static status vram_mock_cuPointerGetAttributes(uint32_t count, const uint32_t *asked, void **out, uint64_t ptr)
{
    BEGIN(cuPointerGetAttributes);
    uint64_t answers[ATTRIBUTES] = {0};
    const place *at = place_of(in, ptr, 1);
    const host_buffer *host = host_of(in, ptr, 1);
    if (at != NULL && at->of != NULL) {
        answers[MEMORY_TYPE] = 2;
        answers[DEVICE_ORDINAL] = at->ordinal;
        answers[RANGE_START] = at->base;
        answers[RANGE_SIZE] = at->bytes;
        answers[IS_MANAGED] = at->managed;
        answers[HOST_POINTER] = at->managed ? ptr : 0;
        answers[ALLOWED_HANDLE_TYPES] = at->of->made.handle_types;
        answers[IS_LEGACY_IPC_CAPABLE] = !at->reserved && !at->of->foreign;
        answers[MAPPING_BASE] = at->reserved ? at->base : 0;
        answers[MAPPING_SIZE] = at->reserved ? at->bytes : 0;
    } else if (host != NULL) {
        answers[MEMORY_TYPE] = 1;
        answers[HOST_POINTER] = ptr;
        answers[RANGE_START] = host->base;
        answers[RANGE_SIZE] = host->bytes;
    }
    if (here.what.kind == VRAM_MOCK_RESIDENCY_LIE) {
        lie(answers, here.what.value, ptr);
    } else if (here.what.kind == VRAM_MOCK_ANSWER && here.what.code < ATTRIBUTES) {
        answers[here.what.code] = here.what.value;
    }
    static const uint8_t WIDTHS[ATTRIBUTES] = {
        [MEMORY_TYPE] = 4, [HOST_POINTER] = 8, [IS_MANAGED] = 1,          [DEVICE_ORDINAL] = 4, [IS_LEGACY_IPC_CAPABLE] = 1,
        [RANGE_START] = 8, [RANGE_SIZE] = 8,   [ALLOWED_HANDLE_TYPES] = 8, [MAPPING_SIZE] = 8,   [MAPPING_BASE] = 8,
    };
    for (uint32_t i = 0; i < count; i++) {
        if (asked[i] >= ATTRIBUTES || WIDTHS[asked[i]] == 0) {
            END(INVALID_VALUE);
        }
        memcpy(out[i], &answers[asked[i]], WIDTHS[asked[i]]);
    }
    END(OK);
}

static status vram_mock_cuMemRetainAllocationHandle(uint64_t *out, uint64_t ptr)
{
    BEGIN(cuMemRetainAllocationHandle);
    const place *at = place_of(in, ptr, 1);
    if (at == NULL || !at->reserved || at->of == NULL) {
        END(INVALID_VALUE);
    }
    at->of->references++;
    *out = at->of->handle;
    END(OK);
}

static status vram_mock_cuMemGetAllocationPropertiesFromHandle(properties *out, uint64_t handle)
{
    BEGIN(cuMemGetAllocationPropertiesFromHandle);
    const memory *of = table_find(&in->memories, handle);
    if (of == NULL) {
        END(INVALID_VALUE);
    }
    *out = of->made;
    if (here.what.kind == VRAM_MOCK_ANSWER) { /* member 1 is the type of the allocation, 2 that of its location */
        *(here.what.code == 1 ? &out->kind : &out->where.kind) = (uint32_t)here.what.value;
    }
    END(OK);
}
