// Resumable uploads: several files at once, piece by piece, paused and gone on with, also after the page was closed.
import { ask, call, get, headers, post, Problem } from "./client.js";

const KEPT = "modelpress-uploads";
/** A pause costs at most this much again; a piece is read from disk as it is sent. */
const PIECE = 16 * 1024 * 1024;
const AT_ONCE = 3;
const TRIES = 6;

// What was begun, by name, size and time of change: the same file that is dropped again goes on where it was.
const kept = () => JSON.parse(localStorage.getItem(KEPT) ?? "[]");
const keep = (entries) => localStorage.setItem(KEPT, JSON.stringify(entries));
const same = (a, b) => a.name === b.name && a.bytes === b.bytes && a.modified === b.modified;

/** Files of a folder that is chosen come under their path in it. */
const nameOf = (file) => file.webkitRelativePath?.split("/").slice(1).join("/") || file.name;

/** A set of files on their way; it goes on while other pages are looked at. `changed` is called whenever a file is. */
class Uploads {
  items = [];
  changed = () => {};

  /** What was begun before and is still there. */
  async recall() {
    for (const entry of kept()) {
      if (this.items.some((item) => same(item, entry))) continue;
      try {
        const upload = await get(`v1/uploads/${entry.id}`);
        this.items.push({
          ...entry,
          file: null,
          offset: upload.offset,
          state: upload.status === "complete" ? "complete" : "missing",
          problem: null,
        });
      } catch (problem) {
        if (problem.status === 404 || problem.status === 410) keep(kept().filter((other) => other.id !== entry.id));
      }
    }
    this.changed();
  }

  add(files) {
    for (const file of files) {
      const name = nameOf(file);
      if (name.split("/").some((part) => part.startsWith("."))) continue;
      const entry = { name, bytes: file.size, modified: file.lastModified };
      const known = this.items.find((item) => same(item, entry));
      if (known) {
        known.file = file;
        if (known.state === "missing") known.state = "waiting";
        continue;
      }
      // The same name again is another version of the file.
      for (const old of this.items.filter((item) => item.name === name)) this.drop(old);
      this.items.push({ ...entry, id: null, file, offset: 0, state: "waiting", problem: null });
    }
    this.changed();
    this.turn();
  }

  pause(item) {
    item.state = "paused";
    item.request?.abort();
    this.changed();
    this.turn();
  }

  resume(item) {
    item.state = "waiting";
    item.problem = null;
    this.changed();
    this.turn();
  }

  /** Takes a file out, and its bytes from the server. */
  async drop(item) {
    const id = item.id;
    item.state = "dropped";
    item.request?.abort();
    this.items = this.items.filter((other) => other !== item);
    this.forget(item);
    this.changed();
    this.turn();
    if (id) await call("DELETE", `v1/uploads/${id}`).catch(() => null);
  }

  /** A model has taken them. */
  taken() {
    this.items.forEach((item) => this.forget(item));
    this.items = [];
    this.changed();
  }

  forget(item) {
    keep(kept().filter((entry) => !same(entry, item)));
  }

  get complete() {
    return this.items.length > 0 && this.items.every((item) => item.state === "complete");
  }

  get bytes() {
    return this.items.reduce((sum, item) => sum + item.bytes, 0);
  }

  turn() {
    const busy = this.items.filter((item) => item.state === "sending").length;
    const next = this.items.filter((item) => item.state === "waiting" && item.file).slice(0, Math.max(0, AT_ONCE - busy));
    for (const item of next) this.send(item);
  }

  async send(item) {
    item.state = "sending";
    this.changed();
    for (let tries = 0; item.state === "sending"; tries += 1) {
      try {
        await this.pieces(item, () => {
          tries = 0;
        });
        item.state = "complete";
      } catch (problem) {
        if (item.state !== "sending") break;
        const passes =
          problem.status === 0 ||
          problem.status === 429 ||
          problem.status >= 500 ||
          problem.code === "offset_mismatch" ||
          problem.code === "body_truncated";
        if (!passes || tries >= TRIES) {
          item.state = "failed";
          item.problem = problem;
        } else {
          item.problem = problem;
          this.changed();
          await new Promise((resolve) => setTimeout(resolve, Math.min(500 * 2 ** tries, 15000)));
        }
      }
    }
    this.changed();
    this.turn();
  }

  /** From where the server stands to the end. */
  async pieces(item, progressed) {
    if (item.id === null) {
      const upload = await post("v1/uploads", { length: item.bytes });
      item.id = upload.id;
      keep([...kept(), { id: item.id, name: item.name, bytes: item.bytes, modified: item.modified }]);
      item.offset = upload.offset;
      if (upload.status === "complete") return;
    } else {
      const stand = await ask("HEAD", `v1/uploads/${item.id}`).catch((problem) => {
        if (problem.status === 404 || problem.status === 410) return null;
        throw problem;
      });
      if (stand === null) {
        // It has expired: the file begins anew.
        this.forget(item);
        item.id = null;
        return this.pieces(item, progressed);
      }
      item.offset = Number(stand.headers.get("upload-offset"));
      if (stand.headers.get("upload-complete") === "?1") return;
    }
    item.problem = null;
    while (item.offset < item.bytes && item.state === "sending") {
      item.offset = await this.piece(item);
      progressed();
      this.changed();
    }
    if (item.state !== "sending") throw new Problem(0, { code: "paused", detail: "paused" });
  }

  /** One piece by XMLHttpRequest: fetch does not tell how much is sent. */
  piece(item) {
    const from = item.offset;
    const request = new XMLHttpRequest();
    item.request = request;
    request.open("PATCH", `v1/uploads/${item.id}`);
    for (const [name, value] of Object.entries(
      headers({ "Content-Type": "application/offset+octet-stream", "Upload-Offset": String(from) }),
    ))
      request.setRequestHeader(name, value);
    return new Promise((resolve, reject) => {
      request.upload.onprogress = (event) => {
        item.offset = from + event.loaded;
        this.changed();
      };
      request.onload = () =>
        request.status === 204 ? resolve(Number(request.getResponseHeader("upload-offset"))) : reject(problemOf(request));
      request.onerror = () => reject(new Problem(0, { code: "unreachable", detail: "The connection broke." }));
      request.onabort = () => reject(new Problem(0, { code: "paused", detail: "paused" }));
      request.send(item.file.slice(from, Math.min(from + PIECE, item.bytes)));
    });
  }
}

function problemOf(request) {
  try {
    return new Problem(request.status, JSON.parse(request.responseText));
  } catch {
    return new Problem(request.status, { code: `http_${request.status}`, detail: request.statusText });
  }
}

/** This tab's uploads. */
export const uploads = new Uploads();
