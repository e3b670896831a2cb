#pragma once
// A test framework of one page: TEST registers a sentence and a body, CHECK counts what fails, main runs all for the instruction set that
// the environment variable PTQ_ISA asks for. Exit status 77: skipped.

#include <ptq/kernels/isa.hpp>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace check {

struct Test {
  const char* name;
  void (*body)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

inline int& failures() {
  static int count = 0;
  return count;
}

inline std::string& context() {
  static std::string text;
  return text;
}

struct Register {
  Register(const char* name, void (*body)()) { tests().push_back({name, body}); }
};

inline void fail(const char* file, int line, const char* text) {
  if (++failures() <= 40) std::printf("  %s:%d: failed: %s  [%s]\n", file, line, text, context().c_str());
}

template <class T>
bool same_bits(T a, T b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

inline int run() {
  const char* wanted = std::getenv("PTQ_ISA");
  if (wanted != nullptr && std::strcmp(wanted, text(ptq::kernels::isa())) != 0) {
    std::printf("skipped: this machine has no %s\n", wanted);
    return 77;
  }
  std::printf("instruction set: %s\n", text(ptq::kernels::isa()));
  for (const Test& test : tests()) {
    const int before = failures();
    context().clear();
    test.body();
    std::printf("%s  %s\n", failures() == before ? "ok    " : "FAILED", test.name);
  }
  return failures() == 0 ? 0 : 1;
}

}  // namespace check

#define CHECK_JOIN2(a, b) a##b
#define CHECK_JOIN(a, b) CHECK_JOIN2(a, b)
#define TEST(sentence) TEST_AT(sentence, CHECK_JOIN(test_, __LINE__))
#define TEST_AT(sentence, id)                                   \
  static void id();                                             \
  static const check::Register CHECK_JOIN(id, _)(sentence, id); \
  static void id()
#define CHECK(condition)                                           \
  do {                                                             \
    if (!(condition)) check::fail(__FILE__, __LINE__, #condition); \
  } while (false)
#define CHECK_NEAR(a, b, tolerance)                                                                                                       \
  do {                                                                                                                                    \
    const double near_a = static_cast<double>(a), near_b = static_cast<double>(b);                                                        \
    if (!(std::abs(near_a - near_b) <= (tolerance))) {                                                                                    \
      check::fail(__FILE__, __LINE__, (std::string(#a " = ") + std::to_string(near_a) + ", expected " + std::to_string(near_b)).c_str()); \
    }                                                                                                                                     \
  } while (false)
