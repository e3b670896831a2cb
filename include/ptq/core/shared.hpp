// What linears that read the same input compute once.
#pragma once

#include <any>
#include <functional>
#include <map>
#include <string>

namespace ptq {

/// What linears that read the same input compute once: factors of their Hessian by name.
class Shared {
 public:
  template <class T>
  const T& get(const std::string& key, const std::function<T()>& make) {
    std::any& kept = kept_[key];
    if (!kept.has_value()) kept = make();
    return std::any_cast<const T&>(kept);
  }

 private:
  std::map<std::string, std::any> kept_;
};

}  // namespace ptq
