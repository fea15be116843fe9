// The report of an analysis: what a model's weights are, and what each preset would make of them.
import { element } from "./page.js";
import { bar, curve } from "./charts.js";
import { may, query } from "./client.js";
import { bytes, command, count, digits, facts, number, section, table } from "./show.js";

const figure = (name, value, note) =>
  element(
    "div",
    { class: "figure" },
    element("div", { class: "name" }, name),
    element("div", { class: "value" }, value),
    element("div", { class: "note" }, note),
  );
const MOST = 500;

export function analysis(report, job) {
  const { model } = report;
  return [
    element(
      "div",
      { class: "figures" },
      figure("Numbers", count(model.parameters), bytes(model.bytes)),
      figure("As FP16", bytes(model.memory.fp16_bytes), "2 bytes a weight"),
      figure("As INT8", bytes(model.memory.int8_bytes), "1 byte"),
      figure("As INT4", bytes(model.memory.int4_bytes), "half a byte"),
      figure(
        "Lossless, at least",
        bytes(model.lossless_bytes),
        model.lossless_bytes ? "entropy of the stored symbols" : "not for these types",
      ),
      figure("Duplicates", bytes(model.duplicate_bytes), "tensors that are another's copy"),
    ),
    compute(model.compute),
    presets(report, job),
    sensitivity(report.sensitivity),
    bound(model),
    tensors(report),
    report.near_layers.length > 0 &&
      section(
        "Matrices that are nearly the same",
        table(
          "Near pairs",
          [
            ["Tensor", (one) => element("code", {}, one.tensor)],
            ["Like", (one) => element("code", {}, one.like)],
            ["Distance", (one) => number(one.relative_distance, 3), "right"],
            ["Cosine", (one) => number(one.cosine, 3), "right"],
          ],
          report.near_layers.slice(0, 100),
        ),
      ),
    element("div", { class: "panel" }, command("GET", `v1/jobs/${job.id}/report`)),
  ];
}

const MOST_UNITS = 300;

/** What each scheme would cost tensors that must have the same one; who would lose most by the smallest scheme first. */
function sensitivity(found) {
  if (!found) return null;
  const candidates = found.candidates.filter((scheme) =>
    found.units.some((unit) => unit.schemes.some((one) => one.scheme === scheme)),
  );
  const loss = (unit, scheme) => unit.schemes.find((one) => one.scheme === scheme);
  const worst = (unit) => Math.max(...unit.schemes.map((one) => one.predicted_kl));
  const units = [...found.units].sort((a, b) => worst(b) - worst(a));
  const cell = (one) =>
    one
      ? element("span", { class: "num", title: `${one.predicted_kl} nats, ${one.bytes} bytes` }, digits(one.predicted_kl, 3))
      : element("span", { class: "quiet" }, "–");
  const all = (scheme) => found.units.map((unit) => loss(unit, scheme)).filter(Boolean);
  const totals = {
    tensors: null,
    parameters: found.units.reduce((sum, unit) => sum + unit.parameters, 0),
    schemes: candidates.map((scheme) => ({
      scheme,
      predicted_kl: all(scheme).reduce((sum, one) => sum + one.predicted_kl, 0),
      bytes: all(scheme).reduce((sum, one) => sum + one.bytes, 0),
    })),
  };
  return section(
    "What each scheme would cost each tensor",
    element(
      "p",
      { class: "quiet small" },
      `Divergence that is expected, nats a token, by the gradients on ${found.tokens} tokens of ${found.dataset}; schemes of ${found.format}.`,
    ),
    table(
      "Sensitivity, highest first",
      [
        [
          "Tensors",
          (unit) =>
            unit.tensors
              ? element(
                  "code",
                  { title: unit.tensors.join(", ") },
                  unit.tensors.length > 1 ? `${unit.tensors[0]} and ${unit.tensors.length - 1} more` : unit.tensors[0],
                )
              : element("strong", {}, "All that can have it"),
        ],
        ["Weights", (unit) => count(unit.parameters), "right"],
        ...candidates.map((scheme) => [scheme, (unit) => cell(loss(unit, scheme)), "right"]),
      ],
      [totals, ...units.slice(0, MOST_UNITS)],
    ),
    units.length > MOST_UNITS ? element("p", { class: "quiet small" }, `The first ${MOST_UNITS} of ${units.length}.`) : "",
  );
}

/** What a token costs, where the report says. */
function compute(found) {
  if (!found) return null;
  const read = found.bytes_per_token;
  return section(
    "What a token costs",
    facts([
      ["Weights it is multiplied with", count(found.active_parameters)],
      ["Operations", count(found.flops_per_token)],
      ["Bytes read as FP16", bytes(read.fp16_bytes)],
      ["As INT8", bytes(read.int8_bytes)],
      ["As INT4", bytes(read.int4_bytes)],
    ]),
    element("p", { class: "quiet small" }, "Attention over what came before is not counted: it grows with the context."),
  );
}

const ARITHMETIC = { float16: "FP16", int8: "INT8", float8: "FP8" };

function presets(report, job) {
  const most = Math.max(...report.presets.map((one) => one.bytes), 1);
  const rows = [...report.presets].sort((a, b) => a.bytes - b.bytes);
  return section(
    "What each preset would make of it",
    table(
      "Presets, smallest first",
      [
        [
          "Preset",
          (one) =>
            may("jobs:write")
              ? element("a", { href: query("#/new", { model: job.model, recipe: one.preset }) }, one.preset)
              : one.preset,
        ],
        ["Format", (one) => one.format],
        ["Size", (one) => bytes(one.bytes), "right"],
        ["", (one) => bar(one.bytes / most, `${one.bits_per_weight.toFixed(2)} bits a weight`), "wide"],
        ["Bits a weight", (one) => number(one.bits_per_weight), "right"],
        [
          "SNR",
          (one) => (one.calibrated ? element("span", { class: "quiet" }, "calibrated") : number(one.snr_db, 3, " dB")),
          "right",
        ],
        ["To the bound", (one) => number(one.gap_db, 3, " dB"), "right"],
        ["Memory", (one) => bytes(one.peak_memory_bytes), "right"],
        ...(rows.some((one) => one.arithmetic) ? [["Multiplied in", (one) => ARITHMETIC[one.arithmetic] ?? "–"]] : []),
      ],
      rows,
    ),
    report.refused_presets.length > 0 &&
      element(
        "details",
        {},
        element("summary", {}, `${report.refused_presets.length} presets that this model cannot have`),
        table(
          "Refused presets",
          [
            ["Preset", (one) => one.preset],
            ["Code", (one) => element("code", {}, one.code)],
            ["Why", (one) => one.detail],
          ],
          report.refused_presets,
        ),
      ),
  );
}

const bound = (model) =>
  section(
    "What independent Gaussian numbers would allow",
    curve(
      model.gaussian_bound.map((p) => ({
        x: p.bits_per_weight,
        y: p.snr_db,
        text: `${p.bits_per_weight} bits: ${p.snr_db.toFixed(1)} dB`,
      })),
      {
        label: "Signal to noise by bits a weight",
        xName: "bits a weight",
        yName: "signal to noise, dB",
        xText: (v) => String(v),
        yText: (v) => digits(v, 3),
      },
    ),
  );

const ORDERS = [
  ["order of the file", null],
  ["excess kurtosis", (one) => one.excess_kurtosis ?? 0],
  ["outliers", (one) => one.outliers / one.parameters],
  ["sparsity", (one) => one.sparsity],
  ["standard deviation", (one) => one.std],
  ["low rank", (one) => (one.spectrum ? -one.spectrum.effective_rank / one.spectrum.full_rank : -Infinity)],
];

function tensors(report) {
  const place = element("div", {});
  const draw = (order) => {
    const list = order ? [...report.tensors].sort((a, b) => order(b) - order(a)) : report.tensors;
    place.replaceChildren(
      table(
        "Tensors",
        [
          ["Tensor", (one) => element("code", {}, one.name)],
          ["Type", (one) => one.dtype],
          ["Shape", (one) => one.shape.join(" × "), "right"],
          ["Deviation", (one) => number(one.std, 3), "right"],
          ["Kurtosis", (one) => number(one.excess_kurtosis, 3), "right"],
          ["Outliers", (one) => count(one.outliers), "right"],
          ["Zeros", (one) => `${(100 * one.sparsity).toFixed(1)} %`, "right"],
          ["Entropy", (one) => number(one.symbol_entropy_bits, 3, " bits"), "right"],
          ["Not Gaussian", (one) => number(one.non_gaussian_bits, 2, " bits"), "right"],
          ...(report.tensors.some((one) => one.spectrum)
            ? [
                [
                  "Effective rank",
                  (one) =>
                    one.spectrum
                      ? element(
                          "span",
                          { class: "num", title: `stable rank ${digits(one.spectrum.stable_rank, 3)}` },
                          `${digits(one.spectrum.effective_rank, 3)} of ${one.spectrum.full_rank}`,
                        )
                      : "–",
                  "right",
                ],
              ]
            : []),
          ["Copy of", (one) => (one.duplicate_of ? element("code", {}, one.duplicate_of) : "–")],
        ],
        list.slice(0, MOST),
      ),
      list.length > MOST ? element("p", { class: "quiet small" }, `The first ${MOST} of ${list.length}.`) : "",
    );
  };
  draw(null);
  const input = element(
    "select",
    { "aria-label": "Order of the tensors", onchange: () => draw(ORDERS[Number(input.value)][1]) },
    ORDERS.map(([name], at) => element("option", { value: at }, name)),
  );
  return section(
    null,
    element(
      "div",
      { class: "head" },
      element("h2", {}, "Tensors"),
      element("div", { class: "actions" }, element("label", { class: "check" }, "By ", input)),
    ),
    place,
  );
}
