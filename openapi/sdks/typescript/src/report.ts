// The report of a compression, as version 1 has it. A newer server may add to all of it.

import type { JsonObject } from './wire.js';

/** What a job changed and what it cost. */
export interface Report extends JsonObject {
  version: number;
  engine_version: string;
  recipe_hash: string;
  totals: ReportTotals;
  /** Sizes of each format. */
  formats: ReportFormat[];
  /** Cost of each stage. */
  stages: ReportStage[];
  /** Quality against the original, where the recipe asked for an `evaluation`. */
  quality?: JsonObject;
  /** What a budget chose, where there was one. */
  allocation?: JsonObject;
  planned_peak_memory_bytes: number;
  /** What the user should know. */
  warnings: string[];
  /** Every tensor, in file order. */
  tensors: ReportTensor[];
}

/** Sums over all tensors. */
export interface ReportTotals extends JsonObject {
  parameters: number;
  source_bytes: number;
  source_bits_per_weight: number;
  source_entropy_bits: number;
  code_entropy_bits: number;
  mse: number;
  predicted_mse: number;
  snr_db?: number;
  compressed_ratio: number;
}

/** One format's sizes. */
export interface ReportFormat extends JsonObject {
  format: string;
  bytes: number;
  weight_bytes: number;
  /** Weights as an engine holds them once they are loaded; reports of older versions have none. */
  memory_bytes?: number;
  compression_ratio: number;
  bits_per_weight: number;
}

/** One stage's cost. */
export interface ReportStage extends JsonObject {
  name: string;
  seconds: number;
  cpu_seconds: number;
  peak_rss_bytes: number;
}

/** One tensor before and after. */
export interface ReportTensor extends JsonObject {
  name: string;
  shape: number[];
  parameters: number;
  source_dtype: string;
  kind: string;
  compressed: boolean;
  source_entropy_bits: number;
  code_entropy_bits: number;
  mse: number;
  predicted_mse?: number;
  snr_db?: number;
  max_abs_error: number;
  mean_square: number;
  zero_ratio?: number;
}
