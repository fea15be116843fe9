// System: version, nodes, background loops, what is configured; whether the server is ready.
import { element } from "./page.js";
import { get, json } from "./client.js";
import { command, count, empty, facts, live, section, table, unsaid, when } from "./show.js";

export default function system(view) {
  view.title("System");
  const place = element("div", {});
  view.root.append(element("div", { class: "head" }, element("h1", {}, "System")), place);
  live(view, place, {
    what: "the system",
    every: 10,
    load: async (signal) => {
      const absent = (problem) => {
        if (problem.status === 404) return null;
        throw problem;
      };
      const [found, ready] = await Promise.all([
        get("v1/system", { signal }).catch(absent),
        get("readyz", { signal }).catch((problem) => problem),
      ]);
      return { found, ready };
    },
    draw,
  });
}

function draw({ found, ready }, place) {
  const open = [...place.querySelectorAll("details[open]")].map((box) => box.dataset.name);
  place.className = "stack";
  const isReady = !(ready instanceof Error);
  const readiness = section(
    "Readiness",
    isReady
      ? element("p", {}, element("span", { class: "state good" }, "ready"))
      : element("p", {}, element("span", { class: "state bad" }, ready.message), " ", element("code", {}, ready.code)),
    command("GET", "readyz"),
  );
  const more = section(
    "More",
    element(
      "p",
      {},
      element("a", { href: "docs" }, "API reference"),
      ", ",
      element("a", { href: "openapi.json" }, "openapi.json"),
      ", ",
      element("a", { href: "metrics" }, "metrics"),
    ),
  );
  if (!found) return place.replaceChildren(unsaid("its nodes, loops and configuration (GET /v1/system)"), readiness, more);
  place.replaceChildren(
    section(
      "Server",
      facts([
        ["Version", found.version],
        ["Database", found.database],
        ["Schema", String(found.schema_version)],
        ["Started", when(found.started_at, { full: true })],
        found.node && ["This node", element("code", {}, found.node)],
      ]),
      command("GET", "v1/system"),
    ),
    readiness,
    section(
      "Workers with a job",
      found.nodes.length === 0
        ? empty("No worker holds a job.")
        : table(
            "Workers",
            [
              [
                "Worker",
                (one) => [
                  element("code", { class: "id" }, one.node),
                  one.node === found.node ? [" ", element("span", { class: "tag busy" }, "this")] : "",
                ],
              ],
              ["Running", (one) => count(one.running), "right"],
              ["Lease runs out", (one) => when(one.lease_expires_at)],
            ],
            found.nodes,
          ),
    ),
    section(
      "Loops",
      found.loops.length === 0
        ? empty("This process runs no loops.")
        : table(
            "Loops",
            [
              ["Loop", (one) => one.name],
              ["Last tick", (one) => (one.last_tick_at ? when(one.last_tick_at) : element("span", { class: "quiet" }, "not yet"))],
            ],
            found.loops,
          ),
    ),
    section(
      "Configuration in effect",
      element("p", { class: "quiet small" }, "Secrets are hidden."),
      table(
        "Configuration",
        [
          ["Setting", ([name]) => element("code", {}, name)],
          ["Value", ([, value]) => element("code", {}, typeof value === "string" ? value : json(value)), "wide"],
        ],
        Object.entries(found.config),
      ),
    ),
    more,
  );
  for (const name of open) place.querySelector(`details[data-name="${name}"]`)?.setAttribute("open", "");
}
