// A model: its card, its tensors by layer, what was made of it, and what can be done with it.
import { element } from "./page.js";
import { bar } from "./charts.js";
import { all, call, get, may, post, query } from "./client.js";
import {
  action,
  bytes,
  bytesText,
  command,
  confirm,
  copyable,
  count,
  digest,
  facts,
  grouped,
  ident,
  live,
  section,
  state,
  table,
  trouble,
  when,
} from "./show.js";
import { lineageOf } from "./lineage.js";

/** What a model is, in short: the wizard shows it too. */
export function modelCard(model) {
  const types = Object.entries(model.dtypes).sort((a, b) => b[1] - a[1]);
  const total = types.reduce((sum, [, weights]) => sum + weights, 0);
  return element(
    "div",
    { class: "stack" },
    facts([
      ["Name", model.name ?? element("span", { class: "quiet" }, "none")],
      ["Format", model.format ?? "–"],
      ["Architecture", model.architecture ?? "–"],
      ["Parameters", count(model.parameter_count)],
      ["Tensors", count(model.tensor_count)],
      ["Size", bytes(model.bytes)],
      ["Created", when(model.created_at)],
      ["Model", ident(model.id)],
    ]),
    types.length > 0 &&
      table(
        "Weights by type",
        [
          ["Type", ([name]) => name],
          ["Weights", ([, weights]) => count(weights), "right"],
          [
            "Share",
            ([name, weights]) => bar(weights / total, `${name}: ${((weights / total) * 100).toFixed(1)} % of the weights`),
            "wide",
          ],
        ],
        types,
      ),
    pullOf(model),
  );
}

function pullOf(model) {
  const { pull } = model;
  if (!pull) return null;
  return element(
    "div",
    {},
    element(
      "p",
      {},
      "Brought from ",
      element("code", {}, pull.source),
      pull.commit ? [" at ", element("code", {}, pull.commit.slice(0, 12))] : "",
      ` (${pull.status})`,
    ),
    pull.status === "active"
      ? [
          element("progress", { max: Math.max(1, pull.bytes_total), value: pull.bytes_done, "aria-label": "Files that are there" }),
          element(
            "p",
            { class: "quiet small" },
            `${pull.files_done} of ${pull.files_total || "?"} files, `,
            bytes(pull.bytes_done),
            " of ",
            bytes(pull.bytes_total),
            pull.waiting_for ? `, ${pull.waiting_for}` : "",
          ),
        ]
      : null,
    pull.error ? trouble({ message: pull.error.message, code: pull.error.code }) : null,
  );
}

export default function page(view) {
  const [id] = view.args;
  view.title(`Model ${id.slice(-8)}`);
  const place = element("div", {});
  const tensors = element("div", {});
  const line = element("div", {});
  let read = false;
  view.root.append(place);
  live(view, place, {
    what: "the model",
    every: 5,
    load: (signal) => get(`v1/models/${id}`, { signal }),
    draw: (model, where) => {
      if (read) return where.querySelector("[data-card]").replaceChildren(modelCard(model));
      const told = element("div", {});
      where.className = "stack";
      where.replaceChildren(
        element(
          "div",
          { class: "head" },
          element("h1", {}, model.name ?? model.architecture ?? "Model"),
          state(model.status),
          element("div", { class: "actions" }, buttons(view, model, told)),
          element("p", { class: "sub" }, copyable(id, "model id")),
        ),
        told,
        element(
          "section",
          { class: "panel" },
          element("h2", {}, "Card"),
          element("div", { "data-card": true }, modelCard(model)),
          command("GET", `v1/models/${id}`),
        ),
        section(
          "Files",
          table(
            "Files",
            [
              ["File", (file) => file.name, "wide"],
              ["Size", (file) => bytes(file.bytes), "right"],
              ["SHA-256", (file) => digest(file.digest)],
            ],
            model.files,
          ),
          element("p", { class: "quiet small" }, "Digest of the set: ", digest(model.digest)),
        ),
        section("What was made of it", line),
        section("Tensors by layer", tensors, command("GET", `v1/models/${id}/tensors?limit=100`)),
      );
      if (model.status !== "ready")
        return tensors.replaceChildren(element("p", { class: "quiet" }, "Known when the model is ready."));
      read = true;
      lineageOf(view, id, line, id);
      layers(view, id, tensors);
    },
  });
}

function buttons(view, model, told) {
  const found = [];
  const isReady = model.status === "ready";
  if (may("jobs:write") && isReady) {
    found.push(element("a", { class: "button primary", href: query("#/new", { model: model.id }) }, "New job"));
    found.push(
      action(
        "Analyse",
        async () => {
          const job = await post(`v1/models/${model.id}/analysis`);
          view.go(`#/jobs/${job.id}`);
        },
        { place: () => told },
      ),
    );
    found.push(
      action(
        "Analyse sensitivity",
        async () => {
          if (
            !(await confirm(
              "Analyse sensitivity?",
              "The model runs over calibration data and back, to say what each scheme would cost each tensor. It takes longer than an analysis of the weights alone.",
              "Analyse",
              { danger: false },
            ))
          )
            return;
          const job = await post(`v1/models/${model.id}/analysis`, {
            sensitivity: model.format === "safetensors" ? "W4A16" : "Q4_K_M",
          });
          view.go(`#/jobs/${job.id}`);
        },
        {
          place: () => {
            told.replaceChildren();
            return told;
          },
        },
      ),
    );
  }
  if (isReady) found.push(element("a", { class: "button", href: query("#/compare", { model: model.id }) }, "Compare"));
  if (may("models:write"))
    found.push(
      action(
        "Delete",
        async () => {
          if (
            !(await confirm(
              "Delete this model?",
              `Its ${bytesText(model.bytes)} go, unless something else has the same bytes. Artifacts that were made of it stay.`,
              "Delete the model",
            ))
          )
            return;
          await call("DELETE", `v1/models/${model.id}`);
          view.go("#/models");
        },
        { kind: "danger", place: () => told },
      ),
    );
  return found;
}

const MOST = 20000;
const layerOf = (name) => /(?:^|\.)(?:layers|h|blocks|blk|layer|block)\.(\d+)\./.exec(name)?.[1];

/** Tensors, gathered by the number in their names. */
async function layers(view, id, place) {
  place.replaceChildren(element("p", { class: "quiet", role: "status" }, "Reading the tensors…"));
  try {
    const tensors = await all(`v1/models/${id}/tensors`, {}, MOST, view.signal);
    const groups = [...Map.groupBy(tensors, (tensor) => layerOf(tensor.name) ?? "outside of layers")];
    const most = Math.max(...groups.map(([, list]) => list.reduce((sum, one) => sum + one.bytes, 0)));
    place.replaceChildren(
      ...groups.map(([name, list]) => {
        const size = list.reduce((sum, one) => sum + one.bytes, 0);
        const inner = element("div", {});
        const box = element(
          "details",
          {},
          element(
            "summary",
            {},
            element("strong", {}, layerOf(`layers.${name}.`) === undefined ? name : `Layer ${name}`),
            ` ${list.length} tensors, `,
            bytes(size),
            " ",
            bar(size / most, bytesText(size)),
          ),
          inner,
        );
        box.addEventListener("toggle", () => {
          if (box.open && inner.childElementCount === 0)
            inner.append(
              table(
                `Tensors, ${name}`,
                [
                  ["Tensor", (one) => element("code", {}, one.name)],
                  ["Type", (one) => one.dtype],
                  ["Shape", (one) => one.shape.join(" × "), "right"],
                  ["Weights", (one) => grouped(one.shape.reduce((a, b) => a * b, 1)), "right"],
                  ["Size", (one) => bytes(one.bytes), "right"],
                ],
                list,
              ),
            );
        });
        return box;
      }),
      tensors.length === MOST ? element("p", { class: "quiet small" }, `The first ${grouped(MOST)} tensors.`) : "",
    );
  } catch (problem) {
    if (!view.signal.aborted) place.replaceChildren(trouble(problem, () => layers(view, id, place)));
  }
}
