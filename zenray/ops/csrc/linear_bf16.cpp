// Products of bfloat16 activations with a row-major bfloat16 matrix, accumulated in float32.
//
// A strip of 32 rows of the matrix is transposed, 256 columns at a time, so that one vector holds a pair of
// columns of 16 rows; each pair is then multiplied with one broadcast pair of activations. The transposition
// costs less than reading the strip from memory, and every output element is one accumulator summed over pairs
// of columns in order: results are bitwise independent of the number of rows and threads.
#include "linear.h"
#include "simd.h"

#include <algorithm>

namespace zenray {
namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kChunk = 256;  // columns transposed together: 16 KiB, a third of L1
constexpr int64_t kAhead = 128;  // columns whose cache lines are asked for early
constexpr int64_t kPairs = kChunk / 2;
static_assert(kStrip == 2 * kLanes);

struct Operands {
    void* out;
    bool wide;
    const bf16* x;
    const bf16* weight;
    const bf16* bias;
    int64_t num_tokens, num_rows, num_columns;
};

// strip[pair][half][lane] = columns (2*pair, 2*pair + 1) from `column` on of row `row + half * 16 + lane`.
void load_strip(const Operands& p, int64_t row, int64_t column, int64_t width, __m512i* strip) {
    for (int64_t half = 0; half < 2; ++half) {
        for (int64_t k = 0; k < width; k += 32) {
            const __mmask32 mask = width - k >= 32 ? 0xffffffffu : (1u << (width - k)) - 1u;
            __m512i r[16];
            for (int64_t lane = 0; lane < kLanes; ++lane) {
                const int64_t n = std::min(row + half * kLanes + lane, p.num_rows - 1);
                const bf16* at = p.weight + n * p.num_columns + column + k;
                r[lane] = _mm512_maskz_loadu_epi16(mask, at);
                // Past the end of a row, its stream goes on in the next strip.
                const bool same_row = column + k + kAhead < p.num_columns;
                _mm_prefetch(at + kAhead + (same_row ? 0 : (kStrip - 1) * p.num_columns), _MM_HINT_T0);
            }
            transpose(r);
            for (int64_t i = 0; i < 16; ++i) strip[(k / 2 + i) * 2 + half] = r[i];
        }
    }
}

// acc [rows][2] += the strip's columns times the activations' of kRows rows. Meanwhile asks for the chunk of the matrix
// at `next`, if given: memory would rest otherwise.
template <int kRows>
void multiply(const Operands& p, const __m512i* strip, int64_t token, int64_t column, int64_t width, __m512* sums,
              const bf16* next) {
    __m512 acc[kRows][2];
    for (int r = 0; r < kRows; ++r)
        for (int half = 0; half < 2; ++half) acc[r][half] = sums[r * 2 + half];
    const bf16* x = p.x + token * p.num_columns + column;
    const auto step = [&](int64_t pair, auto load) {
        const __m512i low = strip[pair * 2], high = strip[pair * 2 + 1];
        for (int r = 0; r < kRows; ++r) {
            const __m512i both = _mm512_set1_epi32(load(x + r * p.num_columns + pair * 2));
            acc[r][0] = dot2(acc[r][0], low, both);
            acc[r][1] = dot2(acc[r][1], high, both);
        }
    };
    for (int64_t pair = 0; pair < width / 2; ++pair) {
        if (next) {  // two lines for each pair: 32 rows of 8 lines for 128 pairs
            const bf16* lines = next + pair / 4 * p.num_columns + pair % 4 * 64;
            _mm_prefetch(lines, _MM_HINT_T0);
            _mm_prefetch(lines + 32, _MM_HINT_T0);
        }
        step(pair, [](const bf16* at) {
            int32_t both;
            std::memcpy(&both, at, sizeof both);
            return both;
        });
    }
    if (width % 2) step(width / 2, [](const bf16* at) { return static_cast<int32_t>(*at); });
    for (int r = 0; r < kRows; ++r)
        for (int half = 0; half < 2; ++half) sums[r * 2 + half] = acc[r][half];
}

using Multiply = void (*)(const Operands&, const __m512i*, int64_t, int64_t, int64_t, __m512*, const bf16*);
constexpr Multiply kMultiply[kTile] = {multiply<1>, multiply<2>, multiply<3>, multiply<4>,
                                       multiply<5>, multiply<6>, multiply<7>, multiply<8>};

void store(const Operands& p, int64_t row, const __m512* sums) {
    for (int64_t half = 0; half < 2; ++half) {
        const int64_t column = row + half * kLanes, width = std::min(kLanes, p.num_rows - column);
        if (width <= 0) return;
        const auto mask = static_cast<__mmask16>((1u << width) - 1u);
        __m512 bias = _mm512_setzero_ps();
        if (p.bias) bias = widen(_mm256_maskz_loadu_epi16(mask, p.bias + column));
        for (int64_t t = 0; t < p.num_tokens; ++t) {
            const __m512 value = _mm512_add_ps(sums[t * 2 + half], bias);
            store_masked(p.out, p.wide, t * p.num_rows + column, mask, value);
        }
    }
}

}  // namespace

void multiply_bf16(const Product& product, int64_t begin, int64_t end) {
    const Matrix& m = product.matrix;
    const Operands p{product.out,
                     product.wide,
                     static_cast<const bf16*>(product.prepared),
                     static_cast<const bf16*>(m.data),
                     static_cast<const bf16*>(m.bias),
                     product.num_tokens,
                     m.num_rows,
                     m.num_columns};
    static thread_local Scratch memory;
    const size_t sums_bytes = static_cast<size_t>(p.num_tokens) * 2 * sizeof(__m512);
    auto* strip = reinterpret_cast<__m512i*>(memory.reserve(kPairs * 2 * sizeof(__m512i) + sums_bytes));
    auto* sums = reinterpret_cast<__m512*>(strip + kPairs * 2);
    for (int64_t row = begin * kStrip; row < end * kStrip; row += kStrip) {
        std::memset(static_cast<void*>(sums), 0, sums_bytes);
        for (int64_t column = 0; column < p.num_columns; column += kChunk) {
            const int64_t width = std::min(kChunk, p.num_columns - column);
            load_strip(p, row, column, width, strip);
            const bool last = column + kChunk >= p.num_columns;
            const bf16* next =
                p.weight + (last ? (row + kStrip) * p.num_columns : row * p.num_columns + column + kChunk);
            for (int64_t token = 0; token < p.num_tokens; token += kTile)
                kMultiply[std::min(kTile, p.num_tokens - token) - 1](p, strip, token, column, width, sums + token * 2,
                                                                     token == 0 ? next : nullptr);
        }
        store(p, row, sums);
    }
}

}  // namespace zenray
