// A server that asks for keys: an admin's pages, and a key that only reads, to which nothing is offered.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import { accessible, fits, settled, visit } from "./browser.mjs";
import { someJobs } from "./pages.mjs";
import { receiver, startServer } from "./server.mjs";

export async function keys({ binary, browser, files }) {
  const hook = await receiver();
  const server = await startServer(binary, { keys: true, flags: ["--outbound-allowed", "127.0.0.1"] });
  try {
    const model = await someJobs(server, files);
    const jobs = (await server.call("GET", `v1/jobs?model=${model}&limit=100`)).data;
    const job = jobs.find((one) => one.artifacts.length > 0);
    await asksForAKey(browser, server);
    await admin(browser, server, hook, job);
    await reader(browser, server, job, model);
  } finally {
    hook.stop();
    await server.stop();
  }
}

/** A wrong key is asked for again, a good one is kept for this tab, in no address and no other storage. */
async function asksForAKey(browser, server) {
  const page = await browser.tab(server.origin);
  await page.goto(`${server.origin}/#/jobs`);
  await page.getByRole("heading", { name: "A key, please" }).waitFor();
  await accessible(page, "the question for a key");
  await page.getByLabel("Key", { exact: true }).fill("mp_wrong");
  await page.getByRole("button", { name: "Use it in this tab" }).click();
  await page.getByRole("heading", { name: "A key, please" }).waitFor();
  await page.getByLabel("Key", { exact: true }).fill(server.admin);
  await page.getByRole("button", { name: "Use it in this tab" }).click();
  await page.getByRole("heading", { name: "Jobs" }).waitFor();
  await settled(page);
  assert.ok((await page.locator("tbody tr").count()) > 0);
  assert.ok(!page.url().includes("mp_"));
  assert.ok(!(await page.evaluate(() => JSON.stringify(localStorage))).includes("mp_"));
  assert.ok((await page.locator(".command code").first().innerText()).includes("$MODELPRESS_KEY"));
  await page.getByRole("button", { name: "Forget the key" }).click();
  await page.getByRole("heading", { name: "A key, please" }).waitFor();
  await page.context().close();
}

async function admin(browser, server, hook, job) {
  const page = await browser.tab(server.origin, { key: server.admin });
  await visit(page, server.origin, "#/webhooks");
  await page.getByRole("button", { name: "New webhook" }).click();
  await page.getByLabel("Address").fill("http://10.0.0.1/inside");
  await page.getByRole("button", { name: "Make the webhook" }).click();
  await page.locator('[data-pointer="/url"] .wrong', { hasText: "url" }).waitFor();
  await page.getByLabel("Address").fill(hook.url);
  await page.getByLabel("job.succeeded").check();
  await page.getByRole("button", { name: "Make the webhook" }).click();
  await page.getByText(/whsec_/).waitFor();
  await page.getByRole("link", { name: hook.url }).click();
  await settled(page);
  await page.getByRole("button", { name: "Send a test" }).click();
  await page.locator("[data-delivery] .state", { hasText: "succeeded" }).waitFor();
  assert.equal(hook.came[0].type, "webhook.test");
  await page.locator("[data-delivery] summary").first().click();
  await page.getByRole("button", { name: "Send again" }).click();
  for (let tries = 0; hook.came.length < 2 && tries < 50; tries += 1) await page.waitForTimeout(200);
  assert.equal(hook.came.length, 2, "it was sent again");
  await accessible(page, "a webhook");
  await browser.shot(page, "webhook");
  await page.getByRole("button", { name: "Disable" }).click();
  await page.locator(".head .state", { hasText: "disabled" }).waitFor();

  await visit(page, server.origin, "#/keys");
  await page.getByRole("button", { name: "New key" }).click();
  await page.getByLabel("Name", { exact: true }).fill("made here");
  await page.getByRole("button", { name: "Make the key" }).click();
  await page.locator('[data-pointer="/scopes"] .wrong', { hasText: "at least one" }).waitFor();
  await page.getByLabel("jobs:read").check();
  await page.getByRole("button", { name: "Make the key" }).click();
  const token = await page.getByText(/^mp_/).innerText();
  const answer = () =>
    fetch(`${server.origin}/v1/jobs`, { headers: { Authorization: `Bearer ${token}` } }).then((one) => one.status);
  assert.equal(await answer(), 200);
  await browser.shot(page, "keys");
  await page.getByRole("button", { name: "Revoke made here" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Keep" }).click();
  assert.equal(await answer(), 200, "nothing happens without a yes");
  await page.getByRole("button", { name: "Revoke made here" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Revoke the key" }).click();
  await page.locator("tr", { hasText: "made here" }).locator(".state", { hasText: "revoked" }).waitFor();
  assert.equal(await answer(), 401);
  await page.getByRole("region", { name: "Changes" }).getByText("DELETE /v1/keys/{id}").waitFor();

  await visit(page, server.origin, "#/system");
  await page.locator(".state", { hasText: "ready" }).waitFor();
  await browser.shot(page, "system");

  // A download shows the key in no address.
  await visit(page, server.origin, `#/jobs/${job.id}`);
  const artifact = await server.call("GET", `v1/artifacts/${job.artifacts[0]}`);
  const coming = page.waitForEvent("download");
  await page.getByRole("button", { name: `Download ${artifact.files[0].name}`, exact: true }).click();
  const download = await coming;
  assert.equal(download.suggestedFilename(), artifact.files[0].name);
  assert.equal(
    `sha256:${createHash("sha256")
      .update(fs.readFileSync(await download.path()))
      .digest("hex")}`,
    artifact.files[0].digest,
  );
  await page.context().close();
}

/** Buttons that would be refused are not there; what may be read is. */
async function reader(browser, server, job, model) {
  const page = await browser.tab(server.origin, { key: server.reader, narrow: true });
  const [webhook] = (await server.call("GET", "v1/webhooks")).data;
  const absent =
    /^(New job|New webhook|New key|New search|Upload a model|Cancel|Run again|Change and run|Analyse|Analyse sensitivity|Delete|Disable|Enable|Send a test|Send again|Rotate|Rotate the secret|Revoke.*|Start the job|Upload)$/;
  for (const hash of [
    "#/",
    "#/jobs",
    `#/jobs/${job.id}`,
    `#/jobs/${job.id}/report`,
    "#/searches",
    "#/models",
    `#/models/${model}`,
    "#/webhooks",
    `#/webhooks/${webhook.id}`,
    `#/new?model=${model}`,
  ]) {
    await visit(page, server.origin, hash);
    for (const role of ["button", "link"]) {
      const names = await page.getByRole(role, { name: absent }).allInnerTexts();
      assert.deepEqual(names, [], hash);
    }
    await fits(page, hash);
  }
  await page.getByText("This key may not start jobs.").waitFor();
  assert.ok(await page.locator("#nav a", { hasText: "Keys" }).isHidden());
  await visit(page, server.origin, `#/jobs/${job.id}`);
  assert.ok((await page.getByRole("button", { name: "Download all" }).count()) > 0, "artifacts may be read");
  await visit(page, server.origin, "#/keys");
  await page.getByRole("alert").first().getByText("insufficient_scope").waitFor();
  await page.context().close();
}
