// Causal attention of new tokens over keys and values in paged blocks, accumulated in float32.
//
// The context is cut into partitions of 256 keys. Within one, keys are packed so that a vector holds a pair of
// channels of 16 keys, values so that it holds a pair of keys of 16 channels; scores, their softmax and the
// weighted sum of values follow for 8 query rows at a time (a row is one head of one token; all heads that share
// a kv head share the packed keys). Partitions are then merged in order. What a row computes depends on
// nothing but its own query and context, so results are bitwise independent of the batch, the chunking of a
// prompt and the number of threads. (Flash attention: Dao et al., arXiv 2205.14135; split over keys: FlashDecoding.)
#include "common.h"
#include "pool.h"
#include "simd.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace zenray {
namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kPartition = 256;  // keys whose scores are normalised together
constexpr int64_t kTile = 8;         // query rows held in registers together
constexpr int64_t kItemRows = 128;   // query rows that share one packing of a partition
constexpr int64_t kAhead = 32;       // keys whose cache lines are asked for early: pages are scattered
constexpr float kMasked = -std::numeric_limits<float>::infinity();

struct Attention {
    bf16* out;
    const bf16* q;
    const bf16 *keys, *values;
    const int32_t *tables, *query_starts, *context_lens;
    int64_t num_heads, num_kv_heads, head_dim, block_size, q_stride, table_stride;
    float scale;

    int64_t group() const { return num_heads / num_kv_heads; }
    int64_t row_floats() const { return head_dim + kLanes; }  // a row's weighted sum, then its largest score and mass
};

// The rows of a run of consecutive tokens of one sequence under one kv head.
struct Item {
    int64_t sequence, kv_head;
    int64_t first_token, num_tokens;  // first_token counts over the whole batch
    int64_t first_position;           // in the sequence
    int64_t first_task;               // counts (item, partition) pairs before this item
    int64_t num_keys() const { return first_position + num_tokens; }
    int64_t num_partitions() const { return (num_keys() + kPartition - 1) / kPartition; }
};

// Packed keys and values of one partition: keys [keys / 16][C / 2][16] and values [keys / 2][C] pairs.
struct Packed {
    __m512i* keys;
    __m512i* values;
    int64_t num_keys;  // rounded up to 32; what lies beyond the context is zero
};

struct Workspace {
    Packed packed;
    float* scores;  // [8][256]
    bf16* weights;  // [8][256]
    float* partial;  // [kItemRows][row_floats]
    float* merged;   // [kItemRows][row_floats]
};

Workspace workspace(Scratch& memory, int64_t head_dim, int64_t row_floats, int64_t max_rows) {
    const int64_t packed = kPartition * head_dim * 2, scores = kTile * kPartition * 4, rows = max_rows * row_floats * 4;
    char* base = memory.reserve(static_cast<size_t>(2 * packed + 2 * scores + 2 * rows));
    return {{reinterpret_cast<__m512i*>(base), reinterpret_cast<__m512i*>(base + packed), 0},
            reinterpret_cast<float*>(base + 2 * packed),
            reinterpret_cast<bf16*>(base + 2 * packed + scores),
            reinterpret_cast<float*>(base + 2 * packed + 2 * scores),
            reinterpret_cast<float*>(base + 2 * packed + 2 * scores + rows)};
}

// Packs 16 keys and values at `offsets`; unless kFull, only `count` of them exist; the others are zero.
template <bool kFull>
void pack_lanes(const Attention& a, const int64_t* offsets, int64_t count, __m512i* keys, __m512i* values) {
    const int64_t C = a.head_dim;
    const auto load = [&](const bf16* pool, int64_t i, int64_t channel) {
        return kFull || i < count ? _mm512_loadu_si512(pool + offsets[i] + channel) : _mm512_setzero_si512();
    };
    for (int64_t channel = 0; channel < C; channel += 32) {
        __m512i pairs[kLanes];
        for (int64_t i = 0; i < kLanes; ++i) pairs[i] = load(a.keys, i, channel);
        transpose(pairs);
        for (int64_t i = 0; i < kLanes; ++i) keys[channel / 2 + i] = pairs[i];
        for (int64_t i = 0; i < kLanes; i += 2) {
            __m512i* to = values + (i / 2 * C + channel) / kLanes;
            interleave(load(a.values, i, channel), load(a.values, i + 1, channel), to[0], to[1]);
        }
    }
}

void pack_partition(const Attention& a, const Item& item, int64_t begin, Packed& packed) {
    const int64_t count = std::min(kPartition, item.num_keys() - begin), C = a.head_dim;
    packed.num_keys = (count + 31) / 32 * 32;
    const int32_t* table = a.tables + item.sequence * a.table_stride + begin / a.block_size;
    int64_t offsets[kPartition + kAhead];
    for (int64_t i = 0, slot = begin % a.block_size; i < count; ++i) {
        offsets[i] = ((*table * a.num_kv_heads + item.kv_head) * a.block_size + slot) * C;
        if (++slot == a.block_size) {
            slot = 0;
            ++table;
        }
    }
    std::fill(offsets + count, offsets + count + kAhead, offsets[count - 1]);
    for (int64_t first = 0; first < packed.num_keys; first += kLanes) {
        for (int64_t i = first + kAhead; i < std::min(first + kLanes, count) + kAhead; ++i) {
            for (int64_t channel = 0; channel < C; channel += 32) {
                _mm_prefetch(a.keys + offsets[i] + channel, _MM_HINT_T0);
                _mm_prefetch(a.values + offsets[i] + channel, _MM_HINT_T0);
            }
        }
        __m512i* keys = packed.keys + first / kLanes * (C / 2);
        __m512i* values = packed.values + first / 2 * C / kLanes;
        if (first + kLanes <= count) {
            pack_lanes<true>(a, offsets + first, kLanes, keys, values);
        } else {
            pack_lanes<false>(a, offsets + first, std::max<int64_t>(count - first, 0), keys, values);
        }
    }
}

inline __m512i pair_at(const bf16* at) {
    int32_t both;
    std::memcpy(&both, at, sizeof both);
    return _mm512_set1_epi32(both);
}

// scores [row][key] = q . key * scale for up to 8 rows; keys after a row's own position are masked.
template <int kRows>
void score(const Attention& a, const Packed& packed, int64_t begin, const bf16* const* q, const int64_t* positions,
           float* scores) {
    const int64_t pairs = a.head_dim / 2;
    const __m512 scale = _mm512_set1_ps(a.scale);
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int64_t key = 0; key < packed.num_keys; key += 2 * kLanes) {
        const __m512i* keys = packed.keys + key / kLanes * pairs;
        __m512 acc[kRows][2];
        for (auto& row : acc) row[0] = row[1] = _mm512_setzero_ps();
        for (int64_t pair = 0; pair < pairs; ++pair) {
            for (int r = 0; r < kRows; ++r) {
                const __m512i both = pair_at(q[r] + pair * 2);
                acc[r][0] = dot2(acc[r][0], keys[pair], both);
                acc[r][1] = dot2(acc[r][1], keys[pairs + pair], both);
            }
        }
        for (int r = 0; r < kRows; ++r) {
            for (int half = 0; half < 2; ++half) {
                const int64_t last = std::clamp<int64_t>(positions[r] - begin - key - half * kLanes, -1, kLanes);
                const __mmask16 seen = _mm512_cmple_epi32_mask(lane, _mm512_set1_epi32(static_cast<int32_t>(last)));
                const __m512 value = _mm512_mask_mul_ps(_mm512_set1_ps(kMasked), seen, acc[r][half], scale);
                _mm512_store_ps(scores + r * kPartition + key + half * kLanes, value);
            }
        }
    }
}

// weights [key] = bf16(exp(score - largest)); returns the largest score and the sum of the rounded weights.
void soften(const float* scores, bf16* weights, int64_t num_keys, float& largest, float& mass) {
    __m512 most = _mm512_set1_ps(kMasked);
    for (int64_t key = 0; key < num_keys; key += kLanes) most = _mm512_max_ps(most, _mm512_load_ps(scores + key));
    largest = _mm512_reduce_max_ps(most);
    const __m512 shift = _mm512_set1_ps(largest == kMasked ? 0.0f : largest);
    __m512 sum = _mm512_setzero_ps();
    for (int64_t key = 0; key < num_keys; key += kLanes) {
        const __m512 weight = exp_approx(_mm512_sub_ps(_mm512_load_ps(scores + key), shift));
        const __m256i rounded = narrow(weight);
        _mm256_store_si256(reinterpret_cast<__m256i*>(weights + key), rounded);
        sum = _mm512_add_ps(sum, widen(rounded));
    }
    mass = _mm512_reduce_add_ps(sum);
}

// partial [row][channel] = sum over keys of weight * value.
template <int kRows>
void gather(const Attention& a, const Packed& packed, const bf16* weights, float* partial) {
    const int64_t vectors = a.head_dim / kLanes;
    for (int64_t vector = 0; vector < vectors; vector += 2) {
        const __m512i* values = packed.values + vector;
        __m512 acc[kRows][2];
        for (auto& row : acc) row[0] = row[1] = _mm512_setzero_ps();
        for (int64_t pair = 0; pair < packed.num_keys / 2; ++pair, values += vectors) {
            for (int r = 0; r < kRows; ++r) {
                const __m512i both = pair_at(weights + r * kPartition + pair * 2);
                acc[r][0] = dot2(acc[r][0], values[0], both);
                acc[r][1] = dot2(acc[r][1], values[1], both);
            }
        }
        for (int r = 0; r < kRows; ++r) {
            _mm512_storeu_ps(partial + r * a.row_floats() + vector * kLanes, acc[r][0]);
            _mm512_storeu_ps(partial + r * a.row_floats() + vector * kLanes + kLanes, acc[r][1]);
        }
    }
}

template <int kRows>
void attend_tile(const Attention& a, const Workspace& w, int64_t begin, const bf16* const* q, const int64_t* positions,
                 float* partial) {
    score<kRows>(a, w.packed, begin, q, positions, w.scores);
    for (int r = 0; r < kRows; ++r) {
        float* row = partial + r * a.row_floats() + a.head_dim;
        soften(w.scores + r * kPartition, w.weights + r * kPartition, w.packed.num_keys, row[0], row[1]);
    }
    gather<kRows>(a, w.packed, w.weights, partial);
}

using AttendTile = void (*)(const Attention&, const Workspace&, int64_t, const bf16* const*, const int64_t*, float*);
constexpr AttendTile kAttendTile[kTile] = {attend_tile<1>, attend_tile<2>, attend_tile<3>, attend_tile<4>,
                                           attend_tile<5>, attend_tile<6>, attend_tile<7>, attend_tile<8>};

// All rows of the item over one partition, into partial [rows][row_floats].
void attend_partition(const Attention& a, const Item& item, int64_t partition, Workspace& w, float* partial) {
    const int64_t begin = partition * kPartition, G = a.group(), num_rows = item.num_tokens * G;
    pack_partition(a, item, begin, w.packed);
    for (int64_t row = 0; row < num_rows; row += kTile) {
        const int64_t count = std::min(kTile, num_rows - row);
        const bf16* q[kTile];
        int64_t positions[kTile];
        for (int64_t r = 0; r < count; ++r) {
            const int64_t token = (row + r) / G, head = item.kv_head * G + (row + r) % G;
            q[r] = a.q + (item.first_token + token) * a.q_stride + head * a.head_dim;
            positions[r] = item.first_position + token;
        }
        kAttendTile[count - 1](a, w, begin, q, positions, partial + row * a.row_floats());
    }
}

// into = the softmax over both partitions' keys. `into` holds at least one key (partition 0 always does).
void merge(const Attention& a, int64_t num_rows, float* into, const float* partial) {
    for (int64_t r = 0; r < num_rows; ++r, into += a.row_floats(), partial += a.row_floats()) {
        float* state = into + a.head_dim;
        const float* other = partial + a.head_dim;
        if (other[0] == kMasked) continue;
        const float largest = std::max(state[0], other[0]);
        const float mine = exp_approx(state[0] - largest), theirs = exp_approx(other[0] - largest);
        for (int64_t c = 0; c < a.head_dim; ++c) into[c] = into[c] * mine + partial[c] * theirs;
        state[1] = state[1] * mine + other[1] * theirs;
        state[0] = largest;
    }
}

void finish(const Attention& a, const Item& item, const float* rows) {
    const int64_t G = a.group();
    for (int64_t row = 0; row < item.num_tokens * G; ++row, rows += a.row_floats()) {
        const int64_t token = item.first_token + row / G, head = item.kv_head * G + row % G;
        bf16* out = a.out + (token * a.num_heads + head) * a.head_dim;
        const float inverse = 1.0f / rows[a.head_dim + 1];
        for (int64_t c = 0; c < a.head_dim; ++c) out[c] = to_bf16(rows[c] * inverse);
    }
}

void list_items(const Attention& a, int64_t num_sequences, std::vector<Item>& items) {
    items.clear();
    const int64_t tokens_at_once = std::max<int64_t>(1, kItemRows / a.group());
    int64_t tasks = 0;
    for (int64_t s = 0; s < num_sequences; ++s) {
        const int64_t first = a.query_starts[s], last = a.query_starts[s + 1];
        const int64_t cached = a.context_lens[s] - (last - first);
        for (int64_t token = first; token < last; token += tokens_at_once) {
            for (int64_t head = 0; head < a.num_kv_heads; ++head) {
                const int64_t count = std::min(tokens_at_once, last - token);
                items.push_back({s, head, token, count, cached + token - first, tasks});
                tasks += items.back().num_partitions();
            }
        }
    }
}

// A whole item, partition after partition.
void attend(const Attention& a, const Item& item, Workspace& w) {
    attend_partition(a, item, 0, w, w.merged);
    for (int64_t partition = 1; partition < item.num_partitions(); ++partition) {
        attend_partition(a, item, partition, w, w.partial);
        merge(a, item.num_tokens * a.group(), w.merged, w.partial);
    }
    finish(a, item, w.merged);
}

Workspace thread_workspace(const Attention& a, int64_t max_rows) {
    static thread_local Scratch memory;
    return workspace(memory, a.head_dim, a.row_floats(), max_rows);
}

}  // namespace
}  // namespace zenray

// out and q [T, H, C] (q's tokens q_stride elements apart), keys and values [num_blocks, K, block_size, C],
// tables int32 [S, table_stride], query_starts int32 [S + 1], context_lens int32 [S]. C is a multiple of 32.
ZENRAY_EXPORT void zenray_attention(zenray::bf16* out, const zenray::bf16* q, const zenray::bf16* keys,
                                    const zenray::bf16* values, const int32_t* tables, const int32_t* query_starts,
                                    const int32_t* context_lens, int64_t num_sequences, int64_t num_heads,
                                    int64_t num_kv_heads, int64_t head_dim, int64_t block_size, int64_t q_stride,
                                    int64_t table_stride, float scale, int64_t num_threads) {
    using namespace zenray;
    const Attention a{out,       q,            keys,     values,     tables,   query_starts, context_lens, num_heads,
                      num_kv_heads, head_dim, block_size, q_stride, table_stride, scale};
    static thread_local std::vector<Item> listed;
    static thread_local Scratch shared;
    list_items(a, num_sequences, listed);
    if (listed.empty()) return;
    const std::vector<Item>& items = listed;
    const auto num_items = static_cast<int64_t>(items.size());
    const int64_t num_tasks = items.back().first_task + items.back().num_partitions();
    int64_t max_rows = 0;
    for (const Item& item : items) max_rows = std::max(max_rows, item.num_tokens * a.group());
    if (num_tasks == num_items || num_items >= 8 * num_threads) {
        // In a prompt the last item has the most keys: it goes first.
        parallel_for(num_threads, num_items, [&](int64_t index) {
            Workspace w = thread_workspace(a, max_rows);
            attend(a, items[static_cast<size_t>(num_items - 1 - index)], w);
        });
        return;
    }
    // Few items, such as a decode step's: their partitions are shared out too, then merged in the same order.
    const int64_t task_floats = max_rows * a.row_floats();
    auto* partials = reinterpret_cast<float*>(shared.reserve(static_cast<size_t>(num_tasks * task_floats) * 4));
    parallel_for(num_threads, num_tasks, [&](int64_t task) {
        const auto after = std::upper_bound(items.begin(), items.end(), task,
                                            [](int64_t t, const Item& item) { return t < item.first_task; });
        const Item& item = *(after - 1);
        Workspace w = thread_workspace(a, max_rows);
        attend_partition(a, item, task - item.first_task, w, partials + task * task_floats);
    });
    parallel_for(num_threads, num_items, [&](int64_t index) {
        const Item& item = items[static_cast<size_t>(index)];
        float* rows = partials + item.first_task * task_floats;
        for (int64_t partition = 1; partition < item.num_partitions(); ++partition)
            merge(a, item.num_tokens * a.group(), rows, rows + partition * task_floats);
        finish(a, item, rows);
    });
}
