// A webhook: what was sent, what came of every try, and what can be done with it.
import { element } from "./page.js";
import { call, get, json, may, post, query } from "./client.js";
import {
  action,
  bytesText,
  command,
  confirm,
  copyable,
  empty,
  facts,
  live,
  moreButton,
  say,
  seconds,
  section,
  state,
  table,
  when,
} from "./show.js";
import { secretBox } from "./webhooks.js";

export default function page(view) {
  const [id] = view.args;
  view.title(`Webhook ${id.slice(-8)}`);
  const place = element("div", {});
  const told = element("div", {});
  const log = element("div", {});
  const open = new Set();
  let pages = 1;
  view.root.append(place, told, section("Deliveries", log, command("GET", `v1/webhooks/${id}/deliveries?limit=20`)));
  const again = live(view, place, { what: "the webhook", every: 10, load: (signal) => get(`v1/webhooks/${id}`, { signal }), draw });
  const readLog = live(view, log, {
    what: "the deliveries",
    every: 5,
    load: async (signal) => {
      const found = [];
      let after;
      for (let at = 0; at < pages; at += 1) {
        const answer = await get(query(`v1/webhooks/${id}/deliveries`, { limit: 20, after }), { signal });
        found.push(...answer.data);
        after = answer.has_more ? answer.next_cursor : undefined;
        if (!after) break;
      }
      return { found, more: Boolean(after) };
    },
    draw: drawLog,
  });

  function draw(webhook, where) {
    where.className = "stack";
    where.replaceChildren(
      element(
        "div",
        { class: "head" },
        element("h1", {}, webhook.url),
        state(webhook.status),
        element("div", { class: "actions" }, buttons(webhook)),
        element("p", { class: "sub" }, copyable(id, "webhook id")),
      ),
      section(
        "Facts",
        facts([
          ["Description", webhook.description ?? "–"],
          ["Events", webhook.events.length ? webhook.events.join(", ") : "all"],
          ["Last success", when(webhook.last_success_at, { full: true })],
          ["Created", when(webhook.created_at, { full: true })],
          ["Changed", when(webhook.updated_at, { full: true })],
          webhook.disabled_at && ["Disabled", [when(webhook.disabled_at, { full: true }), `: ${webhook.disabled_reason}`]],
          webhook.old_secret_until && ["Old secret signs until", when(webhook.old_secret_until, { full: true })],
        ]),
        command("GET", `v1/webhooks/${id}`),
      ),
    );
  }

  function buttons(webhook) {
    if (!may("webhooks:write")) return [];
    const where = {
      place: () => {
        told.replaceChildren();
        return told;
      },
    };
    return [
      action(
        "Send a test",
        async () => {
          await post(`v1/webhooks/${id}/test`);
          say("A test message waits");
          await readLog();
        },
        where,
      ),
      action(
        webhook.status === "enabled" ? "Disable" : "Enable",
        async () => {
          await call("PATCH", `v1/webhooks/${id}`, { body: { enabled: webhook.status !== "enabled" } });
          await again();
        },
        where,
      ),
      action(
        "Rotate the secret",
        async () => {
          if (
            !(await confirm("Rotate the secret?", "A new secret is made; the old one signs too for 24 hours.", "Rotate", {
              danger: false,
            }))
          )
            return;
          const made = await post(`v1/webhooks/${id}/rotate`, {});
          told.replaceChildren(
            secretBox("The new secret.", made.secret, "It is shown this once; the old one signs too for 24 hours."),
          );
          await again();
        },
        where,
      ),
      action(
        "Delete",
        async () => {
          if (!(await confirm("Delete this webhook?", "Nothing is sent to it any more, and its log goes.", "Delete the webhook")))
            return;
          await call("DELETE", `v1/webhooks/${id}`);
          view.go("#/webhooks");
        },
        { ...where, kind: "danger" },
      ),
    ];
  }

  function drawLog({ found, more }, where) {
    if (found.length === 0) return where.replaceChildren(empty("Nothing was sent yet."));
    where.replaceChildren(
      ...found.map(entry),
      more
        ? moreButton(() => {
            pages += 1;
            readLog();
          })
        : "",
    );
  }

  function entry(one) {
    const last = one.attempts.at(-1);
    const box = element(
      "details",
      { "data-delivery": one.id, open: open.has(one.id) },
      element(
        "summary",
        {},
        state(one.status),
        " ",
        element("strong", {}, one.event),
        " ",
        when(one.created_at),
        " ",
        element(
          "span",
          { class: "quiet" },
          `${one.attempts.length} ${one.attempts.length === 1 ? "try" : "tries"}${last ? `, ${last.status_code ?? last.error ?? ""}` : ""}`,
          one.next_attempt_at ? [", next ", when(one.next_attempt_at)] : "",
        ),
      ),
      element(
        "div",
        { class: "stack" },
        element("p", {}, copyable(one.id, "message id")),
        one.attempts.length
          ? table(
              "Tries",
              [
                ["No.", (at) => String(at.number)],
                ["Began", (at) => when(at.started_at)],
                ["Took", (at) => seconds(at.duration_seconds), "right"],
                ["Answer", (at) => String(at.status_code ?? "none")],
                ["Error", (at) => at.error ?? "–"],
                ["Beginning of the answer", (at) => (at.response ? element("code", {}, at.response.slice(0, 200)) : "–")],
              ],
              one.attempts,
            )
          : empty("Not tried yet."),
        element(
          "details",
          {},
          element("summary", {}, `What is sent (${bytesText(json(one.payload).length)})`),
          element("pre", { tabindex: 0 }, element("code", {}, json(one.payload, 2))),
        ),
        may("webhooks:write")
          ? element(
              "div",
              { class: "actions" },
              action("Send again", async () => {
                await post(`v1/webhooks/${id}/deliveries/${one.id}/replay`);
                say("It is sent again");
                await readLog();
              }),
            )
          : null,
      ),
    );
    box.addEventListener("toggle", () => (box.open ? open.add(one.id) : open.delete(one.id)));
    return box;
  }
}
