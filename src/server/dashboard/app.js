// The shell: which page is shown for which hash, the key, the theme. Pages are loaded when they are asked for.
import { element } from "./page.js";
import { forgetKey, keepKey, key, learnScopes, may } from "./client.js";
import { keepTimes, trouble } from "./show.js";

const ID = "([a-z]+_[0-9a-f]+)";
const ROUTES = [
  [/^\/$/, "overview", () => import("./home.js")],
  [/^\/new$/, "new", () => import("./wizard.js")],
  [/^\/jobs$/, "jobs", () => import("./jobs.js")],
  [RegExp(`^/jobs/${ID}$`), "jobs", () => import("./job.js")],
  [RegExp(`^/jobs/${ID}/report$`), "jobs", () => import("./report.js")],
  [/^\/searches$/, "searches", () => import("./searches.js")],
  [RegExp(`^/searches/${ID}$`), "searches", () => import("./search.js")],
  [/^\/compare$/, "compare", () => import("./compare.js")],
  [/^\/models$/, "models", () => import("./models.js")],
  [RegExp(`^/models/${ID}$`), "models", () => import("./model.js")],
  [/^\/artifacts$/, "artifacts", () => import("./artifacts.js")],
  [RegExp(`^/artifacts/${ID}$`), "artifacts", () => import("./artifact.js")],
  [/^\/webhooks$/, "webhooks", () => import("./webhooks.js")],
  [RegExp(`^/webhooks/${ID}$`), "webhooks", () => import("./webhook.js")],
  [/^\/keys$/, "keys", () => import("./keys.js")],
  [/^\/system$/, "system", () => import("./system.js")],
];

const main = document.getElementById("main");
let leave = new AbortController();
let shown = null;

/** What a page gets: its place, its address, and a signal that it was left. */
function viewOf(path, args, words) {
  leave.abort();
  leave = new AbortController();
  const root = element("div", { class: "page" });
  return {
    root,
    args,
    params: words,
    signal: leave.signal,
    title(text) {
      document.title = `${text} · modelpress`;
    },
    /** Changes the query of the address without another visit. */
    setQuery(values) {
      for (const [name, value] of Object.entries(values)) value ? words.set(name, value) : words.delete(name);
      const hash = words.size ? `#${path}?${words}` : `#${path}`;
      history.replaceState(null, "", hash);
      shown = hash;
    },
    go(hash) {
      location.hash = hash;
    },
    askForKey,
  };
}

async function route({ focus = true } = {}) {
  const hash = location.hash || "#/";
  if (!hash.startsWith("#/") || hash === shown) return;
  shown = hash;
  const [path, words] = hash.slice(1).split("?");
  const found = ROUTES.map(([pattern, page, load]) => ({ match: pattern.exec(path), page, load })).find((one) => one.match);
  closeMenu();
  for (const link of document.querySelectorAll("#nav a[data-page]")) {
    if (link.dataset.page === found?.page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const view = viewOf(path, found?.match.slice(1) ?? [], new URLSearchParams(words));
  const waiting = setTimeout(
    () => main.replaceChildren(element("p", { class: "quiet", role: "status" }, "Loading the page…")),
    200,
  );
  try {
    if (!found) throw new Error(`There is no page ${path}.`);
    const page = await found.load();
    if (view.signal.aborted) return;
    page.default(view);
    main.replaceChildren(view.root);
  } catch (problem) {
    if (view.signal.aborted) return;
    if (found) console.error(problem);
    main.replaceChildren(
      element("h1", {}, "modelpress"),
      trouble(problem, () => {
        shown = null;
        route();
      }),
    );
  } finally {
    clearTimeout(waiting);
  }
  scrollTo(0, 0);
  if (focus) main.focus({ preventScroll: true });
}

/** Asks for a key in place of the page. */
function askForKey(problem) {
  leave.abort();
  document.title = "Key · modelpress";
  const input = element("input", {
    type: "password",
    id: "key",
    autocomplete: "off",
    required: true,
    "aria-describedby": "key-why",
  });
  const form = element(
    "form",
    {
      class: "panel narrow",
      onsubmit: async (event) => {
        event.preventDefault();
        keepKey(input.value.trim());
        await begin();
      },
    },
    element("h1", {}, "A key, please"),
    element("p", { id: "key-why" }, `This server asks for a key: ${problem.message}.`),
    element("label", { for: "key" }, "Key"),
    input,
    element(
      "p",
      { class: "small quiet" },
      "It stays in this tab and ends with it. One is made with ",
      element("code", {}, "modelpress keys create"),
      ".",
    ),
    element("div", { class: "actions" }, element("button", { type: "submit", class: "primary" }, "Use it in this tab")),
  );
  main.replaceChildren(form);
  input.focus();
}

function offer() {
  document.getElementById("forget").hidden = key() === null;
  document.getElementById("new-job").hidden = !may("jobs:write");
  for (const link of document.querySelectorAll("#nav a[data-scope]")) link.parentElement.hidden = !may(link.dataset.scope);
}

async function begin() {
  try {
    await learnScopes();
  } catch (problem) {
    if (problem.status === 401) {
      forgetKey();
      offer();
      return askForKey(problem);
    }
    main.replaceChildren(element("h1", {}, "modelpress"), trouble(problem, begin));
    return;
  }
  offer();
  shown = null;
  await route({ focus: false });
}

const menu = document.getElementById("menu");
function closeMenu() {
  menu.setAttribute("aria-expanded", "false");
}
menu.addEventListener("click", () => menu.setAttribute("aria-expanded", String(menu.getAttribute("aria-expanded") !== "true")));

const THEMES = ["auto", "light", "dark"];
const themeButton = document.getElementById("theme");
function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  themeButton.textContent = `Theme: ${name}`;
  localStorage.setItem("modelpress-theme", name);
}
themeButton.addEventListener("click", () =>
  setTheme(THEMES[(THEMES.indexOf(localStorage.getItem("modelpress-theme")) + 1) % THEMES.length]),
);
setTheme(THEMES.includes(localStorage.getItem("modelpress-theme")) ? localStorage.getItem("modelpress-theme") : "auto");

document.getElementById("forget").addEventListener("click", () => {
  forgetKey();
  location.reload();
});
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.addEventListener("keydown", (event) => {
  if (
    event.defaultPrevented ||
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    event.target.closest("input, select, textarea, dialog")
  )
    return;
  const field = document.querySelector("[data-filter]");
  if (event.key === "/" && field) {
    event.preventDefault();
    field.focus();
  }
});
addEventListener("hashchange", () => route());
keepTimes();
begin();
