// One matrix times a step's activations, and which kernels serve which format.
#include "linear.h"

#include <algorithm>

#include "pool.h"

namespace zenray {

size_t prepared_bytes(const Matrix& m, int64_t num_tokens) {
    if (m.format != Format::kBf16) return packed_bytes(m, num_tokens);
    return static_cast<size_t>(num_tokens * m.num_columns) * sizeof(bf16);
}

void prepare_tile(const Matrix& m, void* prepared, int64_t tile, const bf16* const* rows, int64_t num_rows) {
    if (m.format != Format::kBf16) return pack_tile(m, prepared, tile, rows, num_rows);
    bf16* to = static_cast<bf16*>(prepared) + tile * kTile * m.num_columns;
    for (int64_t r = 0; r < num_rows; ++r)
        std::memcpy(to + r * m.num_columns, rows[r], static_cast<size_t>(m.num_columns) * sizeof(bf16));
}

void multiply_strips(const Product& p, int64_t begin, int64_t end) {
    if (p.matrix.format == Format::kBf16) {
        multiply_bf16(p, begin, end);
    } else {
        multiply_packed(p, begin, end);
    }
}

}  // namespace zenray

// out [T, N] (float32 if `wide`, else bfloat16) = x [T, K] times the matrix transposed, plus bias.
ZENRAY_EXPORT void zenray_linear(void* out, int64_t wide, const zenray::bf16* x, int64_t num_tokens,
                                 const zenray::Matrix* matrix, int64_t num_threads) {
    using namespace zenray;
    const Matrix& m = *matrix;
    const void* prepared = x;
    if (m.format != Format::kBf16) {
        static thread_local Scratch memory;
        char* tiles = memory.reserve(prepared_bytes(m, num_tokens));
        parallel_ranges(num_threads, num_tiles(num_tokens), tile_grain(m), [&](int64_t begin, int64_t end) {
            for (int64_t tile = begin; tile < end; ++tile) {
                const bf16* rows[kTile];
                const int64_t num_rows = std::min(kTile, num_tokens - tile * kTile);
                for (int64_t r = 0; r < num_rows; ++r) rows[r] = x + (tile * kTile + r) * m.num_columns;
                prepare_tile(m, tiles, tile, rows, num_rows);
            }
        });
        prepared = tiles;
    }
    const Product product{m, prepared, num_tokens, out, wide != 0};
    parallel_ranges(num_threads, num_strips(m), 1,
                    [&](int64_t begin, int64_t end) { multiply_strips(product, begin, end); });
}
