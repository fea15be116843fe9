// What metrics are called, which way is better, and what of a report can be put on an axis.
import { bytesText, digits } from "./show.js";

export const METRICS = {
  perplexity: { name: "perplexity" },
  kl: { name: "divergence from the original, nats" },
  top1_agreement: { name: "same first choice" },
  accuracy: { name: "accuracy" },
  cosine: { name: "cosine of the embeddings" },
  retrieval: { name: "same nearest neighbours" },
};

/** Gates: field, metric, the value that it limits, whether it is an upper limit. */
export const GATES = [
  ["max_perplexity_increase", "perplexity", (measure) => measure.change, true],
  ["max_kl", "kl", (measure) => measure.after, true],
  ["min_top1_agreement", "top1_agreement", (measure) => measure.after, false],
  ["min_cosine", "cosine", (measure) => measure.after, false],
  ["min_accuracy", "accuracy", (measure) => measure.after, false],
];

export function changeText(metric, value) {
  const text = `${value >= 0 ? "+" : "−"}${Math.abs(100 * value).toFixed(2)}`;
  return metric === "perplexity" ? `${text} %` : `${text} points`;
}

const measure = (report, metric) => report.quality?.measures.find((one) => one.metric === metric);
const percent = (value) => `${(100 * value).toFixed(2)} %`;

/** Losses: 0 where nothing is lost, more is worse. */
export const LOSSES = {
  kl: { name: "divergence from the original, nats", of: (report) => measure(report, "kl")?.after, text: (v) => digits(v) },
  perplexity: { name: "growth of perplexity", of: (report) => measure(report, "perplexity")?.change, text: percent },
  top1_agreement: {
    name: "other first choices",
    of: (report) => {
      const found = measure(report, "top1_agreement");
      return found && 1 - found.after;
    },
    text: percent,
  },
  accuracy: {
    name: "accuracy lost",
    of: (report) => {
      const found = measure(report, "accuracy");
      return found?.change === undefined ? undefined : -found.change;
    },
    text: percent,
  },
  cosine: {
    name: "1 − cosine of the embeddings",
    of: (report) => {
      const found = measure(report, "cosine");
      return found && 1 - found.after;
    },
    text: (v) => digits(v),
  },
  retrieval: {
    name: "other nearest neighbours",
    of: (report) => {
      const found = measure(report, "retrieval");
      return found && 1 - found.after;
    },
    text: percent,
  },
  noise: {
    name: "noise to signal of the weights",
    of: (report) => (report.totals.snr_db === undefined ? 0 : 10 ** (-report.totals.snr_db / 10)),
    text: (v) => digits(v, 3),
  },
};

/** Sizes: less is better. */
export const SIZES = {
  bytes: { name: "all files", of: (report) => report.formats[0]?.bytes, text: bytesText },
  bits_per_weight: { name: "bits a weight", of: (report) => report.formats[0]?.bits_per_weight, text: (v) => digits(v, 3) },
  seconds: {
    name: "time it took",
    of: (report) => report.stages.reduce((sum, stage) => sum + stage.seconds, 0),
    text: (v) => `${digits(v, 3)} s`,
  },
};

/** Which of the points no other beats in both. */
export function front(points) {
  return points.filter((p) => !points.some((q) => q !== p && q.x <= p.x && q.y <= p.y && (q.x < p.x || q.y < p.y)));
}
