/* Faults to order: which call they meet, and how often. What a fault then does is up to the call that met it. */
#include "internal.h"

static place *place_of(const machine *in, uint64_t ptr, uint64_t bytes);
static status flip(place *at, uint64_t offset, uint32_t bit);

/* Which calls know how to do it wrong: those from `first` to `last`, and `also`. Any call can fail. */
static const struct {
    uint32_t kind, first, last, also;
} FITS[] = {
    {VRAM_MOCK_CORRUPT, VRAM_MOCK_COPY_TO_DEVICE, VRAM_MOCK_COPY_TO_HOST, VRAM_MOCK_PROTECT},
    {VRAM_MOCK_SKIP, VRAM_MOCK_COPY_TO_DEVICE, VRAM_MOCK_COUNT_NONZERO, VRAM_MOCK_PROTECT},
    {VRAM_MOCK_SKIP, VRAM_MOCK_KEYED, VRAM_MOCK_KEYED, VRAM_MOCK_KEYED},
    {VRAM_MOCK_SKIP, NUMBER_cuLaunchKernel, NUMBER_cuLaunchKernel, NUMBER_cuMemsetD8Async},
    {VRAM_MOCK_HALF, VRAM_MOCK_FILL, VRAM_MOCK_FILL, VRAM_MOCK_FILL},
    {VRAM_MOCK_DIGEST_SHORT, VRAM_MOCK_DIGEST, VRAM_MOCK_DIGEST, VRAM_MOCK_DIGEST},
    {VRAM_MOCK_DIGEST_SHORT_LIES, VRAM_MOCK_DIGEST, VRAM_MOCK_DIGEST, VRAM_MOCK_DIGEST},
    {VRAM_MOCK_DIGEST_STALE, VRAM_MOCK_DIGEST, VRAM_MOCK_DIGEST, VRAM_MOCK_DIGEST},
    {VRAM_MOCK_DIGEST_REPLAYED, VRAM_MOCK_DIGEST, VRAM_MOCK_DIGEST, VRAM_MOCK_DIGEST},
    {VRAM_MOCK_COUNT_ZERO, VRAM_MOCK_COUNT_NONZERO, VRAM_MOCK_COUNT_NONZERO, VRAM_MOCK_COUNT_NONZERO},
    {VRAM_MOCK_FREE_BYTES, VRAM_MOCK_MEMORY_INFO, VRAM_MOCK_MEMORY_INFO, VRAM_MOCK_MEMORY_INFO},
    {VRAM_MOCK_RESIDENCY_LIE, VRAM_MOCK_RESIDENCY, VRAM_MOCK_RESIDENCY, VRAM_MOCK_RESIDENCY},
    {VRAM_MOCK_UNCONFIRMED, VRAM_MOCK_PROTECT, VRAM_MOCK_PROTECT, VRAM_MOCK_PROTECT},
    {VRAM_MOCK_ANSWER, NUMBER_cuPointerGetAttributes, NUMBER_cuPointerGetAttributes,
     NUMBER_cuMemGetAllocationPropertiesFromHandle},
    {VRAM_MOCK_CRASH, NUMBER_cuLaunchKernel, NUMBER_cuLaunchKernel, NUMBER_cuLaunchKernel},
};

static bool fault_fits(const vram_mock_fault *order)
{
    if (order->kind == VRAM_MOCK_FAIL || order->kind == VRAM_MOCK_STICKY) {
        return order->call < VRAM_MOCK_FUNCTIONS_END && order->code != OK;
    }
    if (order->kind == VRAM_MOCK_FLIP) {
        return order->call < VRAM_MOCK_FUNCTIONS_END && order->code < 8;
    }
    for (size_t i = 0; i < sizeof FITS / sizeof *FITS; i++) {
        const bool within = order->call >= FITS[i].first && order->call <= FITS[i].last;
        if (order->kind == FITS[i].kind && (within || order->call == FITS[i].also)) {
            return order->kind != VRAM_MOCK_RESIDENCY_LIE ||
                   (order->value >= VRAM_MOCK_LIE_HOST && order->value <= VRAM_MOCK_LIE_SHORT_RANGE);
        }
    }
    return false;
}

/*
 * Every order that matches the call counts it. A failure beats a misdeed; of two misdeeds the one ordered first is done,
 * and both are used up. A call without a context meets the orders of every device.
 */
static status faults_meet(machine *in, const device *on, uint32_t function, uint32_t operation, hit *what)
{
    status result = OK;
    for (fault **link = &in->faults; *link != NULL;) {
        fault *at = *link;
        vram_mock_fault *order = &at->order;
        const bool named = order->call == function && function != VRAM_MOCK_ANY;
        const bool counted = operation != VRAM_MOCK_ANY && operation != VRAM_MOCK_PART &&
                             (order->call == operation || order->call == VRAM_MOCK_ANY);
        if ((on != NULL && at->ordinal != on->ordinal) || !(named || counted)) {
            link = &at->next;
            continue;
        }
        if (order->nth > 1) {
            order->nth--;
            link = &at->next;
            continue;
        }
        at->met = true;
        if (order->kind == VRAM_MOCK_STICKY) {
            in->devices[at->ordinal].sticky = order->code;
            /* A dead context runs nothing any more. */
            streams_purge(in, at->ordinal);
            result = order->code;
        } else if (order->kind == VRAM_MOCK_FLIP) {
            place *there = place_of(in, order->value, 1);
            if (there != NULL && there->of != NULL) {
                (void)flip(there, order->value - there->base, order->code);
            }
        } else if (order->kind == VRAM_MOCK_FAIL) {
            result = result == OK ? order->code : result;
        } else if (what->kind == 0) {
            *what = (hit){order->kind, order->code, order->value};
        }
        if (order->times != UINT64_MAX) {
            order->times--;
        }
        if (order->times == 0) {
            *link = at->next;
            free(at);
        } else {
            link = &at->next;
        }
    }
    return result;
}

uint32_t vram_mock_order(vram_mock_machine *in, uint32_t ordinal, const vram_mock_fault *order)
{
    if (order->nth == 0 || order->times == 0 || !fault_fits(order) || ordinal >= in->device_count) {
        return INVALID_VALUE;
    }
    fault *made = malloc(sizeof *made);
    if (made == NULL) {
        return OUT_OF_MEMORY;
    }
    *made = (fault){NULL, ordinal, *order, false};
    pthread_mutex_lock(&in->lock);
    const status dead = in->devices[ordinal].sticky;
    if (dead != OK) {
        free(made);
    } else {
        fault **link = &in->faults;
        while (*link != NULL) {
            link = &(*link)->next;
        }
        *link = made;
    }
    pthread_mutex_unlock(&in->lock);
    return dead;
}

uint32_t vram_mock_forget(vram_mock_machine *in, uint32_t ordinal)
{
    pthread_mutex_lock(&in->lock);
    for (fault **link = &in->faults; *link != NULL;) {
        fault *at = *link;
        if (at->ordinal == ordinal) {
            *link = at->next;
            free(at);
        } else {
            link = &at->next;
        }
    }
    const status dead = ordinal < in->device_count ? in->devices[ordinal].sticky : INVALID_DEVICE;
    pthread_mutex_unlock(&in->lock);
    return dead;
}
