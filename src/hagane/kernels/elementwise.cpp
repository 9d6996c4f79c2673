// What stands between the matrix products of a block on a CPU, each in one pass over memory: norms (and the residual sum before them), the heads of
// attention (norm, rotation, and their way out of one matrix), SwiGLU, and the loss with its gradient for the logits.
//
// Rows are contiguous, of bfloat16 or float; everything is computed in float. A row is done by one thread from beginning to end, and what is summed over
// rows is summed in blocks of BLOCK rows in their order: results do not depend on the number of threads.

#include "numbers.h"

namespace {

template <class Size> inline float dot(const float* x, const float* y, const Size n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < n; i++) sum += x[i] * y[i];
  return sum;
}

template <class T, class Size> inline void read(const T* x, const Size n, float* y) {
#pragma omp simd
  for (int i = 0; i < n; i++) y[i] = widen(x[i]);
}

template <class Size> inline float inverse_root(const float* x, const Size n, float epsilon) { return 1.f / std::sqrt(dot(x, x, n) / n + epsilon); }

// Of one row: the gradient of x / rms(x) * weight for x into `d`, what it adds to that of the weight onto `d_weight`. `g` is overwritten.
template <class Size> inline void norm_gradient(const float* x, float* g, const float* weight, const Size n, float epsilon, float* d, float* d_weight) {
  const float scale = inverse_root(x, n, epsilon);
#pragma omp simd
  for (int i = 0; i < n; i++) { d_weight[i] += g[i] * x[i] * scale; g[i] *= weight[i]; }
  const float c = dot(g, x, n) * scale * scale * scale / n;
#pragma omp simd
  for (int i = 0; i < n; i++) d[i] = g[i] * scale - x[i] * c;
}

template <class T> void norm_all(long rows, int width, const T* x, const T* added, const float* weight, float epsilon, T* sum, T* y) {
#pragma omp parallel
  {
    std::vector<float> space(width);
    float* h = space.data();
#pragma omp for schedule(static)
    for (long row = 0; row < rows; row++) {
      const long at = row * width;
      if (added) {
#pragma omp simd
        for (int i = 0; i < width; i++) { T z; narrow(widen(x[at + i]) + widen(added[at + i]), z); sum[at + i] = z; h[i] = widen(z); }
      } else read(x + at, width, h);
      const float scale = inverse_root(h, width, epsilon);
#pragma omp simd
      for (int i = 0; i < width; i++) narrow(h[i] * scale * weight[i], y[at + i]);
    }
  }
}

template <class T> void norm_back_all(long rows, int width, const T* dy, const T* x, const T* d_sum, const float* weight, float epsilon, T* dx, float* d_weight) {
  in_blocks(rows, width, 3 * width, d_weight, [&](long first, long last, float* sums, float* space) {
    float *h = space, *g = space + width, *d = space + 2 * width;
    for (long row = first; row < last; row++) {
      const long at = row * width;
      read(x + at, width, h);
      read(dy + at, width, g);
      norm_gradient(h, g, weight, width, epsilon, d, sums);
      if (d_sum) {
#pragma omp simd
        for (int i = 0; i < width; i++) narrow(d[i] + widen(d_sum[at + i]), dx[at + i]);
      } else {
#pragma omp simd
        for (int i = 0; i < width; i++) narrow(d[i], dx[at + i]);
      }
    }
  });
}

struct Heads { int heads, kv_heads, H, R; float epsilon; };

// Heads whose size is known when this is compiled, all of whose dimensions turn, take half of the time: their loops are too short to be entered and left.
// `work` is called with the size and half of it, as constants or as they are.
template <int N> struct Constant { constexpr operator int() const { return N; } };
template <class Work> void with_sizes(const Heads& s, Work work) {
  if (2 * s.R != s.H) return work(s.H, s.R);
  switch (s.H) {
    case 16: return work(Constant<16>(), Constant<8>());
    case 24: return work(Constant<24>(), Constant<12>());
    case 32: return work(Constant<32>(), Constant<16>());
    case 48: return work(Constant<48>(), Constant<24>());
    case 64: return work(Constant<64>(), Constant<32>());
    case 128: return work(Constant<128>(), Constant<64>());
    default: return work(s.H, s.R);
  }
}

template <class T, class Size, class Half>
void heads_all(long tokens, const Heads& s, const Size H, const Half R, const T* qkv, const float* cosine, const float* sine, const float* q_weight, const float* k_weight, T* q, T* k, T* v) {
  const long width = long(s.heads + 2 * s.kv_heads) * H;
#pragma omp parallel
  {
    std::vector<float> space(H);
    float* h = space.data();
#pragma omp for schedule(static)
    for (long token = 0; token < tokens; token++) {
      const T* row = qkv + token * width;
      const float *c = cosine + token * R, *w = sine + token * R;
      for (int head = 0; head < s.heads + s.kv_heads; head++) {
        const bool is_query = head < s.heads;
        const float* weight = is_query ? q_weight : k_weight;
        T* y = is_query ? q + (token * s.heads + head) * H : k + (token * s.kv_heads + head - s.heads) * H;
        read(row + head * H, H, h);
        if (weight) {
          const float scale = inverse_root(h, H, s.epsilon);
#pragma omp simd
          for (int i = 0; i < H; i++) h[i] = h[i] * scale * weight[i];
        }
#pragma omp simd
        for (int i = 0; i < R; i++) {
          narrow(h[i] * c[i] - h[R + i] * w[i], y[i]);
          narrow(h[R + i] * c[i] + h[i] * w[i], y[R + i]);
        }
        for (int i = 2 * R; i < H; i++) narrow(h[i], y[i]);
      }
      std::copy_n(row + long(s.heads + s.kv_heads) * H, s.kv_heads * H, v + token * s.kv_heads * H);
    }
  }
}

template <class T, class Size, class Half>
void heads_back_all(long tokens, const Heads& s, const Size H, const Half R, const T* dq, const T* dk, const T* dv, const T* qkv, const float* cosine, const float* sine, const float* q_weight,
                    const float* k_weight, T* d_qkv, float* d_weights) {
  const long width = long(s.heads + 2 * s.kv_heads) * H;
  in_blocks(tokens, 2 * H, 3 * H, d_weights, [&](long first, long last, float* sums, float* space) {
    float *h = space, *g = space + H, *d = space + 2 * H;
    for (long token = first; token < last; token++) {
      const float *c = cosine + token * R, *w = sine + token * R;
      T* row = d_qkv + token * width;
      for (int head = 0; head < s.heads + s.kv_heads; head++) {
        const bool is_query = head < s.heads;
        const float* weight = is_query ? q_weight : k_weight;
        const T* x = is_query ? dq + (token * s.heads + head) * H : dk + (token * s.kv_heads + head - s.heads) * H;
#pragma omp simd
        for (int i = 0; i < R; i++) {
          const float one = widen(x[i]), other = widen(x[R + i]);
          g[i] = one * c[i] + other * w[i];
          g[R + i] = other * c[i] - one * w[i];
        }
        for (int i = 2 * R; i < H; i++) g[i] = widen(x[i]);
        const float* result = g;
        if (weight) {
          read(qkv + token * width + head * H, H, h);
          norm_gradient(h, g, weight, H, s.epsilon, d, is_query ? sums : sums + H);
          result = d;
        }
#pragma omp simd
        for (int i = 0; i < H; i++) narrow(result[i], row[head * H + i]);
      }
      std::copy_n(dv + token * s.kv_heads * H, s.kv_heads * H, row + long(s.heads + s.kv_heads) * H);
    }
  });
}

template <class T> void swiglu_all(long rows, int hidden, const T* gate_up, T* y) {
#pragma omp parallel for schedule(static)
  for (long row = 0; row < rows; row++) {
    const T *gate = gate_up + row * 2 * hidden, *up = gate + hidden;
    T* out = y + row * hidden;
#pragma omp simd
    for (int i = 0; i < hidden; i++) { const float g = widen(gate[i]); narrow(g * sigmoid(g) * widen(up[i]), out[i]); }
  }
}

template <class T> void swiglu_back_all(long rows, int hidden, const T* dy, const T* gate_up, T* d_gate_up) {
#pragma omp parallel for schedule(static)
  for (long row = 0; row < rows; row++) {
    const T *gate = gate_up + row * 2 * hidden, *up = gate + hidden, *d = dy + row * hidden;
    T *d_gate = d_gate_up + row * 2 * hidden, *d_up = d_gate + hidden;
#pragma omp simd
    for (int i = 0; i < hidden; i++) {
      const float g = widen(gate[i]), s = sigmoid(g), slope = widen(d[i]);
      narrow(slope * widen(up[i]) * s * (1.f + g * (1.f - s)), d_gate[i]);
      narrow(slope * g * s, d_up[i]);
    }
  }
}

template <class T> void nll_all(long rows, int vocabulary, T* logits, const int64_t* target, const float* weight, float* loss) {
#pragma omp parallel
  {
    std::vector<float> space(vocabulary);
    float* e = space.data();
#pragma omp for schedule(static)
    for (long row = 0; row < rows; row++) {
      T* x = logits + row * vocabulary;
      const float share = weight[row];
      if (share == 0.f) { std::fill_n(x, vocabulary, T(0)); loss[row] = 0.f; continue; }
      float top = -3e38f, sum = 0.f;
#pragma omp simd reduction(max : top)
      for (int i = 0; i < vocabulary; i++) { e[i] = widen(x[i]); top = e[i] > top ? e[i] : top; }
      const float own = e[target[row]] - top;
#pragma omp simd reduction(+ : sum)
      for (int i = 0; i < vocabulary; i++) { e[i] = exp_low(e[i] - top); sum += e[i]; }
      loss[row] = (std::log(sum) - own) * share;
      const float scale = share / sum;
#pragma omp simd
      for (int i = 0; i < vocabulary; i++) narrow(e[i] * scale, x[i]);
      narrow(e[target[row]] * scale - share, x[target[row]]);
    }
  }
}

}  // namespace

extern "C" {

void norm_forward(int wide, long rows, int width, float epsilon, const void* x, const void* added, const float* weight, void* sum, void* y) {
  BOTH(norm_all<T>(rows, width, (const T*)x, (const T*)added, weight, epsilon, (T*)sum, (T*)y))
}

void norm_backward(int wide, long rows, int width, float epsilon, const void* dy, const void* x, const void* d_sum, const float* weight, void* dx, float* d_weight) {
  BOTH(norm_back_all<T>(rows, width, (const T*)dy, (const T*)x, (const T*)d_sum, weight, epsilon, (T*)dx, d_weight))
}

void heads_forward(int wide, long tokens, int heads, int kv_heads, int head_dim, int half, float epsilon, const void* qkv, const float* cosine, const float* sine,
                   const float* q_weight, const float* k_weight, void* q, void* k, void* v) {
  const Heads s{heads, kv_heads, head_dim, half, epsilon};
  with_sizes(s, [&](auto H, auto R) { BOTH(heads_all<T>(tokens, s, H, R, (const T*)qkv, cosine, sine, q_weight, k_weight, (T*)q, (T*)k, (T*)v)) });
}

void heads_backward(int wide, long tokens, int heads, int kv_heads, int head_dim, int half, float epsilon, const void* qkv, const float* cosine, const float* sine,
                    const float* q_weight, const float* k_weight, const void* dq, const void* dk, const void* dv, void* d_qkv, float* d_weights) {
  const Heads s{heads, kv_heads, head_dim, half, epsilon};
  with_sizes(s, [&](auto H, auto R) {
    BOTH(heads_back_all<T>(tokens, s, H, R, (const T*)dq, (const T*)dk, (const T*)dv, (const T*)qkv, cosine, sine, q_weight, k_weight, (T*)d_qkv, d_weights))
  });
}

void swiglu_forward(int wide, long rows, int hidden, const void* gate_up, void* y) { BOTH(swiglu_all<T>(rows, hidden, (const T*)gate_up, (T*)y)) }

void swiglu_backward(int wide, long rows, int hidden, const void* dy, const void* gate_up, void* d_gate_up) {
  BOTH(swiglu_back_all<T>(rows, hidden, (const T*)dy, (const T*)gate_up, (T*)d_gate_up))
}

void nll_gradient(int wide, long rows, int vocabulary, void* logits, const int64_t* target, const float* weight, float* loss) {
  BOTH(nll_all<T>(rows, vocabulary, (T*)logits, target, weight, loss))
}

}
