// The report of a job: what changed and what it cost, the worst first.
import { copyButton, element } from "./page.js";
import { bar, columns } from "./charts.js";
import { ask, get, json, key, query } from "./client.js";
import {
  action,
  bytes,
  bytesText,
  command,
  copyable,
  count,
  digits,
  empty,
  facts,
  ident,
  live,
  number,
  recipeName,
  secondsText,
  section,
  table,
  trouble,
} from "./show.js";
import { allocation } from "./allocation.js";
import { analysis } from "./analysis.js";
import { download } from "./artifact.js";
import { changeText, GATES, METRICS } from "./quality.js";

export default function page(view) {
  const [id] = view.args;
  view.title(`Report ${id.slice(-8)}`);
  const place = element("div", {});
  view.root.append(place);
  live(view, place, {
    what: "the report",
    load: async (signal) => {
      const [job, report] = await Promise.all([get(`v1/jobs/${id}`, { signal }), get(`v1/jobs/${id}/report`, { signal })]);
      return { job, report };
    },
    draw: ({ job, report }, where) => {
      where.className = "stack";
      const isAnalysis = report.object === "analysis";
      where.replaceChildren(
        head(view, job, isAnalysis ? "Analysis" : `Report on ${recipeName(job.recipe)}`),
        ...(isAnalysis ? analysis(report, job) : compression(report, job)).filter(Boolean),
        plots(view, job),
      );
    },
  });
}

function head(view, job, title) {
  const path = `v1/jobs/${job.id}/report.html`;
  const whole =
    key() === null
      ? element("a", { class: "button", href: path, target: "_blank", rel: "noopener" }, "As one page")
      : action("As one page", async () => {
          // A link cannot show a key: the page is fetched and handed over as a file.
          const url = URL.createObjectURL(await (await ask("GET", path, { headers: { Accept: "text/html" } })).blob());
          element("a", { href: url, download: `report-${job.id}.html` }).click();
          setTimeout(() => URL.revokeObjectURL(url), 10000);
        });
  return element(
    "div",
    { class: "head" },
    element("h1", {}, title),
    element(
      "div",
      { class: "actions" },
      element("a", { class: "button", href: `#/jobs/${job.id}` }, "Job"),
      job.kind === "compression"
        ? element("a", { class: "button", href: query("#/compare", { model: job.model }) }, "Compare")
        : null,
      whole,
    ),
    element("p", { class: "sub" }, "Job ", copyable(job.id, "job id"), " of model ", ident(job.model)),
  );
}

const figure = (name, value, note) =>
  element(
    "div",
    { class: "figure" },
    element("div", { class: "name" }, name),
    element("div", { class: "value" }, value),
    element("div", { class: "note" }, note),
  );

function compression(report, job) {
  const { totals } = report;
  const first = report.formats[0];
  const peak = Math.max(...report.stages.map((stage) => stage.peak_rss_bytes));
  return [
    job.error &&
      element(
        "div",
        { class: "trouble" },
        element("p", {}, job.error.message),
        element("p", { class: "small quiet" }, "Code ", element("code", {}, job.error.code)),
      ),
    report.warnings.length > 0 &&
      element(
        "ul",
        { class: "banner" },
        report.warnings.map((text) => element("li", {}, text)),
      ),
    element(
      "div",
      { class: "figures" },
      figure("Weights before", bytes(totals.source_bytes), `${digits(totals.source_bits_per_weight)} bits a weight`),
      first && figure("Weights after", bytes(first.weight_bytes), `${digits(first.bits_per_weight)} bits a weight`),
      first &&
        figure(
          "Times smaller",
          number(first.compression_ratio, 3),
          `${((100 * first.weight_bytes) / totals.source_bytes).toFixed(1)} % of the original`,
        ),
      figure(
        "Signal to noise",
        totals.snr_db === undefined ? "exact" : number(totals.snr_db, 3, " dB"),
        `of the ${(100 * totals.compressed_ratio).toFixed(0)} % that changed`,
      ),
      figure("Took", secondsText(report.stages.reduce((sum, stage) => sum + stage.seconds, 0)), [
        bytesText(peak),
        " of ",
        bytesText(report.planned_peak_memory_bytes),
        " planned",
      ]),
    ),
    quality(report),
    report.allocation && allocation(report.allocation),
    section(
      "Size",
      steps(report),
      table(
        "Formats",
        [
          ["Format", (one) => one.format],
          ["All files", (one) => bytes(one.bytes), "right"],
          ["Weights", (one) => bytes(one.weight_bytes), "right"],
          ["In memory", (one) => (one.memory_bytes ? bytes(one.memory_bytes) : "–"), "right"],
          ["Bits a weight", (one) => number(one.bits_per_weight), "right"],
          ["Times smaller", (one) => number(one.compression_ratio, 3), "right"],
          [
            "Of the original",
            (one) =>
              bar(one.weight_bytes / totals.source_bytes, `${((100 * one.weight_bytes) / totals.source_bytes).toFixed(1)} %`),
            "wide",
          ],
        ],
        report.formats,
      ),
      report.sparse && sparse(report.sparse),
      element(
        "p",
        { class: "quiet small" },
        `Entropy: ${digits(totals.source_entropy_bits)} bits a weight before, ${digits(totals.code_entropy_bits)} bits a code after: what a lossless coder could still gain.`,
      ),
    ),
    errors(report),
    bits(report),
    cost(report),
    recipe(report),
    element(
      "div",
      { class: "panel" },
      element("h2", {}, "Source"),
      facts([
        ["Recipe hash", copyable(report.recipe_hash, "recipe hash")],
        ["Engine", report.engine_version],
        ["Model", `${report.model.architecture ?? report.model.format}, ${report.model.tensor_count} tensors`],
      ]),
      command("GET", `v1/jobs/${job.id}/report`),
    ),
  ];
}

/** How the bytes fall: the original, behind each stage, in each format. */
/** What pruned tensors would take in a kernel for sparse matrices. */
function sparse(sizes) {
  const rows = [
    ["Dense, with its zeros", sizes.dense_bytes],
    sizes.pattern_bytes !== undefined && [`${sizes.pattern}, values and indices`, sizes.pattern_bytes],
    ["Bitmask, values and row offsets", sizes.bitmask_bytes],
    ["Compressed rows (CSR)", sizes.csr_bytes],
    ["The smallest for each tensor", sizes.smallest_bytes],
  ].filter(Boolean);
  return element(
    "div",
    {},
    element("h3", {}, "Sparse storage"),
    table(
      `The ${sizes.tensors} pruned tensors in layouts of sparse kernels`,
      [
        ["Layout", ([name]) => name],
        ["Bytes", ([, size]) => bytes(size), "right"],
        ["Of dense", ([, size]) => `${((100 * size) / sizes.dense_bytes).toFixed(1)} %`, "right"],
      ],
      rows,
    ),
  );
}

function steps({ sizes = [], totals }) {
  if (sizes.length < 2) return null;
  return [
    table(
      "Bytes step by step",
      [
        ["Step", (one) => one.name],
        ["Weights", (one) => bytes(one.bytes), "right"],
        ["Of the original", (one) => `${((100 * one.bytes) / totals.source_bytes).toFixed(1)} %`, "right"],
        ["", (one) => bar(one.bytes / totals.source_bytes, `${one.name}: ${bytesText(one.bytes)}`), "wide"],
      ],
      sizes,
    ),
    element("h3", {}, "What was written"),
  ];
}

/** The same drawings as files, where the server makes them. */
function plots(view, job) {
  const place = element("div", {});
  get(`v1/jobs/${job.id}/plots`, { signal: view.signal }).then(
    ({ data }) => {
      if (data.length === 0) return;
      const file = (address, name) => download(address.replace(/^\//, ""), name, 1, name.split(".").pop().toUpperCase());
      place.append(
        section(
          "Plots as files",
          table(
            "Plots",
            [
              ["Plot", (one) => one.name.replaceAll("_", " ")],
              [
                "",
                (one) => element("div", { class: "actions" }, file(one.svg, `${one.name}.svg`), file(one.png, `${one.name}.png`)),
                "right",
              ],
            ],
            data,
          ),
          command("GET", `v1/jobs/${job.id}/plots`),
        ),
      );
    },
    (problem) => {
      if (problem.status !== 404 && problem.name !== "AbortError") place.append(trouble(problem));
    },
  );
  return place;
}

function quality(report) {
  const {
    quality: found,
    recipe: { gates },
  } = report;
  if (!found) return section("Quality", empty("Nothing was measured: the recipe has no evaluation."));
  const gateOf = (measure) => GATES.find(([field, metric]) => metric === measure.metric && gates?.[field] !== undefined);
  const held = (measure) => {
    const gate = gateOf(measure);
    if (!gate) return element("span", { class: "quiet" }, "no gate");
    const [field, , value, isMost] = gate;
    const ok = isMost ? value(measure) <= gates[field] : value(measure) >= gates[field];
    return element(
      "span",
      { class: `tag ${ok ? "good" : "bad"}` },
      `${isMost ? "at most" : "at least"} ${gates[field]}: ${ok ? "held" : "missed"}`,
    );
  };
  const range = (pair, text) => (pair ? `${text(pair[0])} to ${text(pair[1])}` : "–");
  return section(
    "Quality",
    found.measures.length > 0 &&
      table(
        "Measures",
        [
          ["Measure", (one) => METRICS[one.metric]?.name ?? one.metric],
          ["Before", (one) => (one.before === undefined ? "–" : number(one.before, 5)), "right"],
          ["After", (one) => number(one.after, 5), "right"],
          ["95 % interval", (one) => range(one.interval, (v) => digits(v, 5)), "right"],
          ["Change", (one) => (one.change === undefined ? "–" : changeText(one.metric, one.change)), "right"],
          ["95 % interval", (one) => range(one.change_interval, (v) => changeText(one.metric, v)), "right"],
          ["Gate", held],
        ],
        found.measures,
      ),
    element(
      "p",
      { class: "quiet small" },
      `${found.sequences} sequences of at most ${found.max_seq_length} tokens, ${found.tokens} in all, from ${found.dataset}; the original and the result read the same ones.`,
    ),
    found.layers?.length > 0 && [
      element("h3", {}, "Error behind each block"),
      columns(
        found.layers.map((layer) => ({
          value: layer.relative_error,
          name: String(layer.block),
          text: `block ${layer.block}: ${digits(layer.relative_error)}, ${digits(layer.interval[0])} to ${digits(layer.interval[1])}`,
        })),
        { label: "Relative squared error behind each block", yName: "relative squared error", yText: (v) => digits(v, 2) },
      ),
      table(
        "Blocks, worst first",
        [
          ["Block", (one) => String(one.block), "right"],
          ["Relative error", (one) => number(one.relative_error), "right"],
          ["95 % interval", (one) => range(one.interval, (v) => digits(v)), "right"],
          [
            "",
            (one) =>
              bar(one.relative_error / Math.max(...found.layers.map((layer) => layer.relative_error)), digits(one.relative_error)),
            "wide",
          ],
        ],
        [...found.layers].sort((a, b) => b.relative_error - a.relative_error).slice(0, 12),
      ),
    ],
  );
}

/** Noise to signal, as bars; the tensor that lost most first. */
function errors(report) {
  const noise = (tensor) => tensor.mse / (tensor.mean_square || 1);
  const list = report.tensors.filter((tensor) => tensor.compressed && tensor.mse > 0).sort((a, b) => noise(b) - noise(a));
  if (list.length === 0) return section("Error of each tensor", empty("No tensor lost anything."));
  const place = element("div", {});
  let shown = 15;
  const draw = () =>
    place.replaceChildren(
      table(
        "Tensors, worst first",
        [
          ["Tensor", (one) => element("code", {}, one.name)],
          ["Type", (one) => one.kind],
          ["Noise to signal", (one) => bar(noise(one) / noise(list[0]), digits(noise(one))), "wide"],
          ["", (one) => number(noise(one), 3), "right"],
          ["SNR", (one) => number(one.snr_db, 3, " dB"), "right"],
          ["Against s²/12", (one) => (one.predicted_mse ? number(one.mse / one.predicted_mse, 3) : "–"), "right"],
          ["Largest error", (one) => number(one.max_abs_error, 3), "right"],
          ["Zeros", (one) => (one.zero_ratio ? number(100 * one.zero_ratio, 3, " %") : "–"), "right"],
        ],
        list.slice(0, shown),
      ),
      shown < list.length
        ? element(
            "p",
            {},
            element(
              "button",
              {
                type: "button",
                onclick: () => {
                  shown += 100;
                  draw();
                },
              },
              `Show more of ${list.length}`,
            ),
          )
        : "",
    );
  draw();
  return section("Error of each tensor, worst first", place);
}

/** Bits a weight takes; in reports that do not say, those of a code, from how its kind is called. */
function bitsOf(tensor) {
  if (tensor.stored_bits_per_weight > 0) return tensor.stored_bits_per_weight;
  const found = /(?:INT|W|FP|IQ|Q|NF|BF|F|int|fp|nf)(\d+)/.exec(tensor.kind);
  return found ? Number(found[1]) : null;
}

function bits(report) {
  const known = report.tensors.filter((tensor) => bitsOf(tensor) !== null && tensor.shape.length > 1);
  if (known.length === 0) return null;
  return section(
    "Bits of each matrix",
    columns(
      known.map((tensor) => ({
        value: bitsOf(tensor),
        soft: !tensor.compressed,
        text: `${tensor.name}: ${tensor.kind}, ${digits(bitsOf(tensor), 3)} bits`,
      })),
      { label: "Bits of each matrix, in the order of the file", yName: "bits a weight", yText: (v) => String(v) },
    ),
    element("p", { class: "quiet small" }, "In the order of the file; what was left as it is stands in grey."),
    table(
      "Types",
      [
        ["Type", ([name]) => name],
        ["Tensors", ([, list]) => count(list.length), "right"],
        ["Weights", ([, list]) => count(list.reduce((sum, one) => sum + one.parameters, 0)), "right"],
        [
          "Entropy of codes",
          ([, list]) => {
            const sum = list.reduce((all, one) => all + one.parameters, 0);
            const entropy = list.reduce((all, one) => all + one.code_entropy_bits * one.parameters, 0) / sum;
            return entropy > 0 ? number(entropy, 3, " bits") : "–";
          },
          "right",
        ],
      ],
      [...Map.groupBy(report.tensors, (tensor) => tensor.kind)],
    ),
  );
}

const cost = (report) =>
  section(
    "Cost",
    table(
      "Stages",
      [
        ["Stage", (one) => one.name],
        ["Took", (one) => secondsText(one.seconds), "right"],
        ["CPU", (one) => secondsText(one.cpu_seconds), "right"],
        ["Peak memory", (one) => bytes(one.peak_rss_bytes), "right"],
        [
          "Of what was planned",
          (one) =>
            bar(
              one.peak_rss_bytes / report.planned_peak_memory_bytes,
              `${Math.round((100 * one.peak_rss_bytes) / report.planned_peak_memory_bytes)} %`,
            ),
          "wide",
        ],
      ],
      report.stages,
    ),
    element("p", { class: "quiet small" }, "Planned: ", bytes(report.planned_peak_memory_bytes)),
    (report.decode ?? []).map((timed) =>
      element(
        "p",
        { class: "quiet small" },
        `${timed.format}: `,
        number(timed.tokens_per_second),
        ` tokens a second decoded${timed.runtime ? ` by ${timed.runtime}` : ""}`,
      ),
    ),
  );

function recipe(report) {
  const text = json(report.recipe, 2);
  return section(
    "Recipe, spelled out",
    element(
      "div",
      { class: "copyable" },
      element("pre", { tabindex: 0 }, element("code", {}, text)),
      copyButton(() => text, "recipe"),
    ),
  );
}
