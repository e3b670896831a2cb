// torch: no
// config.json in its many spellings, and what is refused.
#include <ptq/io/hf_config.hpp>

#include <string>
#include <utility>
#include <vector>

#include "bytes.hpp"
#include "catch.hpp"
#include "data.hpp"

using Catch::Matchers::ContainsSubstring;
using ptq::Activation;
using ptq::Family;
using ptq::ModelConfig;
using ptq::RopeKind;
using ptq::test::error_of;

namespace {

ModelConfig read(const std::string& text) {
  return ptq::io::read_hf_config(ptq::io::parse_json(text, "some/config.json"), "some/config.json");
}

const std::string sizes =
    R"("vocab_size":100,"hidden_size":64,"intermediate_size":160,"num_hidden_layers":3,"num_attention_heads":4,"num_key_value_heads":2)";

/// A small model of that type with more fields (which begin with a comma).
ModelConfig read(const std::string& type, const std::string& more) {
  return read(R"({"model_type":")" + type + "\"," + sizes + more + "}");
}
std::string error(const std::string& type, const std::string& more) {
  return error_of([&] { (void)read(type, more); });
}

}  // namespace

TEST_CASE("fields left out have the defaults of each family") {
  const ModelConfig llama = read(R"({"model_type":"llama"})");
  CHECK(llama.vocab == 32000);
  CHECK(llama.hidden == 4096);
  CHECK(llama.ffn == 11008);
  CHECK(llama.layers == 32);
  CHECK(llama.kv_heads == 32);
  CHECK(llama.head_dim == 128);
  CHECK(llama.max_positions == 2048);
  CHECK(llama.norm_eps == 1e-6);
  CHECK(llama.rope_theta == 10000.0);
  CHECK(!llama.tied);
  CHECK(llama.bos == 1);
  CHECK(llama.eos == std::vector<std::int64_t>{2});
  CHECK(llama.window(0) == 0);
  const ModelConfig mistral = read(R"({"architectures":["MistralForCausalLM"]})");
  CHECK(mistral.family == Family::mistral);
  CHECK(mistral.ffn == 14336);
  CHECK(mistral.kv_heads == 8);
  CHECK(mistral.window(31) == 4096);
  const ModelConfig qwen = read("qwen2", "");
  CHECK(qwen.qkv_bias);
  CHECK(!qwen.out_bias);
  CHECK(qwen.bos == -1);
  CHECK(qwen.eos.empty());
  CHECK(read("qwen3", "").head_dim == 128);
  CHECK(read("qwen3", "").qk_norm);
  const ModelConfig opt = read(R"({"model_type":"opt"})");
  CHECK(opt.vocab == 50272);
  CHECK(opt.ffn == 3072);
  CHECK(opt.head_dim == 64);
  CHECK(opt.tied);
  CHECK(opt.final_norm);
  CHECK(opt.norm_eps == 1e-5);
  CHECK(opt.activation == Activation::relu);
}

TEST_CASE("numbers as floats, nulls and unknown fields are read leniently") {
  const ModelConfig c = read(
      R"({"model_type":"llama","architectures":["LLaMAForCausalLM"],"vocab_size":100.0,"hidden_size":64,"num_attention_heads":4,
          "num_key_value_heads":null,"head_dim":null,"intermediate_size":1.6e2,"num_hidden_layers":2,"rms_norm_eps":1e-05,"rope_theta":500000,
          "rope_scaling":null,"rope_parameters":null,"sliding_window":8,"bos_token_id":null,"eos_token_id":[128001,128009],
          "quantization_config":null,"torch_dtype":"bfloat16","dtype":null,"pretraining_tp":1,"my_own":{"deep":[1]},"hidden_act":"swish"})");
  CHECK(c.vocab == 100);
  CHECK(c.ffn == 160);
  CHECK(c.kv_heads == 4);
  CHECK(c.head_dim == 16);
  CHECK(c.norm_eps == 1e-5);
  CHECK(c.rope_theta == 500000.0);
  CHECK(c.bos == -1);
  CHECK(c.eos == std::vector<std::int64_t>{128001, 128009});
  CHECK(c.window(0) == 0);  // LLaMA has no window, whatever the field says
}

TEST_CASE("rotary settings are read in every spelling") {
  const std::string llama3 = R"("factor":8.0,"low_freq_factor":1,"high_freq_factor":4.0,"original_max_position_embeddings":8192)";
  for (const std::string& fields :
       std::vector<std::string>{R"(,"rope_theta":5e5,"rope_scaling":{"type":"llama3",)" + llama3 + "}",
                                R"(,"rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3",)" + llama3 + "}",
                                R"(,"rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3","type":"yarn",)" + llama3 + "}",
                                R"(,"rope_parameters":{"rope_theta":500000,"rope_type":"llama3",)" + llama3 + "}",
                                R"(,"rope_scaling":{},"rope_parameters":{"rope_theta":500000,"type":"llama3",)" + llama3 + "}"}) {
    INFO(fields);
    const ModelConfig c = read("llama", fields);
    CHECK(c.rope_theta == 500000.0);
    CHECK(c.rope.kind == RopeKind::llama3);
    CHECK(c.rope.factor == 8.0);
    CHECK(c.rope.low == 1.0);
    CHECK(c.rope.high == 4.0);
    CHECK(c.rope.original == 8192);
  }
  CHECK(read("llama", R"(,"rope_scaling":{"type":"linear","factor":4})").rope.kind == RopeKind::linear);
  CHECK(read("llama", R"(,"rope_scaling":{"type":"linear","factor":4})").rope.factor == 4.0);
  const ModelConfig dynamic = read("llama", R"(,"max_position_embeddings":512,"rope_scaling":{"type":"dynamic","factor":2.0})");
  CHECK(dynamic.rope.kind == RopeKind::dynamic);
  CHECK(dynamic.rope.original == 512);
  CHECK(read("llama", R"(,"rope_parameters":{"rope_type":"default","rope_theta":7})").rope_theta == 7.0);
  CHECK(read("llama", R"(,"rope_theta":9,"rope_parameters":{"rope_type":"default"})").rope_theta == 9.0);
  CHECK(read("llama", R"(,"rope_scaling":{"type":"linear","factor":2},"rope_parameters":{"rope_theta":11,"rope_type":"default"})")
            .rope_theta == 11.0);
}

TEST_CASE("unknown and unusable rotary settings are refused by name") {
  for (const std::string kind : {"yarn", "longrope", "su", "mrope", "proportional", "Linear"})
    for (const std::string spelling :
         {R"("rope_scaling":{"type":")", R"("rope_scaling":{"rope_type":")", R"("rope_parameters":{"rope_type":")"}) {
      const std::string message = error("llama", "," + spelling + kind + R"(","factor":2})");
      CHECK_THAT(message,
                 ContainsSubstring("some/config.json: rope_") && ContainsSubstring("\"" + kind + "\"") && ContainsSubstring("llama3"));
    }
  const std::pair<std::string, std::string> cases[] = {
      {R"("rope_scaling":{"type":"linear"})", "rope_scaling: factor is missing"},
      {R"("rope_scaling":{"type":"linear","factor":null})", "rope_scaling: factor is missing"},
      {R"("rope_scaling":{"type":"linear","factor":"4"})", "rope_scaling: factor is string"},
      {R"("rope_scaling":{"type":"linear","factor":0})", "factor is 0"},
      {R"("rope_scaling":{"type":"linear","factor":-2})", "factor is -2"},
      {R"("rope_scaling":{"factor":2})", "names no kind"},
      {R"("rope_scaling":"linear")", "rope_scaling: not a JSON object"},
      {R"("rope_scaling":{"type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":1})", "low_freq_factor < high_freq_factor"},
      {R"("rope_scaling":{"type":"llama3","factor":8,"high_freq_factor":4})", "low_freq_factor is missing"},
      {R"("rope_parameters":{"full_attention":{"rope_type":"default"}})", "differs between layer types (full_attention)"},
      {R"("rope_parameters":{"rope_type":"default","partial_rotary_factor":0.5})", "partial_rotary_factor 0.5"},
      {R"("partial_rotary_factor":0.25)", "partial_rotary_factor 0.25"},
      {R"("rope_theta":0)", "rope_theta is 0"},
      {R"("head_dim":15)", "head_dim 15 is odd"},
  };
  for (const auto& [fields, part] : cases)
    CHECK_THAT(error("llama", "," + fields), ContainsSubstring("some/config.json") && ContainsSubstring(part));
}

TEST_CASE("biases and norms follow the family") {
  const ModelConfig both = read("llama", R"(,"attention_bias":true,"mlp_bias":true)");
  CHECK(both.qkv_bias);
  CHECK(both.out_bias);
  CHECK(both.mlp_bias);
  const ModelConfig mistral = read("mistral", R"(,"attention_bias":true,"mlp_bias":true)");
  CHECK(!mistral.qkv_bias);
  CHECK(!mistral.mlp_bias);
  const ModelConfig qwen3 = read("qwen3", R"(,"attention_bias":true,"mlp_bias":true,"head_dim":32)");
  CHECK(qwen3.out_bias);
  CHECK(!qwen3.mlp_bias);
  CHECK(qwen3.head_dim == 32);
  CHECK(read("qwen2", R"(,"attention_bias":false)").qkv_bias);
}

TEST_CASE("attention windows follow the family") {
  using Windows = std::vector<std::int64_t>;
  CHECK(read("mistral", R"(,"sliding_window":24)").windows == Windows{24, 24, 24});
  CHECK(read("mistral", R"(,"sliding_window":null)").windows.empty());
  CHECK(read("qwen2", R"(,"sliding_window":24,"max_window_layers":1)").windows.empty());
  CHECK(read("qwen2", R"(,"use_sliding_window":true,"sliding_window":24,"max_window_layers":1)").windows == Windows{0, 24, 24});
  CHECK(read("qwen2", R"(,"use_sliding_window":true,"max_window_layers":2)").windows == Windows{0, 0, 4096});
  CHECK(read("qwen3",
             R"(,"use_sliding_window":true,"sliding_window":24,"layer_types":["sliding_attention","full_attention","full_attention"])")
            .windows == Windows{24, 0, 0});
  CHECK(read("qwen3", R"(,"layer_types":["full_attention","full_attention","full_attention"])").window(2) == 0);
  CHECK_THAT(error("qwen3", R"(,"layer_types":["sliding_attention","full_attention","full_attention"])"),
             ContainsSubstring("use_sliding_window"));
  CHECK_THAT(error("qwen3", R"(,"layer_types":["linear_attention"])"), ContainsSubstring("\"linear_attention\""));
  CHECK_THAT(error("qwen2", R"(,"layer_types":["full_attention"])"), ContainsSubstring("1 attention windows (layer_types)"));
  CHECK_THAT(error("mistral", R"(,"sliding_window":-1)"), ContainsSubstring("sliding_window is negative"));
}

TEST_CASE("OPT's own fields are read") {
  const std::string opt =
      R"({"model_type":"opt","vocab_size":100,"hidden_size":64,"ffn_dim":128,"num_hidden_layers":2,"num_attention_heads":4)";
  const ModelConfig small =
      read(opt + R"(,"do_layer_norm_before":false,"word_embed_proj_dim":32,"enable_bias":false,"activation_function":"gelu"})");
  CHECK(!small.pre_norm);
  CHECK(!small.final_norm);
  CHECK(small.embedding_dim == 32);
  CHECK(small.projected_embedding());
  CHECK(!small.qkv_bias);
  CHECK(!small.mlp_bias);
  CHECK(small.activation == Activation::gelu);
  CHECK(!read(opt + R"(,"_remove_final_layer_norm":true})").final_norm);
  CHECK(read(opt + R"(,"_remove_final_layer_norm":true})").pre_norm);
  CHECK(!read(opt + R"(,"layer_norm_elementwise_affine":false})").norm_affine);
  CHECK_THAT(error_of([&] { (void)read(opt + R"(,"num_attention_heads":5})"); }),
             ContainsSubstring("\"num_attention_heads\" occurs twice"));
  CHECK_THAT(error_of([&] { (void)read(R"({"model_type":"opt","hidden_size":64,"num_attention_heads":5})"); }),
             ContainsSubstring("hidden_size 64 is not num_attention_heads 5"));
}

TEST_CASE("other models are refused by their name, with what is supported") {
  const auto plain = [](const std::string& text) { return error_of([&] { (void)read(text); }); };
  CHECK_THAT(plain(R"({"model_type":"mixtral","architectures":["MixtralForCausalLM"]})"),
             ContainsSubstring("\"mixtral\"") && ContainsSubstring("qwen3 and opt"));
  CHECK_THAT(plain(R"({"architectures":["GemmaForCausalLM"]})"), ContainsSubstring("\"GemmaForCausalLM\""));
  CHECK_THAT(plain(R"({"model_type":"llama","architectures":["LlamaForSequenceClassification"]})"),
             ContainsSubstring("\"LlamaForSequenceClassification\""));
  CHECK_THAT(plain("{}"), ContainsSubstring("neither model_type nor architectures"));
  CHECK_THAT(plain("[]"), ContainsSubstring("not a JSON object"));
  CHECK_THAT(plain(""), ContainsSubstring("some/config.json: not valid JSON"));
  CHECK_THAT(error("qwen3", R"(,"num_experts":128)"), ContainsSubstring("num_experts: mixtures of experts"));
  CHECK_THAT(error("llama", R"(,"quantization_config":{"quant_method":"gptq","bits":4})"),
             ContainsSubstring("quantization_config") && ContainsSubstring("(gptq)"));
  CHECK_THAT(error("llama", R"(,"quantization_config":5)"), ContainsSubstring("already quantized"));
  CHECK_THAT(error("llama", R"(,"hidden_act":"xielu")"), ContainsSubstring("activation \"xielu\""));
}

TEST_CASE("sizes that no model has are refused by field") {
  const auto one = [](const std::string& fields) { return error_of([&] { (void)read(R"({"model_type":"llama",)" + fields + "}"); }); };
  const std::pair<std::string, std::string> cases[] = {
      {R"("hidden_size":0)", "hidden_size is 0"},
      {R"("hidden_size":-64)", "hidden_size is -64"},
      {R"("hidden_size":64.5)", "hidden_size is 64.5, not a whole number"},
      {R"("hidden_size":1e300)", "hidden_size is 1e+300"},
      {R"("hidden_size":"64")", "hidden_size is string, not a number"},
      {R"("hidden_size":true)", "hidden_size is boolean"},
      {R"("vocab_size":4611686018427387904)", "vocab_size is"},
      {R"("vocab_size":99999999)", "vocab_size is 99999999; it must lie between 1 and 16777216"},
      {R"("num_hidden_layers":1000000000)", "num_hidden_layers is 1000000000"},
      {R"("intermediate_size":0)", "intermediate_size is 0"},
      {R"("num_attention_heads":0)", "num_attention_heads is 0"},
      {R"("num_attention_heads":-1)", "num_attention_heads"},
      {R"("num_key_value_heads":0)", "num_key_value_heads is 0"},
      {R"("num_key_value_heads":5)", "num_attention_heads 32 is not a multiple of num_key_value_heads 5"},
      {R"("hidden_size":100)", "hidden_size 100 is not a multiple of num_attention_heads 32 and head_dim is not given"},
      {R"("head_dim":0)", "head_dim is 0"},
      {R"("rms_norm_eps":0)", "epsilon is 0"},
      {R"("rms_norm_eps":"1e-5")", "rms_norm_eps is string"},
      {R"("max_position_embeddings":0)", "max_position_embeddings is 0"},
      {R"("tie_word_embeddings":1)", "tie_word_embeddings is number"},
      {R"("eos_token_id":["a"])", "eos_token_id is string"},
      {R"("num_attention_heads":"x")", "num_attention_heads is string"},
  };
  for (const auto& [fields, part] : cases) CHECK_THAT(one(fields), ContainsSubstring("some/config.json") && ContainsSubstring(part));
  const ModelConfig explicit_head = read(R"({"model_type":"llama","hidden_size":100,"num_attention_heads":4,"head_dim":32})");
  CHECK(explicit_head.head_dim == 32);
}

TEST_CASE("the configurations of the models that ship are read") {
  const auto of = [](const std::string& folder) {
    return ptq::io::read_hf_config(ptq::io::read_json((ptq::test::data() / "models" / folder / "config.json").string()), folder);
  };
  CHECK(of("llama_books").kv_heads == 2);
  CHECK(of("llama_books").tied);
  CHECK(of("opt_books").ffn == 512);
  CHECK(of("zoo/llama3_scaled_rope").rope.original == 32);
  CHECK(of("zoo/llama_linear_rope_old_style").rope.factor == 4.0);
  CHECK(of("zoo/mistral_window_sharded").windows == std::vector<std::int64_t>{24, 24});
  CHECK(of("zoo/llama_explicit_head_dim").head_dim == 32);
  CHECK(of("zoo/llama_biases").mlp_bias);
  CHECK(of("zoo/opt_postnorm_projected").embedding_dim == 32);
  CHECK(of("zoo/qwen2_bias_tied").qkv_bias);
  CHECK(of("zoo/qwen3_qk_norm").head_dim == 32);
}
