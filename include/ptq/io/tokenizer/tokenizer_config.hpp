// tokenizer_config.json (or special_tokens_map.json): which special tokens a Hugging Face folder has and sets around a text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/core/text.hpp>
#include <ptq/io/json.hpp>

namespace ptq::io {

struct TokenizerConfig {
  std::string path{};
  std::string bos{}, eos{}, unk{};           ///< empty where there is none
  std::optional<bool> add_bos{}, add_eos{};  ///< where said, these decide
  std::optional<bool> add_prefix_space{}, legacy{};
  std::string tokenizer_class{};
  std::vector<std::string> special{};  ///< every token named as special
  json added = json::array();          ///< entries of added_tokens_decoder, with ids, as in tokenizer.json
};

/// Reads what is there; a folder without such files has an empty configuration.
[[nodiscard]] inline TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder) {
  TokenizerConfig config;
  for (const char* name : {"special_tokens_map.json", "tokenizer_config.json"}) {
    const std::string path = (folder / name).string();
    if (!std::filesystem::is_regular_file(path)) continue;
    config.path = path;
    try {
      const json document = read_json(path);
      if (!document.is_object()) fail(path, ": not a JSON object");
      const auto content = [](const json& token) -> std::string {
        if (token.is_string()) return token.get<std::string>();
        return token.is_object() ? token.at("content").get<std::string>() : std::string();
      };
      const auto token = [&](const char* key, std::string* into) {
        if (!document.contains(key)) return;
        const std::string text = content(document[key]);
        if (into != nullptr) *into = text;
        if (!text.empty()) config.special.push_back(text);
      };
      token("bos_token", &config.bos), token("eos_token", &config.eos), token("unk_token", &config.unk);
      for (const char* key : {"pad_token", "cls_token", "sep_token", "mask_token"}) token(key, nullptr);
      for (const char* key : {"additional_special_tokens", "extra_special_tokens"})
        if (document.contains(key) && document[key].is_array())
          for (const json& entry : document[key])
            if (const std::string text = content(entry); !text.empty()) config.special.push_back(text);
      const auto flag = [&](const char* key, std::optional<bool>& into) {
        if (document.contains(key) && document[key].is_boolean()) into = document[key].get<bool>();
      };
      flag("add_bos_token", config.add_bos), flag("add_eos_token", config.add_eos);
      flag("add_prefix_space", config.add_prefix_space), flag("legacy", config.legacy);
      if (document.contains("tokenizer_class")) config.tokenizer_class = content(document["tokenizer_class"]);
      if (document.contains("added_tokens_decoder") && document["added_tokens_decoder"].is_object())
        for (const auto& [id, entry] : document["added_tokens_decoder"].items()) {
          json with_id = entry;
          with_id["id"] = parse_integer<std::int32_t>(id, path + ": an id of added_tokens_decoder", 0);
          config.added.push_back(std::move(with_id));
        }
    } catch (const json::exception& error) {
      fail(path, ": not the layout of a ", name, ": ", error.what());
    }
  }
  return config;
}

}  // namespace ptq::io
