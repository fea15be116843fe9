// The one way to the API: this tab's key and what it may do, problems as errors, pages of lists, event streams.

const KEY = "modelpress-key";
const SCOPES = "modelpress-scopes";

/** Where the server is, without a slash at the end: it may be under a path. */
export const base = new URL(".", document.baseURI).href.replace(/\/$/, "");

/** What the API refused, or that it could not be reached. */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail ?? document.title ?? "unknown error");
    this.status = status;
    this.code = document.code ?? "unknown";
    this.requestId = document.request_id ?? null;
    this.errors = document.errors ?? [];
    this.offset = document.expected_offset ?? null;
  }
}

// The key lives as long as the tab does, and in no URL.
export const key = () => sessionStorage.getItem(KEY);

export function keepKey(text) {
  forgetKey();
  sessionStorage.setItem(KEY, text);
}

export function forgetKey() {
  sessionStorage.removeItem(KEY);
  sessionStorage.removeItem(SCOPES);
}

/** Headers of a request, with the key if there is one. */
export function headers(more = {}) {
  return key() === null ? more : { ...more, Authorization: `Bearer ${key()}` };
}

// Integers that a double would round (a seed has 64 bits) stay exact on their way through this page.
const exact = (_name, value, context) =>
  Number.isInteger(value) && !Number.isSafeInteger(value) && context?.source ? BigInt(context.source) : value;
const raw = (_name, value) => (typeof value === "bigint" ? (JSON.rawJSON?.(String(value)) ?? Number(value)) : value);

/** JSON text in which large integers stay what they are. */
export const json = (value, indent) => JSON.stringify(value, raw, indent);
export const parse = (text) => JSON.parse(text, exact);

async function answered(method, path, options) {
  try {
    return await fetch(path, { ...options, method, headers: headers(options.headers), cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { code: "unreachable", detail: `The server cannot be reached: ${error.message}` });
  }
}

/** Throws the problem that an answer is. */
export async function refused(response) {
  const text = await response.text();
  try {
    return new Problem(response.status, JSON.parse(text));
  } catch {
    return new Problem(response.status, {
      code: `http_${response.status}`,
      detail: text.slice(0, 200) || response.statusText,
      request_id: response.headers.get("x-request-id"),
    });
  }
}

/** The answer to a request, whose body is not read yet. */
export async function ask(method, path, { body, headers: more = {}, signal, type } = {}) {
  const isRaw = typeof body === "string" || body instanceof Blob || body instanceof FormData;
  // A form's type names its boundary, which the browser knows.
  const sent = body === undefined || body instanceof FormData ? {} : { "Content-Type": type ?? "application/json" };
  const response = await answered(method, path, {
    headers: { Accept: "application/json", ...sent, ...more },
    signal,
    body: body === undefined || isRaw ? body : json(body),
  });
  if (!response.ok) throw await refused(response);
  return response;
}

/** The JSON that a request is answered with; null where there is none. */
export async function call(method, path, options) {
  const text = await (await ask(method, path, options)).text();
  return text === "" ? null : parse(text);
}

export const get = (path, options) => call("GET", path, options);
export const post = (path, body, options) => call("POST", path, { ...options, body });

/** A path with a query; what is undefined or empty is left out. */
export function query(path, values) {
  const words = new URLSearchParams(
    Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== ""),
  );
  return words.size === 0 ? path : `${path}?${words}`;
}

/** So many first pages of a list, and whether there are more. */
export async function firstPages(path, values, pages, signal) {
  const found = [];
  let after;
  for (let page = 0; page < pages; page += 1) {
    const answer = await get(query(path, { ...values, after }), { signal });
    found.push(...answer.data);
    after = answer.has_more ? answer.next_cursor : undefined;
    if (!after) break;
  }
  return { found, more: Boolean(after) };
}

/** Items of a list, page after page, up to `most`. */
export async function all(path, values, most, signal) {
  const items = [];
  let after;
  do {
    const page = await get(query(path, { ...values, limit: Math.min(100, most - items.length), after }), { signal });
    items.push(...page.data);
    after = page.has_more ? page.next_cursor : undefined;
  } while (after && items.length < most);
  return items;
}

let held = null;

/** Whether the key allows this; without a key the server decides, and everything is offered. */
export const may = (scope) => held === null || held.includes("admin") || held.includes(scope);

/** Learns what this tab's key may do, once a key. */
export async function learnScopes() {
  if (key() === null) return;
  const known = sessionStorage.getItem(SCOPES);
  if (known !== null) {
    held = JSON.parse(known);
    return;
  }
  held = (await get("v1/keys/self")).scopes;
  sessionStorage.setItem(SCOPES, JSON.stringify(held));
}

/** The command that asks the same; the key is named, never shown. */
export function curl(method, path, body) {
  const parts = ["curl -sSf"];
  if (method !== "GET" && !(method === "POST" && body !== undefined)) parts.push(`-X ${method}`);
  parts.push(`'${base}/${path}'`);
  if (key() !== null) parts.push('-H "Authorization: Bearer $MODELPRESS_KEY"');
  if (body !== undefined) parts.push("-H 'Content-Type: application/json'", `-d '${json(body).replaceAll("'", "'\\''")}'`);
  return parts.join(" ");
}

const pause = (ms, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });

/**
 * Follows server-sent events over fetch, since EventSource cannot show a key. Goes on after a break with
 * `Last-Event-ID`; ends with 204, with `signal`, or when `take` answers true.
 */
export async function follow(path, { after = 0, signal, take, told }) {
  let last = after;
  let wait = 1000;
  while (!signal.aborted) {
    try {
      const response = await ask("GET", path, {
        signal,
        headers: { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": String(last) } : {}) },
      });
      if (response.status === 204) return;
      told("live");
      for await (const event of events(response.body)) {
        wait = 1000;
        if (event.id !== null) last = event.id;
        if (take(event)) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status >= 400 && error.status < 500 && error.status !== 429) throw error;
    }
    if (signal.aborted) return;
    told("waiting");
    await pause(wait, signal);
    wait = Math.min(wait * 2, 15000);
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const event = { id: null, type: "message", data: "" };
      for (const line of block.split(/\r?\n/)) {
        const [, name, text] = /^([^:]*):? ?(.*)$/.exec(line);
        if (name === "data") event.data += text;
        else if (name === "event") event.type = text;
        else if (name === "id") event.id = text;
      }
      if (event.data) yield { ...event, data: parse(event.data) };
    }
  }
}
