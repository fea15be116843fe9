// The recipe as a form: a preset with its options, or stages written out, or JSON; formats, data, gates, a budget.
import { element, inline } from "./page.js";
import { json, parse } from "./client.js";
import { field, schemaForm, select } from "./form.js";

const MODES = [
  ["preset", "Preset"],
  ["stages", "Stages"],
  ["json", "JSON"],
];
const PARTS = ["calibration", "evaluation", "gates", "budget"];

const words = (list) =>
  list
    .split(",")
    .map((one) => one.trim())
    .filter(Boolean);
const asObject = (recipe) => (typeof recipe === "string" ? { preset: recipe } : recipe);

/** Drops what says nothing. */
const filled = (values) => Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));

/**
 * An editor. `catalog` has presets, techniques and formats, `schema` is that of a recipe, `datasets` are [id, name];
 * `value()` is the recipe, and throws where JSON is none.
 */
export function recipeEditor({ catalog, schema, datasets, initial, changed }) {
  let recipe = asObject(initial);
  let read = null;
  const body = element("div", { class: "stack" });
  const tabs = element("div", { class: "tabs", role: "group", "aria-label": "How the recipe is written" });
  const modeOf = (value) => (value.preset ? "preset" : "stages");

  function show(mode) {
    tabs.replaceChildren(
      ...MODES.map(([name, text]) =>
        element(
          "button",
          {
            type: "button",
            "aria-pressed": String(name === mode),
            onclick: () => {
              try {
                recipe = convert(read(), name);
                show(name);
                tabs.querySelector('[aria-pressed="true"]').focus();
                changed();
              } catch {
                changed();
              }
            },
          },
          text,
        ),
      ),
    );
    const made = mode === "json" ? asJson() : asForm(mode);
    read = made.value;
    body.replaceChildren(...made.nodes);
  }

  /** Presets and stages say the same in other words. */
  function convert(value, mode) {
    if (mode === "stages" && value.preset) {
      const preset = catalog.presets.find((one) => one.name === value.preset);
      const { preset: _name, options, targets, ignore, ...rest } = value;
      const last = filled({ technique: preset.technique, options: { ...preset.options, ...options }, targets, ignore });
      return { stages: [...(preset.before ?? []), last], formats: [preset.format], ...rest };
    }
    if (mode === "preset" && value.stages) {
      const { stages: _stages, ...rest } = value;
      return { ...rest, preset: catalog.presets[0].name };
    }
    return value;
  }

  function asJson() {
    const input = element("textarea", { rows: 18, spellcheck: "false", oninput: changed });
    input.value = json(recipe, 2);
    return {
      nodes: [field("Recipe", input, { hint: "As `POST /v1/jobs` takes it.", pointer: "/recipe" })],
      value: () => {
        try {
          return asObject(parse(input.value));
        } catch (error) {
          const wrong = new Error(error.message);
          wrong.errors = [{ pointer: "/recipe", detail: `This is no JSON: ${error.message}` }];
          throw wrong;
        }
      },
    };
  }

  function asForm(mode) {
    const front = mode === "preset" ? presetFields() : stageFields();
    const parts = PARTS.map((name) => partFields(name));
    const formats = formatFields(front.format);
    front.onformat?.(formats.suggest);
    const seed = element("input", {
      type: "text",
      inputmode: "numeric",
      value: recipe.seed ?? "",
      placeholder: "0",
      oninput: changed,
    });
    const more = element(
      "details",
      {},
      element("summary", {}, "Seed"),
      field("seed", seed, { hint: schema.properties.seed.description, pointer: "/recipe/seed" }),
    );
    const seedValue = () =>
      seed.value.trim() === ""
        ? undefined
        : /^\d+$/.test(seed.value.trim())
          ? parse(seed.value.trim().replace(/^0+(?=\d)/, ""))
          : seed.value.trim();
    return {
      nodes: [
        front.node,
        element(
          "div",
          { class: "folds" },
          front.options,
          formats.node,
          parts.map((part) => part.node),
          more,
        ),
      ],
      value: () =>
        filled({
          ...front.value(),
          formats: formats.value(),
          ...Object.fromEntries(parts.map((part) => [part.name, part.value()])),
          seed: seedValue(),
        }),
    };
  }

  function presetFields() {
    const groups = Map.groupBy(catalog.presets, (preset) => preset.format);
    const chosen = catalog.presets.find((preset) => preset.name === recipe.preset) ?? catalog.presets[0];
    const input = element(
      "select",
      {
        onchange: () => {
          draw({});
          changed();
        },
      },
      [...groups].map(([format, presets]) =>
        element(
          "optgroup",
          { label: format },
          presets.map((preset) => element("option", { value: preset.name, selected: preset === chosen }, preset.name)),
        ),
      ),
    );
    const about = element("p", { class: "quiet" });
    const slot = element("div", { class: "stack" });
    const name = element("summary", {});
    let preset = chosen;
    let stage = null;
    let suggest = () => {};
    function draw(given, words) {
      preset = catalog.presets.find((one) => one.name === input.value);
      const before = (preset.before ?? []).map((one) => one.technique);
      about.replaceChildren(
        ...inline(
          `${preset.summary}. ${before.length ? `Stages: ${[...before, preset.technique].join(", ")}. ` : ""}Technique \`${preset.technique}\`, format \`${preset.format}\`.`,
        ),
      );
      stage = stageOf({ technique: preset.technique, options: given, ...words }, "/recipe", preset.options);
      name.textContent = `Options of ${preset.technique}`;
      slot.replaceChildren(stage.node);
      suggest(preset.format);
    }
    draw(recipe.options, { targets: recipe.targets, ignore: recipe.ignore });
    return {
      node: element("div", {}, field("Preset", input, { pointer: "/recipe/preset" }), about),
      format: preset.format,
      options: element("details", { open: Object.keys(recipe.options ?? {}).length > 0 }, name, slot),
      onformat: (told) => {
        suggest = told;
      },
      value: () => ({ preset: preset.name, ...stage.value() }),
    };
  }

  /** Options of a technique, and which tensors it is for. */
  function stageOf(given, pointer, base) {
    const technique = catalog.techniques.find((one) => one.name === given.technique);
    const options = schemaForm(technique.options, { given: given.options, base, pointer: `${pointer}/options`, datasets, changed });
    const line = (name, example) => {
      const input = element("input", {
        type: "text",
        value: (given[name] ?? []).join(", "),
        placeholder: example,
        oninput: changed,
        spellcheck: "false",
      });
      return { input, node: field(name, input, { hint: schema.properties[name].description, pointer: `${pointer}/${name}` }) };
    };
    const [targets, ignore] = [line("targets", "Linear"), line("ignore", "lm_head")];
    const list = (input) => (words(input.value).length ? words(input.value) : undefined);
    return {
      node: element(
        "div",
        { class: "stack" },
        element("p", { class: "quiet small" }, technique.summary),
        options.node,
        element(
          "details",
          { open: Boolean(given.targets || given.ignore) },
          element("summary", {}, "Which tensors"),
          element("div", { class: "fields" }, targets.node, ignore.node),
        ),
      ),
      value: () => {
        const found = options.value();
        return filled({
          options: Object.keys(found).length ? found : undefined,
          targets: list(targets.input),
          ignore: list(ignore.input),
        });
      },
    };
  }

  function stageFields() {
    const given = recipe.stages?.length ? [...recipe.stages] : [{ technique: catalog.techniques[0].name }];
    const place = element("div", { class: "stack" });
    let stages = [];
    const values = () => stages.map((stage) => ({ technique: stage.technique, ...stage.value() }));
    function draw(list) {
      stages = list.map((one, at) => ({ technique: one.technique, ...stageOf(one, `/recipe/stages/${at}`) }));
      place.replaceChildren(
        ...stages.map((stage, at) => {
          const kind = select(
            catalog.techniques.map((one) => [one.name]),
            stage.technique,
            () => {
              const now = values();
              now[at] = { technique: kind.value };
              draw(now);
              changed();
            },
          );
          return element(
            "fieldset",
            {},
            element("legend", {}, `Stage ${at + 1}`),
            element(
              "div",
              { class: "stack" },
              field("Technique", kind, { pointer: `/recipe/stages/${at}/technique` }),
              stage.node,
              stages.length > 1 &&
                element(
                  "div",
                  { class: "actions" },
                  element(
                    "button",
                    {
                      type: "button",
                      onclick: () => {
                        draw(values().toSpliced(at, 1));
                        changed();
                      },
                    },
                    "Remove this stage",
                  ),
                ),
            ),
          );
        }),
        element(
          "div",
          { class: "actions" },
          element(
            "button",
            {
              type: "button",
              onclick: () => {
                draw([...values(), { technique: catalog.techniques[0].name }]);
                changed();
              },
            },
            "Add a stage",
          ),
        ),
      );
    }
    draw(given);
    return { node: place, options: null, format: null, value: () => ({ stages: values() }) };
  }

  function formatFields(suggested) {
    const given = new Map(
      (recipe.formats ?? []).map((one) => (typeof one === "string" ? [one, undefined] : [one.format, one.options])),
    );
    const writable = catalog.formats.filter((format) => format.writable);
    let normal = suggested;
    const rows = writable.map((format) => {
      const box = element("input", {
        type: "checkbox",
        checked: given.size ? given.has(format.name) : format.name === suggested,
        onchange: () => {
          touched = true;
          changed();
        },
      });
      const options = Object.keys(format.options?.properties ?? {}).length
        ? schemaForm(format.options, { given: given.get(format.name), pointer: `/recipe/formats/?/options`, datasets, changed })
        : null;
      const name = element("label", { class: "check" }, box, format.name);
      const engines = format.engines.length ? ` Loaded by ${format.engines.join(", ")}.` : "";
      return {
        format,
        box,
        options,
        node: element(
          "div",
          { class: "field" },
          name,
          element("p", { class: "hint" }, inline(`${format.summary}.${engines}`)),
          element("p", { class: "wrong", hidden: true }),
          options && element("details", {}, element("summary", { class: "small" }, "Options"), options.node),
        ),
      };
    });
    let touched = given.size > 0;
    const node = element(
      "details",
      { open: given.size > 0 && recipe.stages !== undefined },
      element("summary", {}, "Formats"),
      element(
        "div",
        { class: "fields" },
        rows.map((row) => row.node),
      ),
    );
    return {
      node,
      suggest(format) {
        normal = format;
        if (!touched) for (const row of rows) row.box.checked = row.format.name === format;
      },
      value() {
        const chosen = rows.filter((row) => row.box.checked);
        rows.forEach((row) => delete row.node.dataset.pointer);
        const list = chosen.map((row, at) => {
          row.node.dataset.pointer = `/recipe/formats/${at}`;
          row.options?.node.querySelectorAll("[data-pointer]").forEach((one) => {
            one.dataset.pointer = one.dataset.pointer.replace(/formats\/[^/]+/, `formats/${at}`);
          });
          const options = row.options?.value() ?? {};
          return Object.keys(options).length ? { format: row.format.name, options } : row.format.name;
        });
        return list.length === 0 || (list.length === 1 && list[0] === normal) ? undefined : list;
      },
    };
  }

  function partFields(name) {
    const own = schema.properties[name];
    const given =
      recipe[name] === true ? {} : typeof recipe[name] === "string" ? { dataset: recipe[name] } : recipe[name] || undefined;
    const form = schemaForm(own, { given, pointer: `/recipe/${name}`, datasets, changed });
    const wrong = element("p", { class: "wrong", hidden: true });
    const asked =
      name === "evaluation" ? element("input", { type: "checkbox", checked: given !== undefined, onchange: changed }) : null;
    const value = () => {
      const found = form.value();
      const isEmpty = Object.keys(found).length === 0;
      if (!asked) return isEmpty ? undefined : found;
      return asked.checked ? (isEmpty ? true : found) : isEmpty ? undefined : found;
    };
    const title = { calibration: "Calibration data", evaluation: "Evaluation", gates: "Gates", budget: "Budget" }[name];
    const node = element(
      "details",
      { open: given !== undefined },
      element("summary", {}, title),
      element(
        "div",
        { class: "stack" },
        element("p", { class: "quiet small" }, inline(own.description)),
        asked && element("label", { class: "check" }, asked, "Compare the result with the original"),
        form.node,
        wrong,
      ),
    );
    return { name, node, value };
  }

  show(modeOf(recipe));
  return { node: element("div", { class: "stack" }, tabs, body), value: () => read() };
}
