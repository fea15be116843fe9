// What every page uses: building elements without innerHTML, copy buttons, texts of problems and descriptions.

/** An element with attributes, listeners (`onclick`) and children; strings become text, never markup. */
export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return node;
}

/** A button that copies what `text()` gives; `what` tells a screen reader which one it is. */
export function copyButton(text, what) {
  const button = element("button", { type: "button", class: "copy", "aria-label": what ? `Copy ${what}` : undefined }, "Copy");
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
