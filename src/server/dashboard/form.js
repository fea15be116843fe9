// Forms from JSON Schema: a field for every property, its bounds, its default, and what is refused at it.
import { element, inline } from "./page.js";
import { json, parse } from "./client.js";

let fresh = 0;
const typeOf = (schema) =>
  [schema.type].flat().find((one) => one !== "null" && (one !== "string" || ![schema.type].flat().includes("object")));
const same = (a, b) => json(a) === json(b);
const words = (name) => name.replaceAll("_", " ");

/** A named field around an input; `pointer` is where problems about it point to. */
export function field(name, input, { hint, pointer, wide } = {}) {
  fresh += 1;
  const [id, note] = [`f${fresh}`, `f${fresh}-hint`];
  const isCheck = input.type === "checkbox";
  input.id = id;
  input.setAttribute("aria-describedby", `${note} ${id}-wrong`);
  const label = isCheck ? element("label", { class: "check", for: id }, input, name) : element("label", { for: id }, name);
  return element(
    "div",
    { class: wide ? "field wide" : "field", "data-pointer": pointer },
    isCheck ? null : label,
    isCheck ? label : input,
    element("p", { class: "hint", id: note }, inline(hint ?? "")),
    element("p", { class: "wrong", id: `${id}-wrong`, hidden: true }),
  );
}

function options(input, list, chosen) {
  input.replaceChildren(...list.map(([value, text]) => element("option", { value, selected: value === chosen }, text ?? value)));
  return input;
}

/** A select of `[value, text]`. */
export const select = (list, chosen, onchange) => options(element("select", { onchange }), list, chosen);

// A control is {node, value()}: `undefined` is "as the default says".
function scalar(name, schema, given, base, context) {
  const normal = base ?? schema.default;
  const changed = context.changed;
  const start = given ?? normal;
  const wrap = (input, hint = schema.description) => field(words(name), input, { hint, pointer: context.pointer });
  const kept = (value) => (value === undefined || same(value, normal) ? undefined : value);
  const enumerated = schema.enum ?? schema.anyOf?.find((one) => one.enum)?.enum;
  if (enumerated) {
    const datasets = schema.anyOf?.some((one) => one.format === "dataset") ? context.datasets : [];
    const list = [
      ...enumerated.map((value) => [String(value), same(value, normal) ? `${value} (default)` : String(value)]),
      ...datasets,
    ];
    if (normal === undefined) list.unshift(["", "default"]);
    const input = select(list, start === undefined ? "" : String(start), changed);
    return {
      node: wrap(input),
      value: () =>
        input.value === "" ? undefined : kept(enumerated.find((value) => String(value) === input.value) ?? input.value),
    };
  }
  if (typeOf(schema) === "boolean") {
    const input = element("input", { type: "checkbox", checked: start === true, onchange: changed });
    return { node: wrap(input), value: () => kept(input.checked) };
  }
  if (typeOf(schema) === "integer" || typeOf(schema) === "number") {
    const whole = typeOf(schema) === "integer";
    const bounds = [
      schema.minimum !== undefined && `${schema.minimum}`,
      schema.maximum !== undefined && schema.maximum <= 1e9 && `${schema.maximum}`,
    ];
    const range = bounds[0] && bounds[1] ? ` ${bounds[0]} to ${bounds[1]}.` : "";
    const input = element("input", {
      type: "text",
      inputmode: whole ? "numeric" : "decimal",
      value: given === undefined ? "" : String(given),
      placeholder: normal === undefined ? "" : String(normal),
      oninput: changed,
      spellcheck: "false",
    });
    // What is no number goes to the server as it is: it says best what is wrong.
    return {
      node: wrap(input, `${schema.description ?? ""}${range}`),
      value: () => {
        const text = input.value.trim();
        if (text === "") return undefined;
        return kept(
          Number.isFinite(Number(text))
            ? parse(/^-?\d+$/.test(text) ? text.replace(/^(-?)0+(?=\d)/, "$1") : String(Number(text)))
            : text,
        );
      },
    };
  }
  if (schema.default === "builtin") {
    const input = select([["builtin", "builtin (default)"], ...context.datasets], start, changed);
    return { node: wrap(input), value: () => kept(input.value) };
  }
  const input = element("input", {
    type: "text",
    value: given ?? "",
    placeholder: normal ?? schema.examples?.[0] ?? "",
    oninput: changed,
    spellcheck: "false",
  });
  return { node: wrap(input), value: () => (input.value.trim() === "" ? undefined : kept(input.value.trim())) };
}

function list(name, schema, given, context) {
  const hint = schema.description;
  if (schema.items?.enum) {
    const boxes = schema.items.enum.map((value) => [
      value,
      element("input", { type: "checkbox", checked: given?.includes(value), onchange: context.changed }),
    ]);
    const node = element(
      "div",
      { class: "field wide", "data-pointer": context.pointer, role: "group", "aria-label": words(name) },
      element("span", { class: "name" }, words(name)),
      element(
        "div",
        { class: "checks" },
        boxes.map(([value, box]) => element("label", { class: "check" }, box, value)),
      ),
      element("p", { class: "hint" }, inline(hint)),
      element("p", { class: "wrong", hidden: true }),
    );
    return {
      node,
      value: () => {
        const found = boxes.filter(([, box]) => box.checked).map(([value]) => value);
        return found.length ? found : undefined;
      },
    };
  }
  const input = element("input", {
    type: "text",
    value: (given ?? []).join(", "),
    placeholder: schema.examples?.[0]?.join?.(", ") ?? "",
    oninput: context.changed,
    spellcheck: "false",
  });
  return {
    node: field(words(name), input, { hint: `${hint ?? ""} Separated by commas.`, pointer: context.pointer, wide: true }),
    value: () => {
      const found = input.value
        .split(",")
        .map((one) => one.trim())
        .filter(Boolean);
      return found.length ? found : undefined;
    },
  };
}

function free(name, schema, given, context) {
  const input = element("textarea", {
    rows: 2,
    oninput: context.changed,
    spellcheck: "false",
    placeholder: schema.examples?.[0] ? JSON.stringify(schema.examples[0]) : "{}",
  });
  if (given !== undefined) input.value = json(given);
  return {
    node: field(words(name), input, { hint: `${schema.description ?? ""} As JSON.`, pointer: context.pointer, wide: true }),
    value: () => {
      if (input.value.trim() === "") return undefined;
      try {
        return parse(input.value);
      } catch {
        return input.value;
      }
    },
  };
}

/** One of several fields, where a schema says that exactly one is set. */
function choice(schema, given, context) {
  const names = schema.oneOf.map((one) => one.required[0]);
  const start = names.find((name) => given?.[name] !== undefined) ?? "";
  const slot = element("div", {});
  let inner = null;
  const draw = () => {
    inner = kind.value
      ? control(kind.value, schema.properties[kind.value], given?.[kind.value], undefined, {
          ...context,
          pointer: `${context.pointer}/${kind.value}`,
        })
      : null;
    slot.replaceChildren(inner?.node ?? "");
  };
  const kind = select([["", "none"], ...names.map((name) => [name, words(name)])], start, () => {
    draw();
    context.changed();
  });
  draw();
  const rest = {
    ...schema,
    oneOf: undefined,
    properties: Object.fromEntries(Object.entries(schema.properties).filter(([name]) => !names.includes(name))),
  };
  const others = fields(rest, given, undefined, context);
  return {
    node: [field("limit", kind, { hint: "Empty for none.", pointer: context.pointer }), slot, ...others.nodes],
    value: () => (kind.value ? { [kind.value]: inner.value() ?? null, ...others.value() } : undefined),
  };
}

function control(name, schema, given, base, context) {
  switch (typeOf(schema)) {
    case "array":
      return list(name, schema, given, context);
    case "object": {
      if (!schema.properties) return free(name, schema, given, context);
      const inner = fields(schema, given, base, context);
      return {
        node: element(
          "fieldset",
          { class: "wide" },
          element("legend", {}, words(name)),
          element("div", { class: "fields" }, inner.nodes),
        ),
        value: () => {
          const found = inner.value();
          return Object.keys(found).length ? found : undefined;
        },
      };
    }
    default:
      return scalar(name, schema, given, base, context);
  }
}

function fields(schema, given, base, context) {
  const controls = Object.entries(schema.properties ?? {}).map(([name, inner]) => [
    name,
    control(name, inner, given?.[name], base?.[name], {
      ...context,
      pointer: `${context.pointer}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`,
    }),
  ]);
  return {
    nodes: controls.map(([, one]) => one.node),
    value: () => Object.fromEntries(controls.map(([name, one]) => [name, one.value()]).filter(([, value]) => value !== undefined)),
  };
}

/**
 * A form of an object's schema. `given` are values that were chosen, `base` what stands in for the schema's defaults.
 * `value()` holds only what differs from those.
 */
export function schemaForm(schema, { given, base, pointer, datasets = [], changed }) {
  const context = { pointer, datasets, changed };
  if (schema.oneOf) {
    const one = choice(schema, given, context);
    return { node: element("div", { class: "fields" }, one.node), value: () => one.value() ?? {} };
  }
  const inner = fields(schema, given, base, context);
  return {
    node: element(
      "div",
      { class: "fields" },
      inner.nodes.length ? inner.nodes : element("p", { class: "quiet" }, "It has no options."),
    ),
    value: inner.value,
  };
}

/** Shows what is refused at the field it is about; answers what has no field. */
export function showRefusals(root, errors) {
  for (const node of root.querySelectorAll("[data-pointer]")) {
    const wrong = node.querySelector(":scope > .wrong");
    const input = node.querySelector("input, select, textarea");
    if (!wrong || !input) continue;
    const mine = errors.filter((error) => error.pointer === node.dataset.pointer);
    wrong.hidden = mine.length === 0;
    wrong.textContent = mine.map((error) => error.detail).join(" ");
    if (mine.length) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
    if (mine.length) for (let box = node.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
  }
  return errors.filter((error) => !root.querySelector(`[data-pointer="${CSS.escape(error.pointer)}"]`));
}
