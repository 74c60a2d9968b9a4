// Threads that work on one kernel together: they wait for the next one awake for a moment, then asleep.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

struct Range {
  long begin, end;
};

// This rank's part of n things, in multiples of `step`.
inline Range share(long n, int rank, int size, long step = 1) {
  const long blocks = (n + step - 1) / step;
  return {std::min(n, blocks * rank / size * step), std::min(n, blocks * (rank + 1) / size * step)};
}

class Team {
 public:
  // The process's team. A forked child makes its own: threads do not survive a fork.
  static Team& get();

  void resize(int threads);
  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // work(rank, size) on every thread, this one included. One kernel at a time.
  template <class Work>
  void run(const Work& work) {
    std::lock_guard<std::mutex> lock(busy_);
    if (workers_.empty()) return work(0, 1);
    start([](const void* w, int rank, int n) { (*static_cast<const Work*>(w))(rank, n); }, &work);
  }

  // Called by every thread of a running kernel: returns when all have called it.
  void barrier();

 private:
  using Function = void (*)(const void*, int, int);
  static constexpr int kSpins = 4000;  // about 50 us: longer than the pause between two kernels of a step

  void start(Function function, const void* work);
  void serve(int rank, unsigned seen);
  void stop();
  static void wait_while(std::atomic<unsigned>& value, unsigned old);

  std::mutex busy_;
  std::vector<std::thread> workers_;
  std::atomic<unsigned> epoch_{0}, arrived_{0}, phase_{0};
  std::atomic<bool> ending_{false};
  Function function_ = nullptr;
  const void* work_ = nullptr;
};
