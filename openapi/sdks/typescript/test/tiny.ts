// A tiny LLaMA as a Hugging Face folder, its safetensors written by hand.

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

const VOCAB = 256;
const HIDDEN = 64;
const INNER = 96;
const BLOCKS = 2;

/** Writes config.json, tokenizer.json and model.safetensors; answers the folder. */
export async function writeModel(folder: string, seed = 1): Promise<string> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'config.json'), JSON.stringify(CONFIG));
  await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer()));
  await writeFile(join(folder, 'model.safetensors'), weights(seed));
  return folder;
}

const CONFIG = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_size: HIDDEN,
  intermediate_size: INNER,
  num_hidden_layers: BLOCKS,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: VOCAB,
  max_position_embeddings: 256,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  hidden_act: 'silu',
  tie_word_embeddings: false,
};

/** A token of every byte, by the characters that byte-level BPE has for bytes. */
function tokenizer(): object {
  const isShown = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let others = 0;
  const letters = Array.from({ length: VOCAB }, (_, byte) =>
    String.fromCharCode(isShown(byte) ? byte : 256 + others++),
  );
  const vocab = Object.fromEntries(letters.map((letter, id) => [letter, id]));
  const model = {
    type: 'BPE',
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    vocab,
    merges: [],
  };
  const level = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: level,
    post_processor: null,
    decoder: level,
    model,
  };
}

function tensors(): Array<[string, number[]]> {
  const list: Array<[string, number[]]> = [
    ['model.embed_tokens.weight', [VOCAB, HIDDEN]],
    ['model.norm.weight', [HIDDEN]],
    ['lm_head.weight', [VOCAB, HIDDEN]],
  ];
  for (let block = 0; block < BLOCKS; block += 1) {
    const of: Array<[string, number[]]> = [
      ['input_layernorm', [HIDDEN]],
      ['post_attention_layernorm', [HIDDEN]],
      ['self_attn.q_proj', [HIDDEN, HIDDEN]],
      ['self_attn.k_proj', [HIDDEN / 2, HIDDEN]],
      ['self_attn.v_proj', [HIDDEN / 2, HIDDEN]],
      ['self_attn.o_proj', [HIDDEN, HIDDEN]],
      ['mlp.gate_proj', [INNER, HIDDEN]],
      ['mlp.up_proj', [INNER, HIDDEN]],
      ['mlp.down_proj', [HIDDEN, INNER]],
    ];
    list.push(...of.map(([name, shape]): [string, number[]] => [`model.layers.${block}.${name}.weight`, shape]));
  }
  return list;
}

/** Length of the header, header, numbers. */
export function weights(seed: number): Uint8Array {
  let state = seed;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
  const header: Record<string, object> = {};
  const numbers: number[] = [];
  for (const [name, shape] of tensors()) {
    const begin = numbers.length * 4;
    const gain = 1.7 / Math.sqrt(shape.at(-1) ?? 1);
    const count = shape.reduce((product, side) => product * side, 1);
    for (let i = 0; i < count; i += 1) numbers.push(shape.length === 1 ? 1 + 0.3 * next() : next() * gain);
    header[name] = { dtype: 'F32', shape, data_offsets: [begin, numbers.length * 4] };
  }
  const text = JSON.stringify(header);
  const head = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(head.length));
  return Buffer.concat([length, head, Buffer.from(Float32Array.from(numbers).buffer)]);
}
