// What holds on every page: axe's rules in light and dark, 360 pixels, the keyboard, the size of the first load, a path.
import assert from "node:assert/strict";
import { gzipSync } from "node:zlib";
import { accessible, fits, settled, tabTo, visit } from "./browser.mjs";
import { someJobs } from "./pages.mjs";
import { underPath } from "./server.mjs";

/** Every page with something on it. */
async function pagesOf(server, files) {
  const model = await someJobs(server, files);
  const jobs = (await server.call("GET", `v1/jobs?model=${model}&limit=100`)).data;
  const pick = (test) => jobs.find(test).id;
  const { id: search } =
    (await server.call("GET", "v1/searches?limit=1")).data[0] ??
    (await server.call("POST", "v1/searches", {
      model,
      recipes: ["Q8_0", "Q4_0"],
      evaluation: { num_samples: 8, max_seq_length: 64 },
    }));
  await server.ended(`v1/searches/${search}`);
  const budget = pick((job) => job.recipe.budget);
  const [artifact] = jobs.find((job) => job.id === budget).artifacts;
  return {
    overview: "#/",
    new: "#/new",
    wizard: `#/new?model=${model}&recipe=W4A16`,
    jobs: "#/jobs",
    job: `#/jobs/${budget}`,
    failed: `#/jobs/${pick((job) => job.status === "failed")}`,
    report: `#/jobs/${budget}/report`,
    analysis: `#/jobs/${pick((job) => job.kind === "analysis")}/report`,
    compare: `#/compare?model=${model}`,
    searches: "#/searches",
    search: `#/searches/${search}`,
    models: "#/models",
    model: `#/models/${model}`,
    artifacts: "#/artifacts",
    artifact: `#/artifacts/${artifact}`,
    webhooks: "#/webhooks",
    keys: "#/keys",
    system: "#/system",
  };
}

export async function everywhere({ browser, server, files }) {
  const pages = await pagesOf(server, files);
  for (const dark of [false, true]) {
    for (const narrow of [false, true]) {
      const page = await browser.tab(server.origin, { dark, narrow });
      for (const [name, hash] of Object.entries(pages)) {
        await visit(page, server.origin, hash);
        // Everything that folds is open: what is hidden is not looked at.
        await page.evaluate(() => {
          for (const box of document.querySelectorAll("#main details")) box.open = true;
        });
        await page.waitForTimeout(150);
        await settled(page);
        const where = `${name}, ${dark ? "dark" : "light"}, ${narrow ? "narrow" : "wide"}`;
        await fits(page, where);
        await accessible(page, where);
        await browser.shot(page, `${narrow ? "narrow" : "wide"}-${dark ? "dark" : "light"}-${name}`);
      }
      await page.goto(`${server.origin}/docs`);
      await page.locator(".operation").last().waitFor();
      await fits(page, "the reference");
      await accessible(page, "the reference");
      if (narrow) {
        await visit(page, server.origin);
        await page.getByRole("button", { name: "Menu" }).click();
        await page.getByRole("link", { name: "Artifacts" }).click();
        await settled(page);
        assert.ok(page.url().endsWith("#/artifacts"));
      }
      await page.context().close();
    }
  }
}

/** The wizard from its first field to a running job, without a mouse. */
export async function keyboard({ browser, server, files }) {
  const { id } = await server.model(files, "by keyboard");
  const page = await browser.tab(server.origin);
  await visit(page, server.origin);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await page.reload();
  await settled(page);
  await tabTo(page, "#new-job");
  await page.keyboard.press("Enter");
  await settled(page);
  assert.equal(await page.evaluate(() => document.activeElement.id), "main", "a new page begins at its beginning");
  await tabTo(page, "button[aria-pressed]");
  assert.match(await page.evaluate(() => document.activeElement.textContent), /^On the server/);
  await tabTo(page, "select");
  await page.keyboard.type("by keyboard");
  await page.locator("dd", { hasText: "by keyboard" }).waitFor();
  await tabTo(page, '[data-pointer="/recipe/preset"] select');
  await page.keyboard.type("W8A16");
  await page.locator(".plan h3", { hasText: "compressed-tensors" }).waitFor();
  await tabTo(page, "summary");
  await page.keyboard.press("Enter");
  await tabTo(page, '[data-pointer="/recipe/options/n_bits"] input');
  await page.keyboard.type("6");
  await page.locator(".plan", { hasText: "INT6" }).waitFor();
  await tabTo(page, ".start button.primary");
  await page.keyboard.press("Enter");
  await page.waitForURL(/#\/jobs\/job_/);
  const job = await server.ended(`v1/jobs/${/job_[0-9a-f]+/.exec(page.url())[0]}`);
  assert.deepEqual([job.model, job.recipe.preset, job.recipe.options.n_bits, job.status], [id, "W8A16", 6, "succeeded"]);
  await page.context().close();
}

const MOST = 150_000;

/** What the first page takes, compressed; measured on what was answered. */
export async function firstLoad({ browser, server, files }) {
  await someJobs(server, files);
  const page = await browser.tab(server.origin);
  const coming = [];
  page.on("response", (answer) => coming.push(answer));
  await visit(page, server.origin);
  let sum = 0;
  for (const answer of coming) sum += gzipSync(await answer.body().catch(() => Buffer.alloc(0))).length;
  assert.ok(coming.length > 5 && sum > 5000, "there was something to measure");
  assert.ok(sum < MOST, `the first load takes ${sum} bytes`);
  console.log(`        first load: ${coming.length} answers, ${sum} bytes compressed`);
  await page.context().close();
}

/** Behind a proxy, under a path: everything is relative. */
export async function prefix({ browser, server, files }) {
  const pages = await pagesOf(server, files);
  const proxy = await underPath(server.origin, "/press");
  try {
    const at = `${proxy.origin}/press`;
    const page = await browser.tab(at);
    const astray = [];
    page.on("request", (request) => {
      if (!request.url().startsWith(`${at}/`) && !request.url().startsWith("data:")) astray.push(request.url());
    });
    for (const name of ["overview", "wizard", "job", "report", "compare", "artifact"]) await visit(page, at, pages[name]);
    assert.deepEqual(astray, [], "requests beside the path");
    assert.ok((await page.locator(".command code").first().innerText()).includes(`${at}/v1/`), "commands name the path");
    const coming = page.waitForEvent("download");
    await page
      .getByRole("link", { name: /^Download model/ })
      .first()
      .click();
    assert.ok((await coming).url().startsWith(`${at}/v1/artifacts/`));
    await page.context().close();
  } finally {
    proxy.stop();
  }
}
