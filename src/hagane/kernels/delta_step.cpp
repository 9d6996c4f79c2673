// Decoding with Gated DeltaNet on a CPU: all between the product that makes queries, keys, values and z and the one that makes the output, for a few tokens of
// every row. Convolution and SiLU, lengths, rates, the state, the norm of what is read, and its gate.
//
// A value head of a row is done by one thread from beginning to end, its state in place, in float: results do not depend on the number of threads.

#include "numbers.h"

namespace {

struct Shape { long rows, steps, z_stride; int key_heads, value_heads, key_dim, value_dim, taps; float length_epsilon, norm_epsilon; };

inline float silu(float x) { return x * sigmoid(x); }

// Channels `first` to `first + n` of a token whose window of `taps` inputs begins at `inputs`.
inline void convolve(const float* inputs, const float* conv, long channels, long first, int n, int taps, float* y) {
  for (int i = 0; i < n; i++) y[i] = 0.f;
  for (int tap = 0; tap < taps; tap++)
    for (int i = 0; i < n; i++) y[i] += inputs[tap * channels + first + i] * conv[(first + i) * taps + tap];
#pragma omp simd
  for (int i = 0; i < n; i++) y[i] = silu(y[i]);
}

inline void to_length(float* x, int n, float length, float epsilon) {
  float sum = 0.f;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < n; i++) sum += x[i] * x[i];
  const float scale = length / std::sqrt(sum + epsilon);
  for (int i = 0; i < n; i++) x[i] *= scale;
}

inline float softplus(float x) { return x > 20.f ? x : std::log1p(std::exp(x)); }

// S <- keep S + k (beta (v - keep S^T k))^T, and S^T q into `read`.
inline void step(float* state, const float* q, const float* k, const float* v, float keep, float beta, int key_dim, int value_dim, float* written, float* read) {
  for (int w = 0; w < value_dim; w++) written[w] = read[w] = 0.f;
  for (int h = 0; h < key_dim; h++) {
    const float* row = state + long(h) * value_dim;
#pragma omp simd
    for (int w = 0; w < value_dim; w++) written[w] += k[h] * row[w];
  }
#pragma omp simd
  for (int w = 0; w < value_dim; w++) written[w] = beta * (v[w] - keep * written[w]);
  for (int h = 0; h < key_dim; h++) {
    float* row = state + long(h) * value_dim;
#pragma omp simd
    for (int w = 0; w < value_dim; w++) { row[w] = keep * row[w] + k[h] * written[w]; read[w] += q[h] * row[w]; }
  }
}

template <class T>
void steps(const Shape s, const float* inputs, const float* conv, const T* rates, const float* decay, const float* shift, const float* real, const float* weight,
           const T* z, float* state, T* out) {
  const int group = s.value_heads / s.key_heads, K = s.key_dim, W = s.value_dim;
  const long key_width = long(s.key_heads) * K, channels = 2 * key_width + long(s.value_heads) * W, length = s.steps + s.taps - 1;
#pragma omp parallel if (s.rows * s.steps * s.value_heads * K * W > 65536)
  {
    std::vector<float> space(2 * K + 3 * W);
    float *q = space.data(), *k = q + K, *v = k + K, *written = v + W, *read = written + W;
#pragma omp for collapse(2) schedule(static)
    for (long row = 0; row < s.rows; row++)
      for (int head = 0; head < s.value_heads; head++) {
        float* own = state + (row * s.value_heads + head) * K * W;
        for (long t = 0; t < s.steps; t++) {
          const long token = row * s.steps + t, key_head = head / group;
          const float* window = inputs + (row * length + t) * channels;
          convolve(window, conv, channels, key_head * K, K, s.taps, q);
          convolve(window, conv, channels, key_width + key_head * K, K, s.taps, k);
          convolve(window, conv, channels, 2 * key_width + long(head) * W, W, s.taps, v);
          to_length(q, K, 1.f / std::sqrt(float(K)), s.length_epsilon);
          to_length(k, K, 1.f, s.length_epsilon);
          const T* rate = rates + token * 2 * s.value_heads + head;
          const float beta = real[token] * sigmoid(widen(rate[0]));
          const float keep = std::exp(-std::exp(decay[head]) * softplus(widen(rate[s.value_heads]) + shift[head]) * real[token]);
          step(own, q, k, v, keep, beta, K, W, written, read);
          float sum = 0.f;
#pragma omp simd reduction(+ : sum)
          for (int w = 0; w < W; w++) sum += read[w] * read[w];
          const float scale = 1.f / std::sqrt(sum / W + s.norm_epsilon);
          const T* gate = z + token * s.z_stride + long(head) * W;
          T* y = out + (token * s.value_heads + head) * W;
#pragma omp simd
          for (int w = 0; w < W; w++) narrow(read[w] * scale * weight[w] * silu(widen(gate[w])), y[w]);
        }
      }
  }
}

}  // namespace

extern "C" void delta_steps(int wide, long rows, long num_steps, long z_stride, int key_heads, int value_heads, int key_dim, int value_dim, int taps,
                            float length_epsilon, float norm_epsilon, const float* inputs, const float* conv, const void* rates, const float* decay,
                            const float* shift, const float* real, const float* weight, const void* z, float* state, void* out) {
  const Shape s{rows, num_steps, z_stride, key_heads, value_heads, key_dim, value_dim, taps, length_epsilon, norm_epsilon};
  BOTH(steps(s, inputs, conv, (const T*)rates, decay, shift, real, weight, (const T*)z, state, (T*)out))
}
