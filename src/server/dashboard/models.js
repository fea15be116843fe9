// Models: what was uploaded or brought, newest first.
import { element } from "./page.js";
import { firstPages, may } from "./client.js";
import { retention } from "./retention.js";
import { bytes, command, count, empty, ident, live, moreButton, section, state, table, when } from "./show.js";

export default function models(view) {
  view.title("Models");
  const place = element("div", {});
  let pages = 1;
  view.root.append(
    element(
      "div",
      { class: "head" },
      element("h1", {}, "Models"),
      may("models:write")
        ? element("div", { class: "actions" }, element("a", { class: "button", href: "#/new" }, "Upload a model"))
        : null,
    ),
    section(null, place, retention(view), command("GET", "v1/models?limit=50")),
  );
  const again = live(view, place, {
    what: "the models",
    every: 10,
    load: (signal) => firstPages("v1/models", { limit: 50 }, pages, signal),
    draw: ({ found, more }, where) =>
      where.replaceChildren(
        found.length === 0
          ? empty("No models yet.")
          : table(
              "Models",
              [
                ["Model", (model) => ident(model.id, model.name ?? model.architecture ?? `…${model.id.slice(-8)}`)],
                ["State", (model) => state(model.status)],
                ["Format", (model) => model.format ?? "–"],
                ["Architecture", (model) => model.architecture ?? "–"],
                ["Parameters", (model) => count(model.parameter_count), "right"],
                ["Size", (model) => bytes(model.bytes), "right"],
                ["Types", (model) => Object.keys(model.dtypes).join(", ") || "–"],
                ["Created", (model) => when(model.created_at)],
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
