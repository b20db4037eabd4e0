// AVX-512 building blocks that several kernels share.
#pragma once

#include <immintrin.h>

#include <initializer_list>

#include "common.h"

namespace zenray {

// 16 bfloat16 as float32.
inline __m512 widen(__m256i halves) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

// 16 float32 rounded to bfloat16, to nearest even.
inline __m256i narrow(__m512 values) {
#ifdef __AVX512BF16__
    return (__m256i)_mm512_cvtneps_pbh(values);
#else
    const __m512i bits = _mm512_castps_si512(values);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16));
#endif
}

// acc + the products of both bfloat16 in each 32-bit lane.
inline __m512 dot2(__m512 acc, __m512i a, __m512i b) {
#ifdef __AVX512BF16__
    return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
#else
    const __m512i upper = _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u));
    const auto even = [](__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); };
    const auto odd = [=](__m512i pairs) { return _mm512_castsi512_ps(_mm512_and_si512(pairs, upper)); };
    return _mm512_fmadd_ps(odd(a), odd(b), _mm512_fmadd_ps(even(a), even(b), acc));
#endif
}

// Stores the masked lanes from element `at` of `out` on: as float32 if `wide`, else rounded to bfloat16.
inline void store_masked(void* out, bool wide, int64_t at, __mmask16 mask, __m512 value) {
    if (wide) {
        _mm512_mask_storeu_ps(static_cast<float*>(out) + at, mask, value);
    } else {
        _mm256_mask_storeu_epi16(static_cast<bf16*>(out) + at, mask, narrow(value));
    }
}

// Two rows of 32 bfloat16 as 32 pairs (first, second), in order.
inline void interleave(__m512i first, __m512i second, __m512i& low, __m512i& high) {
    alignas(64) static constexpr uint16_t kLow[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                      8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    const __m512i index = _mm512_load_si512(kLow);
    low = _mm512_permutex2var_epi16(first, index, second);
    high = _mm512_permutex2var_epi16(first, _mm512_add_epi16(index, _mm512_set1_epi16(16)), second);
}

// exp_approx of common.h on 16 lanes.
inline __m512 exp_approx(__m512 given) {
    const __m512 x = _mm512_max_ps(given, _mm512_set1_ps(-87.0f));
    const __m512 magic = _mm512_set1_ps(12582912.0f);
    const __m512 shifted = _mm512_fmadd_ps(x, _mm512_set1_ps(1.44269504f), magic);
    const __m512 whole = _mm512_sub_ps(shifted, magic);
    __m512 rest = _mm512_fnmadd_ps(whole, _mm512_set1_ps(0.693359375f), x);
    rest = _mm512_fmadd_ps(whole, _mm512_set1_ps(2.12194440e-4f), rest);
    __m512 poly = _mm512_set1_ps(1.9875691500e-4f);
    for (const float term : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        poly = _mm512_fmadd_ps(poly, rest, _mm512_set1_ps(term));
    const __m512 fraction = _mm512_fmadd_ps(_mm512_mul_ps(poly, rest), rest, _mm512_add_ps(rest, _mm512_set1_ps(1.0f)));
    const __mmask16 kept = _mm512_cmp_ps_mask(given, _mm512_set1_ps(-87.0f), _CMP_GE_OQ);
    return _mm512_maskz_scalef_ps(kept, fraction, whole);
}

// 16 vectors of 16 dwords, transposed.
inline void transpose(__m512i (&r)[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; ++i) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

}  // namespace zenray
