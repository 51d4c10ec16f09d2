// Drives the compiled design with vectors and compares every element that comes out; prints one JSON object.
// bench.h, written beside it, says what the design is: sizes, bits, and the model's name.
#include "design.cc"

#include "bench.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

using Words = std::vector<int16_t>;

Words read_words(const char *path) {
  Words words;
  FILE *file = std::fopen(path, "rb");
  if (file == nullptr) std::exit(3);
  int16_t block[4096];
  size_t got;
  while ((got = std::fread(block, sizeof(int16_t), 4096, file)) > 0) words.insert(words.end(), block, block + got);
  std::fclose(file);
  return words;
}

template <size_t Bits>
uint32_t chunk(const cxxrtl::value<Bits> &value, size_t place) { return value.data[place]; }
template <size_t Bits>
uint32_t chunk(const cxxrtl::wire<Bits> &wire, size_t place) { return wire.curr.data[place]; }

struct Mismatch {
  bool found = false;
  long vector = 0, element = 0, cycle = 0;
  int stream = 0;
  uint32_t expected = 0, received = 0;
};

struct Bench {
  cxxrtl_design::p_vivace__top top;
  long cycle = 0, last_in = 0, first_in = 0, last_out = 0;
  long given = 0, taken = 0;
  Mismatch mismatch;
  Words inputs, outputs;
  std::vector<Words> traces;
  std::vector<long> seen = std::vector<long>(STREAMS, 0);
  long traced = 0, base = 0;
  std::vector<long> ends;
  uint32_t noise = 2463534242u;
  bool direct = false;

  // The clock's two edges as two evaluations each, or, where `direct`, one evaluation with its rising edge: that takes
  // half the time, and is right for a design in which one evaluation settles every wire, as eval() itself says.
  void settle() {
    if (direct) {
      top.p_clk.set<uint32_t>(1);
      top.prev_p_clk.set<uint32_t>(0);
      top.eval();
      return;
    }
    top.p_clk.set<uint32_t>(0);
    top.step();
  }

  void rise() {
    if (direct) {
      top.commit();
    } else {
      top.p_clk.set<uint32_t>(1);
      top.step();
    }
    cycle++;
  }

  void reset() {
    top.p_rst.set<uint32_t>(1);
    top.p_in__valid.set<uint32_t>(0);
    top.p_out__ready.set<uint32_t>(1);
    for (int i = 0; i < 8; i++) tick();
    top.p_rst.set<uint32_t>(0);
    for (int i = 0; i < 2; i++) tick();
    seen.assign(STREAMS, 0);
  }

  void tick() {
    settle();
    rise();
  }

  uint32_t random() {
    noise ^= noise << 13;
    noise ^= noise >> 17;
    noise ^= noise << 5;
    return noise;
  }

  void differ(int stream, long place, long elements, uint32_t expected, uint32_t received) {
    if (mismatch.found) return;
    mismatch = {true, base + place / elements, place % elements, cycle, stream, expected, received};
  }

  void compare_traces() {
    for (int stream = 1; stream < STREAMS - 1; stream++) {
      if (!(chunk(top.p_trace__moves, stream / 32) >> (stream % 32) & 1)) continue;
      long place = seen[stream]++;
      if (place >= traced * ELEMENTS[stream]) continue;
      uint32_t received = chunk(top.p_trace__data, stream / 2) >> (16 * (stream % 2)) & 0xffff;
      uint32_t expected = uint16_t(traces[stream][place]) & MASKS[stream];
      if (received != expected) differ(stream, place, ELEMENTS[stream], expected, received);
    }
  }

  // One cycle in which the input may be given and the output may be taken.
  void move(bool give, bool take, long last) {
    const long in_elements = ELEMENTS[0], out_elements = ELEMENTS[STREAMS - 1];
    const bool valid = give && given < last * in_elements;
    top.p_in__valid.set<uint32_t>(valid);
    if (valid) top.p_in__data.set<uint32_t>(uint16_t(inputs[given]) & MASKS[0]);
    top.p_out__ready.set<uint32_t>(take);
    settle();
    if (valid && top.p_in__ready.get<uint32_t>()) {
      if (given % in_elements == 0) first_in = cycle;
      last_in = cycle;
      given++;
    }
    if (traced > 0) compare_traces();
    if (take && top.p_out__valid.get<uint32_t>()) {
      uint32_t received = top.p_out__data.get<uint32_t>();
      uint32_t expected = uint16_t(outputs[taken]) & MASKS[STREAMS - 1];
      if (received != expected) differ(STREAMS - 1, taken, out_elements, expected, received);
      last_out = cycle;
      if (++taken % out_elements == 0) ends.push_back(cycle);
    }
    rise();
  }

  // Give vectors until `last` of them are out. False when nothing moves for too long.
  bool pass(long last, bool pauses) {
    const long out_elements = ELEMENTS[STREAMS - 1];
    long idle = 0;
    while (taken < last * out_elements && !mismatch.found) {
      const long before = given + taken;
      const uint32_t bits = pauses ? random() : 0;
      move(!pauses || (bits & 3) != 0, !pauses || (bits >> 8 & 3) != 0, last);
      idle = given + taken == before ? idle + 1 : 0;
      if (idle > PATIENCE) return false;
    }
    return true;
  }
};

}  // namespace

int main(int argc, char **argv) {
  if (argc < 6) return 2;
  const long vectors = std::atol(argv[1]), alone = std::atol(argv[2]), pauses = std::atol(argv[3]);
  const long traced = std::atol(argv[4]);
  static Bench bench;
  bench.inputs = read_words("inputs.bin");
  bench.outputs = read_words("outputs.bin");
  bench.traces.resize(STREAMS);
  for (int stream = 1; stream < STREAMS - 1 && traced > 0; stream++)
    bench.traces[stream] = read_words(("trace_" + std::to_string(stream) + ".bin").c_str());
  bool moved = true;
  long least = 0, most = 0;

  bench.reset();
  for (long vector = 0; vector < alone && moved && !bench.mismatch.found; vector++) {
    moved = bench.pass(vector + 1, false);
    const long latency = bench.last_out - bench.first_in + 1;
    if (vector == 0 || latency < least) least = latency;
    if (latency > most) most = latency;
    for (int i = 0; i < 16; i++) bench.move(false, true, 0);
  }

  double interval = 0;
  long shortest = 0, longest = 0;
  const long before = bench.cycle;
  bench.direct = bench.top.eval();
  if (moved && !bench.mismatch.found) {
    bench.given = bench.taken = 0;
    bench.ends.clear();
    bench.reset();
    bench.traced = traced;
    moved = bench.pass(vectors, false);
    const long skipped = 8;
    const long counted = long(bench.ends.size()) - skipped;
    for (long i = skipped; i < long(bench.ends.size()); i++) {
      const long apart = bench.ends[i] - bench.ends[i - 1];
      if (i == skipped || apart < shortest) shortest = apart;
      if (apart > longest) longest = apart;
    }
    if (counted > 0) interval = double(bench.ends.back() - bench.ends[skipped - 1]) / double(counted);
  }
  const long streamed = bench.cycle - before;
  bench.traced = 0;

  if (moved && !bench.mismatch.found && pauses > 0) {
    bench.given = bench.taken = 0;
    bench.reset();
    moved = bench.pass(pauses, true);
  }
  const Mismatch &wrong = bench.mismatch;
  std::printf("{\"moved\": %s, \"mismatch\": %s, \"stream\": %d, \"vector\": %ld, \"element\": %ld, \"cycle\": %ld, "
              "\"expected\": %u, \"received\": %u, \"least_latency\": %ld, \"most_latency\": %ld, \"interval\": %.6f, "
              "\"shortest_interval\": %ld, \"longest_interval\": %ld, \"cycles\": %ld, \"streamed\": %ld, "
              "\"given\": %ld, \"taken\": %ld}\n",
              moved ? "true" : "false", wrong.found ? "true" : "false", wrong.stream, wrong.vector, wrong.element,
              wrong.cycle, wrong.expected, wrong.received, least, most, interval, shortest, longest, bench.cycle,
              streamed, bench.given, bench.taken);
  return 0;
}
