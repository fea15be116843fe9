// One search: its recipes by size and loss, the front, and which is best for what.
import { element } from "./page.js";
import { scatter } from "./charts.js";
import { download } from "./artifact.js";
import { get, may, post } from "./client.js";
import {
  action,
  bytes,
  bytesText,
  command,
  confirm,
  copyable,
  empty,
  facts,
  ident,
  live,
  number,
  section,
  secondsText,
  state,
  table,
  when,
} from "./show.js";
import { LOSSES } from "./quality.js";

const isOpen = (search) => search.status === "queued" || search.status === "running";
const technique = (recipe) => (recipe.stages ?? []).map((stage) => stage.technique).join(" + ");

export default function page(view) {
  const [id] = view.args;
  view.title(`Search ${id.slice(-8)}`);
  const place = element("div", {});
  view.root.append(place);
  let presets = null;
  const again = live(view, place, {
    what: "the search",
    every: 3,
    load: async (signal) => {
      presets ??= new Map(
        (await get("v1/presets", { signal })).data.map((one) => [
          one.name,
          [...(one.before ?? []).map((stage) => stage.technique), one.technique].join(" + "),
        ]),
      );
      return get(`v1/searches/${id}`, { signal });
    },
    draw,
  });

  function draw(search, where) {
    const metric = LOSSES[search.loss_metric];
    const done = search.points.filter((point) => point.result && point.result.loss !== null);
    const ended = search.points.filter((point) => !["queued", "running"].includes(point.status)).length;
    const told = element("div", {});
    where.className = "stack";
    where.replaceChildren(
      element(
        "div",
        { class: "head" },
        element("h1", {}, `Search over ${search.points.length} recipes`),
        state(search.status),
        element(
          "div",
          { class: "actions" },
          may("jobs:write") && isOpen(search)
            ? action(
                "Cancel",
                async () => {
                  if (!(await confirm("Cancel this search?", "Its jobs that are not over are cancelled.", "Cancel the search")))
                    return;
                  await post(`v1/searches/${id}/cancel`);
                  await again();
                },
                { kind: "danger", place: () => told },
              )
            : "",
        ),
        element("p", { class: "sub" }, copyable(id, "search id")),
      ),
      told,
      section(
        null,
        facts([
          ["Model", ident(search.model)],
          ["Created", when(search.created_at, { full: true })],
          ["Ended", `${ended} of ${search.points.length} recipes`],
          ["Loss", metric?.name ?? "known when a recipe is done"],
        ]),
        isOpen(search) ? element("progress", { max: search.points.length, value: ended, "aria-label": "Recipes that ended" }) : "",
      ),
      section(
        "Size and loss",
        done.length === 0
          ? empty("No recipe has ended with a measure yet.")
          : scatter(
              done.map((point) => ({
                x: point.result.bytes,
                y: point.result.loss,
                name: point.name,
                front: point.on_front,
                text: `${bytesText(point.result.bytes)}, ${metric.name} ${metric.text(point.result.loss)}${point.best_for ? `, best for ${point.best_for}` : ""}`,
                href: `#/jobs/${point.job}/report`,
              })),
              {
                label: "Recipes by size and loss; the lower left is better",
                xName: "all files →",
                yName: `↑ ${metric.name}`,
                xText: bytesText,
                yText: metric.text,
                zeroY: true,
              },
            ),
      ),
      section(
        "Recipes",
        table(
          "Recipes",
          [
            ["Recipe", (point) => (point.job ? ident(point.job, point.name) : point.name)],
            [
              "Technique",
              (point) =>
                typeof point.recipe === "string"
                  ? presets.get(point.recipe)
                  : technique(point.recipe) || presets.get(point.recipe.preset) || "–",
            ],
            ["Size", (point) => bytes(point.result?.bytes), "right"],
            [
              "Compression",
              (point) =>
                point.result
                  ? element(
                      "span",
                      { class: "num", title: String(point.result.compression_ratio) },
                      `${point.result.compression_ratio.toFixed(2)} ×`,
                    )
                  : "–",
              "right",
            ],
            ["Bits a weight", (point) => number(point.result?.bits_per_weight), "right"],
            [
              "Quality loss",
              (point) =>
                point.result?.loss === null || !point.result || !metric
                  ? "–"
                  : element("span", { class: "num", title: String(point.result.loss) }, metric.text(point.result.loss)),
              "right",
            ],
            ...(done.some((point) => point.result.decode_tokens_per_second)
              ? [["Tokens a second", (point) => number(point.result?.decode_tokens_per_second), "right"]]
              : []),
            [
              "Best for",
              (point) => [
                point.best_for ? element("span", { class: "tag good" }, point.best_for) : "",
                " ",
                point.on_front ? element("span", { class: "tag busy" }, "front") : "",
              ],
            ],
            ["Took", (point) => (point.result ? secondsText(point.result.seconds) : "–"), "right"],
            ["Memory", (point) => bytes(point.result?.peak_memory_bytes), "right"],
            [
              "State",
              (point) => [
                state(point.status),
                point.error
                  ? element("div", { class: "quiet small" }, element("code", {}, point.error.code), " ", point.error.message)
                  : "",
              ],
            ],
          ],
          search.points,
        ),
        search.front.length
          ? element(
              "p",
              { class: "quiet small" },
              `The front, from the smallest to the largest: ${search.front.join(", ")}.`,
            )
          : "",
        done.length
          ? element(
              "div",
              { class: "actions" },
              download(`v1/searches/${id}/report.html`, `search-${id}.html`, 1, "Page"),
              ["svg", "png"].map((kind) =>
                download(`v1/searches/${id}/plots/front.${kind}`, `front-${id}.${kind}`, 1, kind.toUpperCase()),
              ),
            )
          : "",
        command("GET", `v1/searches/${id}`),
      ),
      element(
        "details",
        { class: "panel" },
        element("summary", {}, "What was asked"),
        element("pre", { tabindex: 0 }, element("code", {}, JSON.stringify(search.asked, null, 2))),
      ),
    );
  }
}
