// How long things are kept: the operator's settings, which a key of an administrator may see.
import { element } from "./page.js";
import { get, may } from "./client.js";
import { unsaid } from "./show.js";

const WORDS = {
  keep_succeeded_days: "jobs that succeeded, with their artifacts and reports",
  keep_unsuccessful_days: "jobs that failed or were cancelled",
  keep_draft_days: "models that were never committed",
};

/** A line about what is deleted when. */
export function retention(view) {
  const line = element("div", { class: "quiet small" });
  const none = () => line.replaceChildren(unsaid("how long it keeps things"));
  if (!may("admin")) return line;
  get("v1/system", { signal: view.signal }).then(
    ({ config }) => {
      const told = Object.entries(WORDS)
        .filter(([name]) => name in config)
        .map(([name, text]) => `${text}: ${config[name] === null || config[name] === 0 ? "for ever" : `${config[name]} days`}`);
      told.length ? line.replaceChildren(`Kept: ${told.join("; ")}. Models stay until they are deleted.`) : none();
    },
    (problem) => (problem.status === 404 ? none() : null),
  );
  return line;
}
