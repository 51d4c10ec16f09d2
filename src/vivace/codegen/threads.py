"""C++ that every generated program begins with: vectors, barriers, and threads that wait for the next call."""

from __future__ import annotations

from vivace.codegen.tiles import Vector


def head(vector: Vector, threads: int, pairs: bool = False, in_bytes: bool = False) -> str:
    """What statements and kernels use, for a processor with `vector` and for so many threads; with products of `pairs`
    of bfloat16, or `in_bytes`, if the processor has them."""
    text = HEAD.replace("$LANES", str(vector.lanes)).replace("$THREADS", str(threads))
    more = (PAIRS if pairs and vector.has_bf16 else "") + (BYTES if in_bytes and vector.has_int8 else "")
    return text + (DECLARED + more if more else "")


HEAD = """
#include <pthread.h>
#include <sched.h>
#define LANES $LANES
#define THREADS $THREADS
#ifndef HAS_SHUFFLES  // of vectors' lanes, which GCC has from 12 on
#if defined(__clang__) || __GNUC__ >= 12
#define HAS_SHUFFLES 1
#else
#define HAS_SHUFFLES 0
#endif
#endif
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define INSIDE(index, size) ((unsigned long)(index) < size ? (index) : (outside = 1, 0))
static int outside;
extern "C" {
float expf(float); float logf(float); float log1pf(float); float expm1f(float);
float tanhf(float); float erff(float); float sinf(float);
float cosf(float); float powf(float, float); double pow(double, double); double sqrt(double);
float tanf(float); float asinf(float); float acosf(float); float atanf(float); float atan2f(float, float);
float sinhf(float); float coshf(float); float asinhf(float); float acoshf(float); float atanhf(float);
float log2f(float); float log10f(float); float exp2f(float); float erfcf(float); float hypotf(float, float);
float fmodf(float, float);
}
typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int ivec __attribute__((vector_size(LANES * 4)));
typedef float loose __attribute__((vector_size(LANES * 4), aligned(2), may_alias));
typedef int iloose __attribute__((vector_size(LANES * 4), aligned(2), may_alias));
#if defined(__AVX512F__)
#define KEEP(x) __asm__("" : "+v"(x))
#elif defined(__x86_64__)
#define KEEP(x) __asm__("" : "+x"(x))
#elif defined(__aarch64__)
#define KEEP(x) __asm__("" : "+w"(x))
#else
#define KEEP(x)
#endif
#pragma omp declare reduction(larger : float, int, long : omp_out = omp_in > omp_out || omp_in != omp_in ? omp_in \
  : omp_out) initializer(omp_priv = omp_orig)
#pragma omp declare reduction(smaller : float, int, long : omp_out = omp_in < omp_out || omp_in != omp_in ? omp_in \
  : omp_out) initializer(omp_priv = omp_orig)
static inline vec load(const float *p) { return *(const loose *)p; }
static inline ivec iload(const int *p) { return *(const iloose *)p; }
static inline vec spread(float x) { return x - vec{}; }  // x less 0 is x itself: it is read into every lane
static inline ivec spread(int x) { return x - ivec{}; }
static inline void store(float *p, vec v) { *(loose *)p = v; }
static inline void add_products(vec &s, vec a, vec b) { s += a * b; }
#if defined(__AVX__) && LANES == 8  // of two numbers that are equal, or of which one is none, the second is kept
static inline vec bounded(vec v, float least, float most) {
  return __builtin_ia32_minps256(spread(most), __builtin_ia32_maxps256(spread(least), v));
}
#else
static inline vec bounded(vec v, float least, float most) {
  v = v < least ? spread(least) : v;
  return v > most ? spread(most) : v;
}
#endif
static inline vec load_some(const float *p, long n) {
  if (n >= LANES) return load(p);
  float t[LANES] = {};
  for (long i = 0; i < n; i++) t[i] = p[i];
  return load(t);
}
static inline void store_some(float *p, vec v, long n) {
  if (n >= LANES) { store(p, v); return; }
  float t[LANES];
  store(t, v);
  for (long i = 0; i < n; i++) p[i] = t[i];
}
static inline unsigned bits(float x) { unsigned u; __builtin_memcpy(&u, &x, 4); return u; }
static inline unsigned halved(float x) { const unsigned u = bits(x); return u + 0x7fff + ((u >> 16) & 1); }
static inline short narrow(float x) { return (short)(halved(x) >> 16); }
static inline int pair(float low, float high) { return (int)((halved(low) >> 16) | (halved(high) & 0xffff0000u)); }
static inline int joined(short low, short high) { return (int)((unsigned short)low | (unsigned)high << 16); }
static inline void fetch(const void *p, long bytes) {
  for (long b = 0; b < bytes; b += 64) __builtin_prefetch((const char *)p + b);
}
static int arrived __attribute__((aligned(64))), phase __attribute__((aligned(64)));
static inline void barrier() {
  const int mine = __atomic_load_n(&phase, __ATOMIC_RELAXED);
  if (__atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL) == THREADS) {
    __atomic_store_n(&arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&phase, mine + 1, __ATOMIC_RELEASE);
    return;
  }
  for (long spins = 0; __atomic_load_n(&phase, __ATOMIC_ACQUIRE) == mine; spins++) {
    if (spins > 10000) sched_yield();  // no pause before: hypervisors may take a pause for idleness
  }
}
"""

DECLARED = """
#if LANES == 16 && defined(__AVX512VNNI__)
#define HAS_DOTS 1
#elif LANES == 8 && defined(__AVXVNNI__)
#define HAS_DOTS 1
#else
#define HAS_DOTS 0
#endif
#if LANES == 8 && !HAS_DOTS && defined(__GNUC__) && !defined(__clang__)  // its header takes a second to read
typedef char bytes_t __attribute__((vector_size(32)));
typedef short halves_t __attribute__((vector_size(32)));
#define TWO_BYTES(a, b) (halves_t)__builtin_ia32_pmaddubsw256((bytes_t)(a), (bytes_t)(b))
#define DOT_BYTES(s, a, b) ((s) + (ivec)__builtin_ia32_pmaddwd256(TWO_BYTES(a, b), halves_t{} + (short)1))
#elif defined(__clang__) || __GNUC__ > 12 || LANES != 16 || !HAS_DOTS
#include <immintrin.h>
#define DOT_PAIRS(s, a, b) (vec)_mm512_dpbf16_ps((__m512)(s), (__m512bh)(a), (__m512bh)(b))
#if LANES == 16 && HAS_DOTS
#define DOT_BYTES(s, a, b) (ivec)_mm512_dpbusd_epi32((__m512i)(s), (__m512i)(a), (__m512i)(b))
#elif LANES == 16
#define TWO_BYTES(a, b) _mm512_maddubs_epi16((__m512i)(a), (__m512i)(b))
#define DOT_BYTES(s, a, b) ((s) + (ivec)_mm512_madd_epi16(TWO_BYTES(a, b), _mm512_set1_epi16(1)))
#elif HAS_DOTS
#define DOT_BYTES(s, a, b) (ivec)_mm256_dpbusd_avx_epi32((__m256i)(s), (__m256i)(a), (__m256i)(b))
#else
#define TWO_BYTES(a, b) _mm256_maddubs_epi16((__m256i)(a), (__m256i)(b))
#define DOT_BYTES(s, a, b) ((s) + (ivec)_mm256_madd_epi16(TWO_BYTES(a, b), _mm256_set1_epi16(1)))
#endif
#else  // what these functions are in GCC up to 12, whose header takes a quarter of a second to read
typedef short pairs_t __attribute__((vector_size(64)));
#define DOT_PAIRS(s, a, b) __builtin_ia32_dpbf16ps_v16sf((s), (pairs_t)(a), (pairs_t)(b))
#define DOT_BYTES(s, a, b) __builtin_ia32_vpdpbusd_v16si((s), (a), (b))
#endif
"""
"""Compilers keep sums in registers for functions of their own; what inline assembly adds to, GCC spills."""

PAIRS = """
static inline void add_products(vec &s, ivec a, ivec b) { s = DOT_PAIRS(s, a, b); }
"""
"""Products of pairs of bfloat16, added up (AVX-512 BF16)."""

BYTES = """
static inline void add_products(ivec &s, ivec a, ivec b) { s = DOT_BYTES(s, a, b); }
"""
"""Products of unsigned and signed bytes, four at a time, added up: at once (AVX-512 VNNI, AVX-VNNI), or two by two in
16 bits and these in 32, which asks for weights that cannot overflow 16 (`tiles.HALF_LEVELS`)."""

POOL = """
static int generation __attribute__((aligned(64))), is_over;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t bell = PTHREAD_COND_INITIALIZER;
static pthread_t others[THREADS];
static void *wait_for_work(void *which) {
  for (int seen = 0;; seen++) {
    for (long spins = 0; __atomic_load_n(&generation, __ATOMIC_ACQUIRE) == seen; spins++) {
      if (spins < 50000) continue;  // some 50 us, in which the next call often comes; no pause, as above
      pthread_mutex_lock(&gate);
      while (__atomic_load_n(&generation, __ATOMIC_ACQUIRE) == seen) pthread_cond_wait(&bell, &gate);
      pthread_mutex_unlock(&gate);
    }
    if (is_over) return 0;
    work((int)(long)which);
  }
}
static void ring() {
  pthread_mutex_lock(&gate);
  __atomic_add_fetch(&generation, 1, __ATOMIC_ACQ_REL);
  pthread_cond_broadcast(&bell);
  pthread_mutex_unlock(&gate);
}
static void (*region)(void (*)(void *), void *, unsigned, unsigned);  // of the process's own threads, if it has any
static int (*are_in_region)(), (*place_in_region)(), is_short, is_alone;
static void in_region(void *) {
  if (are_in_region() == THREADS) work(place_in_region());
  else __atomic_store_n(&is_short, 1, __ATOMIC_RELAXED);  // with fewer, barriers would wait for ever
}
static void in_child() {  // a process that was forked has none of its parent's threads
  region = 0; is_alone = 1; arrived = phase = generation = 0;
  gate = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
  bell = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
}
static int start() {
  is_alone = 0;
  for (long t = 1; t < THREADS; t++) if (pthread_create(&others[t], 0, wait_for_work, (void *)t)) return 1;
  return 0;
}
static void all_work() {
  if (region) {
    region(in_region, 0, THREADS, 0);
    if (!is_short) return;
    region = 0;
  }
  if (THREADS > 1) {
    if (is_alone && start()) __builtin_trap();
    ring();
  }
  work(0);
}
extern "C" void enlist(void *begins, void *are, void *place) {
  if (THREADS == 1) return;
  are_in_region = (int (*)())are; place_in_region = (int (*)())place;
  region = (void (*)(void (*)(void *), void *, unsigned, unsigned))begins;
}
extern "C" int begin() { return THREADS > 1 && (pthread_atfork(0, 0, in_child) || start()); }
extern "C" void end() {
  if (is_alone) return;
  is_over = 1;
  ring();
  for (long t = 1; t < THREADS; t++) pthread_join(others[t], 0);
}
"""
"""Needs `work(t)`, what thread t does in a call. `all_work` is a call: by threads of the program, or by those of the
process that it was given by `enlist` (`team.py`), as long as there are enough of these."""
