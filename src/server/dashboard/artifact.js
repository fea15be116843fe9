// An artifact: its files with their digests, downloads that do not need the memory of this page, where it came from.
import { element } from "./page.js";
import { ask, get, key } from "./client.js";
import {
  action,
  bytes,
  bytesText,
  command,
  copyable,
  digest,
  facts,
  ident,
  live,
  say,
  section,
  table,
  trouble,
  when,
} from "./show.js";
import { lineageOf } from "./lineage.js";

/** What a page may keep in memory on its way to disk. */
const MOST_IN_MEMORY = 256 * 1024 * 1024;

const pathOf = (name) => name.split("/").map(encodeURIComponent).join("/");

/**
 * A download. Without a key it is a link, and the browser does the rest. A link cannot show a key: then the bytes are
 * streamed into a file that is chosen, or, where the browser cannot do that and the file is small, kept on the way.
 */
export function download(path, name, size, text = "Download") {
  if (key() === null) return element("a", { class: "button", href: path, download: name, "aria-label": `${text} ${name}` }, text);
  if (size > MOST_IN_MEMORY && !window.showSaveFilePicker) {
    return element("span", { class: "quiet small" }, `${bytesText(size)} with a key: use the command`);
  }
  const button = action(text, async () => {
    try {
      if (size > MOST_IN_MEMORY) {
        const file = await window.showSaveFilePicker({ suggestedName: name });
        const response = await ask("GET", path, { headers: { Accept: "*/*" } });
        await counted(response.body, size, button).pipeTo(await file.createWritable());
      } else {
        const response = await ask("GET", path, { headers: { Accept: "*/*" } });
        const url = URL.createObjectURL(await new Response(counted(response.body, size, button)).blob());
        element("a", { href: url, download: name }).click();
        setTimeout(() => URL.revokeObjectURL(url), 10000);
      }
      say(`${name} is there`);
    } finally {
      button.textContent = text;
    }
  });
  button.setAttribute("aria-label", `${text} ${name}`);
  return button;
}

function counted(body, size, button) {
  let seen = 0;
  return body.pipeThrough(
    new TransformStream({
      transform(chunk, out) {
        seen += chunk.byteLength;
        if (size) button.textContent = `${Math.floor((seen / size) * 100)} %`;
        out.enqueue(chunk);
      },
    }),
  );
}

/** Files of an artifact, with a way to each. */
export function artifactFiles(artifact, { heading = true } = {}) {
  const path = `v1/artifacts/${artifact.id}`;
  return element(
    "div",
    { class: "stack" },
    heading &&
      element(
        "div",
        { class: "head" },
        element("h3", {}, ident(artifact.id, artifact.format)),
        element("span", { class: "quiet" }, bytes(artifact.bytes)),
        element("div", { class: "actions" }, download(`${path}/archive`, `${artifact.id}.tar`, artifact.bytes, "Download all")),
      ),
    table(
      `Files of ${artifact.format}`,
      [
        ["File", (file) => file.name, "wide"],
        ["Size", (file) => bytes(file.bytes), "right"],
        ["SHA-256", (file) => digest(file.digest)],
        ["", (file) => download(`${path}/files/${pathOf(file.name)}`, file.name.split("/").pop(), file.bytes), "right"],
      ],
      artifact.files,
    ),
    command("GET", `${path}/archive`),
  );
}

/** Who signed it, where its files have a signature. */
function signature(view, artifact) {
  const place = element("div", {});
  if (!artifact.files.some((file) => file.name.endsWith(".sig"))) return place;
  get("v1/signing-key", { signal: view.signal }).then(
    (found) =>
      place.append(
        section(
          "Signature",
          facts([
            ["Fingerprint", copyable(found.fingerprint, "fingerprint")],
            ["Algorithm", found.algorithm],
            ["For", found.namespace],
          ]),
          element("p", {}, copyable(found.public_key, "public key")),
          element(
            "p",
            { class: "small quiet" },
            "Check what you unpacked: ",
            copyable(`modelpress verify ${artifact.id} --key '${found.public_key}'`, "check"),
          ),
          command("GET", "v1/signing-key"),
        ),
      ),
    (problem) => {
      if (problem.status !== 404 && problem.name !== "AbortError") place.append(trouble(problem));
    },
  );
  return place;
}

export default function page(view) {
  const [id] = view.args;
  view.title(`Artifact ${id.slice(-8)}`);
  const place = element("div", {});
  view.root.append(place);
  live(view, place, {
    what: "the artifact",
    load: (signal) => get(`v1/artifacts/${id}`, { signal }),
    draw: (artifact, where) => {
      where.className = "stack";
      const line = element("div", {});
      where.replaceChildren(
        element(
          "div",
          { class: "head" },
          element("h1", {}, artifact.format),
          element(
            "div",
            { class: "actions" },
            download(`v1/artifacts/${id}/archive`, `${id}.tar`, artifact.bytes, "Download all"),
            element("a", { class: "button", href: `#/jobs/${artifact.job}/report` }, "Report"),
          ),
          element("p", { class: "sub" }, copyable(id, "artifact id")),
        ),
        section(
          "Facts",
          facts([
            ["Size", bytes(artifact.bytes)],
            ["Files", String(artifact.files.length)],
            ["Published", when(artifact.created_at, { full: true })],
            ["Job", ident(artifact.job)],
            ["Model", ident(artifact.model)],
            ["Digest", digest(artifact.digest)],
          ]),
          command("GET", `v1/artifacts/${id}`),
        ),
        section("Files", artifactFiles(artifact, { heading: false })),
        signature(view, artifact),
        section("Where it came from", line),
      );
      lineageOf(view, artifact.model, line, artifact.id);
    },
  });
}
