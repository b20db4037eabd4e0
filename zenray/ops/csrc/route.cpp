// Which experts a token goes to: softmax over a router's scores, then the most probable.
//
// Every score is one vector of float32 sums over the columns in order, reduced in one way, whatever the tile of tokens
// and experts it is computed in: equal router rows give equal probabilities, and a token's do not depend on others.
#include "common.h"
#include "pool.h"
#include "simd.h"

#include <algorithm>

namespace zenray {
namespace {

constexpr int64_t kTokens = 4;   // of a tile: with as many experts, their sums stay in registers
constexpr int64_t kExperts = 4;

struct Routing {
    const bf16* x;
    const float* router;
    int64_t num_tokens, width, num_experts;
};

// scores [T, E], those of a tile of up to kRows tokens and kExperts experts; past the last expert it repeats that one.
template <int kRows>
void score_tile(const Routing& r, int64_t token, int64_t expert, float* scores) {
    const int64_t count = std::min(kExperts, r.num_experts - expert);
    const float* routers[kExperts];
    for (int64_t e = 0; e < kExperts; ++e) routers[e] = r.router + (expert + std::min(e, count - 1)) * r.width;
    __m512 sums[kRows][kExperts] = {};
    const auto step = [&](int64_t d, __mmask16 mask) {
        __m512 x[kRows];
        for (int t = 0; t < kRows; ++t)
            x[t] = widen(_mm256_maskz_loadu_epi16(mask, r.x + (token + t) * r.width + d));
        for (int e = 0; e < kExperts; ++e) {
            const __m512 weights = _mm512_maskz_loadu_ps(mask, routers[e] + d);
            for (int t = 0; t < kRows; ++t) sums[t][e] = _mm512_fmadd_ps(x[t], weights, sums[t][e]);
        }
    };
    int64_t d = 0;
    for (; d + 16 <= r.width; d += 16) step(d, 0xffff);
    if (d < r.width) step(d, static_cast<__mmask16>((1u << (r.width - d)) - 1u));
    for (int t = 0; t < kRows; ++t)
        for (int64_t e = 0; e < count; ++e)
            scores[(token + t) * r.num_experts + expert + e] = _mm512_reduce_add_ps(sums[t][e]);
}

using ScoreTile = void (*)(const Routing&, int64_t, int64_t, float*);
constexpr ScoreTile kScoreTile[kTokens] = {score_tile<1>, score_tile<2>, score_tile<3>, score_tile<4>};

// scores [E] become probabilities. One that is not a number makes all of them so.
void softmax(float* scores, int64_t num_experts) {
    const float largest = *std::max_element(scores, scores + num_experts);
    for (int64_t e = 0; e < num_experts; ++e) scores[e] = exp_approx(scores[e] - largest);
    float sum = 0.0f;
    for (int64_t e = 0; e < num_experts; ++e) sum += scores[e];
    for (int64_t e = 0; e < num_experts; ++e) scores[e] /= sum;
}

// The most probable experts, of equals the lower id, in ascending order of their ids.
void choose(const float* probabilities, int64_t num_experts, int64_t num_chosen, bool normalise, int64_t* ids,
            float* weights) {
    int64_t found = 0;  // ids holds the best so far, the best first
    for (int64_t e = 0; e < num_experts; ++e) {
        if (found == num_chosen && !(probabilities[e] > probabilities[ids[found - 1]])) continue;
        int64_t k = found < num_chosen ? found++ : found - 1;
        for (; k > 0 && probabilities[e] > probabilities[ids[k - 1]]; --k) ids[k] = ids[k - 1];
        ids[k] = e;
    }
    std::sort(ids, ids + num_chosen);
    float sum = 0.0f;
    for (int64_t k = 0; k < num_chosen; ++k) sum += weights[k] = probabilities[ids[k]];
    if (!normalise) return;
    for (int64_t k = 0; k < num_chosen; ++k) weights[k] /= sum;
}

}  // namespace
}  // namespace zenray

// ids and weights [T, K] of x [T, D] by router [E, D]; K <= E.
ZENRAY_EXPORT void zenray_route(int64_t* ids, float* weights, const zenray::bf16* x, const float* router,
                                int64_t num_tokens, int64_t width, int64_t num_experts, int64_t num_chosen,
                                int64_t normalise, int64_t num_threads) {
    using namespace zenray;
    static thread_local Scratch memory;
    auto* scores = reinterpret_cast<float*>(memory.reserve(static_cast<size_t>(num_tokens * num_experts) * 4));
    const Routing routing{x, router, num_tokens, width, num_experts};
    const int64_t expert_tiles = (num_experts + kExperts - 1) / kExperts;
    const int64_t tiles = (num_tokens + kTokens - 1) / kTokens * expert_tiles;
    parallel_ranges(num_threads, tiles, row_grain(width * 2), [&](int64_t begin, int64_t end) {
        for (int64_t tile = begin; tile < end; ++tile) {
            const int64_t token = tile / expert_tiles * kTokens, count = std::min(kTokens, num_tokens - token);
            kScoreTile[count - 1](routing, token, tile % expert_tiles * kExperts, scores);
        }
    });
    parallel_ranges(num_threads, num_tokens, row_grain(num_experts * 8), [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
            float* row = scores + t * num_experts;
            softmax(row, num_experts);
            choose(row, num_experts, num_chosen, normalise != 0, ids + t * num_chosen, weights + t * num_chosen);
        }
    });
}
