#include "split.hpp"

#include <ATen/record_function.h>

#include <chrono>
#include <memory>
#include <set>
#include <vector>

namespace ptq::bench {

namespace {

using Clock = std::chrono::steady_clock;

/// Operators under way on this thread. CPU gradients run on the thread that asked for them.
struct Running {
  Clock::time_point begin;
  double inner = 0;  ///< seconds of operators it called
};
thread_local std::vector<Running> running;
thread_local std::map<std::string, double>* seconds = nullptr;

double since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

void leave(const std::string& name) {
  const double whole = since(running.back().begin);
  (*seconds)[name] += whole - running.back().inner;
  running.pop_back();
  if (!running.empty()) running.back().inner += whole;
}

}  // namespace

std::map<std::string, double> split(const std::function<void()>& work) {
  std::map<std::string, double> found;
  seconds = &found, running.assign(1, {Clock::now(), 0});
  const auto watch = at::addThreadLocalCallback(at::RecordFunctionCallback(
                                                    [](const at::RecordFunction&) -> std::unique_ptr<at::ObserverContext> {
                                                      running.push_back({Clock::now(), 0});
                                                      return nullptr;
                                                    },
                                                    [](const at::RecordFunction& f, at::ObserverContext*) { leave(f.name()); })
                                                    .scopes({at::RecordScope::FUNCTION}));
  work();
  at::removeCallback(watch);
  leave("");
  return found;
}

bool multiplies(const std::string& name) {
  static const std::set<std::string> all{
      "mkldnn::_linear_pointwise", "aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::addmv", "aten::addmv_"};
  return all.count(name) > 0;
}

}  // namespace ptq::bench
