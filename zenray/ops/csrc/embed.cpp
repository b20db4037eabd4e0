// Rows of a packed embedding table (layouts: zenray/ops/packing.py), dequantised to bfloat16.
#include "pool.h"
#include "simd.h"

#include <algorithm>

namespace zenray {
namespace {

constexpr int64_t kPanel = 16;      // rows of the table interleaved in a panel
constexpr int64_t kGroup = 32;      // columns that share a scale
constexpr int64_t kSuperblock = 8;  // groups that share the super-scales of int4

void embed_int8(bf16* out, int64_t row, int64_t num_columns, int64_t num_groups, const uint8_t* data,
                const float* scales) {
    const uint8_t* lane = data + row / kPanel * num_groups * kGroup * kPanel + row % kPanel * 4;
    for (int64_t k = 0; k < num_columns; ++k)
        out[k] = to_bf16((static_cast<float>(lane[k / 4 * 64 + k % 4]) - 128.0f) * scales[row]);
}

void embed_int4(bf16* out, int64_t row, int64_t num_columns, int64_t num_groups, const uint8_t* data,
                const uint8_t* codes, const uint16_t* supers) {
    const int64_t panel = row / kPanel, lane = row % kPanel;
    const int64_t num_supers = (num_groups + kSuperblock - 1) / kSuperblock;
    data += panel * num_groups * 256 + lane * 4;
    codes += panel * num_groups * 32 + lane;
    supers += panel * num_supers * 32 + lane;
    for (int64_t g = 0; g < num_groups; ++g, data += 256, codes += 32) {
        const uint16_t* unit = supers + g / kSuperblock * 32;
        const float scale = _cvtsh_ss(unit[0]) / 4096.0f * static_cast<float>(codes[0]);
        const float min = _cvtsh_ss(unit[16]) / 2048.0f * static_cast<float>(static_cast<int8_t>(codes[16]));
        for (int64_t k = 0; k < kGroup && g * kGroup + k < num_columns; ++k) {
            const int both = data[k / 4 % 4 * 64 + k % 4];
            out[g * kGroup + k] = to_bf16(static_cast<float>(k < 16 ? both & 15 : both >> 4) * scale + min);
        }
    }
}

}  // namespace
}  // namespace zenray

// out [T, K] = rows token_ids [T] of the packed table [N, K]; `supers` is null for int8. Returns how many ids are no
// rows of the table; then nothing is written.
ZENRAY_EXPORT int64_t zenray_embed(zenray::bf16* out, const int64_t* token_ids, int64_t num_tokens, int64_t num_columns,
                                   int64_t num_rows, const uint8_t* data, const void* scales, const uint16_t* supers,
                                   int64_t num_threads) {
    using namespace zenray;
    const int64_t strangers =
        std::count_if(token_ids, token_ids + num_tokens, [=](int64_t id) { return id < 0 || id >= num_rows; });
    if (strangers) return strangers;
    const int64_t num_groups = (num_columns + kGroup - 1) / kGroup;
    parallel_ranges(num_threads, num_tokens, row_grain(num_columns), [=](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
            bf16* row = out + t * num_columns;
            const int64_t id = token_ids[t];
            if (supers) {
                embed_int4(row, id, num_columns, num_groups, data, static_cast<const uint8_t*>(scales), supers);
            } else {
                embed_int8(row, id, num_columns, num_groups, data, static_cast<const float*>(scales));
            }
        }
    });
    return 0;
}
