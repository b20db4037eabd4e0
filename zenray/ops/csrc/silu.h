// The gate of SwiGLU for one row: silu(first half) * second half.
#pragma once

#include "common.h"

namespace zenray {

inline void silu_mul_row(bf16* out, const bf16* gate_up, int64_t width) {
    const bf16 *gate = gate_up, *up = gate_up + width;
    for (int64_t i = 0; i < width; ++i) {
        const float g = to_float(gate[i]);
        out[i] = to_bf16(g / (1.0f + exp_approx(-g)) * to_float(up[i]));
    }
}

}  // namespace zenray
