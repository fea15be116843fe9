// Files on their way: where they are dropped, how far each is, and the model that they become.
import { element } from "./page.js";
import { post } from "./client.js";
import { field } from "./form.js";
import { action, bytes, bytesText } from "./show.js";
import { uploads } from "./upload.js";

/** The place for files, with a row for each; `made` gets the model. */
export function uploadBox(view, made) {
  const list = element("ul", { class: "files" });
  const told = element("div", {});
  const name = element("input", { type: "text", placeholder: "a name of your own", autocomplete: "off" });
  const makeSlot = element("div", { class: "stack", hidden: true });
  uploads.changed = changed;
  view.signal.addEventListener("abort", () => {
    uploads.changed = () => {};
  });
  const files = element("input", {
    type: "file",
    multiple: true,
    class: "unseen",
    tabindex: -1,
    "aria-label": "Files",
    onchange: () => {
      uploads.add(files.files);
      files.value = "";
    },
  });
  const folder = element("input", {
    type: "file",
    webkitdirectory: true,
    class: "unseen",
    tabindex: -1,
    "aria-label": "Folder",
    onchange: () => {
      uploads.add(folder.files);
      folder.value = "";
    },
  });
  const drop = element(
    "div",
    { class: "drop" },
    element("p", {}, element("strong", {}, "Drop the model's files here")),
    element(
      "p",
      { class: "quiet small" },
      "A Hugging Face folder (config.json, safetensors, tokenizer.json) or one GGUF file. An upload that breaks off goes on when you drop the same files again.",
    ),
    element(
      "div",
      { class: "actions" },
      element("button", { type: "button", onclick: () => files.click() }, "Choose files"),
      element("button", { type: "button", onclick: () => folder.click() }, "Choose a folder"),
    ),
    files,
    folder,
  );
  for (const kind of ["dragenter", "dragover"])
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", async (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    uploads.add(await droppedFiles(event.dataTransfer));
  });
  const make = action(
    "Make the model",
    async () => {
      const body = {
        files: uploads.items.map((item) => ({ name: item.name, upload: item.id })),
        ...(name.value.trim() ? { name: name.value.trim() } : {}),
      };
      const model = await post("v1/models", body);
      uploads.taken();
      made(model);
    },
    {
      kind: "primary",
      place: () => {
        told.replaceChildren();
        return told;
      },
    },
  );
  makeSlot.append(field("Name", name, { pointer: "/name" }), element("div", { class: "actions" }, make));
  const rows = new Map();

  function changed() {
    for (const [item, row] of rows)
      if (!uploads.items.includes(item)) {
        row.node.remove();
        rows.delete(item);
      }
    for (const item of uploads.items) {
      if (!rows.has(item)) {
        rows.set(item, fileRow(uploads, item));
        list.append(rows.get(item).node);
      }
      rows.get(item).draw();
    }
    makeSlot.hidden = uploads.items.length === 0;
    make.disabled = !uploads.complete;
  }
  changed();
  uploads.recall();
  return element("div", { class: "stack" }, drop, list, makeSlot, told);
}

const SAYS = {
  waiting: "waits",
  sending: "uploading",
  paused: "paused",
  complete: "complete",
  failed: "broke off",
  missing: "begun earlier: drop the file again to go on",
};

function fileRow(uploads, item) {
  const bar = element("progress", { max: Math.max(1, item.bytes), "aria-label": `Upload of ${item.name}` });
  const line = element("div", { class: "line small quiet" });
  const actions = element("div", { class: "actions" });
  let drawn = "";
  return {
    node: element("li", { "data-file": item.name }, element("span", { class: "name" }, item.name), actions, bar, line),
    draw() {
      bar.value = item.state === "complete" ? Math.max(1, item.bytes) : item.offset;
      bar.parentElement.dataset.state = item.state;
      line.replaceChildren(
        `${SAYS[item.state] ?? item.state}, `,
        item.state === "complete"
          ? bytes(item.bytes)
          : [
              `${bytesText(item.offset)} of ${bytesText(item.bytes)}, ${Math.floor((item.offset / Math.max(1, item.bytes)) * 100)} %`,
            ],
        item.problem
          ? ` (${item.problem.message}, code ${item.problem.code}${item.problem.requestId ? `, request ${item.problem.requestId}` : ""})`
          : "",
      );
      if (drawn === item.state) return;
      drawn = item.state;
      const button = (text, work) =>
        element("button", { type: "button", "aria-label": `${text} ${item.name}`, onclick: work }, text);
      actions.replaceChildren(
        ...[
          (item.state === "sending" || item.state === "waiting") && button("Pause", () => uploads.pause(item)),
          (item.state === "paused" || item.state === "failed") && button("Resume", () => uploads.resume(item)),
          button("Remove", () => uploads.drop(item)),
        ].filter(Boolean),
      );
    },
  };
}

/** Files of a drop, those of dropped folders too, under their path in the folder. */
async function droppedFiles(data) {
  const entries = [...data.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...data.files];
  const found = [];
  async function walk(entry, path) {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      Object.defineProperty(file, "webkitRelativePath", { value: `${path}${entry.name}` });
      found.push(file);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (batch.length === 0) return;
      for (const child of batch) await walk(child, `${path}${entry.name}/`);
    }
  }
  for (const entry of entries) await walk(entry, entry.isDirectory ? "" : "dropped/");
  return found;
}
