// Products of bfloat16 activations with int8 and int4 panels (layouts: zenray/ops/packing.py).
//
// Activations are quantised to int8 in groups of 32 columns, each with its own float32 scale; groups are
// dotted exactly in int32 (VNNI) and summed in float32, group after group. A vector of weights holds
// four columns of 16 rows, so nothing is summed across lanes and every output element is computed by the same
// operations in the same order whatever the number of rows or threads: results are bitwise independent of both.
#include "common.h"
#include "pool.h"
#include "simd.h"

#include <algorithm>
#include <limits>

namespace zenray {
namespace {

constexpr int64_t kGroup = 32;          // columns that share a scale
constexpr int64_t kSuperblock = 8;      // groups that share the super-scales of int4
constexpr int64_t kPanel = 16;          // rows of the matrix in a panel
constexpr int64_t kTile = 8;            // rows of activations held in registers together
constexpr int64_t kPrefetch = 2048;     // bytes ahead in the stream of weights
constexpr int64_t kBlockBytes = 384 << 10;  // activations walked per pass over the panels: they stay in L2

// Up to kTile rows of quantised activations, interleaved by group: quants [G][rows][32], scales [G][rows] and
// sums [G][rows]. The sum is float(scale * sum of quants) for int4, int32(-128 * sum of quants) for int8.
struct Tile {
    const int8_t* quants;
    const float* scales;
    const int32_t* sums;
};

int64_t tile_bytes(int64_t num_groups) { return kTile * num_groups * (kGroup + 8); }

Tile tile_at(const char* scratch, int64_t index, int64_t num_groups) {
    const char* base = scratch + index * tile_bytes(num_groups);
    const char* scales = base + kTile * num_groups * kGroup;
    return {reinterpret_cast<const int8_t*>(base), reinterpret_cast<const float*>(scales),
            reinterpret_cast<const int32_t*>(scales + kTile * num_groups * 4)};
}

template <bool kInt4>
void quantise_tile(const Tile& tile, const bf16* x, int64_t rows, int64_t num_columns, int64_t num_groups) {
    auto* quants = const_cast<int8_t*>(tile.quants);
    auto* scales = const_cast<float*>(tile.scales);
    auto* sums = const_cast<int32_t*>(tile.sums);
    for (int64_t r = 0; r < rows; ++r) {
        const bf16* row = x + r * num_columns;
        for (int64_t g = 0; g < num_groups; ++g) {
            const int64_t left = num_columns - g * kGroup;
            const __mmask32 mask = left >= kGroup ? 0xffffffffu : (1u << left) - 1u;
            const __m512i pairs = _mm512_maskz_loadu_epi16(mask, row + g * kGroup);
            const __m512 low = widen(_mm512_castsi512_si256(pairs));
            const __m512 high = widen(_mm512_extracti64x4_epi64(pairs, 1));
            const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
            const __mmask16 nan = _mm512_cmp_ps_mask(low, low, _CMP_UNORD_Q) | _mm512_cmp_ps_mask(high, high, _CMP_UNORD_Q);
            const float scale = nan ? std::numeric_limits<float>::quiet_NaN() : largest / 127.0f;
            const __m512 inverse = _mm512_set1_ps(largest > 0.0f ? 127.0f / largest : 0.0f);
            const __m512i first = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
            const __m512i second = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
            const int32_t sum = _mm512_reduce_add_epi32(_mm512_add_epi32(first, second));
            const int64_t at = g * rows + r;
            _mm_storeu_si128(reinterpret_cast<__m128i*>(quants + at * kGroup), _mm512_cvtsepi32_epi8(first));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(quants + at * kGroup + 16), _mm512_cvtsepi32_epi8(second));
            scales[at] = scale;
            if (kInt4) {
                const float scaled = scale * static_cast<float>(sum);
                std::memcpy(sums + at, &scaled, sizeof scaled);
            } else {
                sums[at] = -128 * sum;
            }
        }
    }
}

// acc += the four columns `step` of the group, for one row of activations.
inline __m512i dot4(__m512i acc, __m512i weights, const int8_t* quants, int step) {
    int32_t four;
    std::memcpy(&four, quants + step * 4, sizeof four);
    return _mm512_dpbusd_epi32(acc, weights, _mm512_set1_epi32(four));
}

struct Matrix {
    const uint8_t* data;
    const void* scales;      // int8: float32 [P, 16]; int4: uint8 [P, G, 2, 16]
    const uint16_t* supers;  // int4: float16 [P, U, 2, 16]
    const float* bias;       // [N] or null
    int64_t num_rows, num_groups;
};

template <int kRows>
void panel_int8(const Matrix& m, int64_t panel, const Tile& x, __m512* out) {
    __m512 acc[kRows];
    for (auto& a : acc) a = _mm512_setzero_ps();
    const uint8_t* data = m.data + panel * m.num_groups * 512;
    for (int64_t g = 0; g < m.num_groups; ++g, data += 512) {
        const int8_t* quants = x.quants + g * kRows * kGroup;
        __m512i dots[kRows];
        for (int r = 0; r < kRows; ++r) dots[r] = _mm512_set1_epi32(x.sums[g * kRows + r]);
        for (int step = 0; step < 8; ++step) {
            const __m512i weights = _mm512_loadu_si512(data + step * 64);
            _mm_prefetch(data + step * 64 + kPrefetch, _MM_HINT_T0);
            for (int r = 0; r < kRows; ++r) dots[r] = dot4(dots[r], weights, quants + r * kGroup, step);
        }
        for (int r = 0; r < kRows; ++r)
            acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r]), _mm512_set1_ps(x.scales[g * kRows + r]), acc[r]);
    }
    const __m512 scale = _mm512_loadu_ps(static_cast<const float*>(m.scales) + panel * kPanel);
    for (int r = 0; r < kRows; ++r) out[r] = _mm512_mul_ps(acc[r], scale);
}

template <int kRows>
void panel_int4(const Matrix& m, int64_t panel, const Tile& x, __m512* out) {
    __m512 acc[kRows];
    for (auto& a : acc) a = _mm512_setzero_ps();
    const int64_t num_supers = (m.num_groups + kSuperblock - 1) / kSuperblock;
    const uint8_t* data = m.data + panel * m.num_groups * 256;
    const uint8_t* codes = static_cast<const uint8_t*>(m.scales) + panel * m.num_groups * 32;
    const uint16_t* supers = m.supers + panel * num_supers * 32;
    const __m512i nibble = _mm512_set1_epi8(15);
    const auto* sums = reinterpret_cast<const float*>(x.sums);
    for (int64_t u = 0; u < num_supers; ++u, supers += 32) {
        const __m512 scale_unit =
            _mm512_mul_ps(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(supers))),
                          _mm512_set1_ps(1.0f / 4096));
        const __m512 min_unit =
            _mm512_mul_ps(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(supers + 16))),
                          _mm512_set1_ps(1.0f / 2048));
        const int64_t last = std::min(m.num_groups, (u + 1) * kSuperblock);
        for (int64_t g = u * kSuperblock; g < last; ++g, data += 256, codes += 32) {
            __m512i weights[8];
            for (int i = 0; i < 4; ++i) {
                const __m512i packed = _mm512_loadu_si512(data + i * 64);
                _mm_prefetch(data + i * 64 + kPrefetch, _MM_HINT_T0);
                weights[i] = _mm512_and_si512(packed, nibble);
                weights[i + 4] = _mm512_and_si512(_mm512_srli_epi16(packed, 4), nibble);
            }
            const __m128i scale_codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
            const __m128i min_codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + 16));
            const __m512 scale = _mm512_mul_ps(scale_unit, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(scale_codes)));
            const __m512 min = _mm512_mul_ps(min_unit, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(min_codes)));
            const int8_t* quants = x.quants + g * kRows * kGroup;
            __m512i dots[kRows];
            for (auto& d : dots) d = _mm512_setzero_si512();
            for (int step = 0; step < 8; ++step)
                for (int r = 0; r < kRows; ++r) dots[r] = dot4(dots[r], weights[step], quants + r * kGroup, step);
            for (int r = 0; r < kRows; ++r) {
                const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(x.scales[g * kRows + r]));
                acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r]), both, acc[r]);
                acc[r] = _mm512_fmadd_ps(min, _mm512_set1_ps(sums[g * kRows + r]), acc[r]);
            }
        }
    }
    for (int r = 0; r < kRows; ++r) out[r] = acc[r];
}

template <bool kInt4, int kRows>
void panel_rows(const Matrix& m, int64_t panel, const Tile& x, void* out, bool wide, int64_t first_row) {
    __m512 sums[kRows];
    if (kInt4) {
        panel_int4<kRows>(m, panel, x, sums);
    } else {
        panel_int8<kRows>(m, panel, x, sums);
    }
    const int64_t column = panel * kPanel, width = std::min(kPanel, m.num_rows - column);
    const auto mask = static_cast<__mmask16>((1u << width) - 1u);
    const __m512 bias = m.bias ? _mm512_maskz_loadu_ps(mask, m.bias + column) : _mm512_setzero_ps();
    for (int r = 0; r < kRows; ++r) {
        store_masked(out, wide, (first_row + r) * m.num_rows + column, mask, _mm512_add_ps(sums[r], bias));
    }
}

using PanelRows = void (*)(const Matrix&, int64_t, const Tile&, void*, bool, int64_t);

template <bool kInt4>
constexpr PanelRows kPanelRows[kTile] = {panel_rows<kInt4, 1>, panel_rows<kInt4, 2>, panel_rows<kInt4, 3>,
                                         panel_rows<kInt4, 4>, panel_rows<kInt4, 5>, panel_rows<kInt4, 6>,
                                         panel_rows<kInt4, 7>, panel_rows<kInt4, 8>};

template <bool kInt4>
void linear(void* out, bool wide, const bf16* x, int64_t num_tokens, int64_t num_columns, const Matrix& m,
            int64_t num_threads) {
    static thread_local Scratch memory;
    const int64_t num_tiles = (num_tokens + kTile - 1) / kTile;
    const int64_t bytes = tile_bytes(m.num_groups);
    char* scratch = memory.reserve(static_cast<size_t>(num_tiles * bytes));
    const auto rows_of = [=](int64_t tile) { return std::min(kTile, num_tokens - tile * kTile); };
    const int64_t tile_grain = std::max<int64_t>(1, 2 * kGroup / m.num_groups);
    parallel_ranges(num_threads, num_tiles, tile_grain, [&](int64_t begin, int64_t end) {
        for (int64_t tile = begin; tile < end; ++tile)
            quantise_tile<kInt4>(tile_at(scratch, tile, m.num_groups), x + tile * kTile * num_columns, rows_of(tile),
                                 num_columns, m.num_groups);
    });
    const int64_t num_panels = (m.num_rows + kPanel - 1) / kPanel;
    const int64_t tiles_per_block = std::max<int64_t>(1, kBlockBytes / bytes);
    parallel_ranges(num_threads, num_panels, 1, [&](int64_t begin, int64_t end) {
        for (int64_t block = 0; block < num_tiles; block += tiles_per_block) {
            const int64_t block_end = std::min(num_tiles, block + tiles_per_block);
            for (int64_t panel = begin; panel < end; ++panel)
                for (int64_t tile = block; tile < block_end; ++tile)
                    kPanelRows<kInt4>[rows_of(tile) - 1](m, panel, tile_at(scratch, tile, m.num_groups), out, wide,
                                                         tile * kTile);
        }
    });
}

}  // namespace
}  // namespace zenray

// out [T, N] (float32 if `wide`, else bfloat16) = x [T, K] times the packed matrix [N, K] transposed, plus bias [N].
ZENRAY_EXPORT void zenray_linear_int8(void* out, int64_t wide, const zenray::bf16* x, int64_t num_tokens,
                                      int64_t num_columns, int64_t num_rows, const uint8_t* data, const float* scales,
                                      const float* bias, int64_t num_threads) {
    using namespace zenray;
    const Matrix m{data, scales, nullptr, bias, num_rows, (num_columns + kGroup - 1) / kGroup};
    linear<false>(out, wide != 0, x, num_tokens, num_columns, m, num_threads);
}

ZENRAY_EXPORT void zenray_linear_int4(void* out, int64_t wide, const zenray::bf16* x, int64_t num_tokens,
                                      int64_t num_columns, int64_t num_rows, const uint8_t* data, const uint8_t* scales,
                                      const uint16_t* supers, const float* bias, int64_t num_threads) {
    using namespace zenray;
    const Matrix m{data, scales, supers, bias, num_rows, (num_columns + kGroup - 1) / kGroup};
    linear<true>(out, wide != 0, x, num_tokens, num_columns, m, num_threads);
}
