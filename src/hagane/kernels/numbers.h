// What kernels share: bfloat16 and float, the exponential of what is not positive, and sums over rows that do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

typedef uint16_t bf16;

inline float widen(bf16 x) { uint32_t bits = uint32_t(x) << 16; float y; std::memcpy(&y, &bits, 4); return y; }
inline float widen(float x) { return x; }
inline void narrow(float x, float& y) { y = x; }
inline void narrow(float x, bf16& y) {  // to nearest, ties to even; NaN stays NaN
  uint32_t bits; std::memcpy(&bits, &x, 4);
  y = (x != x) ? bf16(0x7fc0) : bf16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// exp of what lies between -87 and 0, within 2 units in the last place: of a float (F float, I int32_t), or of a vector of them with one of integers as wide.
template <class F, class I> inline F exp_within(F x) {
  const F shift = F{} + 12582912.f;  // 1.5 * 2^23: adding it rounds to a whole number
  const F n = (x * 1.44269504089f + shift) - shift;
  F r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  F p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.f;
  I power;
  if constexpr (sizeof(F) == sizeof(float)) power = I(n);
  else power = __builtin_convertvector(n, I);
  power = (power + 127) << 23;
  F scale; std::memcpy(&scale, &power, sizeof scale);
  return p * scale;
}

// exp of a number at most 0; below -87 it is about 1e-38. Loops over it become vectors.
inline float exp_low(float x) { return exp_within<float, int32_t>(x < -87.f ? -87.f : x); }

inline float sigmoid(float x) {
  const float e = exp_low(x < 0.f ? x : -x);
  return (x < 0.f ? e : 1.f) / (1.f + e);
}

constexpr long BLOCK = 64;  // rows whose sums are kept apart

// `work(first, last, sums, space)` for blocks of rows; `sums` (n floats, zero at first) of all blocks are added up into `total`.
template <class Work> void in_blocks(long rows, int n, int space, float* total, Work work) {
  const long blocks = (rows + BLOCK - 1) / BLOCK;
  std::vector<float> sums(blocks * n, 0.f);
#pragma omp parallel
  {
    std::vector<float> own(space);
#pragma omp for schedule(static)
    for (long block = 0; block < blocks; block++) work(block * BLOCK, std::min(rows, (block + 1) * BLOCK), sums.data() + block * n, own.data());
  }
  std::fill_n(total, n, 0.f);
  for (long block = 0; block < blocks; block++)
    for (int i = 0; i < n; i++) total[i] += sums[block * n + i];
}

// The body of a function for rows of floats or of bfloat16, by `wide`.
#define BOTH(call) if (wide) { typedef float T; call; } else { typedef bf16 T; call; }
