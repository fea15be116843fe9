// Jobs: filters that stay in the address, progress, and the end of many at once.
import { element } from "./page.js";
import { get, may, post, query } from "./client.js";
import {
  action,
  bytes,
  command,
  confirm,
  empty,
  ident,
  live,
  moreButton,
  recipeName,
  say,
  secondsText,
  between,
  section,
  state,
  table,
  trouble,
  when,
} from "./show.js";

const STATES = ["queued", "running", "succeeded", "failed", "cancelled"];
const MOST = 100;

/** How far a job is, as a bar with a number. */
export function progressOf(job) {
  const done = Math.floor((job.progress ?? 0) * 100);
  if (job.status === "queued")
    return element(
      "span",
      { class: "quiet", title: job.waiting_for ?? undefined },
      job.waiting_for ? "waits for memory" : "waits for its turn",
    );
  return element(
    "div",
    { class: "progress" },
    element("progress", { max: 100, value: done, "aria-label": "Progress" }),
    element("span", {}, `${done} %`),
  );
}

const isOpen = (job) => job.status === "queued" || job.status === "running";

export default function jobs(view) {
  view.title("Jobs");
  const status = STATES.includes(view.params.get("status")) ? view.params.get("status") : "";
  const model = view.params.get("model") ?? "";
  const chosen = new Set();
  let pages = 1;
  const tabs = element("nav", { class: "tabs", "aria-label": "States" });
  const bulk = element("div", { class: "actions" });
  const place = element("div", {});
  const field = element("input", {
    value: model,
    placeholder: "mdl_…",
    size: 28,
    "data-filter": true,
    "aria-label": "Only jobs of this model (/)",
    spellcheck: "false",
  });
  const form = element(
    "form",
    {
      class: "actions",
      onsubmit: (event) => {
        event.preventDefault();
        view.go(query("#/jobs", { status, model: field.value.trim() }));
      },
    },
    element("label", { class: "check" }, "Model", field),
    element("button", { type: "submit" }, "Filter"),
  );
  view.root.append(
    element("div", { class: "head" }, element("h1", {}, "Jobs"), element("div", { class: "actions" }, form)),
    tabs,
    element("section", { class: "panel" }, bulk, place, command("GET", query("v1/jobs", { status, model, limit: 50 }))),
  );
  drawTabs(tabs, status, model, null);

  const again = live(view, place, { what: "the jobs", every: 4, load, draw });

  async function load(signal) {
    const counts = get("v1/overview", { signal }).then(
      (overview) => overview.jobs,
      () => null,
    );
    const found = [];
    let after;
    for (let page = 0; page < pages; page += 1) {
      const answer = await get(query("v1/jobs", { status, model, limit: 50, after }), { signal });
      found.push(...answer.data);
      after = answer.has_more ? answer.next_cursor : undefined;
      if (!after) break;
    }
    return { found, more: Boolean(after), counts: await counts };
  }

  function draw({ found, more, counts }, where) {
    drawTabs(tabs, status, model, counts);
    for (const id of chosen) if (!found.some((job) => job.id === id && isOpen(job))) chosen.delete(id);
    drawBulk(found);
    if (found.length === 0) {
      where.replaceChildren(
        empty(
          status || model ? "No job is like this." : "No jobs yet.",
          may("jobs:write") ? element("a", { class: "button primary", href: "#/new" }, "New job") : "",
        ),
      );
      return;
    }
    where.replaceChildren(
      table("Jobs", columns(), found, { row: (job) => ({ class: chosen.has(job.id) ? "chosen" : undefined }) }),
      more
        ? moreButton(() => {
            pages += 1;
            again();
          })
        : "",
    );
  }

  function columns() {
    const list = [
      [
        "State",
        (job) => [state(job.status), job.error ? [" ", element("code", { title: job.error.message }, job.error.code)] : null],
      ],
      ["Recipe", (job) => ident(job.id, recipeName(job.recipe))],
      ["Model", (job) => ident(job.model)],
      ["Progress", progressOf],
      ["Memory", (job) => bytes(job.planned_memory_bytes), "right"],
      ["Took", (job) => (job.started_at ? secondsText(between(job.started_at, job.finished_at)) : "–"), "right"],
      ["Created", (job) => when(job.created_at)],
      ["Job", (job) => ident(job.id)],
    ];
    if (may("jobs:write")) list.unshift([element("span", { class: "unseen" }, "Choose"), box]);
    return list;
  }

  function box(job) {
    return element("input", {
      type: "checkbox",
      checked: chosen.has(job.id),
      disabled: !isOpen(job),
      "aria-label": `Choose ${recipeName(job.recipe)} ${job.id.slice(-8)}`,
      onchange: (event) => {
        event.target.checked ? chosen.add(job.id) : chosen.delete(job.id);
        event.target.closest("tr").classList.toggle("chosen", event.target.checked);
        drawBulk();
      },
    });
  }

  let last = [];
  function drawBulk(found = last) {
    last = found;
    const open = found.filter(isOpen);
    bulk.hidden = !may("jobs:write") || open.length === 0;
    if (bulk.hidden) return;
    const all = open.slice(0, MOST);
    const parts = [
      element(
        "button",
        {
          type: "button",
          onclick: () => {
            const every = all.every((job) => chosen.has(job.id));
            for (const job of all) every ? chosen.delete(job.id) : chosen.add(job.id);
            again();
          },
        },
        all.every((job) => chosen.has(job.id)) ? "Choose none" : `Choose ${all.length} that are not over`,
      ),
    ];
    if (chosen.size > 0) parts.push(action(`Cancel ${chosen.size}`, cancelChosen, { kind: "danger", place: () => bulk }));
    bulk.replaceChildren(...parts);
  }

  async function cancelChosen() {
    const ids = [...chosen].slice(0, MOST);
    if (
      !(await confirm(
        `Cancel ${ids.length} ${ids.length === 1 ? "job" : "jobs"}?`,
        "What they have done so far is dropped. A cancelled job does not go on.",
        "Cancel them",
      ))
    )
      return;
    const failed = [];
    for (const id of ids) {
      try {
        await post(`v1/jobs/${id}/cancel`);
      } catch (problem) {
        failed.push([id, problem]);
      }
    }
    chosen.clear();
    say(`${ids.length - failed.length} jobs were asked to end`);
    await again();
    bulk.append(...failed.map(([id, problem]) => element("div", {}, ident(id), trouble(problem))));
  }
}

function drawTabs(tabs, status, model, counts) {
  const link = (word, text) =>
    element(
      "a",
      { href: query("#/jobs", { status: word, model }), "aria-current": word === status ? "page" : undefined },
      text,
      word && counts && !model ? element("span", { class: "num" }, String(counts[word] ?? 0)) : null,
    );
  const focused = tabs.contains(document.activeElement) ? [...tabs.children].indexOf(document.activeElement) : -1;
  tabs.replaceChildren(link("", "All"), ...STATES.map((word) => link(word, word[0].toUpperCase() + word.slice(1))));
  if (focused >= 0) tabs.children[focused].focus();
}
