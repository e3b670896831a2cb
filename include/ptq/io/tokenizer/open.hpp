// Opens the tokenizer of a model: a GGUF file, or a Hugging Face folder. Its kind follows from what the files contain.
#pragma once

#include <filesystem>

#include <ptq/core/error.hpp>
#include <ptq/io/gguf.hpp>
#include <ptq/io/tokenizer/folder.hpp>
#include <ptq/io/tokenizer/gguf_byte_level.hpp>
#include <ptq/io/tokenizer/gguf_vocabulary.hpp>
#include <ptq/io/tokenizer/sentencepiece.hpp>
#include <ptq/io/tokenizer/tokenizer.hpp>

namespace ptq::io {

/// From the metadata of a GGUF file that is open already.
[[nodiscard]] inline Tokenizer open_gguf_tokenizer(const GgufMetadata& metadata) {
  const GgufVocabulary vocabulary = read_gguf_vocabulary(metadata);
  if (vocabulary.model == "gpt2") return byte_level_from_gguf(vocabulary);
  if (vocabulary.model == "llama") return sentencepiece_from_gguf(vocabulary);
  fail(vocabulary.origin, ": a vocabulary of the kind \"", vocabulary.model, "\" is not supported (supported: gpt2, llama)");
}

/// The tokenizer of a GGUF file or of a Hugging Face folder; `wanted` chooses between the files of a folder.
[[nodiscard]] inline Tokenizer open_tokenizer(const std::filesystem::path& path, TokenizerFile wanted = TokenizerFile::preferred) {
  if (std::filesystem::is_directory(path)) return open_folder_tokenizer(path, wanted);
  if (!std::filesystem::exists(path)) refuse(path.string(), ": no such file or folder");
  return open_gguf_tokenizer(GgufFile(path.string()).metadata());
}

}  // namespace ptq::io
