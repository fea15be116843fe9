// A job: its stages as they happen, its history by server-sent events, what it made, and what can be done with it.
import { copyButton, element } from "./page.js";
import { ask, base, follow, get, json, may, post, query } from "./client.js";
import {
  action,
  absolute,
  between,
  bytes,
  command,
  confirm,
  copyable,
  empty,
  facts,
  ident,
  live,
  recipeName,
  say,
  seconds,
  secondsText,
  section,
  state,
  table,
  trouble,
  when,
} from "./show.js";
import { artifactFiles } from "./artifact.js";
import { planSummary } from "./preview.js";

const over = (job) => !["queued", "running"].includes(job.status);

export default function page(view) {
  const [id] = view.args;
  view.title(`Job ${id.slice(-8)}`);
  const place = element("div", { class: "stack" });
  view.root.append(place);
  live(view, place, {
    what: "the job",
    load: (signal) => get(`v1/jobs/${id}`, { signal }),
    draw: (job, where) => show(view, job, where),
  });
}

function show(view, first, place) {
  let job = first;
  const events = [];
  const parts = Object.fromEntries(
    ["head", "progress", "timeline", "attempts", "events", "artifacts", "facts", "plan"].map((name) => [name, element("div", {})]),
  );
  const connection = element("span", { class: "tag", role: "status" }, "connecting");
  let held = null;
  const pauseButton = element(
    "button",
    {
      type: "button",
      "aria-pressed": "false",
      onclick: () => {
        held = held === null ? [] : release();
        pauseButton.setAttribute("aria-pressed", String(held !== null));
        pauseButton.textContent = held === null ? "Pause" : "Go on";
        connection.textContent = held === null ? "live" : "paused";
      },
    },
    "Pause",
  );
  place.className = "stack";
  place.replaceChildren(
    parts.head,
    parts.progress,
    element(
      "div",
      { class: "grid" },
      section("Stages", parts.timeline),
      section("Facts", parts.facts, command("GET", `v1/jobs/${job.id}`)),
    ),
    parts.artifacts,
    parts.attempts,
    section(
      null,
      element("div", { class: "head" }, element("h2", {}, "Events"), element("div", { class: "actions" }, connection, pauseButton)),
      parts.events,
      element(
        "div",
        { class: "command" },
        element("code", { tabindex: 0, role: "region", "aria-label": "Command" }, streamCommand(job)),
        copyButton(() => streamCommand(job), "command"),
      ),
    ),
    parts.plan,
  );
  drawPlan(view, job, parts.plan);
  drawAll();
  watch();
  const clock = setInterval(() => (over(job) ? clearInterval(clock) : drawTimeline()), 1000);
  view.signal.addEventListener("abort", () => clearInterval(clock));

  function release() {
    const waiting = held;
    held = null;
    for (const event of waiting) take(event);
    return null;
  }

  function take(event) {
    if (held !== null) {
      held.push(event);
      connection.textContent = `paused, ${held.length} new`;
      return false;
    }
    if (event.type === "progress") {
      job = { ...job, ...event.data };
      drawHead(view, job, parts, refresh);
      return false;
    }
    events.push(event.data);
    const status = event.data.type === "state" ? event.data.data?.status : null;
    if (status) refresh();
    drawEvents(events, parts.events);
    drawTimeline();
    drawAttempts(job, events, parts.attempts);
    return ["succeeded", "failed", "cancelled"].includes(status);
  }

  async function watch() {
    try {
      await follow(`v1/jobs/${job.id}/events`, {
        signal: view.signal,
        take,
        told: (word) => {
          if (held === null) connection.textContent = word === "live" ? "live" : "connection lost, trying again";
          connection.className = word === "live" ? "tag busy" : "tag bad";
        },
      });
      if (view.signal.aborted) return;
      connection.textContent = held?.length ? `paused, ${held.length} new` : "complete";
      connection.className = "tag good";
      pauseButton.hidden = held === null;
    } catch (problem) {
      if (!view.signal.aborted) parts.events.append(trouble(problem, watch));
    }
  }

  async function refresh() {
    try {
      job = await get(`v1/jobs/${job.id}`, { signal: view.signal });
      drawAll();
    } catch (problem) {
      if (!view.signal.aborted) console.warn(problem);
    }
  }

  function drawAll() {
    drawHead(view, job, parts, refresh);
    drawEvents(events, parts.events);
    drawTimeline();
    drawAttempts(job, events, parts.attempts);
    drawFacts(job, parts.report, parts.facts);
    if (!over(job) || parts.ended) return;
    parts.ended = true;
    say(`Job ${job.status}`);
    drawArtifacts(view, job, parts.artifacts);
    get(`v1/jobs/${job.id}/report`, { signal: view.signal }).then(
      (report) => {
        parts.report = report;
        drawTimeline();
        drawFacts(job, report, parts.facts);
        drawHead(view, job, parts, refresh);
      },
      () => {},
    );
  }

  function drawTimeline() {
    timeline(job, events, parts.report, parts.timeline);
  }
}

const streamCommand = (job) => `curl -sSfN '${base}/v1/jobs/${job.id}/events' -H 'Accept: text/event-stream'`;

function drawHead(view, job, parts, refresh) {
  const buttons = [];
  if (parts.report || job.status === "succeeded")
    buttons.push(element("a", { class: "button primary", href: `#/jobs/${job.id}/report` }, "Report"));
  if (job.kind === "compression" && over(job))
    buttons.push(element("a", { class: "button", href: query("#/compare", { model: job.model }) }, "Compare"));
  if (may("jobs:write") && !over(job) && !job.cancel_requested_at)
    buttons.push(
      action(
        "Cancel",
        async () => {
          if (
            !(await confirm(
              "Cancel this job?",
              "What it has done so far is dropped. A cancelled job does not go on.",
              "Cancel the job",
            ))
          )
            return;
          await post(`v1/jobs/${job.id}/cancel`);
          await refresh();
        },
        { kind: "danger", place: () => parts.progress },
      ),
    );
  if (may("jobs:write") && over(job)) {
    buttons.push(action("Run again", () => again(view, job), { place: () => parts.progress }));
    if (job.kind === "compression")
      buttons.push(element("a", { class: "button", href: query("#/new", { job: job.id }) }, "Change and run"));
  }
  const focused = parts.head.contains(document.activeElement) ? document.activeElement.textContent : null;
  parts.head.className = "head";
  parts.head.replaceChildren(
    element("h1", {}, recipeName(job.recipe)),
    state(job.status),
    job.cancel_requested_at && !over(job) ? element("span", { class: "tag" }, "asked to end") : "",
    element("div", { class: "actions" }, buttons),
    element("p", { class: "sub" }, copyable(job.id, "job id")),
  );
  if (focused) [...parts.head.querySelectorAll("a, button")].find((one) => one.textContent === focused)?.focus();
  drawProgress(job, parts);
}

async function again(view, job) {
  const asked = job.recipe.analysis;
  const made =
    job.kind === "analysis"
      ? await post(`v1/models/${job.model}/analysis`, asked.sensitivity ? { sensitivity: asked.sensitivity } : undefined)
      : await post(
          "v1/jobs",
          { model: job.model, recipe: job.recipe, metadata: job.metadata, priority: job.priority },
          { headers: { "Idempotency-Key": crypto.randomUUID() } },
        );
  view.go(`#/jobs/${made.id}`);
}

function drawProgress(job, parts) {
  const found = [];
  if (job.error)
    found.push(
      element(
        "div",
        { class: "trouble" },
        element("p", {}, job.error.message),
        element("p", { class: "small quiet" }, "Code ", element("code", {}, job.error.code)),
      ),
    );
  if (job.waiting_for) found.push(element("p", { class: "banner" }, `Waits for ${job.waiting_for}`));
  if (!over(job)) {
    const done = Math.floor(job.progress * 1000) / 10;
    found.push(
      section(
        null,
        element(
          "div",
          { class: "progress" },
          element("progress", { max: 100, value: done, "aria-label": "Progress of the job" }),
          element("span", {}, `${done} %`),
        ),
        element(
          "p",
          { class: "quiet small" },
          job.status === "queued"
            ? "In the queue"
            : job.stage
              ? `${job.stage.name}, stage ${job.stage.index + 1} of ${job.stage.of}`
              : "Starting",
          job.bytes_total ? [", ", bytes(job.bytes_done), " of ", bytes(job.bytes_total)] : "",
          job.bytes_per_second ? [", ", bytes(Math.round(job.bytes_per_second)), " a second"] : "",
          job.estimated_finish_at ? [", done ", when(job.estimated_finish_at)] : "",
        ),
      ),
    );
  }
  const refused = [...parts.progress.children].filter((node) => node.getAttribute("role") === "alert");
  parts.progress.replaceChildren(...found, ...refused);
}

function timeline(job, events, report, place) {
  const items = [["done", "Created", absolute(job.created_at), ""]];
  const starts = events.filter((event) => event.type === "message" && event.data?.stage && event.data.index !== undefined);
  const began = events.findLast((event) => event.type === "state" && event.data?.status === "running");
  if (job.started_at) items.push(["done", "Waited", "for a worker", secondsText(between(job.created_at, job.started_at))]);
  else items.push(["now", "Waits", job.waiting_for ?? "for a worker", secondsText(between(job.created_at, job.finished_at))]);
  const latest = starts.filter((event) => !began || event.seq > began.seq);
  latest.forEach((event, at) => {
    const known = report?.stages?.find((stage) => stage.name === event.data.stage);
    const next = latest[at + 1];
    const last = !next && over(job);
    const length = known ? known.seconds : between(event.created_at, next?.created_at ?? job.finished_at);
    const kind = next || job.status === "succeeded" ? "done" : last ? "bad" : "now";
    items.push([
      kind,
      event.data.stage,
      known
        ? `peak memory ${(known.peak_rss_bytes / 1e6).toFixed(0)} MB, ${secondsText(known.cpu_seconds)} of CPU`
        : `stage ${event.data.index + 1} of ${event.data.of}`,
      secondsText(length),
    ]);
  });
  if (over(job))
    items.push([
      job.status === "succeeded" ? "done" : "bad",
      job.status[0].toUpperCase() + job.status.slice(1),
      job.finished_at ? absolute(job.finished_at) : "",
      job.started_at ? `${secondsText(between(job.started_at, job.finished_at))} in all` : "",
    ]);
  place.replaceChildren(
    element(
      "ol",
      { class: "timeline" },
      items.map(([kind, name, note, length]) =>
        element(
          "li",
          { class: kind },
          element("span", {}, element("strong", {}, name), " ", element("span", { class: "quiet" }, note)),
          element("span", { class: "num quiet" }, length),
        ),
      ),
    ),
  );
}

function drawFacts(job, report, place) {
  const peak = report?.stages ? Math.max(...report.stages.map((stage) => stage.peak_rss_bytes)) : null;
  place.replaceChildren(
    facts([
      ["Model", ident(job.model)],
      ["Kind", job.kind],
      ["Created", when(job.created_at, { full: true })],
      ["Started", when(job.started_at, { full: true })],
      ["Ended", when(job.finished_at, { full: true })],
      ["Attempt", `${job.attempt} of at most ${job.max_attempts}`],
      ["Priority", String(job.priority)],
      ["Memory planned", bytes(job.planned_memory_bytes)],
      [
        "Memory used at most",
        peak
          ? [
              bytes(peak),
              element("span", { class: "quiet" }, ` (${Math.round((peak / job.planned_memory_bytes) * 100)} % of the plan)`),
            ]
          : element("span", { class: "quiet" }, "known at the end"),
      ],
      ...Object.entries(job.metadata).map(([name, value]) => [name, value]),
    ]),
    element(
      "details",
      {},
      element("summary", {}, "Recipe"),
      element(
        "div",
        { class: "copyable" },
        element("pre", { tabindex: 0 }, element("code", {}, json(job.recipe, 2))),
        copyButton(() => json(job.recipe, 2), "recipe"),
      ),
    ),
  );
}

/** Attempts, from the events: which worker, how long, how it ended. */
function drawAttempts(job, events, place) {
  const found = [];
  for (const event of events.filter((one) => one.type === "state")) {
    if (event.data?.status === "running")
      found.push({ number: event.data.attempt, worker: event.data.worker, from: event.created_at, to: null, end: "running" });
    else if (found.length > 0 && found.at(-1).to === null)
      Object.assign(found.at(-1), {
        to: event.created_at,
        end: event.data?.status === "queued" ? (event.data.released ? "given back" : "tried again") : event.data?.status,
        error: event.data?.error,
      });
  }
  place.replaceChildren(
    found.length === 0
      ? ""
      : section(
          "Attempts",
          table(
            "Attempts",
            [
              ["No.", (one) => String(one.number)],
              ["End", (one) => (["succeeded", "failed", "cancelled", "running"].includes(one.end) ? state(one.end) : one.end)],
              ["Worker", (one) => (one.worker ? element("code", { class: "id", title: one.worker }, one.worker.slice(-12)) : "–")],
              ["Began", (one) => when(one.from)],
              ["Took", (one) => seconds(between(one.from, one.to)), "right"],
              ["Why", (one) => (one.error ? [element("code", {}, one.error.code), " ", one.error.message] : "–")],
            ],
            found,
          ),
        ),
  );
}

function drawEvents(events, place) {
  if (events.length === 0) return place.replaceChildren(empty("No events yet."));
  const rest = (event) =>
    Object.entries(event.data ?? {}).filter(
      ([name, value]) => !["status", "stage", "index", "of"].includes(name) && (name === "error" || typeof value !== "object"),
    );
  place.className = "events";
  place.replaceChildren(
    table(
      "Events",
      [
        ["No.", (event) => String(event.seq)],
        ["When", (event) => when(event.created_at)],
        [
          "What",
          (event) => [
            element(
              "span",
              { class: `level-${event.level}` },
              event.level === "info" ? event.message : `${event.level}: ${event.message}`,
            ),
            rest(event).length > 0
              ? element(
                  "span",
                  { class: "quiet small" },
                  " ",
                  rest(event)
                    .map(([name, value]) => `${name} ${value?.message ?? value}`)
                    .join(", "),
                )
              : null,
          ],
          "wide",
        ],
      ],
      [...events].reverse().slice(0, 200),
    ),
    events.length > 200 ? element("p", { class: "quiet small" }, `The latest 200 of ${events.length}.`) : "",
  );
}

async function drawArtifacts(view, job, place) {
  if (job.artifacts.length === 0) return;
  try {
    const found = await Promise.all(job.artifacts.map((id) => get(`v1/artifacts/${id}`, { signal: view.signal })));
    place.replaceChildren(
      section(
        "Artifacts",
        found.map((artifact) => artifactFiles(artifact)),
      ),
    );
  } catch (problem) {
    if (!view.signal.aborted)
      place.replaceChildren(
        section(
          "Artifacts",
          trouble(problem, () => drawArtifacts(view, job, place)),
        ),
      );
  }
}

/** The server keeps a job's plan to itself; the same recipe is planned again when it is asked for. */
function drawPlan(view, job, place) {
  if (job.kind !== "compression") return;
  const body = { model: job.model, recipe: job.recipe };
  const inner = element("div", {}, element("p", { class: "quiet" }, "Planning…"));
  const box = element(
    "details",
    { class: "panel" },
    element("summary", {}, "Plan: what this recipe does to every tensor"),
    inner,
    command("POST", "v1/plans", body),
  );
  box.addEventListener("toggle", async () => {
    if (!box.open || box.dataset.read) return;
    box.dataset.read = "yes";
    try {
      const { plan } = await (await ask("POST", "v1/plans", { body, signal: view.signal })).json();
      inner.replaceChildren(planSummary(plan, { tensors: true }));
    } catch (problem) {
      if (!view.signal.aborted) inner.replaceChildren(trouble(problem));
      delete box.dataset.read;
    }
  });
  place.replaceChildren(box);
}
