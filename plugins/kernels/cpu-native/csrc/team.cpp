#include "team.h"

#include <pthread.h>

namespace {
Team* team = nullptr;
std::once_flag once;
}  // namespace

Team& Team::get() {
  std::call_once(once, [] {
    team = new Team;  // never destroyed: its threads may still wait when the process ends
    pthread_atfork(nullptr, nullptr, [] { team = new Team; });
  });
  return *team;
}

void Team::wait_while(std::atomic<unsigned>& value, unsigned old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    _mm_pause();
  }
  value.wait(old, std::memory_order_acquire);
}

void Team::resize(int threads) {
  std::lock_guard<std::mutex> lock(busy_);
  if (threads == size() || threads < 1) return;
  stop();
  for (int rank = 1; rank < threads; ++rank)
    workers_.emplace_back([this, rank, seen = epoch_.load()] { serve(rank, seen); });
}

void Team::stop() {
  ending_ = true;
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (auto& worker : workers_) worker.join();
  workers_.clear();
  ending_ = false;
}

void Team::serve(int rank, unsigned seen) {
  for (;;) {
    wait_while(epoch_, seen);
    seen = epoch_.load(std::memory_order_acquire);
    if (ending_) return;
    function_(work_, rank, size());
    barrier();
  }
}

void Team::start(Function function, const void* work) {
  function_ = function;
  work_ = work;
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  function(work, 0, size());
  barrier();
}

void Team::barrier() {
  const unsigned phase = phase_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<unsigned>(size())) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.fetch_add(1, std::memory_order_release);
    phase_.notify_all();
  } else {
    wait_while(phase_, phase);
  }
}
