// Reading memory and nothing else: the bound that products with few rows are judged against.
#include "pool.h"
#include "simd.h"

#include <atomic>

// Reads `bytes` (a multiple of 256) from `data` on; the sum of what is read keeps the reads from being left out.
ZENRAY_EXPORT void zenray_read(int64_t* sum, const char* data, int64_t bytes, int64_t num_threads) {
    using namespace zenray;
    constexpr int64_t kStep = 256;
    std::atomic<int64_t> total{0};
    parallel_ranges(num_threads, bytes / kStep, 4096, [&](int64_t begin, int64_t end) {
        __m512i sums[4] = {};
        for (const char* at = data + begin * kStep; at < data + end * kStep; at += kStep) {
            _mm_prefetch(at + 4096, _MM_HINT_T0);
            _mm_prefetch(at + 4096 + 128, _MM_HINT_T0);
            for (int i = 0; i < 4; ++i) sums[i] = _mm512_add_epi64(sums[i], _mm512_loadu_si512(at + i * 64));
        }
        const __m512i both = _mm512_add_epi64(_mm512_add_epi64(sums[0], sums[1]), _mm512_add_epi64(sums[2], sums[3]));
        total.fetch_add(_mm512_reduce_add_epi64(both), std::memory_order_relaxed);
    });
    *sum = total.load();
}
