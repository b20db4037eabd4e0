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
#include <type_traits>

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
            const __mmask16 nan = _mm512_cmp_ps_mask(low, high, _CMP_UNORD_Q);  // where either is
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

struct Matrix {
    const uint8_t* data;
    const void* scales;      // int8: float32 [P, 16]; int4: uint8 [P, G, 2, 16]
    const uint16_t* supers;  // int4: float16 [P, U, 2, 16]
    const float* bias;       // [N] or null
    int64_t num_rows, num_groups;
};

// A panel of int8 weights: a group is 8 vectors, one for each step of 4 columns.
struct Int8Panel {
    const uint8_t* data;
    const float* row_scales;

    Int8Panel() = default;
    Int8Panel(const Matrix& m, int64_t panel)
        : data(m.data + panel * m.num_groups * 512), row_scales(static_cast<const float*>(m.scales) + panel * kPanel) {}

    // The weights of steps i and i + 4 of group g.
    void load(int64_t g, int i, __m512i& first, __m512i& second) const {
        const uint8_t* at = data + g * 512 + i * 64;
        first = _mm512_loadu_si512(at);
        second = _mm512_loadu_si512(at + 256);
        _mm_prefetch(at + kPrefetch, _MM_HINT_T0);
        _mm_prefetch(at + 256 + kPrefetch, _MM_HINT_T0);
    }

    // Weights are held plus 128, which the dot product starts by taking back.
    static __m512i start(int32_t sum) { return _mm512_set1_epi32(sum); }
    void enter(int64_t) {}
    void read_scales(int64_t) {}
    __m512 add(__m512 acc, __m512i dots, float x_scale, int32_t) const {
        return _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), _mm512_set1_ps(x_scale), acc);
    }
    __m512 finish(__m512 acc) const { return _mm512_mul_ps(acc, _mm512_loadu_ps(row_scales)); }
};

// A panel of int4 weights: a group is 4 vectors, whose low nibbles are steps 0..3 and high nibbles steps 4..7.
struct Int4Panel {
    const uint8_t* data;
    const uint8_t* codes;
    const uint16_t* supers;
    __m512 scale_unit, min_unit, scale, min;

    Int4Panel() = default;
    Int4Panel(const Matrix& m, int64_t panel)
        : data(m.data + panel * m.num_groups * 256),
          codes(static_cast<const uint8_t*>(m.scales) + panel * m.num_groups * 32),
          supers(m.supers + panel * ((m.num_groups + kSuperblock - 1) / kSuperblock) * 32) {}

    void load(int64_t g, int i, __m512i& first, __m512i& second) const {
        const __m512i nibble = _mm512_set1_epi8(15);
        const uint8_t* at = data + g * 256 + i * 64;
        const __m512i packed = _mm512_loadu_si512(at);
        _mm_prefetch(at + kPrefetch, _MM_HINT_T0);
        first = _mm512_and_si512(packed, nibble);
        second = _mm512_and_si512(_mm512_srli_epi16(packed, 4), nibble);
    }

    static __m512i start(int32_t) { return _mm512_setzero_si512(); }
    void enter(int64_t superblock) {
        const auto unit = [&](int64_t which) {
            const uint16_t* at = supers + (superblock * 2 + which) * kPanel;
            return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
        };
        scale_unit = _mm512_mul_ps(unit(0), _mm512_set1_ps(1.0f / 4096));
        min_unit = _mm512_mul_ps(unit(1), _mm512_set1_ps(1.0f / 2048));
    }
    void read_scales(int64_t g) {
        const auto* at = reinterpret_cast<const __m128i*>(codes + g * 32);
        scale = _mm512_mul_ps(scale_unit, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(at))));
        min = _mm512_mul_ps(min_unit, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(at + 1))));
    }
    __m512 add(__m512 acc, __m512i dots, float x_scale, int32_t sum) const {
        float scaled_sum;
        std::memcpy(&scaled_sum, &sum, sizeof scaled_sum);
        acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), _mm512_mul_ps(scale, _mm512_set1_ps(x_scale)), acc);
        return _mm512_fmadd_ps(min, _mm512_set1_ps(scaled_sum), acc);
    }
    __m512 finish(__m512 acc) const { return acc; }
};

// kRows rows of activations times kPanels panels from `first` on. Two panels share each broadcast.
template <class Panel, int kPanels, int kRows>
void multiply(const Matrix& m, int64_t first, const Tile& x, void* out, bool wide, int64_t first_row) {
    Panel panels[kPanels];
    for (int p = 0; p < kPanels; ++p) panels[p] = Panel(m, first + p);
    alignas(64) float acc[kPanels][kRows][kPanel] = {};  // in L1: the registers are for the dots of a group
    for (int64_t g = 0; g < m.num_groups; ++g) {
        if (g % kSuperblock == 0)
            for (auto& panel : panels) panel.enter(g / kSuperblock);
        const int8_t* quants = x.quants + g * kRows * kGroup;
        const float* scales = x.scales + g * kRows;
        const int32_t* sums = x.sums + g * kRows;
        __m512i dots[kPanels][kRows];
        for (int p = 0; p < kPanels; ++p)
            for (int r = 0; r < kRows; ++r) dots[p][r] = Panel::start(sums[r]);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            __m512i weights[2][kPanels];
            for (int p = 0; p < kPanels; ++p) panels[p].load(g, i, weights[0][p], weights[1][p]);
            for (int half = 0; half < 2; ++half) {
                for (int r = 0; r < kRows; ++r) {
                    int32_t four;
                    std::memcpy(&four, quants + r * kGroup + half * 16 + i * 4, sizeof four);
                    const __m512i activations = _mm512_set1_epi32(four);
                    for (int p = 0; p < kPanels; ++p)
                        dots[p][r] = _mm512_dpbusd_epi32(dots[p][r], weights[half][p], activations);
                }
            }
        }
        for (int p = 0; p < kPanels; ++p) {
            panels[p].read_scales(g);
            for (int r = 0; r < kRows; ++r) {
                const __m512 sum = panels[p].add(_mm512_load_ps(acc[p][r]), dots[p][r], scales[r], sums[r]);
                _mm512_store_ps(acc[p][r], sum);
            }
        }
    }
    for (int p = 0; p < kPanels; ++p) {
        const int64_t column = (first + p) * kPanel, width = std::min(kPanel, m.num_rows - column);
        const auto mask = static_cast<__mmask16>((1u << width) - 1u);
        const __m512 bias = m.bias ? _mm512_maskz_loadu_ps(mask, m.bias + column) : _mm512_setzero_ps();
        for (int r = 0; r < kRows; ++r) {
            const __m512 value = _mm512_add_ps(panels[p].finish(_mm512_load_ps(acc[p][r])), bias);
            store_masked(out, wide, (first_row + r) * m.num_rows + column, mask, value);
        }
    }
}

using Multiply = void (*)(const Matrix&, int64_t, const Tile&, void*, bool, int64_t);

template <class Panel, int kPanels>
constexpr Multiply kMultiply[kTile] = {
    multiply<Panel, kPanels, 1>, multiply<Panel, kPanels, 2>, multiply<Panel, kPanels, 3>, multiply<Panel, kPanels, 4>,
    multiply<Panel, kPanels, 5>, multiply<Panel, kPanels, 6>, multiply<Panel, kPanels, 7>, multiply<Panel, kPanels, 8>};

template <class Panel>
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
            quantise_tile<std::is_same_v<Panel, Int4Panel>>(tile_at(scratch, tile, m.num_groups),
                                                            x + tile * kTile * num_columns, rows_of(tile), num_columns,
                                                            m.num_groups);
    });
    const int64_t num_panels = (m.num_rows + kPanel - 1) / kPanel;
    const int64_t tiles_per_block = std::max<int64_t>(1, kBlockBytes / bytes);
    parallel_ranges(num_threads, num_panels, 2, [&](int64_t begin, int64_t end) {
        for (int64_t block = 0; block < num_tiles; block += tiles_per_block) {
            const int64_t block_end = std::min(num_tiles, block + tiles_per_block);
            for (int64_t panel = begin; panel < end; panel += 2) {
                const auto& by_rows = panel + 1 < end ? kMultiply<Panel, 2> : kMultiply<Panel, 1>;
                for (int64_t tile = block; tile < block_end; ++tile)
                    by_rows[rows_of(tile) - 1](m, panel, tile_at(scratch, tile, m.num_groups), out, wide, tile * kTile);
            }
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
    linear<Int8Panel>(out, wide != 0, x, num_tokens, num_columns, m, num_threads);
}

ZENRAY_EXPORT void zenray_linear_int4(void* out, int64_t wide, const zenray::bf16* x, int64_t num_tokens,
                                      int64_t num_columns, int64_t num_rows, const uint8_t* data, const uint8_t* scales,
                                      const uint16_t* supers, const float* bias, int64_t num_threads) {
    using namespace zenray;
    const Matrix m{data, scales, supers, bias, num_rows, (num_columns + kGroup - 1) / kGroup};
    linear<Int4Panel>(out, wide != 0, x, num_tokens, num_columns, m, num_threads);
}
