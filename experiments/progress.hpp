// Progress on standard error: one live line on a terminal, plain lines otherwise; and Ctrl-C that waits for the commit.
#pragma once

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>

namespace ptq::driver {

/// Set by the first Ctrl-C; the second one ends the program at once.
inline volatile std::sig_atomic_t interrupted = 0;

/// Thrown where nothing has to be finished first; `place` completes "interrupted …".
struct Interrupted {
  std::string place;
};

inline void stop_if_interrupted(const std::string& place) {
  if (interrupted) throw Interrupted{place};
}

inline void catch_interrupt() {
  std::signal(SIGINT, [](int) {
    interrupted = 1;
    std::signal(SIGINT, SIG_DFL);
  });
}

class Progress {
 public:
  Progress(bool quiet, int64_t blocks) : quiet_(quiet), live_(::isatty(STDERR_FILENO) != 0), blocks_(blocks) {}

  void begin(const std::string& what, int64_t first = 0) { what_ = what, begun_ = std::chrono::steady_clock::now(), first_ = first; }

  /// While block `block` is worked on.
  void at(int64_t block, const std::string& stage) {
    if (quiet_ || !live_) return;
    std::string left;
    if (block > first_) {
      const double each = seconds() / static_cast<double>(block - first_);
      left = ", about " + duration(each * static_cast<double>(blocks_ - block)) + " left";
    }
    std::fprintf(stderr, "\r\033[K%s: block %ld of %ld, %s%s", what_.c_str(), static_cast<long>(block + 1), static_cast<long>(blocks_),
                 stage.c_str(), left.c_str());
    std::fflush(stderr);
  }
  void end(const std::string& outcome) {
    if (quiet_) return;
    std::fprintf(stderr, "%s%s: %s (%s)\n", live_ ? "\r\033[K" : "", what_.c_str(), outcome.c_str(), duration(seconds()).c_str());
  }
  void say(const std::string& line) {
    if (!quiet_) std::fprintf(stderr, "%s%s\n", live_ ? "\r\033[K" : "", line.c_str());
  }
  [[nodiscard]] double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun_).count(); }

  static std::string duration(double s) {
    char text[32];
    if (s < 100)
      std::snprintf(text, sizeof text, "%.1f s", s);
    else
      std::snprintf(text, sizeof text, "%.0f min", s / 60);
    return text;
  }

 private:
  bool quiet_, live_;
  int64_t blocks_, first_ = 0;
  std::string what_;
  std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
};

}  // namespace ptq::driver
