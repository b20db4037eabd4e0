// Root-mean-square norms over rows of bfloat16, accumulated in float32.
#include "common.h"
#include "pool.h"

namespace zenray {
namespace {

// out = x / rms(x) * weight, and before that x += added when it is given.
template <class Weight>
void norm_row(bf16* out, bf16* x, const bf16* added, const Weight* weight, int64_t width, float eps) {
    float lanes[16] = {};
    int64_t d = 0;
    for (; d + 16 <= width; d += 16) {
        for (int64_t i = 0; i < 16; ++i) {
            if (added) x[d + i] = to_bf16(to_float(x[d + i]) + to_float(added[d + i]));
            const float value = to_float(x[d + i]);
            lanes[i] += value * value;
        }
    }
    for (; d < width; ++d) {
        if (added) x[d] = to_bf16(to_float(x[d]) + to_float(added[d]));
        lanes[d % 16] += to_float(x[d]) * to_float(x[d]);
    }
    float sum = 0.0f;
    for (float lane : lanes) sum += lane;
    const float inverse = 1.0f / __builtin_sqrtf(sum / static_cast<float>(width) + eps);
    for (d = 0; d < width; ++d) out[d] = to_bf16(to_float(x[d]) * inverse * to_float(weight[d]));
}

template <class Weight>
void norm(bf16* out, bf16* x, bf16* residual, const Weight* weight, int64_t num_rows, int64_t width, float eps,
          int64_t num_threads) {
    parallel_ranges(num_threads, num_rows, row_grain(width), [=](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
            bf16* row = x + t * width;
            norm_row(out + t * width, residual ? residual + t * width : row, residual ? row : nullptr, weight, width,
                     eps);
        }
    });
}

}  // namespace
}  // namespace zenray

// out [T, D] = rms_norm(x [T, D]) * weight [D], which is float32 if `wide` and bfloat16 otherwise. With
// `residual`: residual += x first, and the norm is of the residual.
ZENRAY_EXPORT void zenray_rms_norm(zenray::bf16* out, zenray::bf16* x, zenray::bf16* residual, const void* weight,
                                   int64_t wide, int64_t num_rows, int64_t width, float eps, int64_t num_threads) {
    using namespace zenray;
    if (wide) {
        norm(out, x, residual, static_cast<const float*>(weight), num_rows, width, eps, num_threads);
    } else {
        norm(out, x, residual, static_cast<const bf16*>(weight), num_rows, width, eps, num_threads);
    }
}
