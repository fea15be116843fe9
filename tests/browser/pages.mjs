// Pages about many jobs: compare, searches; and what pages say when something is wrong.
import assert from "node:assert/strict";
import { settled, tabTo, visit } from "./browser.mjs";

const EVALUATION = { num_samples: 8, max_seq_length: 64 };

/** Jobs of one model that are over, with one that missed its gate. */
export async function someJobs(server, files) {
  const known = (await server.call("GET", "v1/models?limit=100")).data.find((one) => one.name === "compared");
  if (known) return known.id;
  const { id } = await server.model(files, "compared");
  const recipes = ["Q8_0", "Q4_0", "Q5_0"].map((preset) => ({ preset, evaluation: EVALUATION }));
  recipes.push(
    { preset: "W4A16", options: { group_size: 32 }, evaluation: EVALUATION },
    { preset: "Q2_K", evaluation: EVALUATION, gates: { max_kl: 1e-6 } },
  );
  recipes.push({ preset: "Q4_0", calibration: EVALUATION, evaluation: EVALUATION, budget: { target_bits_per_weight: 6 } });
  for (const recipe of recipes) {
    const job = await server.call("POST", "v1/jobs", { model: id, recipe });
    const over = await server.ended(`v1/jobs/${job.id}`);
    assert.equal(over.status, recipe.gates ? "failed" : "succeeded", JSON.stringify(over.error));
  }
  const analysis = await server.call("POST", `v1/models/${id}/analysis`);
  await server.ended(`v1/jobs/${analysis.id}`);
  return id;
}

export async function comparison({ browser, server, files }) {
  const model = await someJobs(server, files);
  const page = await browser.tab(server.origin);
  await visit(page, server.origin, `#/compare?model=${model}`);
  const points = page.locator("svg.chart a");
  await points.first().waitFor();
  const evaluated = (await server.call("GET", `v1/jobs?model=${model}&limit=100`)).data.filter((job) => job.recipe.evaluation);
  assert.ok(evaluated.length >= 6);
  assert.equal(await points.count(), evaluated.length, "a point for each job that was evaluated");
  const labels = await points.evaluateAll((list) => list.map((one) => one.getAttribute("aria-label")));
  assert.ok(
    labels.some((text) => text.startsWith("Q8_0:") && text.endsWith("on the front")),
    labels.join("\n"),
  );
  assert.ok(!labels.find((text) => text.startsWith("Q2_K:")).includes("on the front"), "what missed a gate is on no front");
  await browser.shot(page, "compare");
  const before = await page.locator("svg.chart").innerHTML();
  await page.getByLabel("Up", { exact: true }).selectOption("perplexity");
  assert.notEqual(await page.locator("svg.chart").innerHTML(), before, "another axis is another chart");
  assert.ok(page.url().includes("loss=perplexity"), "the axis is in the address");
  const differences = await page.getByRole("region", { name: "Differences of the recipes" }).innerText();
  assert.ok(differences.includes("preset") && !differences.includes("evaluation"), `only what differs: ${differences}`);

  // Points are reached and opened without a mouse.
  await page.getByLabel("Up", { exact: true }).focus();
  await tabTo(page, "svg.chart a");
  await page.keyboard.press("Enter");
  await page.waitForURL(/#\/jobs\/job_[0-9a-f]+\/report/);
  await settled(page);

  // The budget's report and the analysis have their own sections.
  const jobs = (await server.call("GET", `v1/jobs?model=${model}&limit=100`)).data;
  await visit(page, server.origin, `#/jobs/${jobs.find((one) => one.recipe.budget).id}/report`);
  await page.getByText("What the budget chose").waitFor();
  await visit(page, server.origin, `#/jobs/${jobs.find((one) => one.kind === "analysis").id}/report`);
  await page.getByText("What each preset would make of it").waitFor();
  await visit(page, server.origin, `#/jobs/${jobs.find((one) => one.status === "failed").id}/report`);
  await page.getByText("at most 0.000001: missed").waitFor();
  await page.context().close();
}

/** An analysis that is asked for at the model's page, with what schemes would cost. */
export async function analyses({ browser, server, files }) {
  const { id } = await server.model(files, "analysed");
  const page = await browser.tab(server.origin);
  await visit(page, server.origin, `#/models/${id}`);
  await page.getByRole("button", { name: "Analyse sensitivity" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Analyse" }).click();
  await page.waitForURL(/#\/jobs\/job_/);
  await page.locator(".head .state", { hasText: "succeeded" }).waitFor({ timeout: 120000 });
  await page.getByRole("link", { name: "Report", exact: true }).click();
  await page.getByText("What each scheme would cost each tensor").waitFor();
  const report = await server.call("GET", `v1/jobs/${/job_[0-9a-f]+/.exec(page.url())[0]}/report`);
  const rows = page.getByRole("region", { name: "Sensitivity, highest first" }).locator("tbody tr");
  assert.equal(await rows.count(), report.sensitivity.units.length + 1);
  await page.getByText("Plots as files").waitFor();
  const coming = page.waitForEvent("download");
  await page.getByRole("link", { name: /^SVG / }).first().click();
  assert.match((await coming).suggestedFilename(), /\.svg$/);
  await browser.shot(page, "sensitivity");
  await page.context().close();
}

export async function search({ browser, server, files }) {
  const model = await someJobs(server, files);
  const page = await browser.tab(server.origin);
  await visit(page, server.origin, "#/searches");
  await page.getByRole("button", { name: "New search" }).click();
  await page.getByLabel("Model", { exact: true }).selectOption(model);
  await page.getByLabel("Sequences to evaluate on").fill("8");
  for (const name of ["Q5_K_M", "Q4_K_M"]) await page.getByLabel(name, { exact: true }).uncheck();
  for (const name of ["Q4_0", "Q6_K", "W4A16"]) await page.getByLabel(name, { exact: true }).check();
  await page.getByRole("button", { name: "Start the search" }).click();
  await page.waitForURL(/#\/searches\/srch_/);
  await page.locator(".head .state", { hasText: "succeeded" }).waitFor({ timeout: 120000 });
  await settled(page);
  const id = /srch_[0-9a-f]+/.exec(page.url())[0];
  const found = await server.call("GET", `v1/searches/${id}`);
  const rows = await page.getByRole("region", { name: "Recipes", exact: true }).locator("tbody tr").allInnerTexts();
  assert.equal(rows.length, 4);
  for (const point of found.points) {
    const text = rows.find((row) => row.startsWith(point.name));
    if (point.best_for) assert.ok(text.includes(point.best_for), text);
    if (point.result) assert.ok(text.includes(`${point.result.compression_ratio.toFixed(2)} ×`), text);
    assert.ok(text.includes(point.status), text);
  }
  assert.ok(
    rows.some((row) => row.includes("group_size_does_not_divide")),
    "what was refused says why",
  );
  const filled = await page.locator("svg.chart a:has(.on)").count();
  assert.equal(filled, found.points.filter((point) => point.on_front).length, "the front is the server's");
  await browser.shot(page, "search");
  await page.context().close();
}

/** Empty, missing, refused, stale: each says so, with the code and the request's id. */
export async function trouble({ browser, server, files }) {
  await someJobs(server, files);
  const page = await browser.tab(server.origin);
  await visit(page, server.origin, "#/jobs?status=cancelled");
  await page.getByText("No job is like this.").waitFor();
  const nobody = `job_${"0".repeat(32)}`;
  await page.goto("about:blank");
  await page.goto(`${server.origin}/#/jobs/${nobody}`);
  const box = page.getByRole("alert");
  await box.getByText("not_found").waitFor();
  assert.match(await box.innerText(), /request\s+[0-9a-f-]{36}/);
  await page.goto(`${server.origin}/#/nothing`);
  await page.getByText("There is no page /nothing.").waitFor();

  // What was read stays when the server cannot be reached, and says how old it is.
  await visit(page, server.origin, "#/jobs");
  const rows = await page.locator("tbody tr").count();
  assert.ok(rows > 0);
  await page.context().setOffline(true);
  await page.getByText(/As of .* it cannot be read again/).waitFor();
  assert.equal(await page.locator("tbody tr").count(), rows);
  await page.context().setOffline(false);
  await page.getByRole("button", { name: "Try again" }).click();
  await page.getByText(/As of .* it cannot be read again/).waitFor({ state: "hidden" });

  // Lists are drawn again while they are read; what has the focus keeps it.
  const link = page.locator("tbody a[href*='job_']").nth(2);
  await link.focus();
  const href = await link.getAttribute("href");
  const [model] = (await server.call("GET", "v1/models?limit=100")).data.filter((one) => one.name === "compared");
  await server.call("POST", "v1/jobs", { model: model.id, recipe: "F16" });
  await page.getByRole("link", { name: "F16" }).first().waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("href")), href);

  // Filters stay in the address, over a reload too.
  await page
    .getByRole("navigation", { name: "States" })
    .getByRole("link", { name: /^Failed/ })
    .click();
  await settled(page);
  await page.reload();
  await settled(page);
  assert.ok(page.url().endsWith("#/jobs?status=failed"));
  assert.equal(await page.locator("tbody .state:not(.bad)").count(), 0);

  // Light and dark by hand, also after a reload.
  const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await paper();
  for (const name of ["light", "dark"]) {
    await page.getByRole("button", { name: /^Theme/ }).click();
    assert.equal(await page.getByRole("button", { name: /^Theme/ }).innerText(), `Theme: ${name}`);
  }
  assert.notEqual(await paper(), light);
  await page.reload();
  await settled(page);
  assert.notEqual(await paper(), light);

  // A row with a name that looks like markup stays text.
  const { id } = await server.model(files, "<img src=x onerror=alert(1)>");
  await visit(page, server.origin, `#/models/${id}`);
  assert.equal(await page.locator("h1").innerText(), "<img src=x onerror=alert(1)>");
  await page.context().close();
}
