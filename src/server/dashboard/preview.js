// A plan in numbers: sizes, memory, stages, what becomes of the tensors.
import { element } from "./page.js";
import { bar } from "./charts.js";
import { bytes, bytesText, count, facts, number, table } from "./show.js";

/** A weight kind in a few words. */
export function kindText(kind) {
  const size =
    typeof kind.granularity === "object"
      ? ` by ${Object.keys(kind.granularity)[0]} of ${Object.values(kind.granularity)[0]}`
      : kind.granularity
        ? ` by ${kind.granularity}`
        : "";
  switch (kind.kind) {
    case "dense":
      return kind.dtype;
    case "block":
      return kind.ggml_type;
    case "affine":
      return `INT${kind.n_bits}${size}`;
    case "float8":
      return `FP8${size}`;
    case "nf4":
      return `NF4 in blocks of ${kind.block_size}`;
    default:
      return `${kind.kind}${size}`;
  }
}

const elements = (tensor) => tensor.shape.reduce((a, b) => a * b, 1);

/** The kinds there are, with how many weights have each. */
function kinds(plan) {
  const found = new Map();
  for (const tensor of plan.tensors) {
    const name = kindText(tensor.kind);
    const entry = found.get(name) ?? { name, tensors: 0, weights: 0 };
    entry.tensors += 1;
    entry.weights += elements(tensor);
    found.set(name, entry);
  }
  return [...found.values()].sort((a, b) => b.weights - a.weights);
}

/** What a plan says. */
export function planSummary(plan, { tensors = false } = {}) {
  const most = plan.budget ? "at most " : "";
  const formats = plan.formats.map((format) =>
    element(
      "div",
      {},
      element("h3", {}, format.format),
      facts([
        ["All files", most, bytes(format.bytes)],
        [
          "Of the original",
          `${most}${((format.weight_bytes / plan.source_bytes) * 100).toFixed(1)} %, ${format.compression_ratio.toFixed(2)} times smaller`,
        ],
        ["Bits a weight", most, number(format.bits_per_weight)],
        format.memory_bytes > 0 && ["In the engine's memory", most, bytes(format.memory_bytes)],
      ]),
      bar(format.weight_bytes / plan.source_bytes, `${bytesText(format.weight_bytes)} of ${bytesText(plan.source_bytes)}`),
      element("p", { class: "quiet small" }, format.files.length === 1 ? format.files[0].name : `${format.files.length} files`),
    ),
  );
  const list = kinds(plan);
  const total = list.reduce((sum, one) => sum + one.weights, 0);
  return element(
    "div",
    { class: "plan" },
    plan.warnings.length > 0 &&
      element(
        "ul",
        { class: "banner" },
        plan.warnings.map((text) => element("li", {}, text)),
      ),
    formats,
    element("h3", {}, "Cost"),
    facts([
      ["Peak memory", bytes(plan.peak_memory_bytes)],
      ["Disk", bytes(plan.disk_bytes)],
      plan.calibration && [
        "Calibration",
        `${plan.calibration.dataset}: ${plan.calibration.sequences} sequences, `,
        count(plan.calibration.tokens),
        " tokens",
      ],
      plan.evaluation && [
        "Evaluation",
        `${plan.evaluation.dataset}: ${plan.evaluation.sequences} sequences, `,
        count(plan.evaluation.tokens),
        " tokens",
      ],
    ]),
    element("h3", {}, "Stages"),
    element(
      "ol",
      { class: "plain" },
      plan.stages.map((stage) =>
        element("li", {}, element("strong", {}, stage.technique), ` ${stage.label ?? ""} on ${stage.tensors} tensors`),
      ),
    ),
    element("h3", {}, plan.budget ? "Weights, where all get the most they may" : "Weights by type"),
    table(
      "Weights by type",
      [
        ["Type", (one) => one.name],
        ["Tensors", (one) => count(one.tensors), "right"],
        ["Weights", (one) => count(one.weights), "right"],
        ["Share", (one) => bar(one.weights / total, `${((one.weights / total) * 100).toFixed(1)} %`), "wide"],
      ],
      list,
    ),
    tensors &&
      element(
        "details",
        {},
        element("summary", {}, `All ${plan.tensors.length} tensors`),
        table(
          "Tensors of the plan",
          [
            ["Tensor", (one) => element("code", {}, one.name)],
            ["Shape", (one) => one.shape.join(" × "), "right"],
            ["From", (one) => one.source_dtype],
            ["To", (one) => kindText(one.kind)],
          ],
          plan.tensors.slice(0, 2000),
        ),
      ),
  );
}
