// The API reference, drawn from /openapi.json: operations by tag, schemas, examples, curl, problem codes.
import { copyButton, element, inline, problemText, prose } from "./page.js";

const VERBS = ["get", "head", "post", "put", "patch", "delete"];
const base = new URL(".", document.baseURI).href.replace(/\/$/, "");
let api;

// The dashboard's choice of light or dark holds here too.
const theme = localStorage.getItem("modelpress-theme");
if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;

const resolve = (schema) => {
  const name = schema?.$ref?.split("/").pop();
  return name ? { ...api.components.schemas[name], refName: name } : schema ?? {};
};

/** A short name of a schema's type. */
function typeName(schema) {
  const name = schema?.$ref?.split("/").pop();
  if (name) return name;
  if (schema?.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const many = schema?.oneOf ?? schema?.anyOf;
  if (many) return many.map(typeName).join(" | ");
  const type = [schema?.type].flat().filter(Boolean).join(" | ");
  if (schema?.type === "array") return `${typeName(schema.items)}[]`;
  return schema?.format && type === "string" ? `${type} (${schema.format})` : type || "any";
}

/** A value that fits a schema: its example where there is one. */
function sample(given, depth = 0) {
  const schema = resolve(given);
  if (schema.example !== undefined) return schema.example;
  if (schema.examples?.[0] !== undefined) return schema.examples[0];
  if (schema.default !== undefined) return schema.default;
  if (schema.enum) return schema.enum[0];
  if (depth > 5) return null;
  const many = schema.oneOf ?? schema.anyOf;
  if (many) return sample(many.find((one) => one.type !== "null") ?? many[0], depth + 1);
  if (schema.allOf) return Object.assign({}, ...schema.allOf.map((one) => sample(one, depth + 1)));
  const type = [schema.type].flat().find((one) => one !== "null");
  if (type === "array") return schema.items ? [sample(schema.items, depth + 1)] : [];
  if (type === "object" || schema.properties) {
    return Object.fromEntries(Object.entries(schema.properties ?? {}).map(([key, value]) => [key, sample(value, depth + 1)]));
  }
  return { string: "…", integer: 0, number: 0, boolean: false }[type] ?? null;
}

/** Fields of an object schema, nested ones folded. */
function fields(given, depth = 0) {
  const schema = resolve(given);
  const properties = Object.entries(schema.properties ?? (schema.type === "array" ? resolve(schema.items).properties : null) ?? {});
  if (properties.length === 0) return null;
  const required = new Set(schema.required ?? []);
  return element("ul", {}, properties.map(([name, property]) => {
    const inner = depth < 4 ? fields(property.type === "array" ? property.items : property, depth + 1) : null;
    const head = [
      element("code", {}, name), " ",
      element("span", { class: "quiet small" }, typeName(property), required.has(name) ? "" : ", optional"),
      ...prose(property.description ?? resolve(property).description).map((p) => (p.className = "small", p)),
    ];
    return element("li", {}, inner ? [head, element("details", {}, element("summary", { class: "small" }, "fields"), inner)] : head);
  }));
}

function code(text) {
  return element("div", { class: "copyable" }, element("pre", { tabindex: 0 }, element("code", {}, text)), copyButton(() => text));
}

/** A command that does the operation with example values. */
function curl(verb, path, operation) {
  const filled = path.replace(/\{(\w+)\}/g, (whole, name) => {
    const parameter = (operation.parameters ?? []).find((one) => one.in === "path" && one.name === name);
    return parameter?.example ?? parameter?.schema?.example ?? whole;
  });
  const parts = ["curl"];
  if (verb === "head") parts.push("-I");
  else if (!["get", "post"].includes(verb) || (verb === "post" && !operation.requestBody)) parts.push(`-X ${verb.toUpperCase()}`);
  const address = parts.push(`'${base}${filled}'`) - 1;
  for (const parameter of operation.parameters ?? []) {
    if (parameter.in === "header" && parameter.required) parts.push(`-H '${parameter.name}: ${parameter.example ?? parameter.schema?.example ?? "…"}'`);
  }
  const content = Object.entries(operation.requestBody?.content ?? {})[0];
  if (content?.[0] === "application/json") {
    const body = content[1].example ?? sample(content[1].schema);
    parts.push("-H 'Content-Type: application/json'", `-d '${JSON.stringify(body)}'`);
  } else if (content?.[0] === "multipart/form-data") {
    parts.push("-F file=@config.json", "-F file=@model.safetensors");
  } else if (content) {
    parts.push(`-H 'Content-Type: ${content[0]}'`, "--data-binary @FILE");
  }
  return [parts.slice(0, address + 1).join(" "), ...parts.slice(address + 1)].join(" \\\n  ");
}

function parameters(operation) {
  if (!operation.parameters?.length) return null;
  return [element("h3", {}, "Parameters"), element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Parameters of ${operation.operationId}` }, element("table", {},
    element("thead", {}, element("tr", {}, ["Name", "In", "Type", "Meaning"].map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, operation.parameters.map((one) => element("tr", {},
      element("td", {}, element("code", {}, one.name), one.required ? " *" : ""),
      element("td", {}, one.in),
      element("td", {}, typeName(one.schema)),
      element("td", {}, prose(one.description)))))))];
}

function body(operation) {
  const entries = Object.entries(operation.requestBody?.content ?? {});
  if (entries.length === 0) return null;
  return [element("h3", {}, "Request body"), prose(operation.requestBody.description), entries.map(([type, media]) => {
    const examples = Object.values(media.examples ?? {}).map((one) => one.value);
    const example = media.example ?? examples[0] ?? (type.endsWith("json") ? sample(media.schema) : undefined);
    const inner = fields(media.schema);
    return element("div", { class: "schema" }, element("p", {}, element("code", {}, type)), inner,
      example === undefined ? null : code(JSON.stringify(example, null, 2)));
  })];
}

function responses(operation) {
  return [element("h3", {}, "Responses"), Object.entries(operation.responses ?? {}).map(([status, response]) => {
    const [type, media] = Object.entries(response.content ?? {})[0] ?? [];
    const example = media && type.endsWith("json") ? media.example ?? Object.values(media.examples ?? {})[0]?.value ?? sample(media.schema) : undefined;
    const inner = media ? fields(media.schema) : null;
    const headers = Object.keys(response.headers ?? {});
    return element("details", { class: "schema" },
      element("summary", {}, element("span", { class: `status ${status < 400 ? "good" : "bad"}` }, status), " ", inline(response.description)),
      type ? element("p", {}, element("code", {}, type), media.schema ? ` ${typeName(media.schema)}` : "") : null,
      headers.length ? element("p", { class: "small" }, "Headers: ", headers.join(", ")) : null,
      inner && status < 400 ? inner : null,
      example === undefined ? null : code(JSON.stringify(example, null, 2)));
  })];
}

/** What a key must allow, where the server asks for keys. */
function scope(operation) {
  const scopes = (operation.security ?? []).flatMap((one) => one.key ?? []);
  if (!scopes.length) return null;
  return element("p", { class: "small quiet" }, "Scope of the key, if the server asks for one: ",
    scopes.map((one) => element("code", {}, one)));
}

function operationCard({ verb, path, operation }) {
  const words = `${verb} ${path} ${operation.summary ?? ""} ${operation.operationId}`.toLowerCase();
  return element("section", { class: "operation", id: operation.operationId, "data-words": words },
    element("h3", {}, element("span", { class: `verb ${verb}` }, verb.toUpperCase()), element("code", {}, path)),
    element("p", {}, element("strong", {}, operation.summary ?? ""), " ", element("a", { href: `#${operation.operationId}`, "aria-label": "Link to this operation" }, "#")),
    prose(operation.description), scope(operation),
    code(curl(verb, path, operation)),
    parameters(operation), body(operation), responses(operation));
}

function problemTable() {
  const rows = api["x-problems"] ?? [];
  if (rows.length === 0) return [];
  return [element("h2", { id: "problem-codes" }, "Problem codes"),
    element("p", {}, "Every error is ", element("code", {}, "application/problem+json"), ". Programs should look at ", element("code", {}, "code"), "; people at ", element("code", {}, "detail"), "."),
    element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Problem codes" }, element("table", {},
      element("thead", {}, element("tr", {}, ["Status", "Code", "Title"].map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, rows.map((row) => element("tr", { id: `problem-${row.code}` },
        element("td", {}, String(row.status)), element("td", {}, element("code", {}, row.code)), element("td", {}, row.title))))))];
}

function draw() {
  document.getElementById("title").textContent = `${api.info.title} ${api.info.version}`;
  document.getElementById("intro").replaceChildren(...prose(api.info.description));
  const operations = Object.entries(api.paths).flatMap(([path, item]) =>
    VERBS.filter((verb) => item[verb]).map((verb) => ({ verb, path, operation: item[verb] })));
  for (const tag of api.tags ?? []) {
    const mine = operations.filter((one) => one.operation.tags?.includes(tag.name));
    if (mine.length === 0) continue;
    document.getElementById("operations").append(
      element("h2", { id: `tag-${tag.name}` }, tag.name), ...prose(tag.description), ...mine.map(operationCard));
    document.getElementById("side").append(element("h2", {}, tag.name), element("ul", {}, mine.map((one) =>
      element("li", {}, element("a", { href: `#${one.operation.operationId}` }, one.operation.summary ?? one.path)))));
  }
  document.getElementById("problems").replaceChildren(...problemTable());
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

const filter = document.getElementById("filter");
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const card of document.querySelectorAll(".operation")) {
    const hit = words.every((word) => card.dataset.words.includes(word));
    card.hidden = !hit;
    const link = document.querySelector(`#side a[href="#${card.id}"]`);
    if (link) link.parentElement.hidden = !hit;
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== filter) {
    event.preventDefault();
    filter.focus();
  }
});
if (matchMedia("(max-width: 800px)").matches) document.getElementById("side-box").open = false;

try {
  const response = await fetch("openapi.json");
  api = await response.json();
  if (!response.ok) throw new Error(problemText(api));
  draw();
} catch (error) {
  document.getElementById("intro").replaceChildren(element("p", { class: "notice" }, `openapi.json cannot be read: ${error.message}`));
}
