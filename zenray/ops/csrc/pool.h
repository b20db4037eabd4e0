// A team of threads that shares out chunks of work, made for cores that are also wanted by others.
//
// The caller never waits for a thread to arrive: it takes chunks itself, and whoever of the team is running takes
// the rest; at the end it waits only for chunks somebody holds. (An OpenMP region waits for every thread of its team,
// so one thread that lost its core for a time slice stalls the region.) Idle threads spin for some 50 us, the
// pause between two kernels of a step, and then sleep, so a pause between steps leaves the core to other processes.
#pragma once

#include <cstdint>

namespace zenray {

using RangeWork = void (*)(void* context, int64_t begin, int64_t end);

// Calls work(context, begin, end) for ranges that cover [0, num_items), ascending, on at most num_threads threads, the
// caller among them. A claim takes the `share`-th part of what is left, at least one item, so early ranges are
// long (streams of weights stay unbroken) and late ones short (all finish together); share 0: always one item.
// While the team serves another caller, the caller does everything itself.
void share_out(int64_t num_threads, int64_t num_items, int64_t share, RangeWork work, void* context);

// Calls body(item) for every item, one at a time: for items of unequal cost, the costly ones first.
template <class Body>
void parallel_for(int64_t num_threads, int64_t num_items, const Body& body) {
    const auto work = [](void* context, int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) (*static_cast<const Body*>(context))(item);
    };
    share_out(num_threads, num_items, 0, work, const_cast<void*>(static_cast<const void*>(&body)));
}

// Calls body(begin, end) for consecutive ranges that are multiples of `grain` long, but for the last.
template <class Body>
void parallel_ranges(int64_t num_threads, int64_t num_items, int64_t grain, const Body& body) {
    struct Grains {
        const Body& body;
        int64_t num_items, grain;
    } grains{body, num_items, grain};
    const auto work = [](void* context, int64_t begin, int64_t end) {
        const auto& g = *static_cast<const Grains*>(context);
        g.body(begin * g.grain, end * g.grain < g.num_items ? end * g.grain : g.num_items);
    };
    share_out(num_threads, (num_items + grain - 1) / grain, 2 * num_threads, work, &grains);
}

// The grain for elementwise work on rows of `width`: what takes some 2 us, longer than sharing it out.
inline int64_t row_grain(int64_t width) { return width < 8192 ? 8192 / width : 1; }

}  // namespace zenray
