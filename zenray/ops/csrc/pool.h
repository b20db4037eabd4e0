// A team of threads that shares out chunks of work, made for cores that are also wanted by others.
//
// The caller never waits for a thread to arrive: it takes chunks itself, and whoever of the team is running takes
// the rest; at the end it waits only for chunks somebody holds. (An OpenMP region waits for every thread of its team,
// so one thread that lost its core for a time slice stalls the region.) Idle threads spin for some 50 us, the
// pause between two kernels of a step, and then sleep, so a pause between steps leaves the core to other processes.
#pragma once

#include <cstdint>

namespace zenray {

// Calls work(context, chunk) for every chunk of [0, num_chunks) on at most num_threads threads, the caller among
// them. While the team serves another caller, the caller does all chunks itself.
void share_out(int64_t num_threads, int64_t num_chunks, void (*work)(void*, int64_t), void* context);

template <class Work>
void parallel_for(int64_t num_threads, int64_t num_chunks, const Work& work) {
    if (num_threads <= 1 || num_chunks <= 1) {
        for (int64_t chunk = 0; chunk < num_chunks; ++chunk) work(chunk);
        return;
    }
    share_out(
        num_threads, num_chunks,
        [](void* context, int64_t chunk) { (*static_cast<const Work*>(context))(chunk); },
        const_cast<void*>(static_cast<const void*>(&work)));
}

// Calls body(begin, end) for consecutive ranges of at most `grain` items.
template <class Body>
void parallel_ranges(int64_t num_threads, int64_t num_items, int64_t grain, const Body& body) {
    parallel_for(num_threads, (num_items + grain - 1) / grain, [&](int64_t chunk) {
        const int64_t begin = chunk * grain, end = begin + grain;
        body(begin, end < num_items ? end : num_items);
    });
}

// The grain for elementwise work on rows of `width`: what takes some 2 us, longer than sharing it out.
inline int64_t row_grain(int64_t width) { return width < 8192 ? 8192 / width : 1; }

}  // namespace zenray
