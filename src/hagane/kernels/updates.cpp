// What an optimizer does to the numbers of a parameter on a CPU, each in one pass over memory: AdamW; Muon's momentum, and the descent along its update.
//
// Gradients and working copies are of bfloat16 or float, everything else is float, and everything is computed in float. Numbers are independent but for
// the sum of squares, which is added up in blocks in their order: results do not depend on the number of threads.

#include "numbers.h"

namespace {

constexpr long PART = 4096;  // numbers that one thread does at a time

template <class Work> void in_parts(long n, Work work) {
#pragma omp parallel for schedule(static)
  for (long part = 0; part < (n + PART - 1) / PART; part++) work(part * PART, std::min(n, (part + 1) * PART));
}

template <class T> double squares_of(long n, const T* x) {
  std::vector<double> sums((n + PART - 1) / PART);
  in_parts(n, [&](long first, long last) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (long i = first; i < last; i++) sum += widen(x[i]) * widen(x[i]);
    sums[first / PART] = sum;
  });
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

struct Adam { float rate, decay, beta1, beta2, epsilon, first, second; };  // first, second: one less beta to the power of the step, and the root of it

template <class T, bool Copied>
void adamw_all(long n, const Adam& s, float scale, const T* gradient, float* master, float* mean, float* square, bf16* working) {
  const float shrink = 1.f - s.rate * s.decay, step = s.rate / s.first, root = 1.f / s.second;
  in_parts(n, [&](long begin, long end) {
#pragma omp simd
    for (long i = begin; i < end; i++) {
      const float g = widen(gradient[i]) * scale;
      const float m = mean[i] + (g - mean[i]) * (1.f - s.beta1);
      const float v = square[i] * s.beta2 + g * g * (1.f - s.beta2);
      const float x = master[i] * shrink - step * m / (std::sqrt(v) * root + s.epsilon);
      mean[i] = m;
      square[i] = v;
      master[i] = x;
      if constexpr (Copied) narrow(x, working[i]);
    }
  });
}

template <class T> void momentum_all(long n, float momentum, float scale, const T* gradient, float* mean, bf16* ahead) {
  in_parts(n, [&](long begin, long end) {
#pragma omp simd
    for (long i = begin; i < end; i++) {
      const float g = widen(gradient[i]) * scale;
      const float m = mean[i] + (g - mean[i]) * (1.f - momentum);
      mean[i] = m;
      narrow(g + (m - g) * momentum, ahead[i]);
    }
  });
}

template <bool Copied> void descend_all(long n, float shrink, float step, const bf16* update, float* master, bf16* working) {
  in_parts(n, [&](long begin, long end) {
#pragma omp simd
    for (long i = begin; i < end; i++) {
      const float x = master[i] * shrink - step * widen(update[i]);
      master[i] = x;
      if constexpr (Copied) narrow(x, working[i]);
    }
  });
}

}  // namespace

extern "C" {

void squares(int wide, long n, const void* x, double* sum) { BOTH(*sum = squares_of(n, (const T*)x)) }

void adamw(int wide, long n, float rate, float decay, float beta1, float beta2, float epsilon, float first, float second, float scale, const void* gradient, float* master, float* mean, float* square, void* working) {
  const Adam s{rate, decay, beta1, beta2, epsilon, first, second};
  if (working) { BOTH((adamw_all<T, true>(n, s, scale, (const T*)gradient, master, mean, square, (bf16*)working))) }
  else { BOTH((adamw_all<T, false>(n, s, scale, (const T*)gradient, master, mean, square, nullptr))) }
}

void momentum(int wide, long n, float momentum, float scale, const void* gradient, float* mean, void* ahead) {
  BOTH(momentum_all(n, momentum, scale, (const T*)gradient, mean, (bf16*)ahead))
}

void descend(long n, float shrink, float step, const void* update, float* master, void* working) {
  if (working) descend_all<true>(n, shrink, step, (const bf16*)update, master, (bf16*)working);
  else descend_all<false>(n, shrink, step, (const bf16*)update, master, nullptr);
}

}
