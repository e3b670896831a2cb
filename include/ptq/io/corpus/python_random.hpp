// Python's random module, as far as published codes draw calibration crops with it: same seed, same draws.
// The Mersenne twister of Matsumoto and Nishimura (1998); seeding and rejection as CPython does them.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include <ptq/core/error.hpp>

namespace ptq::io {

class PythonRandom {
 public:
  /// random.seed(seed) of a whole number; Python takes the absolute value of a negative one.
  explicit PythonRandom(std::uint64_t seed) : engine_(make(seed)) {}

  /// Uniform on [0, 2^bits), 1 to 64 bits: the upper bits of one draw, or of two, low word first.
  [[nodiscard]] std::uint64_t getrandbits(unsigned bits) {
    if (bits == 0 || bits > 64) fail("getrandbits takes 1 to 64 bits, not ", bits);
    const std::uint64_t low = engine_();
    if (bits <= 32) return low >> (32 - bits);
    return low | (std::uint64_t{engine_()} >> (64 - bits)) << 32U;
  }

  /// Uniform on [0, n) by rejection; n > 0.
  [[nodiscard]] std::uint64_t below(std::uint64_t n) {
    if (n == 0) fail("no whole number is below 0");
    const auto bits = static_cast<unsigned>(std::bit_width(n));
    std::uint64_t draw = getrandbits(bits);
    while (draw >= n) draw = getrandbits(bits);
    return draw;
  }

  /// Uniform on [low, high], both included.
  [[nodiscard]] std::int64_t randint(std::int64_t low, std::int64_t high) {
    if (high < low) fail("the range of a random number is empty: ", low, " to ", high);
    return low + static_cast<std::int64_t>(below(static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low) + 1));
  }

 private:
  /// init_by_array of mt19937ar, in the form that the standard's engine takes its state from.
  class Seeding {
   public:
    using result_type = std::uint32_t;
    explicit Seeding(std::uint64_t seed) : key_{static_cast<std::uint32_t>(seed)} {
      if (seed >> 32U != 0) key_.push_back(static_cast<std::uint32_t>(seed >> 32U));
    }
    template <class Iterator>
    void generate(Iterator begin, Iterator end) const {
      constexpr std::size_t n = 624;
      std::array<std::uint32_t, n> state{};
      state[0] = 19650218U;
      for (std::uint32_t i = 1; i < n; ++i) state[i] = 1812433253U * (state[i - 1] ^ (state[i - 1] >> 30U)) + i;
      std::size_t i = 1;
      std::uint32_t j = 0;
      const auto advance = [&] {
        if (++i < n) return;
        state[0] = state[n - 1];
        i = 1;
      };
      for (std::size_t k = 0; k < n; ++k) {
        state[i] = (state[i] ^ ((state[i - 1] ^ (state[i - 1] >> 30U)) * 1664525U)) + key_[j] + j;
        j = (j + 1) % static_cast<std::uint32_t>(key_.size());
        advance();
      }
      for (std::size_t k = 1; k < n; ++k) {
        state[i] = (state[i] ^ ((state[i - 1] ^ (state[i - 1] >> 30U)) * 1566083941U)) - static_cast<std::uint32_t>(i);
        advance();
      }
      state[0] = 0x80000000U;
      for (std::size_t s = 0; begin != end; ++begin, ++s) *begin = state[s % n];
    }

   private:
    std::vector<std::uint32_t> key_;
  };

  [[nodiscard]] static std::mt19937 make(std::uint64_t seed) {
    Seeding seeding(seed);
    return std::mt19937(seeding);
  }

  std::mt19937 engine_;
};

}  // namespace ptq::io
