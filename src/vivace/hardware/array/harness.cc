// Runs matrix products on the compiled array: plays the memories beside it, and counts its cycles. Prints JSON.
// bench.h, written beside it, gives the sizes; job.bin holds the operands in the order in which the array takes them.
#include "design.cc"

#include "bench.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

template <size_t Bits>
uint32_t chunk(const cxxrtl::value<Bits> &value, size_t place) { return value.data[place]; }
template <size_t Bits>
uint32_t chunk(const cxxrtl::wire<Bits> &wire, size_t place) { return wire.curr.data[place]; }

constexpr size_t MOVING_WORDS = (MOVING_BITS + 31) / 32, RESTING_WORDS = (RESTING_BITS + 31) / 32;

struct Tile {
  int32_t moving, resting, out, fresh;
};

struct Job {
  int32_t is_signed, steps, tiles, moving_blocks, resting_blocks, resting_rows, outs, out_rows;
  std::vector<Tile> table;
  std::vector<uint32_t> moving, resting;
};

template <typename T>
void read_all(FILE *file, std::vector<T> &into, size_t count) {
  into.resize(count);
  if (std::fread(into.data(), sizeof(T), count, file) != count) std::exit(3);
}

bool read_job(FILE *file, Job &job) {
  int32_t head[8];
  if (std::fread(head, sizeof(int32_t), 8, file) != 8) return false;
  job.is_signed = head[0], job.steps = head[1], job.tiles = head[2], job.moving_blocks = head[3];
  job.resting_blocks = head[4], job.resting_rows = head[5], job.outs = head[6], job.out_rows = head[7];
  read_all(file, job.table, job.tiles);
  read_all(file, job.moving, size_t(job.moving_blocks) * job.steps * MOVING_WORDS);
  read_all(file, job.resting, size_t(job.resting_blocks) * job.resting_rows * RESTING_WORDS);
  return true;
}

cxxrtl_design::p_vivace__array top;

void tick() {
  top.p_clk.set<uint32_t>(0);
  top.step();
  top.p_clk.set<uint32_t>(1);
  top.step();
}

void reset() {
  top.p_rst.set<uint32_t>(1);
  top.p_start.set<uint32_t>(0);
  for (int i = 0; i < ROWS + COLUMNS + 8; i++) tick();
  top.p_rst.set<uint32_t>(0);
  tick();
}

// Gives the operands of one step.
void feed(const Job &job, bool loading, bool feeding, const std::vector<int32_t> &out) {
  const long step = top.p_step.get<uint32_t>();
  const Tile &tile = job.table[top.p_tile.get<uint32_t>()];
  if (feeding) {
    const uint32_t *from = &job.moving[(size_t(tile.moving) * job.steps + step) * MOVING_WORDS];
    for (size_t i = 0; i < MOVING_WORDS; i++) top.p_moving.data[i] = from[i];
    for (int c = 0; c < COLUMNS && RESTS; c++)
      top.p_partial.data[c] = tile.fresh ? 0 : out[(size_t(tile.out) * job.out_rows + step) * COLUMNS + c];
  }
  if (loading || !RESTS) {
    const uint32_t *from = &job.resting[(size_t(tile.resting) * job.resting_rows + step) * RESTING_WORDS];
    for (size_t i = 0; i < RESTING_WORDS; i++) top.p_resting.data[i] = from[i];
  }
}

// Takes the sums that have come out. False for one too many.
bool collect(const Job &job, std::vector<long> &seen, std::vector<int32_t> &out) {
  for (int c = 0; c < COLUMNS; c++) {
    if (!(chunk(top.p_result__valid, c / 32) >> (c % 32) & 1)) continue;
    const long place = seen[c]++, index = place / job.out_rows, row = place % job.out_rows;
    if (index >= job.tiles) return false;
    const long at = RESTS ? row : job.out_rows - 1 - row;
    out[(size_t(job.table[index].out) * job.out_rows + at) * COLUMNS + c] = int32_t(chunk(top.p_result, c));
  }
  return true;
}

// Cycles from the first operand that goes in to the last product, which is counted as the array's own signal shows it.
long run(const Job &job, std::vector<int32_t> &out) {
  out.assign(size_t(job.outs) * job.out_rows * COLUMNS, 0);
  std::vector<long> seen(COLUMNS, 0);
  top.p_is__signed.set<uint32_t>(job.is_signed);
  top.p_steps.set<uint32_t>(job.steps);
  top.p_tiles.set<uint32_t>(job.tiles);
  top.p_start.set<uint32_t>(1);
  tick();
  top.p_start.set<uint32_t>(0);
  long first = -1, last = -1, quiet = 0;
  for (long cycle = 0; quiet < 2 * (ROWS + COLUMNS) + job.steps + 8; cycle++) {
    top.p_clk.set<uint32_t>(0);
    top.step();  // now what was stored at the end of the cycle before can be read
    if (top.p_working.get<uint32_t>()) last = cycle - 1;
    if (!collect(job, seen, out)) return -1;
    const bool loading = top.p_loading.get<uint32_t>(), feeding = top.p_feeding.get<uint32_t>();
    if ((loading || feeding) && first < 0) first = cycle;
    quiet = loading || feeding ? 0 : quiet + 1;
    if (loading || feeding) feed(job, loading, feeding, out);
    top.step();
    top.p_clk.set<uint32_t>(1);
    top.step();
  }
  for (long count : seen)
    if (count != long(job.tiles) * job.out_rows) return -1;
  return last - first;
}

}  // namespace

int main() {
  FILE *jobs = std::fopen("job.bin", "rb"), *results = std::fopen("result.bin", "wb");
  if (jobs == nullptr || results == nullptr) return 3;
  Job job;
  std::vector<int32_t> out;
  std::printf("{\"cycles\": [");
  for (long number = 0; read_job(jobs, job); number++) {
    reset();
    std::printf("%s%ld", number ? ", " : "", run(job, out));
    std::fwrite(out.data(), sizeof(int32_t), out.size(), results);
  }
  std::printf("]}\n");
  std::fclose(results);
  return 0;
}
