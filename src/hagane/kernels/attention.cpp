// Causal attention over packed documents on a CPU, forward and backward: FlashAttention's recomputation (Dao et al. 2022)
// with the keys of a query cut down to its own document, so that a row of short documents costs what they cost.
//
// Layouts: query, output and their gradients (rows, length, heads, head_dim), contiguous; key and value (rows, length, kv_heads,
// head_dim), their tokens `stride` elements apart. first[row][t] is the first key that query t sees; t is the last; it never
// falls within a row; chosen[row][t][s], where given, is 0 for keys that t does not read. One task is one kv head of one row, done
// by one thread from beginning to end: results do not depend on the number of threads.
//
// A "lane" is 32 bits: one float, or a pair of bfloat16 neighbours along the summed dimension where the processor multiplies
// such pairs (AVX512-BF16). All products are one routine over lanes: C[m][n] (+)= sum_k A[m][k] * B[k][n].

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "numbers.h"

#if defined(__AVX512BF16__) && defined(__AVX512VL__)
#include <immintrin.h>
#define HAS_PAIRS 1
#else
#define HAS_PAIRS 0
#endif

namespace {

constexpr int TILE = 16;  // queries done together

template <int W> struct Wide { typedef float F __attribute__((vector_size(W * 4), aligned(4), may_alias)); typedef int32_t I __attribute__((vector_size(W * 4), aligned(4), may_alias)); };
typedef Wide<16>::F F16;
typedef Wide<16>::I I16;

inline uint32_t bits_of(float x) { uint32_t y; std::memcpy(&y, &x, 4); return y; }

// How many neighbours a lane holds, and one multiply-add of lanes.
struct Single {
  static constexpr int N = 1;
  template <int W> static inline void madd(typename Wide<W>::F& c, uint32_t a, const uint32_t* b) {
    float x; std::memcpy(&x, &a, 4);
    c += x * *reinterpret_cast<const typename Wide<W>::F*>(b);
  }
};
#if HAS_PAIRS
struct Pair {
  static constexpr int N = 2;
  template <int W> static inline void madd(typename Wide<W>::F& c, uint32_t a, const uint32_t* b) {
    if constexpr (W == 16) c = (typename Wide<W>::F)_mm512_dpbf16_ps((__m512)c, (__m512bh)_mm512_set1_epi32(int(a)), (__m512bh)_mm512_loadu_si512(b));
    else c = (typename Wide<W>::F)_mm256_dpbf16_ps((__m256)c, (__m256bh)_mm256_set1_epi32(int(a)), (__m256bh)_mm256_loadu_si256((const __m256i*)b));
  }
};
#endif

// A of M x K lanes at a[m * am + k * ak], B of K x N lanes, C of M x N floats; M and NV blocks are held in registers.
template <class L, int W, int MR, int NV>
inline void block(int K, const uint32_t* a, long am, long ak, const uint32_t* b, long ldb, float* c, long ldc, bool add) {
  typedef typename Wide<W>::F F;
  F sum[MR][NV];
  for (int m = 0; m < MR; m++) for (int n = 0; n < NV; n++) sum[m][n] = add ? *(F*)(c + m * ldc + n * W) : F{};
  for (int k = 0; k < K; k++)
    for (int m = 0; m < MR; m++) {
      const uint32_t x = a[m * am + k * ak];
      for (int n = 0; n < NV; n++) L::template madd<W>(sum[m][n], x, b + k * ldb + n * W);
    }
  for (int m = 0; m < MR; m++) for (int n = 0; n < NV; n++) *(F*)(c + m * ldc + n * W) = sum[m][n];
}

template <class L, int W, int NV>
inline void rows(int M, int K, const uint32_t* a, long am, long ak, const uint32_t* b, long ldb, float* c, long ldc, bool add) {
  int m = 0;
  for (; m + 4 <= M; m += 4) block<L, W, 4, NV>(K, a + m * am, am, ak, b, ldb, c + m * ldc, ldc, add);
  for (; m < M; m++) block<L, W, 1, NV>(K, a + m * am, am, ak, b, ldb, c + m * ldc, ldc, add);
}

// N is a multiple of W.
template <class L, int W>
void product(int M, int N, int K, const uint32_t* a, long am, long ak, const uint32_t* b, long ldb, float* c, long ldc, bool add) {
  int n = 0;
  for (; n + 4 * W <= N; n += 4 * W) rows<L, W, 4>(M, K, a, am, ak, b + n, ldb, c + n, ldc, add);
  for (; n + 3 * W <= N; n += 3 * W) rows<L, W, 3>(M, K, a, am, ak, b + n, ldb, c + n, ldc, add);
  for (; n + 2 * W <= N; n += 2 * W) rows<L, W, 2>(M, K, a, am, ak, b + n, ldb, c + n, ldc, add);
  for (; n + W <= N; n += W) rows<L, W, 1>(M, K, a, am, ak, b + n, ldb, c + n, ldc, add);
}

template <class L>
void product(int M, int N, int K, const uint32_t* a, long am, long ak, const uint32_t* b, long ldb, float* c, long ldc, bool add) {
  if (N % 16 == 0) product<L, 16>(M, N, K, a, am, ak, b, ldb, c, ldc, add);
  else product<L, 8>(M, N, K, a, am, ak, b, ldb, c, ldc, add);
}

// exp of 16 numbers at most 0, within 2 units in the last place; below -87 it is 0.
inline F16 exp16(F16 x) {
  const F16 low = F16{} - 87.f;
  const I16 alive = x > low;
  const F16 y = exp_within<F16, I16>(alive ? x : low);
  return alive ? y : F16{};
}

inline float top_of(F16 x) { float y = x[0]; for (int i = 1; i < 16; i++) y = std::max(y, x[i]); return y; }
inline float sum_of(F16 x) { float y = 0; for (int i = 0; i < 16; i++) y += x[i]; return y; }

// A row of N floats (a multiple of 16) as lanes along its columns.
template <class L> inline void lanes_along(const float* x, int N, uint32_t* out) {
#if HAS_PAIRS
  if constexpr (L::N == 2) {
    for (int j = 0; j < N; j += 16) _mm256_storeu_si256((__m256i*)(out + j / 2), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(x + j)));
    return;
  }
#endif
  std::memcpy(out, x, N * 4);
}

// Rows `ld` floats apart as lanes down its columns, one row of lanes for each L::N rows.
template <class L> inline void lanes_down(const float* x, long ld, int num_lanes, int N, uint32_t* out) {
  for (int m = 0; m < num_lanes; m++) {
    const float* row = x + m * L::N * ld;
#if HAS_PAIRS
    if constexpr (L::N == 2) {
      for (int j = 0; j < N; j += 16) {
        const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(row + j)));
        const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(row + ld + j)));
        _mm512_storeu_si512(out + m * ld + j, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
      }
      continue;
    }
#endif
    std::memcpy(out + m * ld, row, N * 4);
  }
}

// 1 in the columns [begin, end) of those from j on.
inline I16 columns(int j, int begin, int end) {
  const I16 at = I16{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + j;
  return (at >= begin) & (at < end);
}

// Those of 16 columns from j on in [begin, end) that are not 0 in a row of bytes, where there is one, of which column 0 is at `low`.
inline I16 read_columns(int j, int begin, int end, const uint8_t* row, int low, int length) {
  const I16 inside = columns(j, begin, end);
  if (!row) return inside;
  typedef uint8_t Bytes __attribute__((vector_size(16)));
  Bytes bytes = {};
  if (low + j + 16 <= length) std::memcpy(&bytes, row + low + j, 16);
  else std::memcpy(&bytes, row + low + j, std::max(0, length - low - j));
  return inside & (__builtin_convertvector(bytes, I16) != 0);
}

// Lanes run along the head dimension: out[h / N][t], for products whose sum runs over h. `out` rows are `ld` lanes.
template <class L, class T> void pack_across(const T* x, long stride, int length, int H, uint32_t* out, long ld) {
  for (int h = 0; h < H; h += L::N)
    for (int t = 0; t < length; t++) {
      const T* p = x + t * stride + h;
      if constexpr (L::N == 2) std::memcpy(&out[(h / 2) * ld + t], p, 4);
      else out[h * ld + t] = bits_of(widen(*p));
    }
}

// Lanes run along tokens: out[t / N][h], for products whose sum runs over tokens. The token after the last counts as zero.
template <class L, class T> void pack_along(const T* x, long stride, int length, int H, uint32_t* out) {
  for (int t = 0; t < length; t += L::N)
    for (int h = 0; h < H; h++) {
      if constexpr (L::N == 2) out[(t / 2) * H + h] = uint32_t(x[t * stride + h]) | (t + 1 < length ? uint32_t(x[(t + 1) * stride + h]) << 16 : 0u);
      else out[t * H + h] = bits_of(widen(x[t * stride + h]));
    }
}

struct Shape { int length, heads, kv_heads, H; float scale; };

// What one thread needs. `span` lanes are padded so that whole vectors may be written past the last key.
template <class L> struct Scratch {
  long ld;
  std::vector<uint32_t> key_across, value_across, key_along, value_along, weight, slope, query, gradient;
  std::vector<float> score, slope_score, mixed, key_gradient, value_gradient;
  Scratch(const Shape& s, bool backward) : ld((s.length + 2 * TILE + 15) / 16 * 16) {
    const long lanes_H = s.H / L::N, lanes_T = (s.length + 1) / L::N + 1;
    key_across.assign(lanes_H * ld, 0);
    weight.assign(TILE * ld, 0); score.assign(TILE * ld, 0); mixed.assign(TILE * s.H, 0);
    query.assign(TILE * s.H, 0);
    if (!backward) { value_along.assign(lanes_T * s.H, 0); return; }
    value_across.assign(lanes_H * ld, 0); key_along.assign(lanes_T * s.H, 0);
    slope.assign(TILE * ld, 0); slope_score.assign(TILE * ld, 0); gradient.assign(TILE * s.H, 0);
    key_gradient.assign((s.length + 2 * TILE) * s.H, 0); value_gradient.assign((s.length + 2 * TILE) * s.H, 0);
  }
};

// A tile of rows of (length, heads, head_dim) as lanes; floats of bfloat16 rows are written out where lanes are single.
template <class L, class T> const uint32_t* tile_lanes(const T* x, long stride, int M, int H, std::vector<uint32_t>& space, long& am) {
  if constexpr (L::N == 2 || sizeof(T) == 4) { am = stride / L::N; return reinterpret_cast<const uint32_t*>(x); }
  else {
    for (int m = 0; m < M; m++) for (int h = 0; h < H; h++) space[m * H + h] = bits_of(widen(x[m * stride + h]));
    am = H;
    return space.data();
  }
}

template <class T, class L>
void forward_task(const Shape& s, const T* q, const T* k, long k_stride, const T* v, long v_stride, const int32_t* first, const uint8_t* chosen, T* out,
                  float* lse, Scratch<L>& w) {
  const int H = s.H, group = s.heads / s.kv_heads;
  const long q_stride = long(s.heads) * H;
  pack_across<L>(k, k_stride, s.length, H, w.key_across.data(), w.ld);
  pack_along<L>(v, v_stride, s.length, H, w.value_along.data());
  for (int g = 0; g < group; g++)
    for (int t0 = 0; t0 < s.length; t0 += TILE) {
      const int M = std::min(TILE, s.length - t0), low = first[t0] & ~1, span = t0 + M - low;
      const int N = (span + 15) / 16 * 16;
      long am;
      const uint32_t* a = tile_lanes<L>(q + t0 * q_stride + g * H, q_stride, M, H, w.query, am);
      product<L, 16>(M, N, H / L::N, a, am, 1, w.key_across.data() + low, w.ld, w.score.data(), w.ld, false);
      float total[TILE];
      for (int m = 0; m < M; m++) {
        float* row = w.score.data() + m * w.ld;
        const int begin = first[t0 + m] - low, end = t0 + m - low + 1;
        const uint8_t* choice = chosen ? chosen + long(t0 + m) * s.length : nullptr;
        const F16 nothing = F16{} - 3e38f;
        F16 tops = nothing;
        for (int j = 0; j < N; j += 16) {
          const F16 x = read_columns(j, begin, end, choice, low, s.length) ? *(F16*)(row + j) : nothing;
          tops = x > tops ? x : tops;
        }
        const float top = top_of(tops);
        F16 sums = F16{};
        for (int j = 0; j < N; j += 16) {
          F16& x = *(F16*)(row + j);
          const F16 z = (x - top) * s.scale;
          x = read_columns(j, begin, end, choice, low, s.length) ? exp16(z < 0.f ? z : F16{}) : F16{};
          sums += x;
        }
        total[m] = sum_of(sums);
        lse[(t0 + m) * long(s.heads) + g] = top * s.scale + std::log(total[m]);
        lanes_along<L>(row, N, w.weight.data() + m * w.ld);
      }
      product<L>(M, H, (span + L::N - 1) / L::N, w.weight.data(), w.ld, 1, w.value_along.data() + (low / L::N) * H, H, w.mixed.data(), H, false);
      for (int m = 0; m < M; m++) {
        const float share = 1.f / total[m];
        for (int h = 0; h < H; h++) narrow(w.mixed[m * H + h] * share, out[(t0 + m) * q_stride + g * H + h]);
      }
    }
}

template <class T, class L>
void backward_task(const Shape& s, const T* q, const T* k, long k_stride, const T* v, long v_stride, const int32_t* first, const uint8_t* chosen,
                   const T* out, const float* lse, const T* d_out, T* dq, T* dk, T* dv, Scratch<L>& w) {
  const int H = s.H, group = s.heads / s.kv_heads;
  const long q_stride = long(s.heads) * H, kv_stride = long(s.kv_heads) * H;
  pack_across<L>(k, k_stride, s.length, H, w.key_across.data(), w.ld);
  pack_across<L>(v, v_stride, s.length, H, w.value_across.data(), w.ld);
  pack_along<L>(k, k_stride, s.length, H, w.key_along.data());
  std::fill(w.key_gradient.begin(), w.key_gradient.end(), 0.f);
  std::fill(w.value_gradient.begin(), w.value_gradient.end(), 0.f);
  for (int g = 0; g < group; g++)
    for (int t0 = 0; t0 < s.length; t0 += TILE) {
      const int M = std::min(TILE, s.length - t0), low = first[t0] & ~1, span = t0 + M - low;
      const int N = (span + 15) / 16 * 16;
      const T *q_tile = q + t0 * q_stride + g * H, *d_tile = d_out + t0 * q_stride + g * H, *o_tile = out + t0 * q_stride + g * H;
      long am;
      const uint32_t* a = tile_lanes<L>(q_tile, q_stride, M, H, w.query, am);
      product<L, 16>(M, N, H / L::N, a, am, 1, w.key_across.data() + low, w.ld, w.score.data(), w.ld, false);
      a = tile_lanes<L>(d_tile, q_stride, M, H, w.gradient, am);
      product<L, 16>(M, N, H / L::N, a, am, 1, w.value_across.data() + low, w.ld, w.slope_score.data(), w.ld, false);
      for (int m = 0; m < M; m++) {
        float delta = 0;
        for (int h = 0; h < H; h++) delta += widen(d_tile[m * q_stride + h]) * widen(o_tile[m * q_stride + h]);
        const float log_sum = lse[(t0 + m) * long(s.heads) + g];
        const int begin = first[t0 + m] - low, end = t0 + m - low + 1;
        const uint8_t* choice = chosen ? chosen + long(t0 + m) * s.length : nullptr;
        float *row = w.score.data() + m * w.ld, *slope = w.slope_score.data() + m * w.ld;
        for (int j = 0; j < N; j += 16) {
          F16 &x = *(F16*)(row + j), &d = *(F16*)(slope + j);
          const I16 here = read_columns(j, begin, end, choice, low, s.length);
          const F16 z = x * s.scale - log_sum;
          const F16 y = here ? exp16(z < 0.f ? z : F16{}) : F16{};
          d = here ? y * (d - delta) * s.scale : F16{};
          x = y;
        }
      }
      const int lanes_M = (M + L::N - 1) / L::N;
      if (M % L::N) {  // the missing neighbour of the last row counts as zero
        std::fill_n(&w.score[M * w.ld], N, 0.f);
        std::fill_n(&w.slope_score[M * w.ld], N, 0.f);
      }
      for (int m = 0; m < M; m++) lanes_along<L>(&w.slope_score[m * w.ld], N, &w.slope[m * w.ld]);
      product<L>(M, H, (span + L::N - 1) / L::N, w.slope.data(), w.ld, 1, w.key_along.data() + (low / L::N) * H, H, w.mixed.data(), H, false);
      for (int m = 0; m < M; m++) for (int h = 0; h < H; h++) narrow(w.mixed[m * H + h], dq[(t0 + m) * q_stride + g * H + h]);
      lanes_down<L>(w.score.data(), w.ld, lanes_M, N, w.weight.data());
      pack_along<L>(d_tile, q_stride, M, H, w.gradient.data());
      product<L>(span, H, lanes_M, w.weight.data(), 1, w.ld, w.gradient.data(), H, w.value_gradient.data() + long(low) * H, H, true);
      lanes_down<L>(w.slope_score.data(), w.ld, lanes_M, N, w.weight.data());
      pack_along<L>(q_tile, q_stride, M, H, w.query.data());
      product<L>(span, H, lanes_M, w.weight.data(), 1, w.ld, w.query.data(), H, w.key_gradient.data() + long(low) * H, H, true);
    }
  for (int t = 0; t < s.length; t++)
    for (int h = 0; h < H; h++) { narrow(w.key_gradient[t * H + h], dk[t * kv_stride + h]); narrow(w.value_gradient[t * H + h], dv[t * kv_stride + h]); }
}

// Where a task's parts begin: in `first`, in queries (and the output), in contiguous keys (their gradients), in the log sums.
struct Task {
  long token, query, key, log_sum, head;
  Task(const Shape& s, long row, long head) : token(row * s.length), head(head) {
    log_sum = token * s.heads + head * (s.heads / s.kv_heads);
    query = log_sum * s.H;
    key = (token * s.kv_heads + head) * s.H;
  }
};

// `work(task, scratch)` for every kv head of every row, on all threads.
template <class L, class Work> void for_each_task(int num_rows, const Shape& s, bool backward, Work work) {
#pragma omp parallel
  {
    Scratch<L> scratch(s, backward);
#pragma omp for schedule(dynamic, 1)
    for (int index = 0; index < num_rows * s.kv_heads; index++) work(Task(s, index / s.kv_heads, index % s.kv_heads), scratch);
  }
}

template <class T, class L>
void forward_all(int num_rows, const Shape& s, const T* q, const T* k, long k_stride, const T* v, long v_stride, const int32_t* first, const uint8_t* chosen, T* out,
                 float* lse) {
  for_each_task<L>(num_rows, s, false, [&](const Task& at, Scratch<L>& scratch) {
    forward_task<T, L>(s, q + at.query, k + at.token * k_stride + at.head * s.H, k_stride, v + at.token * v_stride + at.head * s.H, v_stride, first + at.token,
                       chosen ? chosen + at.token * s.length : nullptr, out + at.query, lse + at.log_sum, scratch);
  });
}

template <class T, class L>
void backward_all(int num_rows, const Shape& s, const T* q, const T* k, long k_stride, const T* v, long v_stride, const int32_t* first, const uint8_t* chosen,
                  const T* out, const float* lse, const T* d_out, T* dq, T* dk, T* dv) {
  for_each_task<L>(num_rows, s, true, [&](const Task& at, Scratch<L>& scratch) {
    backward_task<T, L>(s, q + at.query, k + at.token * k_stride + at.head * s.H, k_stride, v + at.token * v_stride + at.head * s.H, v_stride, first + at.token,
                        chosen ? chosen + at.token * s.length : nullptr, out + at.query, lse + at.log_sum, d_out + at.query, dq + at.query, dk + at.key, dv + at.key, scratch);
  });
}

#if HAS_PAIRS
typedef Pair Bf16Lane;
#else
typedef Single Bf16Lane;
#endif

}  // namespace

extern "C" {

void attend_forward(int wide, int num_rows, int length, int heads, int kv_heads, int head_dim, const void* q, const void* k, long k_stride, const void* v, long v_stride,
                    const int32_t* first, const uint8_t* chosen, void* out, float* lse) {
  const Shape s{length, heads, kv_heads, head_dim, 1.f / std::sqrt(float(head_dim))};
  if (wide) forward_all<float, Single>(num_rows, s, (const float*)q, (const float*)k, k_stride, (const float*)v, v_stride, first, chosen, (float*)out, lse);
  else forward_all<bf16, Bf16Lane>(num_rows, s, (const bf16*)q, (const bf16*)k, k_stride, (const bf16*)v, v_stride, first, chosen, (bf16*)out, lse);
}

void attend_backward(int wide, int num_rows, int length, int heads, int kv_heads, int head_dim, const void* q, const void* k, long k_stride, const void* v, long v_stride,
                     const int32_t* first, const uint8_t* chosen, const void* out, const float* lse, const void* d_out, void* dq, void* dk, void* dv) {
  const Shape s{length, heads, kv_heads, head_dim, 1.f / std::sqrt(float(head_dim))};
  if (wide) backward_all<float, Single>(num_rows, s, (const float*)q, (const float*)k, k_stride, (const float*)v, v_stride, first, chosen, (const float*)out, lse, (const float*)d_out, (float*)dq, (float*)dk, (float*)dv);
  else backward_all<bf16, Bf16Lane>(num_rows, s, (const bf16*)q, (const bf16*)k, k_stride, (const bf16*)v, v_stride, first, chosen, (const bf16*)out, lse, (const bf16*)d_out, (bf16*)dq, (bf16*)dk, (bf16*)dv);
}

}
