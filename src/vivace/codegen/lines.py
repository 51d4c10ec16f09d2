"""Lines of floats as C++: rounded to bfloat16; sums and ranges by vectors, as compilers add loops' lanes one by one."""

TEXT = """
// four sums at a time: each addition waits some cycles for the one before
template <long K> INLINE float line_sum(const float *p) {
  vec s[4] = {};
  long k = 0;
  for (; k + 4*LANES <= K; k += 4*LANES) for (long u = 0; u < 4; u++) s[u] += load(p + k + u*LANES);
  for (; k + LANES <= K; k += LANES) s[0] += load(p + k);
  float rest = 0.0f;
  for (; k < K; k++) rest += p[k];
  return lanes_sum((s[0] + s[1]) + (s[2] + s[3]))[0] + rest;
}
template <long K> INLINE float line_squares(const float *p) {
  vec s[4] = {};
  long k = 0;
  for (; k + 4*LANES <= K; k += 4*LANES)
    for (long u = 0; u < 4; u++) { const vec x = load(p + k + u*LANES); s[u] += x * x; }
  for (; k + LANES <= K; k += LANES) { const vec x = load(p + k); s[0] += x * x; }
  float rest = 0.0f;
  for (; k < K; k++) rest += p[k] * p[k];
  return lanes_sum((s[0] + s[1]) + (s[2] + s[3]))[0] + rest;
}
// the least and the largest number, with zero among them; `odd` is no number if one is none
struct Range { float low, high, odd; };
template <long K> INLINE Range line_range(const float *p) {
  vec low[2] = {}, high[2] = {}, odd[2] = {};
  long k = 0;
  for (; k + 2*LANES <= K; k += 2*LANES) for (long u = 0; u < 2; u++) {
    const vec x = load(p + k + u*LANES);
    low[u] = smaller(x, low[u]); high[u] = larger(x, high[u]); odd[u] += x * 0.0f;
  }
  for (; k + LANES <= K; k += LANES) {
    const vec x = load(p + k);
    low[0] = smaller(x, low[0]); high[0] = larger(x, high[0]); odd[0] += x * 0.0f;
  }
  Range rest = {};
  for (; k < K; k++) {
    rest.low = p[k] < rest.low ? p[k] : rest.low; rest.high = p[k] > rest.high ? p[k] : rest.high;
    rest.odd += p[k] * 0.0f;
  }
  const float least = -largest_lane(-smaller(low[0], low[1]))[0], most = largest_lane(larger(high[0], high[1]))[0];
  return {least < rest.low ? least : rest.low, most > rest.high ? most : rest.high,
          lanes_sum(odd[0] + odd[1])[0] + rest.odd};
}
"""
"""What includes `codegen.shares`."""

ROUNDED = """
typedef short short_t __attribute__((may_alias));
typedef int int_t __attribute__((may_alias));
// to[r*line + c] = from[r*step + c]
static inline void rounded_lines(const float *from, long step, short_t *to, long line, long rows, long columns) {
  for (long r = 0; r < rows; r++)
    _Pragma("omp simd") for (long c = 0; c < columns; c++) to[r*line + c] = narrow(from[r*step + c]);
}
// to[r*line + c] = from[2r*step + c] and from[(2r + 1)*step + c]; what a last line lacks is zero
static inline void paired_lines(const float *from, long step, int_t *to, long line, long rows, long columns) {
  for (long r = 0; r < rows/2; r++) {
    const float *low = from + 2*r*step, *high = low + step;
    _Pragma("omp simd") for (long c = 0; c < columns; c++) to[r*line + c] = pair(low[c], high[c]);
  }
  if (rows % 2)
    _Pragma("omp simd") for (long c = 0; c < columns; c++)
      to[rows/2*line + c] = pair(from[(rows - 1)*step + c], 0.0f);
}
"""
"""Needs `codegen.threads` alone."""
