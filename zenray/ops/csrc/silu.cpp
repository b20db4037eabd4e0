// The gate of SwiGLU: silu(first half) * second half.
#include "common.h"

#include <algorithm>

ZENRAY_EXPORT void zenray_silu_mul(zenray::bf16* out, const zenray::bf16* gate_up, int64_t num_rows, int64_t width,
                                   int64_t num_threads) {
    using namespace zenray;
    parallel(team_size(num_rows * width, num_threads), [=](int thread, int count) {
        // Split by elements rather than rows, so that one long row is shared too.
        const Range part(num_rows * width, thread, count);
        for (int64_t begin = part.begin; begin < part.end;) {
            const int64_t row = begin / width, column = begin % width;
            const int64_t length = std::min(width - column, part.end - begin);
            const bf16* gate = gate_up + row * 2 * width + column;
            const bf16* up = gate + width;
            bf16* to = out + begin;
            for (int64_t i = 0; i < length; ++i) {
                const float g = to_float(gate[i]);
                to[i] = to_bf16(g / (1.0f + exp_approx(-g)) * to_float(up[i]));
            }
            begin += length;
        }
    });
}
