// New job: choose or upload a model, choose a recipe, see what it would do, start.
import { copyButton, element } from "./page.js";
import { all, get, may, post } from "./client.js";
import { action, bytes, bytesText, command, copyable, empty, ident, live, say, section, trouble } from "./show.js";
import { field, select, showRefusals } from "./form.js";
import { modelCard } from "./model.js";
import { planSummary } from "./preview.js";
import { recipeEditor } from "./recipe.js";
import { uploads } from "./upload.js";
import { uploadBox } from "./upload_box.js";

export default function wizard(view) {
  view.title("New job");
  const place = element("div", {});
  view.root.append(element("div", { class: "head" }, element("h1", {}, "New job")), place);
  live(view, place, {
    what: "what this server can do",
    load: (signal) => load(view, signal),
    draw: (found, where) => draw(view, found, where),
  });
}

async function load(view, signal) {
  const list = (path) => get(path, { signal }).then((page) => page.data);
  const from = view.params.get("job");
  const [presets, techniques, formats, api, models, datasets, job] = await Promise.all([
    list("v1/presets"),
    list("v1/techniques"),
    list("v1/formats"),
    get("openapi.json", { signal }),
    all("v1/models", {}, 300, signal),
    all("v1/datasets", {}, 200, signal).catch((problem) => {
      if (problem.status === 403) return [];
      throw problem;
    }),
    from ? get(`v1/jobs/${from}`, { signal }) : null,
  ]);
  return {
    catalog: { presets, techniques, formats },
    schema: api.components.schemas.Recipe,
    models,
    job,
    datasets: datasets.map((one) => [one.id, `${one.name ?? one.id} (${one.records} records)`]),
  };
}

function draw(view, found, place) {
  const chosen = { model: null };
  const preview = element("div", { class: "preview" });
  const startBox = element("div", { class: "start" });
  const recipePlace = element("div", {});
  const aside = element(
    "section",
    { class: "panel aside", "aria-labelledby": "plan-title" },
    element("h2", { id: "plan-title" }, "3. What it would do"),
    preview,
    startBox,
  );
  const model = modelStep(view, found, (one) => {
    chosen.model = one;
    view.setQuery({ model: one?.id ?? null });
    plan(0);
  });
  let editor = null;
  let timer;
  let asking = null;

  const initial = found.job?.recipe ?? view.params.get("recipe") ?? "Q4_K_M";
  try {
    editor = recipeEditor({ ...found, initial, changed: () => plan(350) });
  } catch (error) {
    console.warn(error);
    editor = recipeEditor({ ...found, initial: "Q4_K_M", changed: () => plan(350) });
  }
  recipePlace.append(editor.node);
  const datasets = may("datasets:write")
    ? datasetFold((made) => {
        found.datasets.unshift([made.id, `${made.name ?? made.id} (${made.records} records)`]);
        let kept = initial;
        try {
          kept = editor.value();
        } catch {
          say("The recipe was no JSON and was put back");
        }
        editor = recipeEditor({ ...found, initial: kept, changed: () => plan(350) });
        recipePlace.replaceChildren(editor.node);
        plan(0);
      })
    : null;
  const priority = element("input", { type: "number", min: -100, max: 100, step: 1, value: String(found.job?.priority ?? 0) });
  place.className = "wizard";
  place.replaceChildren(
    element(
      "div",
      { class: "stack" },
      model.node,
      section(
        "2. Recipe",
        recipePlace,
        element(
          "div",
          { class: "folds last" },
          datasets,
          element(
            "details",
            {},
            element("summary", {}, "Queue"),
            field("priority", priority, { hint: "-100 to 100; higher goes first.", pointer: "/priority" }),
          ),
        ),
      ),
    ),
    aside,
  );
  model.begin(found.job?.model ?? view.params.get("model"));
  plan(0);

  /** Plans again, a moment after the last change; an older answer is never shown over a newer one. */
  function plan(wait) {
    clearTimeout(timer);
    asking?.abort();
    timer = setTimeout(planNow, wait);
  }
  view.signal.addEventListener("abort", () => {
    clearTimeout(timer);
    asking?.abort();
  });

  async function planNow() {
    startBox.replaceChildren();
    let body;
    try {
      body = { model: chosen.model?.id, recipe: editor.value() };
    } catch (error) {
      refused(error.errors ?? [{ pointer: "/recipe", detail: error.message }], null);
      return;
    }
    if (!chosen.model) {
      showRefusals(recipePlace, []);
      preview.replaceChildren(
        empty("Choose a model first; then its exact size, its memory and every reason why something cannot work stand here."),
      );
      return;
    }
    asking = new AbortController();
    const { signal } = asking;
    preview.setAttribute("aria-busy", "true");
    const slow = setTimeout(() => preview.prepend(element("p", { class: "quiet", role: "status" }, "Planning…")), 200);
    try {
      const answer = await post("v1/plans", body, { signal });
      if (signal.aborted) return;
      showRefusals(recipePlace, []);
      preview.replaceChildren(planSummary(answer.plan, { tensors: true }));
      offer(body);
    } catch (problem) {
      if (signal.aborted || problem.name === "AbortError") return;
      if (problem.errors?.length) refused(problem.errors, problem);
      else preview.replaceChildren(trouble(problem, planNow));
    } finally {
      clearTimeout(slow);
      if (!signal.aborted) preview.removeAttribute("aria-busy");
    }
  }

  function refused(errors, problem) {
    const rest = showRefusals(recipePlace, errors);
    const go = (error) => {
      const target = recipePlace
        .querySelector(`[data-pointer="${CSS.escape(error.pointer)}"]`)
        ?.querySelector("input, select, textarea");
      return target && !rest.includes(error)
        ? element(
            "button",
            {
              type: "button",
              class: "plain",
              onclick: () => {
                target.scrollIntoView({ block: "center" });
                target.focus();
              },
            },
            "Go to the field",
          )
        : null;
    };
    preview.replaceChildren(
      element(
        "div",
        { class: "trouble", role: "alert" },
        element("p", {}, element("strong", {}, "This recipe cannot work on this model.")),
        element(
          "ul",
          {},
          errors.map((error) => element("li", {}, element("code", {}, error.pointer || "/"), " ", error.detail, go(error))),
        ),
        problem
          ? element(
              "p",
              { class: "small quiet" },
              "Code ",
              element("code", {}, problem.code),
              ", request ",
              element("code", {}, problem.requestId),
              " ",
              copyButton(() => problem.requestId, "request id"),
            )
          : null,
      ),
    );
  }

  function offer(body) {
    const asked = () => ({ ...body, ...(Number(priority.value) ? { priority: Number(priority.value) } : {}) });
    if (may("jobs:write"))
      startBox.append(
        action(
          "Start the job",
          async () => {
            // The same key again after a lost answer makes no second job.
            const made = await post("v1/jobs", asked(), {
              headers: { "Idempotency-Key": body.once ?? (body.once = crypto.randomUUID()) },
            });
            say("The job waits for a worker");
            view.go(`#/jobs/${made.id}`);
          },
          { kind: "primary", place: () => aside },
        ),
      );
    else startBox.append(element("p", { class: "quiet" }, "This key may not start jobs."));
    startBox.append(command("POST", "v1/jobs", body));
    Object.defineProperty(body, "once", { enumerable: false, writable: true, value: null });
  }
}

/** A dataset of one's own, to choose for calibration and evaluation. */
function datasetFold(made) {
  const files = element("input", { type: "file", multiple: true, accept: ".txt,.jsonl,.npy,.safetensors,.gguf,.dat" });
  const told = element("div", {});
  return element(
    "details",
    {},
    element("summary", {}, "Add a dataset"),
    element(
      "div",
      { class: "stack" },
      field("Dataset files", files, {
        hint: "Text, JSON lines, arrays, or an importance matrix; every record is read before it is taken.",
        pointer: "/files",
      }),
      element(
        "div",
        { class: "actions" },
        action(
          "Send",
          async () => {
            const form = new FormData();
            form.append("name", files.files[0]?.name ?? "");
            for (const file of files.files) form.append("file", file, file.name);
            const dataset = await post("v1/datasets", form);
            told.replaceChildren(
              element(
                "p",
                { role: "status" },
                `${dataset.records} records of ${dataset.content} in `,
                copyable(dataset.id, "dataset id"),
                ": it can be chosen now.",
              ),
            );
            made(dataset);
          },
          {
            place: () => {
              told.replaceChildren();
              return told;
            },
          },
        ),
      ),
      told,
    ),
  );
}

// The first step: a model that is there, files from here, or files from elsewhere.
function modelStep(view, found, choose) {
  const card = element("div", {});
  const slot = element("div", {});
  const ready = found.models.filter((one) => one.status === "ready");
  const ways = [
    ["there", `On the server (${ready.length})`],
    ...(may("models:write") ? [...(may("uploads:write") ? [["upload", "Upload"]] : []), ["bring", "From elsewhere"]] : []),
  ];
  const tabs = element("div", { class: "tabs", role: "group", "aria-label": "Where the model is" });
  let box = null;

  function show(way) {
    tabs.replaceChildren(
      ...ways.map(([name, text]) =>
        element(
          "button",
          {
            type: "button",
            "aria-pressed": String(name === way),
            onclick: () => {
              show(name);
              tabs.querySelector('[aria-pressed="true"]').focus();
            },
          },
          text,
        ),
      ),
    );
    if (way === "there") slot.replaceChildren(existing());
    else if (way === "upload") slot.replaceChildren(uploading());
    else slot.replaceChildren(bringing());
  }

  function existing() {
    if (ready.length === 0) return empty("No model is ready yet. Upload one.");
    const input = select(
      [
        ["", "Choose…"],
        ...ready.map((one) => [
          one.id,
          `${one.name ?? one.architecture ?? one.format}, ${bytesText(one.bytes)}, …${one.id.slice(-8)}`,
        ]),
      ],
      chosenId ?? "",
      () => pick(ready.find((one) => one.id === input.value) ?? null),
    );
    return field("Model", input, { pointer: "/model" });
  }

  let chosenId = null;
  function pick(model) {
    chosenId = model?.id ?? null;
    card.replaceChildren(model ? modelCard(model) : "");
    choose(model);
  }

  /** A model that was just made. */
  function made(model) {
    ready.unshift(model);
    ways[0][1] = `On the server (${ready.length})`;
    pick(model);
    show("there");
    say(`Model ${model.name ?? model.id} is ready`);
  }

  function uploading() {
    box ??= uploadBox(view, made);
    return box;
  }

  function bringing() {
    const source = element("input", {
      type: "text",
      required: true,
      placeholder: "hf://HuggingFaceTB/SmolLM2-135M-Instruct@main",
      spellcheck: "false",
    });
    const token = element("input", { type: "password", autocomplete: "off" });
    const told = element("div", {});
    const form = element(
      "form",
      {
        class: "stack",
        onsubmit: async (event) => {
          event.preventDefault();
          told.replaceChildren(element("p", { class: "quiet", role: "status" }, "Asking…"));
          try {
            const text = source.value.trim();
            const body = text.startsWith("/")
              ? { source_path: text }
              : { source: text, ...(token.value ? { token: token.value } : {}) };
            const model = await post("v1/models", body, { signal: view.signal });
            token.value = "";
            model.status === "ready" ? made(model) : follow(model);
          } catch (problem) {
            if (view.signal.aborted) return;
            told.replaceChildren(trouble(problem));
            showRefusals(form, problem.errors ?? []);
          }
        },
      },
      element(
        "div",
        { class: "fields" },
        field("Source", source, {
          hint: "`hf://owner/name@revision`; where the operator allows it a URL, `s3://…`, or a folder on the server.",
          pointer: "/source",
          wide: true,
        }),
        field("Token", token, {
          hint: "For private and gated repositories. It is kept until the files are there.",
          pointer: "/token",
          wide: true,
        }),
      ),
      element("div", { class: "actions" }, element("button", { type: "submit" }, "Bring it")),
      told,
    );
    async function follow(model) {
      for (let now = model; !view.signal.aborted; now = await get(`v1/models/${model.id}`, { signal: view.signal })) {
        if (now.status === "ready") return made(now);
        const { pull } = now;
        if (now.status === "failed") return told.replaceChildren(trouble({ message: pull.error.message, code: pull.error.code }));
        told.replaceChildren(
          element(
            "p",
            { role: "status" },
            `${pull.files_done} of ${pull.files_total || "?"} files, `,
            bytes(pull.bytes_done),
            " of ",
            bytes(pull.bytes_total),
          ),
          element("progress", { max: Math.max(1, pull.bytes_total), value: pull.bytes_done, "aria-label": "Files that are there" }),
          pull.waiting_for ? element("p", { class: "quiet" }, pull.waiting_for) : "",
          ident(now.id, "Its page"),
        );
        await new Promise((resolve) => setTimeout(resolve, 1500));
      }
    }
    return form;
  }

  return {
    node: section("1. Model", element("div", { class: "stack" }, tabs, slot, card)),
    async begin(id) {
      const known = ready.find((one) => one.id === id) ?? (id ? await get(`v1/models/${id}`).catch(() => null) : null);
      if (known?.status === "ready") {
        if (!ready.includes(known)) ready.unshift(known);
        pick(known);
      }
      const begun =
        may("uploads:write") &&
        may("models:write") &&
        !known &&
        (uploads.items.length > 0 || localStorage.getItem("modelpress-uploads")?.length > 2);
      show(begun || (ready.length === 0 && ways.length > 1) ? ways[1][0] : "there");
    },
  };
}
