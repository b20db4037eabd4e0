#include "silu.h"

#include "pool.h"

// out [T, F] = silu_mul_row of gate_up [T, 2F].
ZENRAY_EXPORT void zenray_silu_mul(zenray::bf16* out, const zenray::bf16* gate_up, int64_t num_rows, int64_t width,
                                   int64_t num_threads) {
    using namespace zenray;
    parallel_ranges(num_threads, num_rows, row_grain(width), [=](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) silu_mul_row(out + t * width, gate_up + t * 2 * width, width);
    });
}
