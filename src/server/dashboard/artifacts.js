// Artifacts: what jobs published, newest first, of one model if asked.
import { element } from "./page.js";
import { all, get, query } from "./client.js";
import { retention } from "./retention.js";
import { bytes, command, digest, empty, ident, live, moreButton, section, table, unsaid, when } from "./show.js";
import { download } from "./artifact.js";

export default function artifacts(view) {
  view.title("Artifacts");
  const model = view.params.get("model") ?? "";
  const job = view.params.get("job") ?? "";
  const place = element("div", {});
  let pages = 1;
  view.root.append(
    element(
      "div",
      { class: "head" },
      element("h1", {}, "Artifacts"),
      model ? element("span", {}, "of model ", ident(model), " ", element("a", { href: "#/artifacts" }, "Show all")) : null,
    ),
    section(null, place, retention(view), command("GET", query("v1/artifacts", { job, model, limit: 50 }))),
  );
  const again = live(view, place, { what: "the artifacts", every: 10, load, draw });

  async function load(signal) {
    const found = [];
    let after;
    try {
      for (let page = 0; page < pages; page += 1) {
        const answer = await get(query("v1/artifacts", { job, model, limit: 50, after }), { signal });
        found.push(...answer.data);
        after = answer.has_more ? answer.next_cursor : undefined;
        if (!after) break;
      }
      return { found, more: Boolean(after), listed: true };
    } catch (problem) {
      if (problem.status !== 404) throw problem;
    }
    // A server without the list still says of each job what it published.
    const jobs = await all("v1/jobs", { status: "succeeded", model }, 100, signal);
    const ids = jobs.flatMap((one) => one.artifacts).slice(0, 50);
    const read = await Promise.all(ids.map((id) => get(`v1/artifacts/${id}`, { signal }).catch(() => null)));
    return { found: read.filter(Boolean), more: false, listed: false };
  }

  function draw({ found, more, listed }, where) {
    where.replaceChildren(
      listed ? "" : unsaid("a list of its artifacts (GET /v1/artifacts); these are of its latest jobs"),
      found.length === 0
        ? empty("No artifacts yet.")
        : table(
            "Artifacts",
            [
              ["Artifact", (one) => ident(one.id, one.format)],
              ["Size", (one) => bytes(one.bytes), "right"],
              ["Files", (one) => String(one.files.length), "right"],
              ["Job", (one) => ident(one.job)],
              ["Model", (one) => ident(one.model)],
              ["Digest", (one) => digest(one.digest)],
              ["Published", (one) => when(one.created_at)],
              ["", (one) => download(`v1/artifacts/${one.id}/archive`, `${one.id}.tar`, one.bytes), "right"],
            ],
            found,
          ),
      more
        ? moreButton(() => {
            pages += 1;
            again();
          })
        : "",
    );
  }
}
