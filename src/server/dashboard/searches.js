// Searches: several recipes on one model, and a way to ask for another.
import { element } from "./page.js";
import { all, firstPages, get, may, post } from "./client.js";
import { action, command, count, empty, ident, live, moreButton, section, table, when } from "./show.js";
import { field, select } from "./form.js";

export default function searches(view) {
  view.title("Searches");
  const place = element("div", {});
  const asked = element("div", {});
  let pages = 1;
  view.root.append(
    element(
      "div",
      { class: "head" },
      element("h1", {}, "Searches"),
      may("jobs:write")
        ? element(
            "div",
            { class: "actions" },
            element(
              "button",
              {
                type: "button",
                onclick: () => {
                  asked.childElementCount ? asked.replaceChildren() : form(view, asked);
                },
              },
              "New search",
            ),
          )
        : null,
    ),
    asked,
    section(null, place, command("GET", "v1/searches?limit=50")),
  );
  const again = live(view, place, {
    what: "the searches",
    every: 10,
    load: (signal) => firstPages("v1/searches", { limit: 50 }, pages, signal),
    draw: ({ found, more }, where) =>
      where.replaceChildren(
        found.length === 0
          ? empty("No searches yet. A search makes a job of each of several recipes and says which are worth having.")
          : table(
              "Searches",
              [
                ["Search", (one) => ident(one.id)],
                ["Model", (one) => ident(one.model)],
                ["Recipes", (one) => count(one.recipes), "right"],
                ["Created", (one) => when(one.created_at)],
                ["", (one) => (one.cancelled_at ? element("span", { class: "quiet" }, "cancelled ", when(one.cancelled_at)) : "")],
              ],
              found,
            ),
        more
          ? moreButton(() => {
              pages += 1;
              again();
            })
          : "",
      ),
  });
}

/** Presets to try on a model; grids and recipes of one's own are for the API. */
async function form(view, place) {
  place.replaceChildren(section("New search", element("p", { class: "quiet" }, "Reading models and presets…")));
  const [models, presets] = await Promise.all([
    all("v1/models", {}, 300, view.signal),
    get("v1/presets", { signal: view.signal }).then((page) => page.data),
  ]);
  const ready = models.filter((one) => one.status === "ready");
  if (ready.length === 0) return place.replaceChildren(section("New search", empty("No model is ready.")));
  const model = select(
    ready.map((one) => [one.id, `${one.name ?? one.architecture ?? one.format}, …${one.id.slice(-8)}`]),
    ready[0].id,
    tell,
  );
  const boxes = presets.map((preset) => [
    preset,
    element("input", { type: "checkbox", checked: ["Q8_0", "Q5_K_M", "Q4_K_M"].includes(preset.name), onchange: tell }),
  ]);
  const samples = element("input", { type: "number", min: 1, value: "40" });
  samples.addEventListener("input", tell);
  const body = () => ({
    model: model.value,
    recipes: boxes.filter(([, box]) => box.checked).map(([preset]) => preset.name),
    evaluation: { num_samples: Number(samples.value) },
  });
  const told = element("div", {});
  const shown = element("div", {});
  function tell() {
    shown.replaceChildren(command("POST", "v1/searches", body()));
  }
  place.replaceChildren(
    section(
      "New search",
      element(
        "div",
        { class: "stack" },
        element(
          "div",
          { class: "fields" },
          field("Model", model, { pointer: "/model" }),
          field("Sequences to evaluate on", samples, { pointer: "/evaluation/num_samples" }),
        ),
        [...Map.groupBy(boxes, ([preset]) => preset.format)].map(([format, list]) =>
          element(
            "fieldset",
            {},
            element("legend", {}, format),
            element(
              "div",
              { class: "checks" },
              list.map(([preset, box]) => element("label", { class: "check", title: preset.summary }, box, preset.name)),
            ),
          ),
        ),
        element(
          "div",
          { class: "actions" },
          action(
            "Start the search",
            async () => {
              const made = await post("v1/searches", body(), { headers: { "Idempotency-Key": crypto.randomUUID() } });
              view.go(`#/searches/${made.id}`);
            },
            {
              kind: "primary",
              place: () => {
                told.replaceChildren();
                return told;
              },
            },
          ),
        ),
        told,
      ),
      shown,
    ),
  );
  tell();
  model.focus();
}
