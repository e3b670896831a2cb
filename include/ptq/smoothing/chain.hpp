// Smoothings one after the other.
#pragma once

#include <tuple>

#include <ptq/smoothing.hpp>

namespace ptq {

/// The first smoothing transforms the block, the next one the block that results, reading the statistics as the earlier ones leave them.
/// Fields and state are below the place: smoothing.0.alpha, "0.s.attention_in". All learn together; a later one starts where earlier ones
/// start.
template <class... Ss>
struct Chain {
  static_assert(sizeof...(Ss) > 0, "Chain: takes smoothings, such as Chain<SmoothQuant, LearnedLog>");
  static_assert((Smoothing<Ss> && ...), "Chain: takes smoothings, such as Chain<SmoothQuant, LearnedLog>");

  static constexpr std::string_view tag = joined_tags<'>', Ss...>.text();

  std::tuple<Ss...> links{};

  template <class Visit>
  void each(const Visit& visit) {
    numbered(links, visit);
  }
  template <class Visit>
  void each(const Visit& visit) const {
    numbered(links, visit);
  }

  [[nodiscard]] Needs needs() const {
    Needs all{.extent = true};  // maxima after a shift
    numbered(links, [&](const std::string&, const auto& s) { all = all | s.needs(); });
    return all;
  }
  [[nodiscard]] Stream source() const { return std::get<0>(links).source(); }
  [[nodiscard]] Reason refuses(const Scheme& scheme) const {
    Reason why;
    numbered(links, [&](const std::string& place, const auto& s) {
      if constexpr (requires { s.refuses(scheme); })
        if (const Reason own = s.refuses(scheme); why.empty() && !own.empty()) why = "link " + place + " of the chain: " + own;
      if (why.empty() && s.source() != source()) why = "all links of a chain read the statistics of one stream";
    });
    return why;
  }

  [[nodiscard]] NamedTensors start(const Layout& layout, const BlockParameters& block, const std::vector<Statistics>& stats) const {
    NamedTensors state;
    BlockParameters now = block;
    std::vector<Statistics> seen = stats;
    numbered(links, [&](const std::string& place, const auto& s) {
      const NamedTensors own = s.start(layout, now, seen);
      now = s.fuse(layout, now, own), seen = smoothed(layout, seen, own);
      for (const auto& [name, t] : own) state[place + "." + name] = t;
    });
    return state;
  }
  [[nodiscard]] std::vector<Learnable> learnable() const {
    std::vector<Learnable> all;
    numbered(links, [&](const std::string& place, const auto& s) {
      for (Learnable l : s.learnable()) {
        for (std::string& name : l.names) name.insert(0, place + ".");
        all.push_back(std::move(l));
      }
    });
    return all;
  }
  void project(NamedTensors& state) const {
    numbered(links, [&](const std::string& place, const auto& s) {
      if constexpr (requires(NamedTensors & own) { s.project(own); }) {
        NamedTensors own = of(state, place);  // tensors are shared with `state`
        s.project(own);
      }
    });
  }
  [[nodiscard]] BlockParameters fuse(const Layout& layout, const BlockParameters& block, const NamedTensors& state) const {
    BlockParameters now = block;
    numbered(links, [&](const std::string& place, const auto& s) { now = s.fuse(layout, now, of(state, place)); });
    return now;
  }

 private:
  template <class Links, class Visit>
  static void numbered(Links& links, const Visit& visit) {
    size_t at = 0;
    std::apply([&](auto&... s) { (visit(std::to_string(at++), s), ...); }, links);
  }
  static NamedTensors of(const NamedTensors& state, const std::string& place) {
    NamedTensors own;
    for (const auto& [name, t] : state)
      if (name.starts_with(place + ".")) own[name.substr(place.size() + 1)] = t;
    return own;
  }
};

}  // namespace ptq
