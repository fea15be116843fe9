// What a budget chose, why, and what came of it.
import { element } from "./page.js";
import { bar, curve } from "./charts.js";
import { bytes, bytesText, count, digits, facts, number, section, table } from "./show.js";
import { METRICS } from "./quality.js";

export function allocation(found) {
  const limit = Object.entries(found.budget).find(
    ([name]) => name.startsWith("target_") || ["max_kl", "max_perplexity_increase", "max_accuracy_drop"].includes(name),
  );
  const kept = found.rounds.find((round) => round.kept);
  const shares = { perplexity: " %", accuracy: " points lost" };
  const value = (round, v) => (shares[round.metric] ? `${(100 * v).toFixed(2)}${shares[round.metric]}` : digits(v));
  const most = Math.max(...found.tensors.map((tensor) => tensor.predicted_kl), Number.MIN_VALUE);
  return section(
    "What the budget chose",
    facts([
      ["Limit", `${limit[0].replaceAll("_", " ")} ${limit[1]}`],
      ["Held", element("span", { class: `tag ${found.held ? "good" : "bad"}` }, found.held ? "yes" : "no")],
      ["Chosen", kept ? [bytes(kept.bytes), `, ${digits(kept.bits_per_weight)} bits a weight`] : "–"],
      [
        "Expected divergence",
        `${digits(found.predicted_kl)} nats, ${digits(found.predicted_kl_interval[0])} to ${digits(found.predicted_kl_interval[1])}`,
      ],
      ["Possible", [bytes(found.smallest_bytes), " to ", bytes(found.largest_bytes)]],
      ["From", found.candidates.join(", ")],
    ]),
    found.curve.length > 1 && [
      element("h3", {}, "What other sizes would lose"),
      curve(
        found.curve.map((p) => ({
          x: p.bytes,
          y: p.predicted_kl,
          high: p.predicted_kl_interval[1],
          text: `${bytesText(p.bytes)}: ${digits(p.predicted_kl)} nats, ${digits(p.predicted_kl_interval[0])} to ${digits(p.predicted_kl_interval[1])}`,
        })),
        {
          label: "Expected divergence by size",
          xName: "all files",
          yName: "expected divergence, nats",
          xText: bytesText,
          yText: (v) => digits(v, 2),
          marks: kept ? [{ x: kept.bytes, y: found.predicted_kl, text: `chosen: ${bytesText(kept.bytes)}` }] : [],
        },
      ),
    ],
    element("h3", {}, "Tries"),
    table(
      "Tries",
      [
        ["All files", (one) => bytes(one.bytes), "right"],
        ["Bits a weight", (one) => number(one.bits_per_weight), "right"],
        ["Expected, nats", (one) => number(one.predicted_kl), "right"],
        ["Measured", (one) => `${METRICS[one.metric]?.name ?? one.metric} ${value(one, one.measured)}`, "right"],
        [
          "95 % interval",
          (one) => (one.interval ? `${value(one, one.interval[0])} to ${value(one, one.interval[1])}` : "–"),
          "right",
        ],
        ["", (one) => (one.kept ? element("span", { class: "tag good" }, "kept") : "")],
      ],
      found.rounds,
    ),
    found.classes.length > 0 && [
      element("h3", {}, "Part by part"),
      table(
        "Parts",
        [
          ["Part", (one) => one.class],
          ["Tensors", (one) => count(one.tensors), "right"],
          ["Weights", (one) => count(one.parameters), "right"],
          ["Expected, nats", (one) => number(one.predicted_kl), "right"],
          ["Measured, nats", (one) => number(one.measured_kl), "right"],
          ["Corrected by", (one) => number(one.factor, 3), "right"],
        ],
        found.classes,
      ),
    ],
    element(
      "details",
      {},
      element("summary", {}, `Schemes of ${found.tensors.length} tensors, costliest first`),
      table(
        "Schemes",
        [
          ["Tensor", (one) => element("code", {}, one.name)],
          ["Scheme", (one) => one.scheme],
          ["Size", (one) => bytes(one.bytes), "right"],
          ["Bits a weight", (one) => number((8 * one.bytes) / one.parameters, 3), "right"],
          ["Share of the loss", (one) => bar(one.predicted_kl / most, `${digits(one.predicted_kl)} nats`), "wide"],
        ],
        [...found.tensors].sort((a, b) => b.predicted_kl - a.predicted_kl).slice(0, 500),
      ),
    ),
  );
}
