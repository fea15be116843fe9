// The recipe's other forms, a dataset of one's own, a job's recipe changed and run again; many jobs cancelled at once.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { settled, visit } from "./browser.mjs";
import { someJobs } from "./pages.mjs";
import { startServer } from "./server.mjs";

/** The next plan that is asked for after `work`, of a recipe that is meant. */
async function planned(page, work, isMeant = () => true) {
  const coming = page.waitForResponse(
    (answer) => answer.url().endsWith("/v1/plans") && isMeant(JSON.parse(answer.request().postData()).recipe),
  );
  await work();
  const answer = await coming;
  return { asked: JSON.parse(answer.request().postData()).recipe, status: answer.status(), answer: await answer.json() };
}

export async function recipes({ browser, server, files, folder }) {
  const model = await someJobs(server, files);
  const page = await browser.tab(server.origin);
  await visit(page, server.origin, `#/new?model=${model}&recipe=W8A8_SMOOTHQUANT`);
  await page.getByRole("button", { name: "Start the job" }).waitFor();

  // The same recipe as stages: what is planned does not change.
  const stages = await planned(page, () => page.getByRole("button", { name: "Stages", exact: true }).click());
  assert.deepEqual(
    stages.asked.stages.map((stage) => stage.technique),
    ["smoothquant", "rtn"],
  );
  const preset = await server.call("POST", "v1/plans", { model, recipe: "W8A8_SMOOTHQUANT" });
  assert.deepEqual(stages.answer.plan.formats, preset.plan.formats);
  await page.getByRole("group", { name: "Stage 2" }).waitFor();
  const two = await planned(page, () => page.getByRole("button", { name: "Remove this stage" }).first().click());
  assert.deepEqual(
    two.asked.stages.map((stage) => stage.technique),
    ["rtn"],
  );

  // As JSON: what is none says so at its field; a seed of 64 bits stays what it is.
  await page.getByRole("button", { name: "JSON", exact: true }).click();
  const text = page.getByLabel("Recipe", { exact: true });
  await text.fill("{");
  await page.locator('[data-pointer="/recipe"] .wrong', { hasText: "no JSON" }).waitFor();
  assert.equal(await page.getByRole("button", { name: "Start the job" }).count(), 0);
  const coming = page.waitForRequest((request) => request.url().endsWith("/v1/plans"));
  await text.fill('{"preset": "Q8_0", "seed": 18446744073709551615}');
  assert.ok((await coming).postData().includes("18446744073709551615"), "no digit is lost");
  await page.getByRole("button", { name: "Start the job" }).waitFor();
  const back = await planned(page, () => page.getByRole("button", { name: "Preset", exact: true }).click());
  assert.equal(back.asked.preset, "Q8_0");

  // A budget: one of its limits, refused at its field where it is impossible.
  await page.locator("summary", { hasText: /^Budget$/ }).click();
  await page.locator('[data-pointer="/recipe/budget"] select').selectOption("target_bytes");
  await page.locator('[data-pointer="/recipe/budget/target_bytes"] input').fill("5");
  await page.locator('[data-pointer="/recipe/budget/target_bytes"] .wrong', { hasText: "smallest possible" }).waitFor();
  const possible = await planned(
    page,
    () => page.locator('[data-pointer="/recipe/budget/target_bytes"] input').fill("120000"),
    (recipe) => recipe.budget?.target_bytes === 120000,
  );
  assert.equal(possible.asked.budget.target_bytes, 120000);
  await page.locator('[data-pointer="/recipe/budget"] select').selectOption("");

  // A dataset of one's own is there to choose as soon as it is taken.
  const data = path.join(folder, "mine.jsonl");
  fs.writeFileSync(
    data,
    Array.from({ length: 20 }, (_, i) => JSON.stringify({ text: "abc def ghi jkl ".repeat(20 + i) })).join("\n"),
  );
  await page.locator("summary", { hasText: "Add a dataset" }).click();
  await page.locator('[data-pointer="/files"] input').setInputFiles(data);
  await page.getByRole("button", { name: "Send", exact: true }).click();
  await page.getByText("20 records of text").waitFor();
  const [dataset] = (await server.call("GET", "v1/datasets")).data;
  await page.locator("summary", { hasText: "Calibration data" }).click();
  const chosen = await planned(
    page,
    () => page.locator('[data-pointer="/recipe/calibration/dataset"] select').selectOption(dataset.id),
    (recipe) => recipe.calibration,
  );
  assert.equal(chosen.asked.calibration.dataset, dataset.id);

  // What a job did is changed and run again.
  const jobs = (await server.call("GET", `v1/jobs?model=${model}&status=failed`)).data;
  await visit(page, server.origin, `#/jobs/${jobs[0].id}`);
  const same = await planned(page, async () => {
    await page.getByRole("link", { name: "Change and run" }).click();
    await settled(page);
  });
  assert.deepEqual(same.asked, jobs[0].recipe);
  await visit(page, server.origin, `#/jobs/${jobs[0].id}`);
  await page.getByRole("button", { name: "Run again" }).click();
  await page.waitForFunction((id) => !location.hash.includes(id) && location.hash.includes("job_"), jobs[0].id);
  const again = await server.ended(`v1/jobs/${/job_[0-9a-f]+/.exec(page.url())[0]}`);
  assert.deepEqual([again.recipe, again.error.code], [jobs[0].recipe, "quality_gate"]);
  await page.context().close();
}

/** Jobs that wait: chosen and cancelled together, after a question; one from its own page. */
export async function cancels({ binary, browser, files }) {
  const server = await startServer(binary, { flags: ["--workers", "0"] });
  try {
    const { id: model } = await server.model(files, "waits");
    const ids = [];
    for (const recipe of ["Q8_0", "Q4_0", "Q5_0", "Q6_K"]) ids.push((await server.call("POST", "v1/jobs", { model, recipe })).id);
    const page = await browser.tab(server.origin);
    await visit(page, server.origin, "#/jobs?status=queued");
    await page.getByRole("checkbox", { name: /^Choose Q8_0/ }).check();
    await page.getByRole("checkbox", { name: /^Choose Q4_0/ }).check();
    await page.getByRole("button", { name: "Cancel 2" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Keep" }).click();
    const states = async () => (await Promise.all(ids.map((id) => server.call("GET", `v1/jobs/${id}`)))).map((job) => job.status);
    assert.deepEqual(await states(), ["queued", "queued", "queued", "queued"]);
    await page.getByRole("button", { name: "Cancel 2" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Cancel them" }).click();
    await page.waitForFunction(() => document.querySelectorAll("tbody tr").length === 2);
    assert.deepEqual(await states(), ["cancelled", "cancelled", "queued", "queued"]);

    // Its page follows it: somebody else cancels, and the page says so by itself.
    await visit(page, server.origin, `#/jobs/${ids[2]}`);
    await page.locator(".head .state", { hasText: "queued" }).waitFor();
    await page.getByRole("button", { name: "Pause" }).click();
    await server.call("POST", `v1/jobs/${ids[2]}/cancel`);
    await page.getByText(/paused, \d+ new/).waitFor();
    assert.equal(await page.locator(".head .state").innerText(), "queued", "paused is paused");
    await page.getByRole("button", { name: "Go on" }).click();
    await page.locator(".head .state", { hasText: "cancelled" }).waitFor();
    await visit(page, server.origin, `#/jobs/${ids[3]}`);
    await page.getByRole("button", { name: "Cancel", exact: true }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Cancel the job" }).click();
    await page.locator(".head .state", { hasText: "cancelled" }).waitFor();
    await page.context().close();
  } finally {
    await server.stop();
  }
}
