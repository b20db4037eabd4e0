// Products of bfloat16 activations with a matrix in any weight format, in parts that a caller shares out among
// threads: one matrix (linear.cpp) or those of many experts (moe.cpp).
#pragma once

#include "common.h"

namespace zenray {

enum class Format : int64_t { kBf16, kInt8, kInt4 };  // numbered as in zenray/ops/native.py

// A matrix [N, K] (layouts: zenray/ops/packing.py): P panels of 16 rows, G groups of 32 columns, U superblocks of
// 8 groups.
struct Matrix {
    Format format;
    int64_t num_rows, num_columns;
    const void* data;
    const void* scales;      // int8: float32 [P, 16]; int4: uint8 [P, G, 2, 16]
    const uint16_t* supers;  // int4: float16 [P, U, 2, 16]
    const void* bias;        // [N] or null; bfloat16 for a bfloat16 matrix, else float32
};

constexpr int64_t kTile = 8;    // rows of activations held in registers together
constexpr int64_t kStrip = 32;  // rows of the matrix taken together

inline int64_t num_tiles(int64_t num_tokens) { return (num_tokens + kTile - 1) / kTile; }
inline int64_t num_strips(const Matrix& m) { return (m.num_rows + kStrip - 1) / kStrip; }
// The tiles to prepare at once: what takes longer than sharing it out.
inline int64_t tile_grain(const Matrix& m) { return m.num_columns < 2048 ? 2048 / m.num_columns : 1; }

// out [T, N] (float32 if `wide`, else bfloat16) = activations prepared for the matrix, times it transposed, plus bias.
struct Product {
    const Matrix& matrix;
    const void* prepared;
    int64_t num_tokens;
    void* out;
    bool wide;
};

// Activations in the form that a matrix of a format multiplies: bfloat16 rows one after another, or quantised tiles.
// The tile holds `num_rows` rows, at rows[0], rows[1] and so on, of the matrix's number of columns.
size_t prepared_bytes(const Matrix& m, int64_t num_tokens);
void prepare_tile(const Matrix& m, void* prepared, int64_t tile, const bf16* const* rows, int64_t num_rows);

// Computes strips [begin, end) of the product, for all its tokens.
void multiply_strips(const Product& p, int64_t begin, int64_t end);

// What these do for one family of formats.
size_t packed_bytes(const Matrix& m, int64_t num_tokens);
void pack_tile(const Matrix& m, void* prepared, int64_t tile, const bf16* const* rows, int64_t num_rows);
void multiply_packed(const Product& p, int64_t begin, int64_t end);
void multiply_bf16(const Product& p, int64_t begin, int64_t end);

}  // namespace zenray
