/* Faults to order: which call they meet, and how often. What a fault then does is up to the call that met it. */
#include "internal.h"

/* Whether the call knows how to do this wrong. */
static bool fault_fits(const vram_mock_fault *order)
{
    const uint32_t call = order->call;
    switch (order->kind) {
    case VRAM_MOCK_FAULT_FAIL:
    case VRAM_MOCK_FAULT_STICKY:
        return call < VRAM_MOCK_CALLS && order->code != VRAM_MOCK_OK;
    case VRAM_MOCK_FAULT_CORRUPT:
        return call == VRAM_MOCK_CALL_COPY_TO_DEVICE || call == VRAM_MOCK_CALL_COPY_TO_HOST ||
               call == VRAM_MOCK_CALL_PROTECT;
    case VRAM_MOCK_FAULT_SKIP:
        return (call >= VRAM_MOCK_CALL_COPY_TO_DEVICE && call <= VRAM_MOCK_CALL_COUNT_NONZERO) ||
               call == VRAM_MOCK_CALL_PROTECT;
    case VRAM_MOCK_FAULT_HALF:
        return call == VRAM_MOCK_CALL_FILL;
    case VRAM_MOCK_FAULT_DIGEST_SHORT:
    case VRAM_MOCK_FAULT_DIGEST_SHORT_LIES:
    case VRAM_MOCK_FAULT_DIGEST_STALE:
    case VRAM_MOCK_FAULT_DIGEST_REPLAYED:
        return call == VRAM_MOCK_CALL_DIGEST;
    case VRAM_MOCK_FAULT_COUNT_ZERO:
        return call == VRAM_MOCK_CALL_COUNT_NONZERO;
    case VRAM_MOCK_FAULT_FREE_BYTES:
        return call == VRAM_MOCK_CALL_MEMORY_INFO;
    case VRAM_MOCK_FAULT_RESIDENCY:
        return call == VRAM_MOCK_CALL_RESIDENCY && order->value >= VRAM_MOCK_LIE_HOST &&
               order->value <= VRAM_MOCK_LIE_SHORT_RANGE;
    case VRAM_MOCK_FAULT_UNCONFIRMED:
        return call == VRAM_MOCK_CALL_PROTECT;
    default:
        return false;
    }
}

/*
 * Every order that matches the call counts it. A failure beats a misdeed; of two misdeeds the one ordered first is done,
 * and both are used up.
 */
static status faults_meet(device *on, uint32_t call, hit *what)
{
    status result = VRAM_MOCK_OK;
    for (fault **link = &on->faults; *link != NULL;) {
        fault *at = *link;
        vram_mock_fault *order = &at->order;
        if (order->call != VRAM_MOCK_CALL_ANY && order->call != call) {
            link = &at->next;
            continue;
        }
        if (order->nth > 1) {
            order->nth--;
            link = &at->next;
            continue;
        }
        at->met = true;
        if (order->kind == VRAM_MOCK_FAULT_STICKY) {
            on->sticky = order->code;
            /* A dead context runs nothing any more. */
            streams_purge(on);
            result = order->code;
        } else if (order->kind == VRAM_MOCK_FAULT_FAIL) {
            result = result == VRAM_MOCK_OK ? order->code : result;
        } else if (what->kind == 0) {
            *what = (hit){order->kind, order->value};
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

static void faults_clear(device *on)
{
    while (on->faults != NULL) {
        fault *next = on->faults->next;
        free(on->faults);
        on->faults = next;
    }
}

status vram_mock_order_fault(vram_mock_machine *machine, uint32_t ordinal, const vram_mock_fault *order)
{
    device *on = NULL;
    if (order == NULL || order->nth == 0 || order->times == 0 || !fault_fits(order)) {
        return VRAM_MOCK_INVALID_VALUE;
    }
    fault *made = malloc(sizeof *made);
    if (made == NULL) {
        return VRAM_MOCK_OUT_OF_MEMORY;
    }
    *made = (fault){NULL, *order, false};
    const status result = enter(machine, ordinal, VRAM_MOCK_CALL_ANY, &on, NULL);
    if (result != VRAM_MOCK_OK) {
        free(made);
        return result;
    }
    fault **link = &on->faults;
    while (*link != NULL) {
        link = &(*link)->next;
    }
    *link = made;
    return leave(on, VRAM_MOCK_CALL_ANY, VRAM_MOCK_OK);
}

/* Faults not yet met are forgotten. A device that is dead stays dead. */
status vram_mock_clear_faults(vram_mock_machine *machine, uint32_t ordinal)
{
    device *on = NULL;
    const status result = enter(machine, ordinal, VRAM_MOCK_CALL_ANY, &on, NULL);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    faults_clear(on);
    return leave(on, VRAM_MOCK_CALL_ANY, VRAM_MOCK_OK);
}
