// Compare: finished jobs of one model by size and loss, the front marked; where their recipes differ.
import { element } from "./page.js";
import { scatter } from "./charts.js";
import { all, get, json, query } from "./client.js";
import { bytes, command, empty, ident, live, number, recipeName, section, state, table } from "./show.js";
import { field, select } from "./form.js";
import { front, LOSSES, SIZES } from "./quality.js";

const MOST = 60;
const AT_ONCE = 4;

export default function compare(view) {
  view.title("Compare");
  const place = element("div", {});
  view.root.append(element("div", { class: "head" }, element("h1", {}, "Compare")), place);
  live(view, place, {
    what: "the models",
    load: (signal) => all("v1/models", {}, 300, signal),
    draw: (models, where) =>
      choose(
        view,
        models.filter((one) => one.status === "ready"),
        where,
      ),
  });
}

function choose(view, models, place) {
  place.className = "stack";
  const result = element("div", {});
  if (models.length === 0)
    return place.replaceChildren(empty("No models yet.", element("a", { class: "button", href: "#/new" }, "New job")));
  const asked = view.params.get("model");
  const list = models.map((one) => [one.id, `${one.name ?? one.architecture ?? one.format}, …${one.id.slice(-8)}`]);
  if (asked && !models.some((one) => one.id === asked)) list.unshift([asked, asked]);
  const model = select(list, asked ?? models[0].id, () => show());
  place.replaceChildren(section(null, element("div", { class: "fields" }, field("Model", model))), result);
  show();

  function show() {
    view.setQuery({ model: model.value });
    live({ ...view, signal: view.signal }, result, {
      what: "the reports",
      load: (signal) => load(model.value, signal),
      draw: (found, where) => draw(view, model.value, found, where),
    });
  }
}

// Reports never change: each is read once.
const reports = new Map();

async function load(model, signal) {
  const jobs = (await all("v1/jobs", { model }, 300, signal))
    .filter((job) => job.kind === "compression" && ["succeeded", "failed"].includes(job.status))
    .slice(0, MOST);
  const queue = jobs.filter((job) => !reports.has(job.id));
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (let job = queue.pop(); job; job = queue.pop()) {
        try {
          const { tensors: _tensors, ...report } = await get(`v1/jobs/${job.id}/report`, { signal });
          reports.set(job.id, report);
        } catch (problem) {
          if (problem.name === "AbortError") throw problem;
        }
      }
    }),
  );
  return jobs.filter((job) => reports.has(job.id)).map((job) => ({ job, report: reports.get(job.id) }));
}

function draw(view, model, found, place) {
  place.className = "stack";
  const made = command("GET", query("v1/jobs", { status: "succeeded", model, limit: 100 }));
  if (found.length === 0)
    return place.replaceChildren(
      empty(
        "No finished job of this model has a report yet.",
        element("a", { class: "button", href: query("#/new", { model }) }, "New job"),
      ),
      made,
    );
  const losses = Object.entries(LOSSES).filter(([, loss]) => found.some(({ report }) => loss.of(report) !== undefined));
  const start = losses.some(([name]) => name === view.params.get("loss")) ? view.params.get("loss") : losses[0][0];
  const loss = select(
    losses.map(([name, one]) => [name, one.name]),
    start,
    () => plot(),
  );
  const size = select(
    Object.entries(SIZES).map(([name, one]) => [name, one.name]),
    SIZES[view.params.get("size")] ? view.params.get("size") : "bytes",
    () => plot(),
  );
  const chart = element("div", {});
  const list = element("div", {});
  place.replaceChildren(
    section(null, element("div", { class: "fields" }, field("Across", size), field("Up", loss)), chart, made),
    section("Recipes", list),
  );
  plot();

  function plot() {
    view.setQuery({ loss: loss.value, size: size.value });
    const [x, y] = [SIZES[size.value], LOSSES[loss.value]];
    const points = found.map(({ job, report }) => ({
      job,
      report,
      name: recipeName(job.recipe),
      x: x.of(report),
      y: y.of(report),
      href: `#/jobs/${job.id}/report`,
    }));
    const known = points.filter((p) => p.x !== undefined && p.y !== undefined && p.y !== null);
    // What missed a gate is not worth having.
    for (const p of front(known.filter((one) => one.job.status === "succeeded"))) p.front = true;
    for (const p of known) p.text = `${x.name} ${x.text(p.x)}, ${y.name} ${y.text(p.y)}`;
    chart.replaceChildren(
      known.length === 0
        ? empty("No job has measured this.")
        : scatter(known, {
            label: `Jobs by ${x.name} and ${y.name}; the lower left is better`,
            xName: `${x.name} →`,
            yName: `↑ ${y.name}`,
            xText: x.text,
            yText: y.text,
            zeroY: true,
          }),
      element(
        "p",
        { class: "quiet small" },
        `${known.length} of ${points.length} jobs have both; filled points are on the front: no other is better in both. Lower left is better.`,
      ),
    );
    drawTable(points, x, y, list);
  }
}

/** A recipe's values by place, lists as one. */
function flat(value, at = "", into = new Map()) {
  const isPlain = value === null || typeof value !== "object";
  if (Array.isArray(value) && value.every((one) => typeof one !== "object")) into.set(at, value.join(", "));
  else if (isPlain || Object.keys(value).length === 0) into.set(at, typeof value === "string" ? value : json(value));
  else for (const [name, inner] of Object.entries(value)) flat(inner, at ? `${at}.${name}` : name, into);
  return into;
}

/** What was asked for, and the techniques that it came to. */
const asked = ({ job, report }) =>
  flat({
    technique: report.recipe.stages.map((stage) => stage.technique).join(" + "),
    ...(typeof job.recipe === "string" ? { preset: job.recipe } : job.recipe),
  });

const value = (text) =>
  text === undefined
    ? element("span", { class: "quiet" }, "–")
    : element("code", { title: text.length > 40 ? text : undefined }, text.length > 40 ? `${text.slice(0, 39)}…` : text);

function drawTable(points, x, y, place) {
  const recipes = new Map(points.map((p) => [p, asked(p)]));
  const names = [...new Set([...recipes.values()].flatMap((one) => [...one.keys()]))];
  const differ = names.filter((name) => new Set([...recipes.values()].map((one) => one.get(name))).size > 1).slice(0, 40);
  const sorted = [...points].sort((a, b) => (a.x ?? Infinity) - (b.x ?? Infinity));
  place.replaceChildren(
    table(
      "Recipes",
      [
        ["Job", (p) => ident(p.job.id, p.name)],
        ["State", (p) => state(p.job.status)],
        ["Front", (p) => (p.front ? element("span", { class: "tag busy" }, "front") : "")],
        [x.name, (p) => (p.x === undefined ? "–" : x === SIZES.bytes ? bytes(p.x) : number(p.x)), "right"],
        [
          y.name,
          (p) => (p.y === undefined || p.y === null ? "–" : element("span", { class: "num", title: String(p.y) }, y.text(p.y))),
          "right",
        ],
      ],
      sorted,
    ),
    differ.length === 0
      ? element("p", { class: "quiet" }, "Their recipes are the same.")
      : element(
          "div",
          {},
          element("h3", {}, "Where the recipes differ"),
          table(
            "Differences of the recipes",
            [
              ["Job", (p) => ident(p.job.id, p.name)],
              ...differ.map((name) => [name.replace(/^stages\./, "stage "), (p) => value(recipes.get(p).get(name))]),
            ],
            sorted,
          ),
        ),
  );
}
