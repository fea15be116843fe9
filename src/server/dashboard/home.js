// Overview: what runs, what waits, what failed, what was saved, and how much room there is; first steps on an empty server.
import { copyButton, element } from "./page.js";
import { base, get, key, may, query } from "./client.js";
import {
  bytes,
  bytesText,
  command,
  count,
  empty,
  ident,
  live,
  recipeName,
  secondsText,
  between,
  section,
  state,
  table,
  unsaid,
  when,
} from "./show.js";
import { progressOf } from "./jobs.js";

const figure = (name, value, note) =>
  element(
    "div",
    { class: "figure" },
    element("div", { class: "name" }, name),
    element("div", { class: "value" }, value),
    note ? element("div", { class: "note" }, note) : null,
  );

export default function overview(view) {
  view.title("Overview");
  const place = element("div", {});
  view.root.append(element("div", { class: "head" }, element("h1", {}, "Overview")), place);
  live(view, place, { what: "the overview", every: 4, load, draw });
}

async function load(signal) {
  const asked = (path) => get(path, { signal });
  const [overview, running, recent] = await Promise.all([
    asked("v1/overview").catch((problem) => {
      if (problem.status === 404) return null;
      throw problem;
    }),
    asked("v1/jobs?status=running&limit=20"),
    asked("v1/jobs?limit=8"),
  ]);
  return { overview, running: running.data, recent: recent.data };
}

function draw({ overview, running, recent }, place) {
  place.className = "stack";
  place.replaceChildren(
    ...[
      overview?.draining &&
        element(
          "p",
          { class: "banner", role: "status" },
          "This server is draining: it takes no new work and will stop when what runs has ended.",
        ),
      overview ? figures(overview) : unsaid("what it has done in all (GET /v1/overview)"),
      recent.length === 0 ? firstSteps() : null,
      section(
        "Running now",
        running.length === 0
          ? empty("Nothing runs.")
          : table(
              "Running jobs",
              [
                ["Job", (job) => ident(job.id, recipeName(job.recipe))],
                ["Model", (job) => ident(job.model)],
                ["Stage", (job) => (job.stage ? `${job.stage.name}, ${job.stage.index + 1} of ${job.stage.of}` : "starting")],
                ["Progress", progressOf, "wide"],
                ["Done", (job) => (job.estimated_finish_at ? when(job.estimated_finish_at) : "–")],
              ],
              running,
            ),
        command("GET", "v1/jobs?status=running"),
      ),
      overview && element("div", { class: "grid" }, failures(overview), room(overview)),
      recent.length > 0 &&
        section(
          "Latest jobs",
          table(
            "Latest jobs",
            [
              ["State", (job) => state(job.status)],
              ["Job", (job) => ident(job.id, recipeName(job.recipe))],
              ["Model", (job) => ident(job.model)],
              ["Took", (job) => (job.started_at ? secondsText(between(job.started_at, job.finished_at)) : "–"), "right"],
              ["Created", (job) => when(job.created_at)],
              [
                "",
                (job) =>
                  job.status === "succeeded"
                    ? element("a", { href: `#/jobs/${job.id}/report` }, "Report")
                    : element("span", { class: "quiet" }, job.error?.code ?? ""),
              ],
            ],
            recent,
          ),
          command("GET", "v1/jobs?limit=8"),
        ),
    ].filter(Boolean),
  );
}

function figures(overview) {
  const { jobs } = overview;
  const saved = overview.source_bytes - overview.artifact_bytes;
  return element(
    "div",
    {},
    element(
      "div",
      { class: "figures" },
      figure("Running", count(jobs.running), element("a", { href: "#/jobs?status=running" }, "Show")),
      figure(
        "Waiting",
        count(jobs.queued),
        overview.oldest_queued_at ? ["oldest ", when(overview.oldest_queued_at)] : "nothing waits",
      ),
      figure("Succeeded", count(jobs.succeeded), `${jobs.cancelled} cancelled`),
      figure("Failed", count(jobs.failed), jobs.failed ? element("a", { href: "#/jobs?status=failed" }, "Show") : "none"),
      figure(
        "Saved",
        saved > 0 ? bytes(saved) : "–",
        overview.artifact_bytes > 0
          ? `${bytesText(overview.source_bytes)} became ${bytesText(overview.artifact_bytes)}`
          : "no artifacts yet",
      ),
    ),
  );
}

function failures(overview) {
  const rows = overview.failures_24h ?? [];
  return section(
    "Failures in 24 hours",
    rows.length === 0
      ? empty("None.")
      : table(
          "Failures by code",
          [
            ["Code", (row) => element("code", {}, row.code)],
            ["Jobs", (row) => count(row.count), "right"],
          ],
          rows,
        ),
    command("GET", "v1/overview"),
  );
}

function share(name, used, total, note) {
  if (used === null || used === undefined || !total)
    return element("div", {}, element("h3", {}, name), note ?? unsaid(`a limit for ${name.toLowerCase()}`));
  return element(
    "div",
    {},
    element("h3", {}, name),
    element(
      "div",
      { class: "progress" },
      element("progress", { max: total, value: used, "aria-label": name }),
      element("span", {}, `${Math.round((used / total) * 100)} %`),
    ),
    element("p", { class: "small quiet" }, bytes(used), " of ", bytes(total), ", ", bytes(Math.max(0, total - used)), " left"),
  );
}

function room(o) {
  return section(
    "Room",
    share("Disk", o.disk_total_bytes ? o.disk_total_bytes - o.disk_free_bytes : null, o.disk_total_bytes),
    share("Memory planned by running jobs", o.memory_planned_bytes, o.memory_limit_bytes),
    share(
      "Stored files",
      o.stored_bytes,
      o.quota_bytes,
      element("p", {}, bytes(o.stored_bytes), element("span", { class: "quiet" }, ", no quota")),
    ),
    command("GET", "v1/overview"),
  );
}

// The whole job by hand: without its tokenizer no model becomes a GGUF.
function firstSteps() {
  const sent = key() === null ? "" : ' -H "Authorization: Bearer $MODELPRESS_KEY"';
  const text = [
    `curl${sent} ${base}/v1/models \\`,
    `  -F file=@config.json -F file=@model.safetensors -F file=@tokenizer.json`,
    `curl${sent} ${base}/v1/jobs -H 'Content-Type: application/json' \\`,
    `  -d '{"model":"mdl_…","recipe":"Q4_K_M"}'`,
    `curl${sent} -N ${base}/v1/jobs/job_…/events -H 'Accept: text/event-stream'`,
    `curl${sent} -OJ ${base}/v1/artifacts/art_…/archive`,
  ].join("\n");
  return section(
    "Start",
    element("p", {}, "Upload a model, choose a recipe, get back files that engines load, and a report of what changed."),
    may("jobs:write") ? element("p", {}, element("a", { class: "button primary", href: query("#/new", {}) }, "New job")) : null,
    element("h3", {}, "Or from a shell"),
    element(
      "div",
      { class: "copyable" },
      element("pre", { tabindex: 0 }, element("code", {}, text)),
      copyButton(() => text, "commands"),
    ),
  );
}
