// Text as Python's text mode would give it: UTF-8 checked, line ends become "\n", a byte order mark is dropped; gzip is unpacked.
// The one door to zlib.
#pragma once

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/json.hpp>
#include <ptq/io/tokenizer/utf8.hpp>

namespace ptq::io {

/// Bytes of a file, unpacked when it is gzip. Fails on a missing, unreadable or damaged file, and on more than `limit` bytes.
[[nodiscard]] inline std::string read_bytes(const std::filesystem::path& path, std::uint64_t limit = std::uint64_t{16} << 30U) {
  if (!std::filesystem::is_regular_file(path)) fail(path.string(), ": there is no such file");
  struct Close {
    void operator()(gzFile_s* file) const { gzclose_r(file); }
  };
  const std::unique_ptr<gzFile_s, Close> file(gzopen(path.c_str(), "rb"));
  if (file == nullptr) fail(path.string(), ": cannot be opened: ", std::strerror(errno));
  gzbuffer(file.get(), 1U << 18U);
  std::string bytes;
  std::vector<char> chunk(std::size_t{1} << 20U);
  for (;;) {
    const int count = gzread(file.get(), chunk.data(), static_cast<unsigned>(chunk.size()));
    if (count > 0) bytes.append(chunk.data(), static_cast<std::size_t>(count));
    if (bytes.size() > limit) fail(path.string(), ": more than ", limit, " bytes of text");
    if (count == static_cast<int>(chunk.size())) continue;
    int code = Z_OK;
    const char* message = gzerror(file.get(), &code);
    if (count < 0 || (code != Z_OK && code != Z_STREAM_END)) fail(path.string(), ": cannot be read: ", message);
    if (count == 0) return bytes;
  }
}

/// "\r\n" and "\r" become "\n".
[[nodiscard]] inline std::string universal_newlines(std::string text) {
  if (text.find('\r') == std::string::npos) return text;
  std::size_t out = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r') {
      text[out++] = '\n';
      if (i + 1 < text.size() && text[i + 1] == '\n') ++i;
    } else {
      text[out++] = text[i];
    }
  }
  text.resize(out);
  return text;
}

/// A text file. Invalid UTF-8 is refused with its place, as Python's strict reading does, and so is an empty file.
[[nodiscard]] inline std::string read_text(const std::filesystem::path& path) {
  std::string text = read_bytes(path);
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  require_utf8(text, path.string());
  text = universal_newlines(std::move(text));
  if (text.find_first_not_of(" \t\n\v\f") == std::string::npos) fail(path.string(), ": the text is empty");
  return text;
}

/// Whether a file name says JSON lines, packed or not.
[[nodiscard]] inline bool is_json_lines(const std::filesystem::path& path) {
  std::string_view name = path.native();
  if (name.ends_with(".gz")) name.remove_suffix(3);
  return name.ends_with(".json") || name.ends_with(".jsonl");
}

/// Documents of a JSON-lines file (the layout of C4): one object a line, the text in `field`. Blank lines are skipped.
[[nodiscard]] inline std::vector<std::string> read_json_lines(const std::filesystem::path& path, const char* field = "text") {
  const std::string bytes = read_bytes(path);
  std::vector<std::string> documents;
  std::size_t line = 0;
  for (std::size_t begin = bytes.starts_with("\xEF\xBB\xBF") ? 3 : 0; begin < bytes.size();) {
    const std::size_t end = std::min(bytes.find('\n', begin), bytes.size());
    const std::string_view row(bytes.data() + begin, end - begin);
    begin = end + 1;
    ++line;
    if (row.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = cat(path.string(), ", line ", line);
    json object = parse_json(row, where);
    const auto text = object.is_object() ? object.find(field) : object.end();
    if (!object.is_object() || text == object.end() || !text->is_string()) fail(where, ": no text in a field \"", field, "\"");
    documents.push_back(std::move(text->get_ref<std::string&>()));
  }
  if (documents.empty()) fail(path.string(), ": no documents");
  return documents;
}

}  // namespace ptq::io
