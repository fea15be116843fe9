// Keys: who may use the API, their making and their end, and who changed what.
import { element } from "./page.js";
import { all, call, firstPages, get, may, post } from "./client.js";
import {
  absolute,
  action,
  bytes,
  command,
  confirm,
  empty,
  facts,
  ident,
  live,
  moreButton,
  section,
  state,
  table,
  unsaid,
  when,
} from "./show.js";
import { field, showRefusals } from "./form.js";
import { secretBox } from "./webhooks.js";

const NOUNS = [
  ["models", ["read", "write"]],
  ["datasets", ["read", "write"]],
  ["jobs", ["read", "write"]],
  ["webhooks", ["read", "write"]],
  ["uploads", ["write"]],
  ["artifacts", ["read"]],
];
const SCOPES = ["admin", ...NOUNS.flatMap(([noun, verbs]) => verbs.map((verb) => `${noun}:${verb}`))];

const standing = (key) =>
  key.revoked_at ? "revoked" : key.expires_at && Date.parse(key.expires_at) < Date.now() ? "expired" : "enabled";

export default function keys(view) {
  view.title("Keys");
  const place = element("div", {});
  const making = element("div", {});
  const changes = element("div", {});
  let pages = 1;
  view.root.append(
    element(
      "div",
      { class: "head" },
      element("h1", {}, "Keys"),
      may("admin")
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
              "New key",
            ),
          )
        : null,
    ),
    making,
    section(null, place, command("GET", "v1/keys?limit=50")),
    usage(view),
    section(
      "Changes",
      element("p", { class: "quiet small" }, "Everything that was made, changed or deleted through the API."),
      changes,
      command("GET", "v1/audit?limit=20"),
    ),
  );
  const again = live(view, place, {
    what: "the keys",
    every: 15,
    load: (signal) => all("v1/keys", {}, 500, signal),
    draw: (found, where) =>
      where.replaceChildren(
        found.length === 0
          ? empty("No keys yet. A server that only its own machine can reach asks for none.")
          : table(
              "Keys",
              [
                ["Name", (one) => element("span", { title: one.id }, one.name)],
                ["State", (one) => state(standing(one))],
                ["Scopes", (one) => one.scopes.join(", ")],
                ["Tenant", (one) => one.tenant],
                ["Last used", (one) => when(one.last_used_at)],
                ["Runs out", (one) => (one.expires_at ? when(one.expires_at) : "never")],
                ["Created", (one) => when(one.created_at)],
                ["Key", (one) => ident(one.id)],
                [
                  "",
                  (one) =>
                    standing(one) === "enabled" && may("admin")
                      ? element("div", { class: "actions" }, rotate(one), revoke(one))
                      : "",
                  "right",
                ],
              ],
              found,
            ),
      ),
  });
  const readChanges = live(view, changes, {
    what: "the changes",
    every: 15,
    load: (signal) => firstPages("v1/audit", { limit: 20 }, pages, signal),
    draw: ({ found, more }, where) =>
      where.replaceChildren(
        found.length === 0
          ? empty("No changes yet.")
          : table(
              "Changes",
              [
                ["When", (one) => when(one.created_at)],
                ["What", (one) => element("code", {}, one.action)],
                ["To", (one) => (one.target ? ident(one.target) : "–")],
                ["Key", (one) => (one.key ? ident(one.key) : "none")],
                ["From", (one) => one.client ?? "–"],
                ["Request", (one) => element("code", { class: "id" }, one.request_id)],
              ],
              found,
            ),
        more
          ? moreButton(() => {
              pages += 1;
              readChanges();
            })
          : "",
      ),
  });

  function rotate(one) {
    const button = action(
      "Rotate",
      async () => {
        if (
          !(await confirm(
            `Rotate ${one.name}?`,
            "A new key of the same name and scopes is made; the old one stays good for 24 hours.",
            "Rotate",
            { danger: false },
          ))
        )
          return;
        const made = await post(`v1/keys/${one.id}/rotate`, {});
        making.replaceChildren(
          secretBox("The new key.", made.token, "It is shown this once; the old one stays good for 24 hours."),
        );
        await again();
      },
      { place: () => making },
    );
    button.setAttribute("aria-label", `Rotate ${one.name}`);
    return button;
  }

  function revoke(one) {
    const button = action(
      "Revoke",
      async () => {
        if (!(await confirm(`Revoke ${one.name}?`, "It opens nothing from then on, and what it opened ends.", "Revoke the key")))
          return;
        await call("DELETE", `v1/keys/${one.id}`);
        await again();
      },
      { kind: "danger", place: () => making },
    );
    button.setAttribute("aria-label", `Revoke ${one.name}`);
    return button;
  }
}

/** What the tenant of this key uses. */
function usage(view) {
  const place = element("div", {});
  live(view, place, {
    what: "the usage",
    every: 15,
    load: (signal) =>
      get("v1/overview", { signal }).catch((problem) => {
        if (problem.status === 404) return null;
        throw problem;
      }),
    draw: (overview, where) =>
      where.replaceChildren(
        overview === null
          ? unsaid("what is used (GET /v1/overview)")
          : facts([
              ["Stored", bytes(overview.stored_bytes)],
              ["Quota", overview.quota_bytes === null ? "none" : bytes(overview.quota_bytes)],
              ["Jobs at work", String(overview.jobs.running)],
              ["Jobs that wait", String(overview.jobs.queued)],
            ]),
      ),
  });
  return section("Usage of this tenant", place, command("GET", "v1/overview"));
}

function form(place, done) {
  const name = element("input", { type: "text", required: true, placeholder: "nightly pipeline" });
  const end = element("input", { type: "datetime-local" });
  const boxes = SCOPES.map((scope) => [scope, element("input", { type: "checkbox" })]);
  const told = element("div", {});
  const box = section(
    "New key",
    element(
      "div",
      { class: "stack" },
      element(
        "div",
        { class: "fields" },
        field("Name", name, { pointer: "/name" }),
        field("Runs out", end, { hint: "Never, if it is empty.", pointer: "/expires_at" }),
      ),
      element(
        "fieldset",
        { "data-pointer": "/scopes" },
        element("legend", {}, "Scopes; writing includes reading"),
        element(
          "div",
          { class: "checks" },
          boxes.map(([scope, input]) => element("label", { class: "check" }, input, scope)),
        ),
        element("p", { class: "wrong", hidden: true }),
      ),
      element(
        "div",
        { class: "actions" },
        action(
          "Make the key",
          async () => {
            try {
              showRefusals(box, []);
              const scopes = boxes.filter(([, input]) => input.checked).map(([scope]) => scope);
              const made = await post("v1/keys", {
                name: name.value,
                scopes,
                ...(end.value ? { expires_at: new Date(end.value).toISOString() } : {}),
              });
              place.replaceChildren(
                secretBox(
                  `The key ${made.key.name}.`,
                  made.token,
                  `It is shown this once${made.key.expires_at ? ` and runs out ${absolute(made.key.expires_at)}` : ""}.`,
                ),
              );
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
  name.focus();
}
