// The way of tokens to their experts and back on a CPU: scores and choices, choices sorted by counting, rows copied to where their expert reads them, and
// summed where they return.
//
// Rows are contiguous, of bfloat16 or float; sums are in float, in the order of a token's choices. A row is done by one thread: results do not depend on
// the number of threads. A row number of -1 is a choice of no expert, a choice of -1 a row that only fills up.

#include "numbers.h"

namespace {

constexpr float TINY = 1e-20f;  // as in model/router.py

struct Way { int experts, top_k; bool softmax, normalise; float scaling; };

// Scores of a token from its logits, their shares and the logarithm of the sum of exponentials. `softmax` gets the probabilities.
inline float scores(const Way& w, const float* logit, float* score, float* share, float* softmax) {
  float top = logit[0], sum = 0.f, total = TINY;
  for (int e = 1; e < w.experts; e++) top = std::max(top, logit[e]);
  for (int e = 0; e < w.experts; e++) sum += softmax[e] = exp_low(logit[e] - top);
  for (int e = 0; e < w.experts; e++) softmax[e] /= sum;
  if (w.softmax) {
    std::copy_n(softmax, w.experts, score);
    std::copy_n(softmax, w.experts, share);
  } else {
    for (int e = 0; e < w.experts; e++) total += score[e] = sigmoid(logit[e]);
    for (int e = 0; e < w.experts; e++) share[e] = score[e] / total;
  }
  return top + std::log(sum);
}

// sums: choices of each expert, shares of each expert, squares of the log sums, entropies of the shares.
void route_all(long tokens, const Way& w, const float* logit, const float* bias, const float* real, int64_t* expert, float* weight, float* sums) {
  const int E = w.experts;
  in_blocks(tokens, 2 * E + 2, 4 * E, sums, [&](long first, long last, float* own, float* space) {
    float *score = space, *share = space + E, *softmax = space + 2 * E, *rank = space + 3 * E;
    for (long token = first; token < last; token++) {
      const float *x = logit + token * E, log_sum = scores(w, x, score, share, softmax);
      for (int e = 0; e < E; e++) rank[e] = score[e] + bias[e];
      float chosen = 0.f;
      for (int k = 0; k < w.top_k; k++) {  // of equal ones the first
        const int best = int(std::max_element(rank, rank + E) - rank);
        expert[token * w.top_k + k] = best;
        weight[token * w.top_k + k] = score[best];
        chosen += score[best];
        rank[best] = -INFINITY;
        own[best] += real[token];
      }
      if (!w.softmax) chosen += TINY;
      for (int k = 0; k < w.top_k; k++) weight[token * w.top_k + k] *= w.normalise ? w.scaling / chosen : w.scaling;
      float entropy = 0.f;
      for (int e = 0; e < E; e++) {
        own[E + e] += share[e] * real[token];
        if (share[e] > 0.f) entropy += share[e] * (w.softmax ? log_sum - x[e] : -std::log(share[e]));
      }
      own[2 * E] += log_sum * log_sum * real[token];
      own[2 * E + 1] += entropy * real[token];
    }
  });
}

// The gradient for the logits, from those of the weights, of the sums of shares, and of the sum of squares.
void route_back_all(long tokens, const Way& w, const float* logit, const float* real, const int64_t* expert, const float* d_weight, const float* d_share,
                    const float* d_square, float* d_logit) {
  const int E = w.experts;
#pragma omp parallel
  {
    std::vector<float> space(4 * E);
    float *score = space.data(), *share = score + E, *softmax = share + E, *d = softmax + E;
#pragma omp for schedule(static)
    for (long token = 0; token < tokens; token++) {
      const float *x = logit + token * E, log_sum = scores(w, x, score, share, softmax), own = real[token];
      const int64_t* chosen = expert + token * w.top_k;
      const float* g = d_weight + token * w.top_k;
      float mean = 0.f, total = w.softmax ? 0.f : TINY, sum = 0.f;
      for (int e = 0; e < E; e++) { mean += d_share[e] * share[e]; total += w.softmax ? 0.f : score[e]; }
      // shares of sigmoids are divided by their sum; those of a softmax are the scores
      for (int e = 0; e < E; e++) d[e] = (w.softmax ? d_share[e] : (d_share[e] - mean) / total) * own;
      float weights = w.softmax ? 0.f : TINY, product = 0.f;
      for (int k = 0; k < w.top_k; k++) weights += score[chosen[k]];
      for (int k = 0; k < w.top_k; k++) product += g[k] * score[chosen[k]] / weights;
      for (int k = 0; k < w.top_k; k++) d[chosen[k]] += w.scaling * (w.normalise ? (g[k] - product) / weights : g[k]);
      if (w.softmax) for (int e = 0; e < E; e++) sum += d[e] * score[e];
      const float slope = *d_square * 2.f * log_sum * own;
      for (int e = 0; e < E; e++) d_logit[token * E + e] = (w.softmax ? score[e] * (d[e] - sum) : d[e] * score[e] * (1.f - score[e])) + slope * softmax[e];
    }
  }
}

template <class T> void spread_all(long rows, int width, int top_k, const int64_t* order, const T* hidden, T* out) {
#pragma omp parallel for schedule(static)
  for (long row = 0; row < rows; row++) {
    if (order[row] < 0) std::fill_n(out + row * width, width, T(0));
    else std::copy_n(hidden + order[row] / top_k * width, width, out + row * width);
  }
}

template <class T> void gather_all(long tokens, int width, int top_k, const int64_t* row, const float* weight, const T* rows, T* out) {
#pragma omp parallel
  {
    std::vector<float> sums(width);
    float* sum = sums.data();
#pragma omp for schedule(static)
    for (long token = 0; token < tokens; token++) {
      std::fill_n(sum, width, 0.f);
      for (long choice = token * top_k; choice < (token + 1) * top_k; choice++) {
        if (row[choice] < 0) continue;
        const T* x = rows + row[choice] * width;
        const float share = weight ? weight[choice] : 1.f;
        for (int i = 0; i < width; i++) sum[i] += widen(x[i]) * share;
      }
      for (int i = 0; i < width; i++) narrow(sum[i], out[token * width + i]);
    }
  }
}

template <class T>
void gather_back_all(long tokens, long num_rows, int width, int top_k, const int64_t* row, const int64_t* order, const float* weight, const T* rows, const T* gradient,
                     T* d_rows, float* d_weight) {
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (long at = 0; at < num_rows; at++)
      if (order[at] < 0) std::fill_n(d_rows + at * width, width, T(0));
#pragma omp for schedule(static)
    for (long token = 0; token < tokens; token++) {
      const T* g = gradient + token * width;
      for (long choice = token * top_k; choice < (token + 1) * top_k; choice++) {
        float product = 0.f;
        if (row[choice] >= 0) {
          const T* x = rows + row[choice] * width;
          T* d = d_rows + row[choice] * width;
          const float share = weight[choice];
#pragma omp simd reduction(+ : product)
          for (int i = 0; i < width; i++) { const float y = widen(g[i]); product += widen(x[i]) * y; narrow(y * share, d[i]); }
        }
        d_weight[choice] = product;
      }
    }
  }
}

}  // namespace

extern "C" {

void route(long tokens, int experts, int top_k, int softmax, int normalise, float scaling, const float* logit, const float* bias, const float* real, int64_t* expert,
           float* weight, float* sums) {
  route_all(tokens, Way{experts, top_k, bool(softmax), bool(normalise), scaling}, logit, bias, real, expert, weight, sums);
}

void route_backward(long tokens, int experts, int top_k, int softmax, int normalise, float scaling, const float* logit, const float* real, const int64_t* expert,
                    const float* d_weight, const float* d_share, const float* d_square, float* d_logit) {
  route_back_all(tokens, Way{experts, top_k, bool(softmax), bool(normalise), scaling}, logit, real, expert, d_weight, d_share, d_square, d_logit);
}

// order[row]: the choice behind a row; row[choice]: the row of a choice; end[expert]: where its rows end, filled up to a multiple.
void arrange(long choices, long rows, int experts, int multiple, const int64_t* expert, int64_t* order, int64_t* row, int32_t* end) {
  std::vector<int64_t> next(experts, 0);
  for (long i = 0; i < choices; i++) if (expert[i] < experts) next[expert[i]]++;
  int64_t start = 0;
  for (int e = 0; e < experts; e++) {
    const int64_t filled = (next[e] + multiple - 1) / multiple * multiple;
    next[e] = start;
    start += filled;
    end[e] = int32_t(start);
  }
  std::fill_n(order, rows, int64_t(-1));
  for (long i = 0; i < choices; i++) {
    row[i] = expert[i] < experts ? next[expert[i]]++ : -1;
    if (row[i] >= 0) order[row[i]] = i;
  }
}

void spread(int wide, long rows, int width, int top_k, const int64_t* order, const void* hidden, void* out) {
  BOTH(spread_all<T>(rows, width, top_k, order, (const T*)hidden, (T*)out))
}

void gather(int wide, long tokens, int width, int top_k, const int64_t* row, const float* weight, const void* rows, void* out) {
  BOTH(gather_all<T>(tokens, width, top_k, row, weight, (const T*)rows, (T*)out))
}

void gather_backward(int wide, long tokens, long num_rows, int width, int top_k, const int64_t* row, const int64_t* order, const float* weight, const void* rows,
                     const void* gradient, void* d_rows, float* d_weight) {
  BOTH(gather_back_all<T>(tokens, num_rows, width, top_k, row, order, weight, (const T*)rows, (const T*)gradient, (T*)d_rows, d_weight))
}

}
