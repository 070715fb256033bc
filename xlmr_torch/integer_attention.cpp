// Attention of one text in integers of 12 and 13 bits (AVX512-VNNI). integer_attention.py says what is rounded.
//
// Keys and values are rounded once, and laid out as the products read them. Then each block of queries goes over the
// keys, KEYS at a time: scores, softmax among these, weighted values; sums so far and new ones are brought to the same
// maximum, as in flash attention (Dao et al. 2022).
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

constexpr int ROWS = 6;          // of a tile, whose sums stay in registers
constexpr int64_t BLOCK = 96;    // queries that share what is read of keys and values; a multiple of ROWS
constexpr int64_t KEYS = 256;    // at a time
constexpr int32_t WEIGHT = 4095; // the largest weight; times VALUE times KEYS it fits into 31 bits
constexpr int32_t VALUE = 2047;

// GCC keeps an array in memory that a function sees which it inlines late.
#define INLINED __attribute__((always_inline))
#define INLINE INLINED static inline

static int64_t rounded_up(int64_t number, int64_t step) { return (number + step - 1) / step * step; }

// ---- Products

// Calls with 0, 1 ... as constants: an array that only constants look into is registers. GCC unrolls loops too late.
template <typename Call, int... NUMBERS>
INLINE void each(std::integer_sequence<int, NUMBERS...>, Call call) {
    (call(std::integral_constant<int, NUMBERS>()), ...);
}
template <int COUNT, typename Call>
INLINE void each(Call call) {
    each(std::make_integer_sequence<int, COUNT>(), call);
}

// One tile: left (ROWS, 2 * pairs) times right (pairs, columns, 2), int16. ``take(row, column, sums)`` is given 16 sums
// of a row as float32.
template <int VECTORS, typename Take>
INLINE void tile(const int16_t* left, int64_t stride, const int16_t* right, int64_t columns, int64_t pairs,
                        Take take) {
    __m512i sums[ROWS][VECTORS], there[VECTORS];
    each<ROWS>([&](auto row) INLINED { each<VECTORS>([&](auto vector) INLINED { sums[row][vector] = _mm512_setzero_si512(); }); });
    for (int64_t pair = 0; pair < pairs; pair++) {
        each<VECTORS>([&](auto vector) INLINED { there[vector] = _mm512_loadu_si512(right + 2 * (pair * columns + 16 * vector)); });
        each<ROWS>([&](auto row) INLINED {
            int32_t both;
            std::memcpy(&both, left + row * stride + 2 * pair, sizeof both);
            __m512i everywhere = _mm512_set1_epi32(both);
            each<VECTORS>([&](auto vector) INLINED {
                // As _mm512_dpwssd_epi32, for which GCC 12 copies every sum to the stack and back.
                asm("vpdpwssd %2, %1, %0" : "+v"(sums[row][vector]) : "v"(everywhere), "v"(there[vector]));
            });
        });
    }
    each<ROWS>([&](auto row) INLINED {
        each<VECTORS>([&](auto vector) INLINED { take(row, 16 * vector, _mm512_cvtepi32_ps(sums[row][vector])); });
    });
}

// All of it; ``rows`` is a multiple of ROWS, ``columns`` of 16.
template <typename Take>
INLINE void product(const int16_t* left, int64_t rows, int64_t stride, const int16_t* right, int64_t columns,
                           int64_t pairs, Take take) {
    for (int64_t column = 0; column < columns;) {
        bool wide = columns - column >= 64;
        for (int64_t row = 0; row < rows; row += ROWS) {
            auto take_here = [&](int r, int c, __m512 sums) INLINED { take(row + r, column + c, sums); };
            if (wide)
                tile<4>(left + row * stride, stride, right + 2 * column, columns, pairs, take_here);
            else
                tile<1>(left + row * stride, stride, right + 2 * column, columns, pairs, take_here);
        }
        column += wide ? 64 : 16;
    }
}

// ---- Rounding

// To the nearest whole number, of less than 2^22. (What C++ has for it is a call of a function for each number.)
static inline int16_t rounded(float value) {
    return static_cast<int16_t>(std::bit_cast<int32_t>(value + 12582912.0f) - std::bit_cast<int32_t>(12582912.0f));
}

// Whole numbers up to ``largest`` of a row, and what to multiply them with; NaN of what is no number.
static float round_row(const float* row, const float* middle, int64_t channels, int32_t largest, int16_t* whole) {
    float reach = 0, poison = 0;
#pragma omp simd reduction(max : reach) reduction(+ : poison)
    for (int64_t h = 0; h < channels; h++) {
        float value = row[h] - middle[h];
        float size = value < 0 ? -value : value;
        reach = size > reach ? size : reach;
        poison += value * 0.0f;
    }
    float scale = std::max(reach / static_cast<float>(largest), 1e-30f), inverse = 1 / scale;
#pragma omp simd
    for (int64_t h = 0; h < channels; h++) whole[h] = rounded((row[h] - middle[h]) * inverse);
    return scale + poison;
}

// 2 to the power of x for x <= 0, to 3 in 100 000.
static inline float power_of_two(float x) {
    int32_t below = static_cast<int32_t>(x) - 1;
    float rest = x - static_cast<float>(below);
    below = std::max(below, -30);
    float y = 1.0000026f + rest * (0.6929911f + rest * (0.2416413f + rest * (0.0517177f + rest * 0.0136779f)));
    return std::bit_cast<float>(std::bit_cast<int32_t>(y) + (below << 23));
}

// ---- A head of a text

struct Strided {  // float32 (tokens, heads, channels), the channels side by side
    float* data;
    int64_t token, head;
    float* at(int64_t t, int64_t n) const { return data + t * token + n * head; }
};

// Keys and values as whole numbers, KEYS after KEYS: keys (channels / 2, keys, 2), values (keys / 2, channels, 2).
struct Head {
    int16_t *keys, *values;
    float* key_scales;                   // of each key
    float *value_scales, *value_middles; // of each channel
};

static void round_keys(const Head& to, const Strided& k, int64_t tokens, int64_t n, int64_t channels,
                       int64_t wide, int32_t largest) {
    std::vector<float> mean(channels, 0.0f);
    std::vector<int16_t> row(wide, 0);
    float share = 1 / static_cast<float>(tokens);
    for (int64_t t = 0; t < tokens; t++) {
        const float* there = k.at(t, n);
#pragma omp simd
        for (int64_t h = 0; h < channels; h++) mean[h] += there[h] * share;
    }
    for (int64_t first = 0; first < tokens; first += KEYS) {
        int64_t columns = std::min(rounded_up(tokens - first, 16), KEYS);
        int16_t* there = to.keys + first * wide;
        std::memset(there, 0, columns * wide * sizeof(int16_t));
        for (int64_t t = first; t < std::min(first + KEYS, tokens); t++) {
            to.key_scales[t] = round_row(k.at(t, n), mean.data(), channels, largest, row.data());
            for (int64_t pair = 0; pair < wide / 2; pair++)  // two channels at once
                std::memcpy(there + (pair * columns + t - first) * 2, &row[2 * pair], 2 * sizeof(int16_t));
        }
    }
}

static void round_values(const Head& to, const Strided& v, int64_t tokens, int64_t n, int64_t channels,
                         int64_t wide) {
    std::vector<float> low(v.at(0, n), v.at(0, n) + channels), high(low), poison(channels, 0.0f);
    for (int64_t t = 0; t < tokens; t++) {
        const float* row = v.at(t, n);
#pragma omp simd
        for (int64_t h = 0; h < channels; h++) {
            low[h] = row[h] < low[h] ? row[h] : low[h];
            high[h] = row[h] > high[h] ? row[h] : high[h];
            poison[h] += row[h] * 0.0f;
        }
    }
    std::vector<float> inverse(channels);
    for (int64_t h = 0; h < channels; h++) {
        to.value_middles[h] = (low[h] + high[h]) / 2 + poison[h];
        to.value_scales[h] = std::max((high[h] - low[h]) / (2 * VALUE - 1), 1e-30f);
        inverse[h] = 1 / to.value_scales[h];
    }
    std::memset(to.values, 0, rounded_up(tokens, 16) * wide * sizeof(int16_t));
    for (int64_t t = 0; t < tokens; t++) {
        const float* row = v.at(t, n);
        int16_t* there = to.values + t / 2 * wide * 2 + t % 2;
#pragma omp simd
        for (int64_t h = 0; h < channels; h++) there[2 * h] = rounded((row[h] - to.value_middles[h]) * inverse[h]);
    }
}

// ---- A block of queries

struct Room {  // of a thread
    std::vector<int16_t> queries, weights;
    std::vector<float> scores, sums, nothing;
    Room(int64_t wide, int64_t out)
        : queries(BLOCK * wide), weights(BLOCK * KEYS), scores(BLOCK * KEYS), sums(BLOCK * out), nothing(wide, 0.0f) {}
};

static void block(const Head& from, const Strided& q, const Strided& context, int64_t tokens, int64_t n, int64_t first,
                  int64_t channels, int64_t wide, int64_t out, int32_t largest, float scale, Room& room) {
    int64_t count = std::min(BLOCK, tokens - first), rows = rounded_up(count, ROWS);
    float query_scales[BLOCK], maxima[BLOCK], totals[BLOCK], before[BLOCK], now[BLOCK];
    std::fill(room.queries.begin(), room.queries.end(), static_cast<int16_t>(0));
    std::fill(room.sums.begin(), room.sums.end(), 0.0f);
    for (int64_t i = 0; i < rows; i++) {
        maxima[i] = -INFINITY, totals[i] = 0, query_scales[i] = 0;
        if (i < count)
            query_scales[i] = scale * round_row(q.at(first + i, n), room.nothing.data(), channels, largest,
                                                &room.queries[i * wide]);
    }
    for (int64_t key = 0; key < tokens; key += KEYS) {
        int64_t keys = std::min(KEYS, tokens - key), columns = std::min(rounded_up(keys, 16), KEYS);
        const float* key_scales = from.key_scales + key;
        product(room.queries.data(), rows, wide, from.keys + key * wide, columns, wide / 2,
                [&](int64_t row, int64_t column, __m512 sums) INLINED {
                    __m512 scales = _mm512_mul_ps(_mm512_set1_ps(query_scales[row]), _mm512_loadu_ps(key_scales + column));
                    _mm512_storeu_ps(&room.scores[row * KEYS + column], _mm512_mul_ps(sums, scales));
                });
        for (int64_t i = 0; i < rows; i++) {
            const float* score = &room.scores[i * KEYS];
            int16_t* weight = &room.weights[i * KEYS];
            float largest_here = -INFINITY;
#pragma omp simd reduction(max : largest_here)
            for (int64_t j = 0; j < keys; j++) largest_here = score[j] > largest_here ? score[j] : largest_here;
            int32_t total = 0;
#pragma omp simd reduction(+ : total)
            for (int64_t j = 0; j < keys; j++) {
                int32_t whole = static_cast<int32_t>(power_of_two(score[j] - largest_here) * WEIGHT + 0.5f);
                weight[j] = static_cast<int16_t>(whole);
                total += whole;
            }
            std::fill(weight + keys, weight + rounded_up(keys, 2), static_cast<int16_t>(0));
            float maximum = std::max(maxima[i], largest_here);
            before[i] = std::exp2(maxima[i] - maximum), now[i] = std::exp2(largest_here - maximum);
            totals[i] = totals[i] * before[i] + static_cast<float>(total) * now[i];
            maxima[i] = maximum;
        }
        product(room.weights.data(), rows, KEYS, from.values + key * out, out, rounded_up(keys, 2) / 2,
                [&](int64_t row, int64_t column, __m512 sums) INLINED {
                    float* sum = &room.sums[row * out + column];
                    __m512 old = _mm512_mul_ps(_mm512_loadu_ps(sum), _mm512_set1_ps(before[row]));
                    _mm512_storeu_ps(sum, _mm512_fmadd_ps(sums, _mm512_set1_ps(now[row]), old));
                });
    }
    for (int64_t i = 0; i < count; i++) {
        float* row = context.at(first + i, n);
        float poison = query_scales[i] * 0.0f;
        for (int64_t h = 0; h < channels; h++)
            row[h] = room.sums[i * out + h] / totals[i] * from.value_scales[h] + from.value_middles[h] + poison;
    }
}

// ---- All heads

// q, k, v, context: float32 (tokens, heads, channels). strides: of a token and of a head, of each of these. scale: of
// the scores, times the logarithm of e to base 2.
extern "C" void integer_attention(float* q, float* k, float* v, float* context, const int64_t* strides, int64_t tokens,
                                  int64_t heads, int64_t channels, float scale) {
    Strided from_q{q, strides[0], strides[1]}, from_k{k, strides[2], strides[3]}, from_v{v, strides[4], strides[5]};
    Strided to{context, strides[6], strides[7]};
    int64_t wide = rounded_up(channels, 2), out = rounded_up(channels, 16), room = rounded_up(tokens, 16);
    // The products of two, added up over the channels, fit into 31 bits.
    int32_t largest = std::min(4095, static_cast<int32_t>(std::sqrt(2147483647.0 / static_cast<double>(wide))));
    std::unique_ptr<int16_t[]> keys(new int16_t[heads * room * wide]), values(new int16_t[heads * room * out]);
    std::vector<float> key_scales(heads * room), value_scales(heads * out), value_middles(heads * out);
    auto head = [&](int64_t n) {
        return Head{&keys[n * room * wide], &values[n * room * out], &key_scales[n * room], &value_scales[n * out],
                    &value_middles[n * out]};
    };
    int64_t blocks = (tokens + BLOCK - 1) / BLOCK;
#pragma omp parallel
    {
#pragma omp for schedule(dynamic)
        for (int64_t n = 0; n < heads; n++) {
            round_keys(head(n), from_k, tokens, n, channels, wide, largest);
            round_values(head(n), from_v, tokens, n, channels, out);
        }
        Room own(wide, out);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < heads * blocks; task++) {
            int64_t n = task / blocks;
            block(head(n), from_q, to, tokens, n, task % blocks * BLOCK, channels, wide, out, largest, scale, own);
        }
    }
}
