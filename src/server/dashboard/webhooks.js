// Webhooks: who is told, and a form to tell others.
import { element } from "./page.js";
import { all, may, post } from "./client.js";
import { action, command, copyable, empty, ident, live, section, state, table, when } from "./show.js";
import { field, showRefusals } from "./form.js";

export const TOPICS = ["job.queued", "job.running", "job.succeeded", "job.failed", "job.cancelled"];

/** A secret that is shown this once. */
export function secretBox(what, text, advice) {
  return element(
    "div",
    { class: "banner", role: "status" },
    element("p", {}, element("strong", {}, what), ` ${advice}`),
    copyable(text, "secret"),
  );
}

export default function webhooks(view) {
  view.title("Webhooks");
  const place = element("div", {});
  const making = element("div", {});
  view.root.append(
    element(
      "div",
      { class: "head" },
      element("h1", {}, "Webhooks"),
      may("webhooks:write")
        ? element(
            "div",
            { class: "actions" },
            element(
              "button",
              {
                type: "button",
                onclick: () => {
                  making.childElementCount ? making.replaceChildren() : form(making, () => again());
                },
              },
              "New webhook",
            ),
          )
        : null,
    ),
    making,
    section(null, place, command("GET", "v1/webhooks?limit=50")),
  );
  const again = live(view, place, {
    what: "the webhooks",
    every: 15,
    load: (signal) => all("v1/webhooks", {}, 100, signal),
    draw: (found, where) =>
      where.replaceChildren(
        found.length === 0
          ? empty("No webhooks yet. One is told of every change of a job, signed, until it has answered.")
          : table(
              "Webhooks",
              [
                ["Address", (one) => ident(one.id, one.url), "wide"],
                [
                  "State",
                  (one) => [
                    state(one.status),
                    one.disabled_reason ? element("div", { class: "quiet small" }, one.disabled_reason) : "",
                  ],
                ],
                ["Events", (one) => (one.events.length ? one.events.join(", ") : "all")],
                ["Last success", (one) => when(one.last_success_at)],
                ["Created", (one) => when(one.created_at)],
              ],
              found,
            ),
      ),
  });
}

function form(place, done) {
  const url = element("input", {
    type: "url",
    required: true,
    placeholder: "https://ci.example.com/hooks/modelpress",
    spellcheck: "false",
  });
  const description = element("input", { type: "text" });
  const boxes = TOPICS.map((topic) => [topic, element("input", { type: "checkbox" })]);
  const told = element("div", {});
  const box = section(
    "New webhook",
    element(
      "div",
      { class: "stack" },
      element(
        "div",
        { class: "fields" },
        field("Address", url, {
          hint: "`https://` on the public internet, or a host that `outbound_allowed` names.",
          pointer: "/url",
          wide: true,
        }),
        field("Description", description, { pointer: "/description", wide: true }),
      ),
      element(
        "fieldset",
        {},
        element("legend", {}, "Events; all if none is chosen"),
        element(
          "div",
          { class: "checks" },
          boxes.map(([topic, input]) => element("label", { class: "check" }, input, topic)),
        ),
      ),
      element(
        "div",
        { class: "actions" },
        action(
          "Make the webhook",
          async () => {
            try {
              showRefusals(box, []);
              const events = boxes.filter(([, input]) => input.checked).map(([topic]) => topic);
              const made = await post("v1/webhooks", {
                url: url.value,
                events,
                ...(description.value ? { description: description.value } : {}),
              });
              place.replaceChildren(secretBox("The secret that signs its messages.", made.secret, "It is shown this once."));
              done();
            } catch (problem) {
              showRefusals(box, problem.errors ?? []);
              throw problem;
            }
          },
          {
            kind: "primary",
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
  place.replaceChildren(box);
  url.focus();
}
