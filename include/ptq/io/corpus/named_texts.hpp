// Texts by name, joined exactly as the papers' codes join them; anything else is a file.
#pragma once

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/corpus/text.hpp>
#include <ptq/io/corpus/text_file.hpp>

namespace ptq::io {

/// The same name means another split of a data set: train for calibration, test or validation for evaluation.
enum class TextRole { calibration, evaluation };

/// How a file becomes rows.
enum class TextForm { plain, wikitext, sentences_by_blank, sentences_by_blank_lines, documents };

struct NamedText {
  std::string_view name;
  TextRole role;
  TextForm form;
  std::array<std::string_view, 3> files;  ///< file names looked for
  std::string_view digest{};              ///< of the joined text, where it is known
};

/// Every name, in both roles. Digests: WikiText-2 raw v1 and the Penn Treebank test split as the data sets hold them.
[[nodiscard]] inline const std::vector<NamedText>& named_texts() {
  using enum TextForm;
  constexpr auto calibration = TextRole::calibration, evaluation = TextRole::evaluation;
  constexpr std::string_view wiki_test = "696cca6b65a171b0a358a4be6732cdfdf2dd6164a32e20fd70e3c13fc4dfae83";
  constexpr std::string_view wiki_valid = "005655d5f0af5b072831f3a97361c7e5f6974ab000dfdd541fa10c6e8c12d28f";
  constexpr std::string_view ptb_test = "900cfc61a7a63afcd086c5e1cce90554764eae65cb2ca9f5d4cac47be5f0f394";
  static const std::vector<NamedText> table = {
      {"wikitext2", evaluation, wikitext, {"wikitext2_test.txt", "wiki.test.raw"}, wiki_test},
      {"wikitext2", calibration, wikitext, {"wikitext2_train.txt", "wiki.train.raw"}},
      {"wikitext2_valid", evaluation, wikitext, {"wikitext2_valid.txt", "wiki.valid.raw"}, wiki_valid},
      {"wikitext2_valid", calibration, wikitext, {"wikitext2_valid.txt", "wiki.valid.raw"}, wiki_valid},
      {"books_valid", evaluation, plain, {"books_valid.txt"}},
      {"books_valid", calibration, plain, {"books_valid.txt"}},
      {"books_test", evaluation, plain, {"books_test.txt"}},
      {"books_test", calibration, plain, {"books_test.txt"}},
      {"ptb", evaluation, sentences_by_blank_lines, {"ptb_valid.txt", "ptb.valid.txt"}},
      {"ptb", calibration, sentences_by_blank_lines, {"ptb_train.txt", "ptb.train.txt"}},
      {"ptb-new", evaluation, sentences_by_blank, {"ptb_test.txt", "ptb.test.txt"}, ptb_test},
      {"ptb-new", calibration, sentences_by_blank, {"ptb_train.txt", "ptb.train.txt"}},
      {"c4", evaluation, documents, {"c4-validation.00000-of-00008.json.gz", "c4-validation.00000-of-00008.json", "c4_validation.json"}},
      {"c4", calibration, documents, {"c4-train.00000-of-01024.json.gz", "c4-train.00000-of-01024.json", "c4_train.json"}},
      {"c4-new",
       evaluation,
       documents,
       {"c4-validation.00000-of-00008.json.gz", "c4-validation.00000-of-00008.json", "c4_validation.json"}},
      {"c4-new", calibration, documents, {"c4-train.00000-of-01024.json.gz", "c4-train.00000-of-01024.json", "c4_train.json"}},
  };
  return table;
}

[[nodiscard]] inline bool is_text_name(std::string_view name) {
  return std::any_of(named_texts().begin(), named_texts().end(), [&](const NamedText& text) { return text.name == name; });
}

/// Where named texts are looked for: PTQ_TEXTS, then texts/ in PTQ_DATA, then texts/ in the folder given by the program.
[[nodiscard]] inline std::vector<std::filesystem::path> text_folders(const std::filesystem::path& data = "data") {
  std::vector<std::filesystem::path> folders;
  if (const char* texts = std::getenv("PTQ_TEXTS"); texts != nullptr && *texts != '\0') folders.emplace_back(texts);
  if (const char* root = std::getenv("PTQ_DATA"); root != nullptr && *root != '\0')
    folders.push_back(std::filesystem::path(root) / "texts");
  folders.push_back(data / "texts");
  return folders;
}

/// Reads a file in a stated form.
[[nodiscard]] inline Text read_text_file(const std::filesystem::path& path, TextForm form, std::string name) {
  Text text{.name = std::move(name), .path = path};
  if (form == TextForm::documents) {
    text.rows = read_json_lines(path);
    text.separator = " ";
    text.documents = true;
    return digested(std::move(text));
  }
  const std::string content = read_text(path);
  if (form == TextForm::plain) {
    text.rows = rows::lines(content);
    text.separator = "\n";
  } else if (form == TextForm::wikitext) {
    text.rows = rows::wikitext_joined(content);  // a raw file never has this form: two of its lines in a row have text
    if (text.rows.empty()) text.rows = rows::wikitext_raw(content);
    text.separator = "\n\n";
  } else {
    text.rows = rows::stripped(content);
    text.separator = form == TextForm::sentences_by_blank ? " " : "\n\n";
  }
  return digested(std::move(text));
}

/// A text by name, or a file by path (".json", ".jsonl", gzip or not: documents; anything else: plain text). Fails where the file is
/// missing, empty, not UTF-8, or not the text that its name promises.
[[nodiscard]] inline Text load_text(const std::string& source, TextRole role, const std::vector<std::filesystem::path>& folders) {
  const auto& table = named_texts();
  const auto named =
      std::find_if(table.begin(), table.end(), [&](const NamedText& text) { return text.name == source && text.role == role; });
  if (named == table.end()) {
    if (!std::filesystem::exists(source)) {
      std::string names;
      for (const NamedText& text : table)
        if (text.role == role) names += (names.empty() ? "" : ", ") + std::string(text.name);
      refuse("text '", source, "': neither a file nor a known text (", names, ")");
    }
    return read_text_file(source, is_json_lines(source) ? TextForm::documents : TextForm::plain, source);
  }
  for (const auto& folder : folders)
    for (const std::string_view file : named->files) {
      const auto path = folder / file;
      if (file.empty() || !std::filesystem::is_regular_file(path)) continue;
      Text text = read_text_file(path, named->form, source);
      if (!named->digest.empty() && text.digest != named->digest)
        fail(path.string(), ": not the text named ", source, " (SHA-256 after joining ", text.digest, ", expected ", named->digest,
             "); to use it all the same, give its path");
      if (source == "c4-new" && role == TextRole::evaluation) {  // the first 1100 documents are one text
        text.documents = false;
        if (text.rows.size() > 1100) {
          text.remark = cat("the first 1100 of ", text.rows.size(), " documents");
          text.rows.resize(1100);
          text = digested(std::move(text));
        }
      }
      return text;
    }
  std::string places;
  for (const auto& folder : folders) places += (places.empty() ? "" : ", ") + folder.string();
  fail("text '", source, "' for ", role == TextRole::calibration ? "calibration" : "evaluation", ": no ", named->files[0], " in ", places,
       "; put it there, or name its folder by PTQ_TEXTS");
}

}  // namespace ptq::io
