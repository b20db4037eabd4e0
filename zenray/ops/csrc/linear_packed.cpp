// Products of bfloat16 activations with int8 and int4 panels (layouts: zenray/ops/packing.py).
//
// Activations are quantised to int8 in groups of 32 columns, each with its own float32 scale; groups are
// dotted exactly in int32 (VNNI) and summed in float32, group after group. A vector of weights holds
// four columns of 16 rows, so nothing is summed across lanes and every output element is computed by the same
// operations in the same order whatever the number of rows or threads: results are bitwise independent of both.
#include "linear.h"
#include "simd.h"

#include <algorithm>
#include <limits>

namespace zenray {
namespace {

constexpr int64_t kGroup = 32;          // columns that share a scale
constexpr int64_t kSuperblock = 8;      // groups that share the super-scales of int4
constexpr int64_t kPanel = 16;          // rows of the matrix in a panel
constexpr int64_t kPrefetch = 2048;     // bytes ahead in the stream of weights
constexpr int64_t kLine = 64;           // bytes the memory gives at once
constexpr int64_t kBlockBytes = 384 << 10;  // activations walked per pass over the panels: they stay in L2

// Up to kTile rows of quantised activations, interleaved by group: quants [G][rows][32], scales [G][rows] and
// sums [G][rows]. The sum is float(scale * sum of quants) for int4, int32(-128 * sum of quants) for int8.
struct Tile {
    const int8_t* quants;
    const float* scales;
    const int32_t* sums;
};

int64_t num_groups(const Matrix& m) { return (m.num_columns + kGroup - 1) / kGroup; }

int64_t tile_bytes(int64_t num_groups) { return kTile * num_groups * (kGroup + 8); }

Tile tile_at(const void* prepared, int64_t index, int64_t num_groups) {
    const char* base = static_cast<const char*>(prepared) + index * tile_bytes(num_groups);
    const char* scales = base + kTile * num_groups * kGroup;
    return {reinterpret_cast<const int8_t*>(base), reinterpret_cast<const float*>(scales),
            reinterpret_cast<const int32_t*>(scales + kTile * num_groups * 4)};
}

template <bool kInt4>
void quantise_tile(const Tile& tile, const bf16* const* x, int64_t rows, int64_t num_columns, int64_t num_groups) {
    auto* quants = const_cast<int8_t*>(tile.quants);
    auto* scales = const_cast<float*>(tile.scales);
    auto* sums = const_cast<int32_t*>(tile.sums);
    for (int64_t r = 0; r < rows; ++r) {
        const bf16* row = x[r];
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

// A panel of int8 weights: a group is 8 vectors, one for each step of 4 columns.
struct Int8Panel {
    static constexpr int64_t kGroupBytes = 512;
    const uint8_t* data;
    const float* row_scales;

    Int8Panel() = default;
    Int8Panel(const Matrix& m, int64_t panel)
        : data(static_cast<const uint8_t*>(m.data) + panel * num_groups(m) * 512),
          row_scales(static_cast<const float*>(m.scales) + panel * kPanel) {}

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
    static constexpr int64_t kGroupBytes = 256;
    const uint8_t* data;
    const uint8_t* codes;
    const uint16_t* supers;
    __m512 scale_unit, min_unit, scale, min;

    Int4Panel() = default;
    Int4Panel(const Matrix& m, int64_t panel)
        : data(static_cast<const uint8_t*>(m.data) + panel * num_groups(m) * 256),
          codes(static_cast<const uint8_t*>(m.scales) + panel * num_groups(m) * 32),
          supers(m.supers + panel * ((num_groups(m) + kSuperblock - 1) / kSuperblock) * 32) {}

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

// What one of several tiles fetches of the weights behind those it is multiplied with: together the tiles fetch the
// next panels, so that the first of them to need these does not wait for memory.
struct Ahead {
    const uint8_t* data;
    int64_t lines_per_group;
};

// kRows rows of activations times kPanels panels from `first` on. Two panels share each broadcast.
template <class Panel, int kPanels, int kRows>
void multiply(const Matrix& m, int64_t first, const Tile& x, const Ahead& ahead, void* out, bool wide,
              int64_t first_row) {
    Panel panels[kPanels];
    for (int p = 0; p < kPanels; ++p) panels[p] = Panel(m, first + p);
    // The lines to be written come while the product is computed: stores that wait for memory would hold up the next.
    const int64_t width_bytes = wide ? sizeof(float) : sizeof(bf16);
    for (int r = 0; r < kRows; ++r)
        for (int p = 0; p < kPanels; ++p)
            __builtin_prefetch(
                static_cast<char*>(out) + ((first_row + r) * m.num_rows + (first + p) * kPanel) * width_bytes, 1);
    alignas(64) float acc[kPanels][kRows][kPanel] = {};  // in L1: the registers are for the dots of a group
    for (int64_t g = 0, end = num_groups(m); g < end; ++g) {
        if (g % kSuperblock == 0)
            for (auto& panel : panels) panel.enter(g / kSuperblock);
        const int8_t* quants = x.quants + g * kRows * kGroup;
        const float* scales = x.scales + g * kRows;
        const int32_t* sums = x.sums + g * kRows;
        for (int64_t line = 0; line < ahead.lines_per_group; ++line)
            _mm_prefetch(ahead.data + (g * ahead.lines_per_group + line) * kLine, _MM_HINT_T1);
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
    const auto* bias_at = static_cast<const float*>(m.bias);
    for (int p = 0; p < kPanels; ++p) {
        const int64_t column = (first + p) * kPanel, width = std::min(kPanel, m.num_rows - column);
        const auto mask = static_cast<__mmask16>((1u << width) - 1u);
        const __m512 bias = bias_at ? _mm512_maskz_loadu_ps(mask, bias_at + column) : _mm512_setzero_ps();
        for (int r = 0; r < kRows; ++r) {
            const __m512 value = _mm512_add_ps(panels[p].finish(_mm512_load_ps(acc[p][r])), bias);
            store_masked(out, wide, (first_row + r) * m.num_rows + column, mask, value);
        }
    }
}

using Multiply = void (*)(const Matrix&, int64_t, const Tile&, const Ahead&, void*, bool, int64_t);

template <class Panel, int kPanels>
constexpr Multiply kMultiply[kTile] = {
    multiply<Panel, kPanels, 1>, multiply<Panel, kPanels, 2>, multiply<Panel, kPanels, 3>, multiply<Panel, kPanels, 4>,
    multiply<Panel, kPanels, 5>, multiply<Panel, kPanels, 6>, multiply<Panel, kPanels, 7>, multiply<Panel, kPanels, 8>};

template <class Panel>
void multiply_panels(const Product& p, int64_t first, int64_t last) {
    const Matrix& m = p.matrix;
    const int64_t groups = num_groups(m), tiles = num_tiles(p.num_tokens);
    const int64_t tiles_per_block = std::max<int64_t>(1, kBlockBytes / tile_bytes(groups));
    for (int64_t block = 0; block < tiles; block += tiles_per_block) {
        const int64_t block_end = std::min(tiles, block + tiles_per_block), count = block_end - block;
        const int64_t bytes = 2 * groups * Panel::kGroupBytes;  // of two panels; a single tile streams them anyhow
        const int64_t lines = count == 1 ? 0 : (bytes / kLine + count * groups - 1) / (count * groups);
        for (int64_t panel = first; panel < last; panel += 2) {
            const auto& by_rows = panel + 1 < last ? kMultiply<Panel, 2> : kMultiply<Panel, 1>;
            const uint8_t* next = Panel(m, panel).data + bytes;
            for (int64_t tile = block; tile < block_end; ++tile) {
                const int64_t row = tile * kTile, rows = std::min(kTile, p.num_tokens - row);
                const int64_t fetched = (tile - block) * groups * lines * kLine;
                const Ahead ahead{next + fetched, fetched < bytes ? lines : 0};
                by_rows[rows - 1](m, panel, tile_at(p.prepared, tile, groups), ahead, p.out, p.wide, row);
            }
        }
    }
}

}  // namespace

size_t packed_bytes(const Matrix& m, int64_t num_tokens) {
    return static_cast<size_t>(num_tiles(num_tokens) * tile_bytes(num_groups(m)));
}

void pack_tile(const Matrix& m, void* prepared, int64_t tile, const bf16* const* rows, int64_t num_rows) {
    const int64_t groups = num_groups(m);
    const auto quantise = m.format == Format::kInt4 ? quantise_tile<true> : quantise_tile<false>;
    quantise(tile_at(prepared, tile, groups), rows, num_rows, m.num_columns, groups);
}

void multiply_packed(const Product& p, int64_t begin, int64_t end) {
    constexpr int64_t kPanels = kStrip / kPanel;
    const int64_t last = std::min(end * kPanels, (p.matrix.num_rows + kPanel - 1) / kPanel);
    const auto multiply = p.matrix.format == Format::kInt4 ? multiply_panels<Int4Panel> : multiply_panels<Int8Panel>;
    multiply(p, begin * kPanels, last);
}

}  // namespace zenray
