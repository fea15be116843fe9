// Lineage: from a model over its jobs to their artifacts, as a tree.
import { element } from "./page.js";
import { all, get } from "./client.js";
import { bytes, ident, recipeName, state, trouble } from "./show.js";

const MOST = 100;

/** Draws what became of a model; `marked` is the object that the page is about. */
export async function lineageOf(view, id, place, marked) {
  place.replaceChildren(element("p", { class: "quiet" }, "Reading the lineage…"));
  try {
    const [model, jobs] = await Promise.all([
      get(`v1/models/${id}`, { signal: view.signal }),
      all("v1/jobs", { model: id }, MOST, view.signal),
    ]);
    // Of an artifact's page only its own job matters; the others are on the model's.
    const own = jobs.filter((job) => job.artifacts.includes(marked));
    const shown = own.length ? own : jobs;
    const artifacts = await artifactsOf(shown, view.signal);
    const node = (here, ...inside) =>
      element("span", { class: "node" }, ...inside, here ? element("span", { class: "tag busy" }, "this") : null);
    const made = (artifact) =>
      element(
        "li",
        {},
        node(
          artifact.id === marked,
          element("span", { class: "quiet" }, "artifact"),
          ident(artifact.id, artifact.format),
          bytes(artifact.bytes),
        ),
      );
    const ran = (job) =>
      element(
        "li",
        {},
        node(false, element("span", { class: "quiet" }, "job"), ident(job.id, recipeName(job.recipe)), state(job.status)),
        job.artifacts.length
          ? element(
              "ul",
              { class: "lineage" },
              job.artifacts.map((one) => made(artifacts.get(one) ?? { id: one, format: "artifact", bytes: null })),
            )
          : null,
      );
    const source = model.pull ? element("span", { class: "quiet" }, `from ${model.pull.source}`) : null;
    place.replaceChildren(
      element(
        "ul",
        { class: "lineage" },
        element(
          "li",
          {},
          node(
            id === marked,
            element("span", { class: "quiet" }, "model"),
            ident(id, model.name ?? id),
            bytes(model.bytes),
            source,
          ),
          shown.length
            ? element("ul", { class: "lineage" }, shown.map(ran))
            : element("p", { class: "quiet" }, "Nothing was made of it yet."),
        ),
      ),
      shown.length < jobs.length
        ? element(
            "p",
            { class: "quiet small" },
            `${jobs.length - shown.length} other jobs of this model: `,
            ident(id, "all that was made of it"),
          )
        : "",
      jobs.length === MOST ? element("p", { class: "quiet small" }, `The latest ${MOST} jobs.`) : "",
    );
  } catch (problem) {
    if (!view.signal.aborted) place.replaceChildren(trouble(problem, () => lineageOf(view, id, place, marked)));
  }
}

async function artifactsOf(jobs, signal) {
  const ids = jobs.flatMap((job) => job.artifacts);
  const found = await Promise.all(
    ids.map((id) =>
      get(`v1/artifacts/${id}`, { signal }).catch((problem) => {
        if (problem.name === "AbortError") throw problem;
        return null;
      }),
    ),
  );
  return new Map(found.filter(Boolean).map((artifact) => [artifact.id, artifact]));
}
