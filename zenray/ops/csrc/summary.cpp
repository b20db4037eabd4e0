// What is kept of rows of logits: the most probable tokens, and of the rest its mass and a few draws.
//
// A row is walked twice: for the largest logit of each block of 256 columns, then for the exponentials. The K-th
// largest of the blocks' maxima bounds the K-th largest logit from below, so the K candidates for the head stand in few
// blocks and few logits have to be sorted. Sums of weights exp(logit - largest) are kept for each block, without the
// candidates, so that a tail's mass is a sum of its own and a draw finds its block first. A row is done by one thread,
// in one order.
#include "pool.h"
#include "simd.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace zenray {
namespace {

constexpr int64_t kBlock = 256;  // columns
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNegligible = -87.0f;  // as in zenray/ops/summary.py

struct Candidate {
    float logit;
    int32_t id;
    double weight;
};

// Of the whole call; the arrays are [R], [R, K] and [R, S].
struct Summaries {
    const float* logits;  // [R, V]
    const int64_t* targets;
    const double* uniforms;
    int64_t num_columns, max_head, num_samples;
    double head_mass, least_probability;
    float *gold_logprobs, *entropies;
    int32_t *head_counts, *head_ids;
    float *head_logprobs, *tail_masses;
    int32_t* tail_ids;
};

// Memory for one row of B blocks.
struct Workspace {
    double* masses;          // [B], of each block's part of the tail
    Candidate* candidates;   // [most_candidates()]
    float *maxima, *ranked;  // [B]
    int32_t* by_id;          // [K], places among the candidates in the order of their ids
};

// 16 logits from `row`, -inf behind the last.
inline __m512 load(const float* row, int64_t left) {
    if (left >= 16) return _mm512_loadu_ps(row);
    const auto mask = static_cast<__mmask16>(left > 0 ? (1u << left) - 1u : 0u);
    return _mm512_mask_loadu_ps(_mm512_set1_ps(-kInfinity), mask, row);
}

inline double sum(__m512 values) {
    const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(values));
    const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(values, 1));
    return _mm512_reduce_add_pd(_mm512_add_pd(low, high));
}

// The largest logit of each block, and of all; NaN where there is one.
float find_maxima(const float* row, int64_t num_columns, float* maxima) {
    float largest = -kInfinity;
    __mmask16 nan = 0;
    for (int64_t begin = 0, block = 0; begin < num_columns; begin += kBlock, ++block) {
        __m512 four[4];
        for (auto& lanes : four) lanes = _mm512_set1_ps(-kInfinity);
        for (int64_t i = 0; i < kBlock; i += 64) {
            __m512 x[4];
            for (int64_t j = 0; j < 4; ++j) x[j] = load(row + begin + i + j * 16, num_columns - begin - i - j * 16);
            nan |= _mm512_cmp_ps_mask(x[0], x[1], _CMP_UNORD_Q) | _mm512_cmp_ps_mask(x[2], x[3], _CMP_UNORD_Q);
            for (int64_t j = 0; j < 4; ++j) four[j] = _mm512_max_ps(four[j], x[j]);
        }
        const __m512 first = _mm512_max_ps(four[0], four[1]), second = _mm512_max_ps(four[2], four[3]);
        maxima[block] = _mm512_reduce_max_ps(_mm512_max_ps(first, second));
        largest = std::max(largest, maxima[block]);
    }
    return nan ? std::numeric_limits<float>::quiet_NaN() : largest;
}

// The `wanted` largest logits of a row without NaN, largest first, of equals the lower id first; none below `floor`.
// Returns how many there are.
int64_t find_candidates(const float* row, int64_t num_columns, int64_t wanted, float floor, const Workspace& work) {
    const int64_t num_blocks = (num_columns + kBlock - 1) / kBlock;
    float bound = floor;
    if (wanted <= num_blocks) {
        std::copy(work.maxima, work.maxima + num_blocks, work.ranked);
        std::nth_element(work.ranked, work.ranked + wanted - 1, work.ranked + num_blocks, std::greater<float>());
        bound = std::max(bound, work.ranked[wanted - 1]);
    }
    int64_t found = 0, equals = wanted;  // of logits equal to the bound, more than `wanted` are never needed
    for (int64_t block = 0; block < num_blocks; ++block) {
        if (work.maxima[block] < bound) continue;
        const int64_t end = std::min(num_columns, (block + 1) * kBlock);
        for (int64_t at = block * kBlock; at < end; at += 16) {
            const __m512 x = load(row + at, end - at);
            unsigned mask = equals > 0 ? _mm512_cmp_ps_mask(x, _mm512_set1_ps(bound), _CMP_GE_OQ)
                                       : _mm512_cmp_ps_mask(x, _mm512_set1_ps(bound), _CMP_GT_OQ);
            if (end - at < 16) mask &= (1u << (end - at)) - 1u;
            for (; mask; mask &= mask - 1) {
                const int64_t id = at + __builtin_ctz(mask);
                if (row[id] == bound && equals-- <= 0) continue;
                work.candidates[found++] = {row[id], static_cast<int32_t>(id), 0.0};
            }
        }
    }
    wanted = std::min(wanted, found);
    std::partial_sort(work.candidates, work.candidates + wanted, work.candidates + found,
                      [](const Candidate& a, const Candidate& b) {
                          return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
                      });
    return wanted;
}

// What is above the bound stands in fewer than `wanted` blocks; of what equals it `wanted` are kept.
int64_t most_candidates(int64_t num_columns, int64_t wanted) { return std::min(num_columns, wanted * (kBlock + 1)); }

// Sums over the columns of a row that are no candidates: the weights of each block into `masses`, and together those
// weights times what they are exponentials of.
double sum_rest(const float* row, int64_t num_columns, int64_t num_candidates, float largest, const Workspace& work) {
    double weighted = 0.0;
    int64_t next = 0;
    for (int64_t begin = 0, block = 0; begin < num_columns; begin += kBlock, ++block) {
        const float* x = row + begin;
        int64_t left = std::min(kBlock, num_columns - begin);
        alignas(64) float rest[kBlock];
        for (; next < num_candidates && work.candidates[work.by_id[next]].id < begin + kBlock; ++next) {
            if (x != rest) {
                std::copy(x, x + left, rest);
                x = rest;
            }
            rest[work.candidates[work.by_id[next]].id - begin] = -kInfinity;
        }
        work.masses[block] = 0.0;
        if (work.maxima[block] - largest < kNegligible) continue;
        __m512 mass = _mm512_setzero_ps(), dot = _mm512_setzero_ps();
        for (int64_t i = 0; i < left; i += 16) {
            const __m512 shifted = _mm512_sub_ps(load(x + i, left - i), _mm512_set1_ps(largest));
            const __m512 weights = exp_approx(shifted);
            mass = _mm512_add_ps(mass, weights);
            dot = _mm512_fmadd_ps(weights, _mm512_max_ps(shifted, _mm512_set1_ps(kNegligible)), dot);
        }
        work.masses[block] = sum(mass);
        weighted += sum(dot);
    }
    return weighted;
}

// The tail's columns at ascending quantiles of its mass, which is the sum of the blocks' masses and positive.
void draw(const Summaries& s, const float* row, float largest, double mass, double uniform, int64_t head_count,
          int64_t num_candidates, const Workspace& work, int32_t* ids) {
    int64_t last = (s.num_columns + kBlock - 1) / kBlock - 1;
    while (work.masses[last] <= 0.0) --last;
    alignas(64) float weights[kBlock];
    int64_t block = 0, loaded = -1;
    double before = 0.0;  // the mass of the blocks before this one
    for (int64_t i = 0; i < s.num_samples; ++i) {
        const double target = (static_cast<double>(i) + uniform) / static_cast<double>(s.num_samples) * mass;
        for (; block < last && before + work.masses[block] <= target; ++block) before += work.masses[block];
        const int64_t begin = block * kBlock, count = std::min(kBlock, s.num_columns - begin);
        if (loaded != block) {
            for (int64_t c = 0; c < count; c += 16) {
                const __m512 shifted = _mm512_sub_ps(load(row + begin + c, count - c), _mm512_set1_ps(largest));
                _mm512_store_ps(weights + c, exp_approx(shifted));
            }
            for (int64_t k = 0; k < num_candidates; ++k) {
                const Candidate& candidate = work.candidates[k];
                const int64_t at = candidate.id - begin;
                if (at >= 0 && at < count) weights[at] = k < head_count ? 0.0f : static_cast<float>(candidate.weight);
            }
            loaded = block;
        }
        int64_t chosen = begin;  // the last that has any mass, if rounding leaves none above the target
        double reached = before;
        for (int64_t c = 0; c < count && reached <= target; ++c) {
            if (weights[c] <= 0.0f) continue;
            chosen = begin + c;
            reached += static_cast<double>(weights[c]);
        }
        ids[i] = static_cast<int32_t>(chosen);
    }
}

void summarise_row(const Summaries& s, int64_t r, const Workspace& work) {
    const float* row = s.logits + r * s.num_columns;
    int32_t* head_ids = s.head_ids + r * s.max_head;
    float* head_logprobs = s.head_logprobs + r * s.max_head;
    std::fill(head_ids, head_ids + s.max_head, -1);
    std::fill(head_logprobs, head_logprobs + s.max_head, -kInfinity);
    std::fill(s.tail_ids + r * s.num_samples, s.tail_ids + (r + 1) * s.num_samples, -1);
    const float largest = find_maxima(row, s.num_columns, work.maxima);
    if (!std::isfinite(largest)) {
        s.gold_logprobs[r] = s.entropies[r] = s.tail_masses[r] = std::numeric_limits<float>::quiet_NaN();
        s.head_counts[r] = 0;
        return;
    }
    const double top = largest;
    // A probability is at most its weight. A little lower, as the head's end is decided in double precision.
    const double floor = s.least_probability > 0.0 ? top + std::log(s.least_probability) - 0.01 : -kInfinity;
    const int64_t num = find_candidates(row, s.num_columns, s.max_head, static_cast<float>(floor), work);
    for (int64_t k = 0; k < num; ++k) {
        Candidate& candidate = work.candidates[k];
        const double shifted = candidate.logit - top;
        candidate.weight = shifted < kNegligible ? 0.0 : std::exp(shifted);
        work.by_id[k] = static_cast<int32_t>(k);
    }
    std::sort(work.by_id, work.by_id + num,
              [&](int32_t a, int32_t b) { return work.candidates[a].id < work.candidates[b].id; });
    double weighted = sum_rest(row, s.num_columns, num, largest, work);

    const int64_t num_blocks = (s.num_columns + kBlock - 1) / kBlock;
    double total = 0.0;
    for (int64_t block = 0; block < num_blocks; ++block) total += work.masses[block];
    for (int64_t k = num - 1; k >= 0; --k) {
        const Candidate& candidate = work.candidates[k];
        total += candidate.weight;
        if (candidate.weight > 0.0) weighted += candidate.weight * (candidate.logit - top);
    }
    const double log_total = std::log(total);
    int64_t count = 1;
    for (double reached = work.candidates[0].weight; count < num; reached += work.candidates[count++].weight) {
        if (s.head_mass < 1.0 && reached >= s.head_mass * total) break;
        if (work.candidates[count].weight < s.least_probability * total) break;
    }
    for (int64_t k = 0; k < count; ++k) {
        head_ids[k] = work.candidates[k].id;
        head_logprobs[k] = static_cast<float>(work.candidates[k].logit - top - log_total);
    }
    for (int64_t k = count; k < num; ++k)  // candidates that the head did not need
        work.masses[work.candidates[k].id / kBlock] += work.candidates[k].weight;
    double tail = 0.0;
    for (int64_t block = 0; block < num_blocks; ++block) tail += work.masses[block];
    s.gold_logprobs[r] = static_cast<float>(row[s.targets[r]] - top - log_total);
    s.entropies[r] = static_cast<float>(log_total - weighted / total);
    s.head_counts[r] = static_cast<int32_t>(count);
    s.tail_masses[r] = static_cast<float>(tail / total);
    if (tail > 0.0) draw(s, row, largest, tail, s.uniforms[r], count, num, work, s.tail_ids + r * s.num_samples);
}

}  // namespace
}  // namespace zenray

// Summaries of logits [R, V], as zenray/ops/summary.py defines them. max_head is K, at least 1 and at most V; targets
// are columns; largest id below 2^31.
ZENRAY_EXPORT void zenray_summarise(float* gold_logprobs, float* entropies, int32_t* head_counts, int32_t* head_ids,
                                    float* head_logprobs, float* tail_masses, int32_t* tail_ids, const float* logits,
                                    const int64_t* targets, const double* uniforms, int64_t num_rows,
                                    int64_t num_columns, int64_t max_head, double head_mass, int64_t num_samples,
                                    double least_probability, int64_t num_threads) {
    using namespace zenray;
    const Summaries summaries{logits,    targets,       uniforms,   num_columns,       max_head,  num_samples,
                              head_mass, least_probability, gold_logprobs, entropies, head_counts,
                              head_ids,  head_logprobs, tail_masses, tail_ids};
    parallel_for(num_threads, num_rows, [&](int64_t row) {
        static thread_local Scratch memory;
        const auto blocks = static_cast<size_t>((num_columns + kBlock - 1) / kBlock);
        const auto most = static_cast<size_t>(most_candidates(num_columns, max_head));
        const auto wanted = static_cast<size_t>(max_head);
        Workspace work;
        work.masses = reinterpret_cast<double*>(memory.reserve(
            blocks * (sizeof(double) + 2 * sizeof(float)) + most * sizeof(Candidate) + wanted * sizeof(int32_t)));
        work.candidates = reinterpret_cast<Candidate*>(work.masses + blocks);
        work.maxima = reinterpret_cast<float*>(work.candidates + most);
        work.ranked = work.maxima + blocks;
        work.by_id = reinterpret_cast<int32_t*>(work.ranked + blocks);
        summarise_row(summaries, row, work);
    });
}
