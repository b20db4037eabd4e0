// Products of a few rows of bfloat16 activations with a row-major bfloat16 matrix, bound by reading it once.
//
// Lanes run along K; each output element is one accumulator summed over K in order, then across its 16
// lanes, so results are bitwise independent of the number of rows and threads.
#include "common.h"

#include <algorithm>

namespace zenray {
namespace {

constexpr int64_t kTile = 8;         // rows of activations held in registers together
constexpr int64_t kPrefetch = 2048;  // bytes ahead in the stream of weights

struct Product {
    void* out;
    bool wide;
    const bf16* x;
    const bf16* weight;
    const bf16* bias;
    int64_t num_rows, num_columns;
};

// kOutputs rows of the matrix from `row` times kRows rows of activations from `token`.
template <int kOutputs, int kRows>
void dot_rows(const Product& p, int64_t row, int64_t token) {
    __m512 acc[kOutputs][kRows];
    for (auto& lane : acc)
        for (auto& a : lane) a = _mm512_setzero_ps();
    const bf16* weight = p.weight + row * p.num_columns;
    const bf16* x = p.x + token * p.num_columns;
    const auto step = [&](int64_t k, __mmask32 mask) {
        __m512bh w[kOutputs];
        for (int n = 0; n < kOutputs; ++n) {
            w[n] = (__m512bh)_mm512_maskz_loadu_epi16(mask, weight + n * p.num_columns + k);
            _mm_prefetch(weight + n * p.num_columns + k + kPrefetch, _MM_HINT_T0);
        }
        for (int r = 0; r < kRows; ++r) {
            const auto values = (__m512bh)_mm512_maskz_loadu_epi16(mask, x + r * p.num_columns + k);
            for (int n = 0; n < kOutputs; ++n) acc[n][r] = _mm512_dpbf16_ps(acc[n][r], w[n], values);
        }
    };
    int64_t k = 0;
    for (; k + 32 <= p.num_columns; k += 32) step(k, 0xffffffffu);
    if (k < p.num_columns) step(k, (1u << (p.num_columns - k)) - 1u);
    for (int n = 0; n < kOutputs; ++n) {
        const float bias = p.bias ? to_float(p.bias[row + n]) : 0.0f;
        for (int r = 0; r < kRows; ++r) {
            const float value = _mm512_reduce_add_ps(acc[n][r]) + bias;
            const int64_t at = (token + r) * p.num_rows + row + n;
            if (p.wide) {
                static_cast<float*>(p.out)[at] = value;
            } else {
                static_cast<bf16*>(p.out)[at] = to_bf16(value);
            }
        }
    }
}

template <int kRows>
void dot_range(const Product& p, int64_t begin, int64_t end, int64_t token) {
    constexpr int kOutputs = kRows <= 4 ? 4 : 2;  // at most 16 accumulators
    int64_t row = begin;
    for (; row + kOutputs <= end; row += kOutputs) dot_rows<kOutputs, kRows>(p, row, token);
    for (; row < end; ++row) dot_rows<1, kRows>(p, row, token);
}

using DotRange = void (*)(const Product&, int64_t, int64_t, int64_t);
constexpr DotRange kDotRange[kTile] = {dot_range<1>, dot_range<2>, dot_range<3>, dot_range<4>,
                                       dot_range<5>, dot_range<6>, dot_range<7>, dot_range<8>};

}  // namespace
}  // namespace zenray

// out [T, N] (float32 if `wide`, else bfloat16) = x [T, K] times weight [N, K] transposed, plus bias [N].
ZENRAY_EXPORT void zenray_linear_bf16(void* out, int64_t wide, const zenray::bf16* x, int64_t num_tokens,
                                      int64_t num_columns, int64_t num_rows, const zenray::bf16* weight,
                                      const zenray::bf16* bias, int64_t num_threads) {
    using namespace zenray;
    const Product p{out, wide != 0, x, weight, bias, num_rows, num_columns};
    parallel(num_threads, [&](int thread, int count) {
        const Range rows(num_rows, thread, count);
        constexpr int64_t kStrip = 4;  // rows that stay in L1 while every tile of activations meets them
        for (int64_t row = rows.begin; row < rows.end; row += kStrip)
            for (int64_t token = 0; token < num_tokens; token += kTile)
                kDotRange[std::min(kTile, num_tokens - token) - 1](p, row, std::min(row + kStrip, rows.end), token);
    });
}
