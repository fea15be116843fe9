// How things look: numbers with units and exact values, times, states of a page, tables, commands, questions.
import { copyButton, element } from "./page.js";
import { curl, json } from "./client.js";

const UNITS = ["bytes", "kB", "MB", "GB", "TB", "PB"];

/** A number of bytes in words. */
export function bytesText(value) {
  if (value === null || value === undefined) return "–";
  const n = Number(value);
  const unit = Math.min(UNITS.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(n, 1)) / 3)));
  if (unit === 0) return `${n} bytes`;
  const scaled = n / 1000 ** unit;
  return `${scaled.toFixed(scaled < 10 ? 2 : scaled < 100 ? 1 : 0)} ${UNITS[unit]}`;
}

export const grouped = (value) => Number(value).toLocaleString("en-US");

/** Bytes with a unit, the exact number on hover. */
export function bytes(value) {
  if (value === null || value === undefined) return element("span", { class: "quiet" }, "–");
  return element("span", { class: "num", title: `${grouped(value)} bytes` }, bytesText(value));
}

/** A count in short, the exact number on hover. */
export function count(value) {
  if (value === null || value === undefined) return element("span", { class: "quiet" }, "–");
  const n = Number(value);
  const [unit, size] = [
    ["G", 1e9],
    ["M", 1e6],
    ["k", 1e4],
  ].find(([, least]) => n >= least) ?? ["", 1];
  const divisor = unit === "k" ? 1e3 : size;
  const text = unit ? `${(n / divisor).toFixed(n / divisor < 100 ? 1 : 0)} ${unit}` : grouped(n);
  return element("span", { class: "num", title: grouped(n) }, text);
}

/** A measured number in few digits. */
export function digits(value, most = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6) return value.toExponential(Math.min(2, most - 1));
  return value.toFixed(Math.max(0, most - 1 - Math.floor(Math.log10(size))));
}

/** A measured number, all of its digits on hover. */
export function number(value, most = 4, unit = "") {
  return element(
    "span",
    { class: "num", title: value === null || value === undefined ? undefined : `${value}${unit}` },
    digits(value, most),
    unit && value !== null && value !== undefined ? unit : "",
  );
}

export function secondsText(seconds) {
  const s = Math.max(0, seconds);
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 60) return `${s.toFixed(s < 10 ? 1 : 0)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.round((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.round((s % 86400) / 3600)} h`;
}

/** A length of time. */
export const seconds = (value) =>
  value === null || value === undefined ? "–" : element("span", { class: "num", title: `${value} s` }, secondsText(value));

/** Seconds between two times; until now without the second. */
export const between = (from, to) => Math.max(0, ((to ? Date.parse(to) : Date.now()) - Date.parse(from)) / 1000);

function relative(text) {
  const delta = (Date.parse(text) - Date.now()) / 1000;
  const size = Math.abs(delta);
  if (size < 5) return "now";
  const [unit, length] = [
    ["day", 86400],
    ["hour", 3600],
    ["minute", 60],
    ["second", 1],
  ].find(([, least]) => size >= least) ?? ["second", 1];
  return new Intl.RelativeTimeFormat("en", { style: "short" }).format(Math.trunc(delta / length), unit);
}

export function absolute(text) {
  return new Date(text).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
}

/** A time, relative; absolute beside it if there is room, and on hover. */
export function when(text, { full = false } = {}) {
  if (!text) return element("span", { class: "quiet" }, "–");
  const time = element("time", { datetime: text, title: `${absolute(text)} (${text})`, "data-relative": true }, relative(text));
  return full ? element("span", {}, time, " ", element("span", { class: "quiet" }, absolute(text))) : time;
}

/** Relative times go on while a page stays open. */
export function keepTimes() {
  setInterval(() => {
    for (const time of document.querySelectorAll("time[data-relative]")) time.textContent = relative(time.dateTime);
  }, 5000);
}

const MARKS = {
  succeeded: "good",
  ready: "good",
  enabled: "good",
  complete: "good",
  running: "busy",
  pulling: "busy",
  queued: "idle",
  pending: "idle",
  draft: "idle",
  failed: "bad",
  refused: "bad",
  disabled: "bad",
  cancelled: "off",
  forgotten: "off",
  revoked: "off",
  expired: "off",
};

/** A state as a word with a mark. */
export const state = (word) => element("span", { class: `state ${MARKS[word] ?? "idle"}` }, word);

const HOMES = { job: "jobs", mdl: "models", art: "artifacts", srch: "searches", whk: "webhooks" };

/** An identifier in short, as a link where it has a page. */
export function ident(id, text) {
  if (!id) return element("span", { class: "quiet" }, "–");
  const home = HOMES[id.split("_")[0]];
  const short = text ?? `…${id.slice(-8)}`;
  return home
    ? element("a", { href: `#/${home}/${id}`, title: id, class: text ? undefined : "id" }, short)
    : element("code", { title: id, class: "id" }, short);
}

/** An identifier or digest in full, to copy. */
export const copyable = (text, what) =>
  element(
    "span",
    { class: "copyline" },
    element("code", {}, text),
    copyButton(() => text, what),
  );

/** A digest: its beginning to see, all of it to copy. */
export const digest = (text) =>
  text
    ? element(
        "span",
        { class: "copyline" },
        element("code", { title: text }, `${text.slice(0, 19)}…`),
        copyButton(() => text, "digest"),
      )
    : "–";

/** A recipe in a few words. */
export function recipeName(recipe) {
  if (typeof recipe === "string") return recipe;
  if (recipe?.analysis) return "analysis";
  const name = recipe?.preset ?? (recipe?.stages ?? []).map((stage) => stage.technique).join(" + ");
  const limit = Object.entries(recipe?.budget ?? {}).find(
    ([field]) => field.startsWith("target_") || field.startsWith("max_k") || field.startsWith("max_p"),
  );
  return limit ? `${name}, ${limit[0].replaceAll("_", " ")} ${limit[1]}` : name || "recipe";
}

/** The command behind what is shown. */
export function command(method, path, body) {
  const text = () => curl(method, path, body);
  return element(
    "div",
    { class: "command" },
    element("code", { tabindex: 0, role: "region", "aria-label": "Command" }, text()),
    copyButton(text, "command"),
  );
}

/** Names and values side by side. */
export const facts = (rows) =>
  element(
    "dl",
    { class: "facts" },
    rows.filter(Boolean).map(([name, ...value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
  );

/** A table that scrolls by itself where it is too wide. `columns`: [name, cell, class]. */
export function table(label, columns, rows, { row } = {}) {
  return element(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    element(
      "table",
      {},
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          columns.map(([name, , kind]) => element("th", { scope: "col", class: kind }, name)),
        ),
      ),
      element(
        "tbody",
        {},
        rows.map((item, at) =>
          element(
            "tr",
            row?.(item) ?? {},
            columns.map(([, cell, kind]) => element("td", { class: kind }, cell(item, at))),
          ),
        ),
      ),
    ),
  );
}

/** A section under a heading, with its command below. */
export const section = (title, ...children) =>
  element("section", { class: "panel" }, title ? element("h2", {}, title) : null, ...children);

export const empty = (text, ...more) => element("div", { class: "empty" }, element("p", {}, text), ...more);

/** What went wrong, with the code and the request's id to look for in the log. */
export function trouble(problem, again) {
  return element(
    "div",
    { class: "trouble", role: "alert" },
    element("p", {}, problem.message),
    problem.errors?.length > 0
      ? element(
          "ul",
          {},
          problem.errors.map((one) => element("li", {}, element("code", {}, one.pointer || "/"), " ", one.detail)),
        )
      : null,
    element(
      "p",
      { class: "small quiet" },
      "Code ",
      element("code", {}, problem.code ?? problem.name),
      problem.requestId
        ? [", request ", element("code", {}, problem.requestId), " ", copyButton(() => problem.requestId, "request id")]
        : null,
    ),
    again ? element("button", { type: "button", onclick: again }, "Try again") : null,
  );
}

/** What an older server does not know. */
export const unsaid = (what) => element("p", { class: "quiet unsaid" }, `This server does not say: ${what}.`);

/** Tells a screen reader. */
export function say(text) {
  document.getElementById("said").textContent = text;
}

/** Draws a place again: what had the focus keeps it, and tables stay scrolled where they were. */
function redrawn(place, draw) {
  const old = document.activeElement;
  const sign = (node) => [node.tagName, node.getAttribute("href"), node.getAttribute("aria-label"), node.textContent].join("|");
  const twins = (node) => [...place.querySelectorAll(node.tagName)].filter((one) => sign(one) === sign(node));
  const at = place.contains(old) ? twins(old).indexOf(old) : -1;
  const scrolled = [...place.querySelectorAll(".scroll")]
    .filter((box) => box.scrollLeft > 0)
    .map((box) => [box.getAttribute("aria-label"), box.scrollLeft]);
  draw();
  if (at >= 0 && !old.isConnected) twins(old)[at]?.focus({ preventScroll: true });
  for (const [name, left] of scrolled) {
    const box = [...place.querySelectorAll(".scroll")].find((one) => one.getAttribute("aria-label") === name);
    if (box) box.scrollLeft = left;
  }
}

/**
 * Reads and draws, again every `every` seconds while the page is visible, if something changed. Before the first answer the
 * place says that it is loading; an error later leaves what is shown and says how old it is. Answers a function that does
 * it at once.
 */
export function live(view, place, { load, draw, every = 0, what = "this" }) {
  let seen = null;
  let drawn = null;
  let timer;
  const note = element("div", { hidden: true });
  const body = element("div", {});
  place.replaceChildren(note, body);
  const waiting = setTimeout(() => body.append(element("p", { class: "quiet", role: "status" }, `Loading ${what}…`)), 200);
  const again = () => turn(true);
  async function turn(anyway) {
    clearTimeout(timer);
    try {
      const data = await load(view.signal);
      if (view.signal.aborted) return;
      clearTimeout(waiting);
      seen = new Date();
      note.hidden = true;
      const text = json(data);
      if (anyway || text !== drawn) redrawn(body, () => draw(data, body));
      drawn = text;
    } catch (problem) {
      if (view.signal.aborted) return;
      clearTimeout(waiting);
      if (problem.status === 401) return view.askForKey(problem);
      if (!problem.code) console.error(problem);
      if (seen === null) body.replaceChildren(trouble(problem, again));
      else {
        note.hidden = false;
        note.replaceChildren(
          element(
            "div",
            { class: "stale", role: "status" },
            `As of ${seen.toLocaleTimeString("en-GB")}; it cannot be read again: ${problem.message} (`,
            element("code", {}, problem.code ?? problem.name),
            problem.requestId ? [", request ", element("code", {}, problem.requestId)] : null,
            ") ",
            element("button", { type: "button", onclick: again }, "Try again"),
          ),
        );
      }
    }
    if (every > 0 && !view.signal.aborted) timer = setTimeout(next, every * 1000);
  }
  const next = () => (document.hidden ? (timer = setTimeout(next, 1000)) : turn(false));
  view.signal.addEventListener("abort", () => {
    clearTimeout(timer);
    clearTimeout(waiting);
  });
  turn(true);
  return again;
}

/** A list page after page: `more` at its end while there are others. */
export const moreButton = (action) => element("p", {}, element("button", { type: "button", onclick: action }, "Show more"));

/** Asks before something that cannot be undone. */
export function confirm(title, text, word, { danger = true } = {}) {
  return new Promise((resolve) => {
    const dialog = element(
      "dialog",
      { "aria-labelledby": "confirm-title" },
      element("h2", { id: "confirm-title" }, title),
      element("p", {}, text),
      element(
        "div",
        { class: "actions" },
        element("button", { type: "button", onclick: () => dialog.close("no") }, "Keep"),
        element("button", { type: "button", class: danger ? "danger" : "primary", onclick: () => dialog.close("yes") }, word),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A button that does something at the server and shows where it cannot. */
export function action(name, work, { kind, place } = {}) {
  const button = element("button", { type: "button", class: kind }, name);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await work();
    } catch (problem) {
      if (problem.name !== "AbortError") (place?.() ?? button.parentElement).append(trouble(problem));
    } finally {
      button.disabled = false;
    }
  });
  return button;
}
