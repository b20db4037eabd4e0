// The gate of SwiGLU: silu(first half) * second half.
#include "common.h"
#include "pool.h"

ZENRAY_EXPORT void zenray_silu_mul(zenray::bf16* out, const zenray::bf16* gate_up, int64_t num_rows, int64_t width,
                                   int64_t num_threads) {
    using namespace zenray;
    parallel_ranges(num_threads, num_rows, row_grain(width), [=](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
            const bf16 *gate = gate_up + t * 2 * width, *up = gate + width;
            bf16* to = out + t * width;
            for (int64_t i = 0; i < width; ++i) {
                const float g = to_float(gate[i]);
                to[i] = to_bf16(g / (1.0f + exp_approx(-g)) * to_float(up[i]));
            }
        }
    });
}
