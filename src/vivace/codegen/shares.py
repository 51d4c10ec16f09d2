"""Rows of scores made shares (softmax), several at a time: what one row waits for, others use."""

from __future__ import annotations

from vivace.codegen.tiles import Vector

TOGETHER = 8
"""Rows at a time."""


def shares(vector: Vector) -> str:
    """C++ of `shares<N, LINE>(s, rows)`: rows of N scores, LINE apart (whole vectors), become shares. What is beyond a
    row's scores is overwritten. A row whose scores are all minus infinity has no shares: zeros."""
    steps = [2**power for power in reversed(range(vector.lanes.bit_length() - 1))]
    halves = [
        f"  x = {{}}(x, __builtin_shufflevector(x, x, {', '.join(str(lane ^ step) for lane in range(vector.lanes))}));"
        for step in steps
    ]
    text = _TEXT.replace("$TOGETHER", str(TOGETHER))
    for name in ("larger", "added"):
        text = text.replace(f"${name.upper()}", "\n".join(half.format(name) for half in halves))
    return text


_TEXT = """
INLINE vec larger(vec a, vec b) { return a > b ? a : b; }
INLINE vec smaller(vec a, vec b) { return a < b ? a : b; }
INLINE vec added(vec a, vec b) { return a + b; }
#if HAS_SHUFFLES
INLINE vec largest_lane(vec x) {
$LARGER
  return x;
}
INLINE vec lanes_sum(vec x) {
$ADDED
  return x;
}
#else
INLINE vec largest_lane(vec x) {
  float m = x[0];
  for (long i = 1; i < LANES; i++) m = x[i] > m ? x[i] : m;
  return spread(m);
}
INLINE vec lanes_sum(vec x) {
  float m = x[0];
  for (long i = 1; i < LANES; i++) m += x[i];
  return spread(m);
}
#endif
// exp of what is not above zero, as fast_exp: rounding by adding 1.5 * 2^23
INLINE vec exp_below(vec given) {
  const vec low = spread(-87.3f), x = given < low ? low : given;
  const vec n = (x * 1.44269504f + TO_WHOLE) - TO_WHOLE;
  const ivec power = (__builtin_convertvector(n, ivec) + 127) << 23;
  vec by; __builtin_memcpy(&by, &power, sizeof by);
  return given < low ? vec{} : exp_of_rest(x, n) * by;
}
template <long N, long LINE, long ROWS> INLINE void shares_of(float *s) {
  vec high[ROWS], sum[ROWS];
  for (long r = 0; r < ROWS; r++) {
    for (long j = N; j < LINE; j++) s[r*LINE + j] = -__builtin_inff();
    high[r] = load(s + r*LINE);
  }
  for (long j = LANES; j < N; j += LANES)
    for (long r = 0; r < ROWS; r++) high[r] = larger(load(s + r*LINE + j), high[r]);
  for (long r = 0; r < ROWS; r++) high[r] = largest_lane(high[r]);
  for (long r = 0; r < ROWS; r++) { high[r] = high[r] == -__builtin_inff() ? vec{} : high[r]; sum[r] = vec{}; }
  for (long j = 0; j < N; j += LANES) for (long r = 0; r < ROWS; r++) {
    const vec e = exp_below(load(s + r*LINE + j) - high[r]);
    store(s + r*LINE + j, e); sum[r] += e;
  }
  for (long r = 0; r < ROWS; r++) sum[r] = lanes_sum(sum[r]);
  for (long r = 0; r < ROWS; r++) sum[r] = sum[r] == 0.0f ? vec{} : 1.0f / sum[r];
  for (long j = 0; j < N; j += LANES)
    for (long r = 0; r < ROWS; r++) store(s + r*LINE + j, load(s + r*LINE + j) * sum[r]);
}
template <long N, long LINE> INLINE void shares(float *s, long rows) {
  long m = 0;
  for (; m + $TOGETHER <= rows; m += $TOGETHER) shares_of<N, LINE, $TOGETHER>(s + m*LINE);
  for (; m < rows; m++) shares_of<N, LINE, 1>(s + m*LINE);
}
"""
