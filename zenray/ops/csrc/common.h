// Shared by every kernel: bfloat16, memory of a thread, and a vectorisable exponential.
//
// Legend: T tokens (rows of activations), D model width, N output width, K input width (of a matrix),
// H query heads, K kv heads and C head width (in attention), G groups of 32 columns.
#pragma once

#include <cstdint>
#include <cstring>
#include <new>

#define ZENRAY_EXPORT extern "C" __attribute__((visibility("default")))

namespace zenray {

using bf16 = uint16_t;

inline float to_float(bf16 value) {
    const uint32_t bits = static_cast<uint32_t>(value) << 16;
    float result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

inline float to_float(float value) { return value; }

// Rounds to nearest even. NaN stays NaN: its payload's upper bits are kept and the quiet bit is set.
inline bf16 to_bf16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const uint32_t quiet = (bits >> 16) | 0x40u;
    return static_cast<bf16>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

// exp(x) within 2 ulp; 0 below -87, the value at 88 above that. Plain arithmetic, so loops over it vectorise.
inline float exp_approx(float given) {
    const float x = given < -87.0f ? -87.0f : (given > 88.0f ? 88.0f : given);
    const float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the integer part lands in the low bits
    const float whole = shifted - 12582912.0f;
    const float rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    float poly = 1.9875691500e-4f;
    poly = poly * rest + 1.3981999507e-3f;
    poly = poly * rest + 8.3334519073e-3f;
    poly = poly * rest + 4.1665795894e-2f;
    poly = poly * rest + 1.6666665459e-1f;
    poly = poly * rest + 5.0000001201e-1f;
    const float fraction = poly * rest * rest + rest + 1.0f;
    int32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    const int32_t power = (bits + 127) << 23;
    float scale;
    std::memcpy(&scale, &power, sizeof scale);
    return given < -87.0f ? 0.0f : fraction * scale;
}

// 64-byte aligned memory of the calling thread, kept between calls and grown when needed.
class Scratch {
  public:
    char* reserve(size_t bytes) {
        if (bytes > size_) {
            operator delete(data_, std::align_val_t(64));
            size_ = bytes + bytes / 4;
            data_ = static_cast<char*>(operator new(size_, std::align_val_t(64)));
        }
        return data_;
    }
    ~Scratch() { operator delete(data_, std::align_val_t(64)); }

  private:
    char* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace zenray
