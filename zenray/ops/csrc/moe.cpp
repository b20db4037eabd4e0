// The feed-forwards of many experts at once, and the weighted sums of what they gave.
//
// The matrices of all experts are shared out as one list of strips: with a row or two for each expert, as in decoding,
// the threads read one long stream of weights and meet twice, not twice for each expert.
#include "linear.h"
#include "pool.h"
#include "silu.h"

#include <algorithm>
#include <vector>

namespace zenray {
namespace {

constexpr int64_t kPairsAtOnce = 4096;  // rows of intermediate results held together, if no expert alone has more

// SwiGLU of one expert over its rows of x, with its memory.
struct Expert {
    const Matrix *gate_up, *down;
    const int64_t* rows;
    int64_t num_rows;
    char *prepared_x, *prepared_hidden;
    bf16 *gate_up_out, *hidden;
    bf16* out;

    int64_t width() const { return down->num_columns; }
    Product first() const { return {*gate_up, prepared_x, num_rows, gate_up_out, false}; }
    Product second() const { return {*down, prepared_hidden, num_rows, out, false}; }
};

// Calls body(expert, begin, end) in parallel for ranges of the parts of all experts; count(expert) parts each.
template <class Count, class Body>
void for_parts(int64_t num_threads, const std::vector<Expert>& experts, int64_t grain, const Count& count,
               const Body& body) {
    std::vector<int64_t> ends;
    for (const Expert& expert : experts) ends.push_back((ends.empty() ? 0 : ends.back()) + count(expert));
    parallel_ranges(num_threads, ends.back(), grain, [&](int64_t begin, int64_t end) {
        auto e = static_cast<size_t>(std::upper_bound(ends.begin(), ends.end(), begin) - ends.begin());
        for (; begin < end; ++e) {
            const int64_t start = e ? ends[e - 1] : 0, stop = std::min(end, ends[e]);
            if (begin < stop) body(experts[e], begin - start, stop - start);
            begin = stop;
        }
    });
}

// Divides memory among the experts, each part 64-byte aligned, and returns the bytes used: with null, those needed.
size_t lay_out(std::vector<Expert>& experts, char* memory) {
    size_t used = 0;
    const auto take = [&](size_t bytes) {
        char* at = memory ? memory + used : nullptr;
        used += (bytes + 63) / 64 * 64;
        return at;
    };
    for (Expert& e : experts) {
        e.prepared_x = take(prepared_bytes(*e.gate_up, e.num_rows));
        e.gate_up_out = reinterpret_cast<bf16*>(take(static_cast<size_t>(e.num_rows * e.gate_up->num_rows) * 2));
        e.hidden = reinterpret_cast<bf16*>(take(static_cast<size_t>(e.num_rows * e.width()) * 2));
        e.prepared_hidden = take(prepared_bytes(*e.down, e.num_rows));
    }
    return used;
}

void run(std::vector<Expert>& experts, const bf16* x, int64_t num_threads) {
    static thread_local Scratch memory;
    lay_out(experts, memory.reserve(lay_out(experts, nullptr)));
    const auto tiles = [](const Expert& e) { return num_tiles(e.num_rows); };
    const auto rows_of = [](const Expert& e, int64_t tile) { return std::min(kTile, e.num_rows - tile * kTile); };
    const auto prepare_x = [=](const Expert& e, int64_t begin, int64_t end) {
        for (int64_t tile = begin; tile < end; ++tile) {
            const bf16* rows[kTile];
            for (int64_t r = 0; r < rows_of(e, tile); ++r)
                rows[r] = x + e.rows[tile * kTile + r] * e.gate_up->num_columns;
            prepare_tile(*e.gate_up, e.prepared_x, tile, rows, rows_of(e, tile));
        }
    };
    const auto gate = [=](const Expert& e, int64_t begin, int64_t end) {
        for (int64_t tile = begin; tile < end; ++tile) {
            const bf16* rows[kTile];
            for (int64_t r = 0; r < rows_of(e, tile); ++r) {
                const int64_t row = tile * kTile + r;
                bf16* hidden = e.hidden + row * e.width();
                silu_mul_row(hidden, e.gate_up_out + row * 2 * e.width(), e.width());
                rows[r] = hidden;
            }
            prepare_tile(*e.down, e.prepared_hidden, tile, rows, rows_of(e, tile));
        }
    };
    for_parts(num_threads, experts, tile_grain(*experts[0].gate_up), tiles, prepare_x);
    for_parts(num_threads, experts, 1, [](const Expert& e) { return num_strips(*e.gate_up); },
              [](const Expert& e, int64_t begin, int64_t end) { multiply_strips(e.first(), begin, end); });
    for_parts(num_threads, experts, tile_grain(*experts[0].down), tiles, gate);
    for_parts(num_threads, experts, 1, [](const Expert& e) { return num_strips(*e.down); },
              [](const Expert& e, int64_t begin, int64_t end) { multiply_strips(e.second(), begin, end); });
}

}  // namespace
}  // namespace zenray

// out [P, D]: the SwiGLU of each expert over its rows of x, which are counts[0] of rows [P] for the first, and so on.
// matrices: gate over up [2F, D] and down [D, F] of each expert in turn.
ZENRAY_EXPORT void zenray_swiglu_rows(zenray::bf16* out, const zenray::bf16* x, const zenray::Matrix* matrices,
                                      const int64_t* counts, int64_t num_experts, const int64_t* rows,
                                      int64_t num_threads) {
    using namespace zenray;
    std::vector<Expert> experts;
    int64_t num_pairs = 0;
    for (int64_t i = 0; i < num_experts; ++i) {
        if (!experts.empty() && num_pairs + counts[i] > kPairsAtOnce) {
            run(experts, x, num_threads);
            experts.clear();
            num_pairs = 0;
        }
        if (counts[i] > 0) {
            const Matrix *gate_up = matrices + 2 * i, *down = gate_up + 1;
            experts.push_back({gate_up, down, rows, counts[i], nullptr, nullptr, nullptr, nullptr, out});
            num_pairs += counts[i];
        }
        rows += counts[i];
        out += counts[i] * matrices[2 * i + 1].num_rows;
    }
    if (!experts.empty()) run(experts, x, num_threads);
}

// out [T, D] = the sum over k, in order, of weights[t, k] * y[pairs[t, k]], in float32.
ZENRAY_EXPORT void zenray_combine(zenray::bf16* out, const zenray::bf16* y, const int64_t* pairs, const float* weights,
                                  int64_t num_tokens, int64_t num_chosen, int64_t width, int64_t num_threads) {
    using namespace zenray;
    constexpr int64_t kBlock = 256;  // columns summed together
    parallel_ranges(num_threads, num_tokens, row_grain(width * num_chosen), [=](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
            for (int64_t column = 0; column < width; column += kBlock) {
                const int64_t count = std::min(kBlock, width - column);
                float sums[kBlock] = {};
                for (int64_t k = 0; k < num_chosen; ++k) {
                    const float weight = weights[t * num_chosen + k];
                    const bf16* from = y + pairs[t * num_chosen + k] * width + column;
                    for (int64_t d = 0; d < count; ++d) sums[d] += weight * to_float(from[d]);
                }
                for (int64_t d = 0; d < count; ++d) out[t * width + column + d] = to_bf16(sums[d]);
            }
        }
    });
}
