"""Exponentials and their kin as C++ without branches, which compilers put into vectors."""

from __future__ import annotations

TEXT = """
#define INLINE static inline __attribute__((always_inline))
INLINE float bits_as_float(int bits) { float x; __builtin_memcpy(&x, &bits, 4); return x; }
// exp(r) of what is left of x, |r| <= log(2)/2, after n log(2): r^8/8! < 2^-27
template <class F> INLINE F exp_of_rest(F x, F n) {
  const F r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  F y = r * 1.98412698e-4f + 1.38888889e-3f; y = y * r + 8.33333333e-3f; y = y * r + 4.16666667e-2f;
  y = y * r + 0.166666667f; y = y * r + 0.5f; y = y * r + 1.0f;
  return y * r + 1.0f;
}
// exp(x) = 2^n exp(r). Not a number stays so.
INLINE float fast_exp(float given) {
  float x = given < -87.3f ? -87.3f : given;
  x = x > 88.7f ? 88.7f : x;
  const float n = __builtin_rintf(x * 1.44269504f);
  float y = exp_of_rest(x, n) * bits_as_float(((int)n + 127) << 23);
  y = given > 88.72284f ? __builtin_inff() : y;
  return given < -87.3f ? 0.0f : y;
}
INLINE float fast_sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }
// near zero the series of tanh to x^9 (the next term is below 2^-26 of it), else by exponentials
INLINE float fast_tanh(float x) {
  const float s = x * x, e = fast_exp(-2.0f * __builtin_fabsf(x));
  const float far = __builtin_copysignf((1.0f - e) / (1.0f + e), x);
  const float near = x * (1.0f + s * (-0.333333333f + s * (0.133333333f + s * (-5.39682540e-2f + s * 2.18694885e-2f))));
  return s < 0.0625f ? near : far;
}
// near zero the series of erf to x^13; else 1 - exp(-x^2) p(1/(1 + x/2)), p fitted for this project to 1.5 units in
// the last place
INLINE float fast_erf(float x) {
  const float a = __builtin_fabsf(x), s = x * x, t = 1.0f / (1.0f + 0.5f * a);
  float p = 0.07633918523788452f;
  p = p * t - 0.28659433126449585f; p = p * t + 0.22462747991085052f; p = p * t + 0.2404976785182953f;
  p = p * t + 0.13864366710186005f; p = p * t + 0.335722953081131f; p = p * t + 0.2696080505847931f;
  p = p * t + 0.0011613719398155808f;
  const float far = __builtin_copysignf(1.0f - p * fast_exp(-s), x);
  float n = 1.20553329e-4f;
  n = n * s - 8.54832702e-4f; n = n * s + 5.22397763e-3f; n = n * s - 2.68661706e-2f; n = n * s + 0.112837917f;
  n = n * s - 0.376126389f; n = n * s + 1.12837917f;
  return s < 0.25f ? x * n : far;
}
#define expf fast_exp
#define tanhf fast_tanh
#define erff fast_erf
// erf(x/sqrt(2)) as x P(x^2)/Q(x^2) up to 3.8 sqrt(2), where it is nearly 1; fitted for this project to 6e-8
INLINE float gelu(float x) {
  const float large = __builtin_fabsf(x), a = large > 5.374f ? 5.374f : large, s = a * a;
  float p = 2.36476005e-10f, q = 5.42098824e-5f;
  p = p * s - 4.41735040e-8f; p = p * s + 5.96246718e-6f; p = p * s + 2.91666540e-4f; p = p * s + 8.70618690e-3f;
  p = p * s + 6.70830905e-2f; p = p * s + 0.797884524f;
  q = q * s + 1.68872334e-3f; q = q * s + 2.77035832e-2f; q = q * s + 0.250742257f; q = q * s + 1.0f;
  float r = a * p / q;
  r = r > 1.0f ? 1.0f : r;
  return 0.5f * x + 0.5f * large * (large > 5.374f ? 1.0f : r);
}
// the same to 2e-4, for what is made a byte: erf as x P(x^2) up to 4 sqrt(1/2), where it is 1; fitted for this project
INLINE float coarse_gelu(float x) {
  const float large = __builtin_fabsf(x), a = large > 4.0f ? 4.0f : large, s = a * a;
  float p = 4.517641823e-8f * s - 3.177654421e-6f;
  p = p * s + 9.552777827e-5f; p = p * s - 1.624375018e-3f; p = p * s + 1.752738247e-2f; p = p * s - 0.1291088260f;
  const float r = a * (p * s + 0.7957405342f);
  return 0.5f * x + 0.5f * large * (r > 1.0f ? 1.0f : r);
}
INLINE float gelu_tanh(float x) { return 0.5f * x * (1.0f + fast_tanh(0.797884561f * (x + 0.044715f * x * x * x))); }
INLINE float magnitude(float x) { return __builtin_fabsf(x); }
INLINE long magnitude(long x) { return x < 0 ? -x : x; }
INLINE bool inverted(bool x) { return !x; }
INLINE long inverted(long x) { return ~x; }
// what is left of a division rounded down, and that division; of whole numbers by none, nothing is asked
INLINE float remainder_of(float a, float b) {
  const float left = fmodf(a, b);
  return left != 0 && (b < 0) != (left < 0) ? left + b : left;
}
INLINE long remainder_of(long a, long b) {
  const long left = b ? a % b : 0;
  return left && (b < 0) != (left < 0) ? left + b : left;
}
INLINE float floored(float a, float b) {
  if (b == 0) return a / b;
  const float left = fmodf(a, b), by = (a - left) / b - (left != 0 && (b < 0) != (left < 0) ? 1.0f : 0.0f);
  const float whole = __builtin_floorf(by);
  return by == 0 ? __builtin_copysignf(0.0f, a / b) : by - whole > 0.5f ? whole + 1.0f : whole;
}
INLINE long floored(long a, long b) { return b ? (a - remainder_of(a, b)) / b : 0; }
INLINE float at_least(float x, float low) { return x < low ? low : x; }
INLINE float at_most(float x, float high) { return x > high ? high : x; }
INLINE float silu(float x) { return x / (1.0f + fast_exp(-x)); }
typedef unsigned char byte;
// the size of a step, of so many over a range; where there is no range, any. `odd` is no number if an element is none
INLINE float step_of(float range, float levels, float odd) {
  return (range < 1e-30f ? 1.0f : range / levels) + odd;
}
// the byte of a number, at least -TO_WHOLE, to which TO_WHOLE was added: that rounds it
#define TO_WHOLE 12582912.0f
INLINE byte low_byte(float x) {
  const int whole = (int)bits(x) - 0x4b400000, low = whole < 0 ? 0 : whole;
  return (byte)(low > 255 ? 255 : low);
}
"""
"""What includes `codegen.threads` and then this calls these functions by the names of the C library."""
