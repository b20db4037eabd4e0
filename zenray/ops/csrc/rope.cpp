// Rotary embedding in place, and the write of new keys and values into the paged cache.
#include "common.h"
#include "pool.h"

namespace zenray {
namespace {

void rotate(bf16* head, const float* cos, const float* sin, int64_t half) {
    for (int64_t i = 0; i < half; ++i) {
        const float first = to_float(head[i]), second = to_float(head[half + i]);
        head[i] = to_bf16(first * cos[i] - second * sin[i]);
        head[half + i] = to_bf16(second * cos[i] + first * sin[i]);
    }
}

}  // namespace
}  // namespace zenray

// q [T, H, C] and k [T, K, C], heads contiguous within a token, tokens `*_stride` elements apart.
// cos_sin [P, C] float32: row p holds cos then sin of position p.
ZENRAY_EXPORT void zenray_rope(zenray::bf16* q, zenray::bf16* k, const int64_t* positions, const float* cos_sin,
                               int64_t num_tokens, int64_t num_heads, int64_t num_kv_heads, int64_t head_dim,
                               int64_t q_stride, int64_t k_stride, int64_t num_threads) {
    using namespace zenray;
    const int64_t grain = row_grain((num_heads + num_kv_heads) * head_dim), half = head_dim / 2;
    parallel_ranges(num_threads, num_tokens, grain, [=](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
            const float* cos = cos_sin + positions[t] * head_dim;
            for (int64_t h = 0; h < num_heads; ++h) rotate(q + t * q_stride + h * head_dim, cos, cos + half, half);
            for (int64_t h = 0; h < num_kv_heads; ++h) rotate(k + t * k_stride + h * head_dim, cos, cos + half, half);
        }
    });
}

// k, v [T, K, C] into keys, values [num_blocks, K, block_size, C] at slots [T] (block * block_size + offset).
ZENRAY_EXPORT void zenray_write_kv(const zenray::bf16* k, const zenray::bf16* v, zenray::bf16* keys,
                                   zenray::bf16* values, const int64_t* slots, int64_t num_tokens, int64_t num_kv_heads,
                                   int64_t head_dim, int64_t block_size, int64_t k_stride, int64_t v_stride,
                                   int64_t num_threads) {
    using namespace zenray;
    const size_t bytes = static_cast<size_t>(head_dim) * sizeof(bf16);
    parallel_ranges(num_threads, num_tokens, row_grain(num_kv_heads * head_dim), [=](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
            const int64_t block = slots[t] / block_size, offset = slots[t] % block_size;
            for (int64_t h = 0; h < num_kv_heads; ++h) {
                const int64_t to = ((block * num_kv_heads + h) * block_size + offset) * head_dim;
                std::memcpy(keys + to, k + t * k_stride + h * head_dim, bytes);
                std::memcpy(values + to, v + t * v_stride + h * head_dim, bytes);
            }
        }
    });
}
