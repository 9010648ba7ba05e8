/* Modules and kernels: the library's own and the engine's, compiled for the host. */
#include "fake.h"

#include "../engine/engine.h"
#include "../engine/host_engine.h"
#include "../include/vram_host_kernels.h"
#include "../include/vram_kernels.h"

FAKE_API Status cuModuleLoadData(uint64_t *out, const void *image)
{
    ENTER(cuModuleLoadData, true);
    if (image == nullptr || (uintptr_t)image % 16 != 0) {
        return INVALID_VALUE;
    }
    *out = 0x700000000ull + on.next_handle++;
    on.modules[*out] = 1;
    return OK;
}

FAKE_API Status cuModuleUnload(uint64_t module)
{
    ENTER(cuModuleUnload, true);
    if (on.modules.erase(module) != 1) {
        return INVALID_HANDLE;
    }
    for (auto found = on.functions.begin(); found != on.functions.end();) {
        found = found->second->module == module ? on.functions.erase(found) : std::next(found);
    }
    return OK;
}

/* Of the library's kernels and of the engine's. */
static uint64_t args_bytes(const char *name)
{
    const uint64_t ours = vram_host_args_bytes(name);
    return ours != 0 ? ours : engine_host_args_bytes(name);
}

FAKE_API Status cuModuleGetFunction(uint64_t *out, uint64_t module, const char *name)
{
    ENTER(cuModuleGetFunction, true);
    if (on.modules.count(module) == 0) {
        return INVALID_HANDLE;
    }
    if (args_bytes(name) == 0) {
        return NOT_FOUND;
    }
    auto made = std::make_unique<Function>(Function{name, module});
    *out = (uint64_t)(uintptr_t)made.get();
    on.functions[*out] = std::move(made);
    return OK;
}

struct Need {
    Range range;
    bool writes;
    uint64_t alignment = 1; /* of the widest access that does not look first */
};

/* The memory that a kernel uses. The table of regions is looked into, so it must be there by then. */
static bool needs_of(const std::string &name, const uint8_t *args, std::vector<Need> &needs, bool look)
{
    if (name == VRAM_LEAVES) {
        vram_leaves_args a;
        memcpy(&a, args, sizeof a);
        const Range table = {a.regions, a.region_count * sizeof(vram_region)};
        needs = {{table, false, 8}, {{a.hashes, 32 * a.block_count}, true, 16}, {{a.counters, 16}, true, 8}};
        if (look && accessible(table, false)) {
            for (uint64_t i = 0; i < a.region_count; i++) {
                vram_region region;
                memcpy(&region, at(a.regions) + i * sizeof region, sizeof region);
                needs.push_back({{region.ptr, region.bytes}, false});
            }
        }
    } else if (name == VRAM_NODES) {
        vram_nodes_args a;
        memcpy(&a, args, sizeof a);
        const uint64_t arity = a.block_size / 32;
        const uint64_t entries = (a.leaf_count + arity - 1) / arity;
        needs = {{{a.hashes, 32 * a.leaf_count}, false, 16}, {{a.table, 32 * entries}, true, 16}, {{a.counters, 16}, true, 8}};
    } else if (name == VRAM_FINISH) {
        vram_finish_args a;
        memcpy(&a, args, sizeof a);
        needs = {{{a.result, 32}, true, 8}, {{a.counters, 16}, false, 8}};
    } else if (name == VRAM_COUNT_NONZERO) {
        vram_count_args a;
        memcpy(&a, args, sizeof a);
        needs = {{{a.ptr, a.bytes}, false}, {{a.counters, 16}, true, 8}};
    } else if (name == ENGINE_MATVEC) {
        engine_matvec_args a;
        memcpy(&a, args, sizeof a);
        needs = {{{a.weights, 4 * a.rows * a.columns}, false, 4}, {{a.x, 4 * a.columns}, false, 4}, {{a.y, 4 * a.rows}, true, 4}};
    } else if (name == ENGINE_FLIP) {
        engine_flip_args a;
        memcpy(&a, args, sizeof a);
        needs = {{{a.address, 1}, true}};
    } else if (name == ENGINE_SCAN) {
        engine_scan_args a;
        memcpy(&a, args, sizeof a);
        needs = {{{a.address, 16 * a.vectors}, false, 16}, {{a.counter, 8}, true, 8}};
    } else if (name == ENGINE_RANDOM) {
        engine_random_args a;
        memcpy(&a, args, sizeof a);
        needs = {{{a.address, 16 * a.vectors}, true, 16}};
    } else {
        needs = {};
    }
    for (const Need &need : needs) {
        if (!accessible(need.range, need.writes)) {
            return fault();
        }
        if (need.range.ptr % need.alignment != 0) {
            return fault(MISALIGNED_ADDRESS);
        }
    }
    return true;
}

/* Makes the kernel hash half of its blocks, if that was ordered. Returns how many blocks it is to claim besides. */
static uint64_t halved(State &on, uint8_t *args)
{
    const bool half = on.happens("half hashed"), claims = on.happens("half claimed");
    vram_leaves_args a;
    memcpy(&a, args, sizeof a);
    const uint64_t left_out = half || claims ? a.block_count / 2 : 0;
    a.block_count -= left_out;
    memcpy(args, &a, sizeof a);
    return claims ? left_out : 0;
}

FAKE_API Status cuLaunchKernel(uint64_t function, uint32_t grid, uint32_t grid_y, uint32_t grid_z, uint32_t block,
                               uint32_t block_y, uint32_t block_z, uint32_t shared, uint64_t stream_handle,
                               void **parameters, void **extra)
{
    ENTER(cuLaunchKernel, true);
    auto found = on.functions.find(function);
    Stream *stream = find_stream(stream_handle);
    if (found == on.functions.end() || stream == nullptr) {
        return INVALID_HANDLE;
    }
    if (grid_y != 1 || grid_z != 1 || block_y != 1 || block_z != 1 || shared != 0 || extra != nullptr) {
        return INVALID_VALUE;
    }
    const std::string name = found->second->name;
    const uint8_t *first = (const uint8_t *)parameters[0];
    std::vector<uint8_t> args(first, first + args_bytes(name.c_str()));
    const bool skipped = on.happens("kernel skipped") || on.setting("skip_kernels") != 0;
    const bool faulty = on.happens("kernel faults") || on.setting("fault_kernels") != 0;
    const uint64_t claimed = name == VRAM_LEAVES ? halved(on, args.data()) : 0;
    const uint32_t backwards = (uint32_t)on.setting("backwards");
    Op op;
    std::vector<Need> needs;
    const Status before = on.sticky;
    needs_of(name, args.data(), needs, false);
    on.sticky = before; /* what is not there yet counts when the kernel runs */
    for (const Need &need : needs) {
        op.uses.push_back(need.range);
    }
    op.run = [=] {
        std::vector<Need> used;
        state().counts["ran " + name]++;
        if (faulty) {
            fault();
        } else if (!skipped && needs_of(name, args.data(), used, true)) {
            const bool ours = vram_host_args_bytes(name.c_str()) != 0;
            const uint32_t status = ours ? vram_host_launch(name.c_str(), args.data(), grid, block, backwards)
                                         : engine_host_launch(name.c_str(), args.data(), grid, block);
            if (status != 0) {
                state().sticky = 719;
            } else if (claimed != 0) {
                vram_leaves_args a;
                memcpy(&a, args.data(), sizeof a);
                ((vram_counters *)at(a.counters))->covered += claimed;
            }
        }
    };
    enqueue(stream, std::move(op));
    on.counts["launches"]++;
    return OK;
}
