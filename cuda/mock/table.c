/* The tables that hold everything: values by ascending key. */
#include "internal.h"

/* The index of the first entry whose key is greater than `key`. */
static size_t table_after(const table *in, uint64_t key)
{
    size_t low = 0;
    size_t high = in->len;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (in->at[middle].key <= key) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void *table_find(const table *in, uint64_t key)
{
    const size_t after = table_after(in, key);
    return after != 0 && in->at[after - 1].key == key ? in->at[after - 1].value : NULL;
}

/* False when the host has no memory; the table is then unchanged. The key must be new. */
static bool table_put(table *in, uint64_t key, void *value)
{
    if (in->len == in->cap) {
        const size_t cap = in->cap == 0 ? 16 : in->cap * 2;
        struct entry *at = realloc(in->at, cap * sizeof *at);
        if (at == NULL) {
            return false;
        }
        in->at = at;
        in->cap = cap;
    }
    const size_t after = table_after(in, key);
    memmove(in->at + after + 1, in->at + after, (in->len - after) * sizeof *in->at);
    in->at[after].key = key;
    in->at[after].value = value;
    in->len++;
    return true;
}

static void *table_take(table *in, uint64_t key)
{
    const size_t after = table_after(in, key);
    if (after == 0 || in->at[after - 1].key != key) {
        return NULL;
    }
    void *value = in->at[after - 1].value;
    memmove(in->at + after - 1, in->at + after, (in->len - after) * sizeof *in->at);
    in->len--;
    return value;
}

static void table_drop(table *in)
{
    for (size_t i = 0; i < in->len; i++) {
        free(in->at[i].value);
    }
    free(in->at);
}

/* Makes a zeroed object of `bytes` bytes with a fresh handle in a table; NULL when the host has no memory. */
static void *make(machine *in, table *of, size_t bytes, uint64_t *handle)
{
    void *made = calloc(1, bytes);
    if (made == NULL || !table_put(of, in->next_id, made)) {
        free(made);
        return NULL;
    }
    *handle = in->next_id++;
    return made;
}
