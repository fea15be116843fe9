// What both pages use: building elements without innerHTML, copy buttons, reading problems.

/** An element with attributes and children; strings become text, never markup. */
export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null));
  return node;
}

/** A button that copies what `text()` gives. */
export function copyButton(text) {
  const button = element("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select and copy";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  return button;
}

// The key lives as long as the tab does, and in no URL.
const KEY = "modelpress-key";

/** Whether this tab has a key. */
export function hasKey() {
  return sessionStorage.getItem(KEY) !== null;
}

/** What the API answers, asked with this tab's key, if it has one. */
export function api(path, headers = {}) {
  const key = sessionStorage.getItem(KEY);
  return fetch(path, { headers: key === null ? headers : { ...headers, Authorization: `Bearer ${key}` } });
}

/** A form that asks for a key and calls `done` when one was given. */
export function keyForm(problem, done) {
  const input = element("input", { type: "password", id: "key", autocomplete: "off", required: true, size: 40 });
  const form = element("form", { class: "notice" },
    element("p", {}, `This server asks for a key: ${problem}. `, "One is made with ",
      element("code", {}, "modelpress keys create"), "."),
    element("label", { for: "key" }, "Key "), input, " ",
    element("button", { type: "submit" }, "Use it in this tab"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, input.value.trim());
    done();
  });
  return form;
}

/** A problem document in one line. */
export function problemText(problem) {
  return `${problem.detail ?? problem.title ?? "unknown error"} (${problem.code ?? "?"}, request ${problem.request_id ?? "?"})`;
}

/** Text with `code` spans. */
export function inline(text) {
  return (text ?? "").split(/(`[^`]+`)/).map((part) =>
    part.startsWith("`") && part.endsWith("`") ? element("code", {}, part.slice(1, -1)) : part);
}

/** Paragraphs of text with `code` spans. */
export function prose(text) {
  return (text ?? "").split(/\n\s*\n/).filter(Boolean).map((paragraph) => element("p", {}, inline(paragraph)));
}
