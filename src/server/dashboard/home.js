// The landing page: how to start, and the latest jobs, read every few seconds while the page is visible.
import { api, copyButton, element, hasKey, keyForm, problemText } from "./page.js";

const base = new URL(".", document.baseURI).href.replace(/\/$/, "");
const key = hasKey() ? ' -H "Authorization: Bearer $MODELPRESS_KEY"' : "";
const start = [
  `curl${key} ${base}/v1/models \\`,
  `  -F file=@config.json -F file=@model.safetensors -F file=@tokenizer.json`,
  `curl${key} ${base}/v1/jobs -H 'Content-Type: application/json' \\`,
  `  -d '{"model":"mdl_…","recipe":"Q4_K_M"}'`,
  `curl${key} -N ${base}/v1/jobs/job_…/events -H 'Accept: text/event-stream'`,
  `curl${key} -OJ ${base}/v1/artifacts/art_…/archive`,
].join("\n");
const code = document.getElementById("start");
code.textContent = start;
code.closest(".copyable").append(copyButton(() => start));
document.getElementById("curl").textContent = `curl${key} ${base}/v1/jobs?limit=10`;

const state = document.getElementById("state");
const table = document.getElementById("jobs");

// A preset's name, or the techniques of a recipe that was written out.
function recipeName(recipe) {
  if (typeof recipe === "string") return recipe;
  if (recipe?.analysis) return "analysis";
  return recipe?.preset ?? (recipe?.stages ?? []).map((stage) => stage.technique).join(" + ");
}

function row(job) {
  const done = Math.floor((job.progress ?? 0) * 100);
  const progress = element("progress", { max: 100, value: done, title: `${done} %`, "aria-label": `${done} %` });
  const report = job.status === "succeeded"
    ? element("a", { href: `v1/jobs/${job.id}/report.html` }, "report")
    : element("span", { title: job.error?.message ?? job.waiting_for ?? "" },
      job.error?.code ?? (job.waiting_for ? "waits for memory" : ""));
  const created = element("time", { datetime: job.created_at, title: job.created_at }, ago(job.created_at));
  return element("tr", {},
    element("td", {}, job.status),
    element("td", {}, recipeName(job.recipe)),
    element("td", {}, progress),
    element("td", {}, created),
    element("td", {}, report),
    element("td", { class: "id" }, element("a", { href: `v1/jobs/${job.id}`, title: job.id }, `…${job.id.slice(-8)}`)));
}

function ago(text) {
  const seconds = Math.max(0, (Date.now() - Date.parse(text)) / 1000);
  const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const [unit, size] = units.find(([, size]) => seconds >= size) ?? units[3];
  return new Intl.RelativeTimeFormat("en").format(-Math.floor(seconds / size), unit);
}

// Asks for a key, unless the question stands there already.
function ask(problem) {
  table.hidden = true;
  if (state.querySelector("form")) return;
  state.replaceChildren(keyForm(problem.detail, () => {
    // Its commands show the key from now on.
    location.reload();
  }));
}

// A link cannot show a key: what it leads to is fetched and kept as a file instead.
async function keep(event) {
  const link = event.target.closest("a");
  if (!link || !hasKey()) return;
  event.preventDefault();
  const response = await api(link.getAttribute("href"));
  if (!response.ok) {
    state.textContent = problemText(await response.json());
    return;
  }
  const name = link.getAttribute("href").split("/").slice(2).join("-");
  const url = URL.createObjectURL(await response.blob());
  element("a", { href: url, download: name.includes(".") ? name : `${name}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

async function refresh() {
  try {
    const response = await api("v1/jobs?limit=10", { Accept: "application/json" });
    const body = await response.json();
    if (response.status === 401) return ask(body);
    if (!response.ok) throw new Error(problemText(body));
    table.querySelector("tbody").replaceChildren(...body.data.map(row));
    table.hidden = body.data.length === 0;
    state.textContent = body.data.length === 0 ? "No jobs yet." : "";
  } catch (error) {
    state.textContent = `The job list cannot be read: ${error.message}`;
  }
}

table.addEventListener("click", keep);
await refresh();
setInterval(() => document.hidden || refresh(), 5000);
