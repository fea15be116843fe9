// A small LLaMA as a Hugging Face folder: real enough to compress, evaluate and become a GGUF.
import fs from "node:fs";
import path from "node:path";

const VOCAB = 96;

/** Writes config.json, model.safetensors and tokenizer.json; `hidden` decides how large it is. */
export function writeModel(folder, { hidden = 64, inner = 96, blocks = 4, seed = 1 } = {}) {
  fs.mkdirSync(folder, { recursive: true });
  const write = (name, content) => fs.writeFileSync(path.join(folder, name), content);
  write(
    "config.json",
    JSON.stringify({
      architectures: ["LlamaForCausalLM"],
      model_type: "llama",
      hidden_size: hidden,
      intermediate_size: inner,
      num_hidden_layers: blocks,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      vocab_size: VOCAB,
      max_position_embeddings: 256,
      rms_norm_eps: 1e-5,
      rope_theta: 10000.0,
      hidden_act: "silu",
      tie_word_embeddings: false,
    }),
  );
  write("model.safetensors", safetensors(shapes(hidden, inner, blocks), seed));
  write("tokenizer.json", JSON.stringify(tokenizer()));
  return ["config.json", "model.safetensors", "tokenizer.json"].map((name) => path.join(folder, name));
}

function shapes(hidden, inner, blocks) {
  const found = [
    ["model.embed_tokens.weight", [VOCAB, hidden]],
    ["model.norm.weight", [hidden]],
    ["lm_head.weight", [VOCAB, hidden]],
  ];
  for (let block = 0; block < blocks; block += 1) {
    for (const [name, shape] of [
      ["input_layernorm", [hidden]],
      ["post_attention_layernorm", [hidden]],
      ["self_attn.q_proj", [hidden, hidden]],
      ["self_attn.k_proj", [hidden / 2, hidden]],
      ["self_attn.v_proj", [hidden / 2, hidden]],
      ["self_attn.o_proj", [hidden, hidden]],
      ["mlp.gate_proj", [inner, hidden]],
      ["mlp.up_proj", [inner, hidden]],
      ["mlp.down_proj", [hidden, inner]],
    ]) {
      found.push([`model.layers.${block}.${name}.weight`, shape]);
    }
  }
  return found;
}

function safetensors(tensors, seed) {
  let state = seed;
  const next = () => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return state / 1073741824 - 1;
  };
  const header = {};
  const parts = [];
  let at = 0;
  for (const [name, shape] of tensors) {
    const values = new Float32Array(shape.reduce((a, b) => a * b));
    const gain = 1.7 / Math.sqrt(shape.at(-1));
    for (let i = 0; i < values.length; i += 1) values[i] = shape.length === 1 ? 1 + 0.3 * next() : next() * gain;
    header[name] = { dtype: "F32", shape, data_offsets: [at, (at += values.byteLength)] };
    parts.push(Buffer.from(values.buffer));
  }
  const text = JSON.stringify(header);
  const head = text.padEnd(Math.ceil(text.length / 8) * 8);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(head.length));
  return Buffer.concat([length, Buffer.from(head), ...parts]);
}

/** Single characters of a byte-level alphabet, which a GGUF can hold. */
function tokenizer() {
  const vocab = Object.fromEntries(
    Array.from({ length: VOCAB }, (_, i) => [i === 94 ? "\u0120" : i === 95 ? "\u010a" : String.fromCharCode(33 + i), i]),
  );
  const bytes = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: bytes,
    post_processor: null,
    decoder: bytes,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      vocab,
      merges: [],
    },
  };
}
