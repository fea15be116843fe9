// The whole job: upload with a break, plan, refusal at its field, start, watch, report, download.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { settled, visit } from "./browser.mjs";

const sha256 = (file) => createHash("sha256").update(fs.readFileSync(file)).digest("hex");
const row = (page, name) => page.locator(`[data-file="${name}"]`);

/** Drops files on the page, as a file manager does. */
async function drop(page, files) {
  const data = await page.evaluateHandle(
    (list) => {
      const transfer = new DataTransfer();
      for (const { name, text } of list) transfer.items.add(new File([text], name, { lastModified: 1700000000000 }));
      return transfer;
    },
    files.map((file) => ({ name: path.basename(file), text: fs.readFileSync(file, "utf8") })),
  );
  await page.dispatchEvent(".drop", "drop", { dataTransfer: data });
}

export async function mainJob({ browser, server, larger }) {
  const [config, weights, tokenizer] = larger;
  const page = await browser.tab(server.origin);
  await visit(page, server.origin);
  await page.getByRole("link", { name: "New job" }).first().click();
  await settled(page);

  // Small files by drop, the large one by choice, on a slow line that breaks in the middle.
  await page.getByRole("button", { name: "Upload", exact: true }).click();
  await drop(page, [config, tokenizer]);
  for (const file of [config, tokenizer]) await row(page, path.basename(file)).getByText("complete").waitFor();
  const line = await page.context().newCDPSession(page);
  await line.send("Network.enable");
  await line.send("Network.emulateNetworkConditions", {
    offline: false,
    latency: 0,
    downloadThroughput: -1,
    uploadThroughput: 300_000,
  });
  await page.getByLabel("Files", { exact: true }).setInputFiles(weights);
  const bar = page.getByLabel("Upload of model.safetensors");
  await page.waitForFunction((node) => node.value > node.max * 0.1, await bar.elementHandle());
  // It goes on while another page is looked at.
  await visit(page, server.origin, "#/models");
  await visit(page, server.origin, "#/new");
  await page.waitForFunction((node) => node.value > node.max * 0.3, await bar.elementHandle());
  await row(page, "model.safetensors").getByRole("button", { name: "Pause" }).click();
  await row(page, "model.safetensors").getByText("paused").waitFor();
  await browser.shot(page, "wizard-upload");
  await page.reload();
  await settled(page);

  await line.send("Network.emulateNetworkConditions", { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });

  // What was begun stands there; the same file goes on where the server is, not at its beginning.
  await row(page, "model.safetensors").getByText("begun earlier").waitFor();
  for (const file of [config, tokenizer]) await row(page, path.basename(file)).getByText("complete").waitFor();
  assert.ok(await page.getByRole("button", { name: "Make the model" }).isDisabled(), "a model of unfinished files is not offered");
  const first = page.waitForRequest((request) => request.method() === "PATCH");
  await page.getByLabel("Files", { exact: true }).setInputFiles(weights);
  const from = Number((await first).headers()["upload-offset"]);
  const size = fs.statSync(weights).size;
  assert.ok(from > 0 && from < size, `goes on at ${from} of ${size}`);
  await row(page, "model.safetensors").getByText("complete").waitFor();
  await page.getByLabel("Name", { exact: true }).fill("larger");
  await page.getByRole("button", { name: "Make the model" }).click();
  await page.locator("dd", { hasText: "LlamaForCausalLM" }).waitFor();
  const [model] = (await server.call("GET", "v1/models?limit=1")).data;
  assert.equal(model.files.find((file) => file.name === "model.safetensors").digest, `sha256:${sha256(weights)}`);
  assert.equal(
    await page.evaluate(() => localStorage.getItem("modelpress-uploads")),
    "[]",
    "nothing is remembered of what was taken",
  );

  // A refusal stands at its field, and goes with its cause.
  await page.getByLabel("Preset", { exact: true }).selectOption("W4A16");
  await page.getByText("Options of rtn").click();
  const groups = page.locator('[data-pointer="/recipe/options/group_size"]');
  await groups.getByRole("textbox").fill("48");
  await groups.getByText("does not divide").waitFor();
  assert.equal(await groups.getByRole("textbox").getAttribute("aria-invalid"), "true");
  assert.equal(await page.getByRole("button", { name: "Start the job" }).count(), 0, "what is refused cannot be started");
  await browser.shot(page, "wizard-refused");
  await groups.getByRole("textbox").fill("32");
  await page.getByRole("button", { name: "Start the job" }).waitFor();
  assert.ok(await groups.getByText("does not divide").isHidden());

  // A recipe that takes a while: evaluation with gates, and every block's error.
  await page.getByLabel("Preset", { exact: true }).selectOption("Q4_0");
  await page.locator("summary", { hasText: /^Evaluation$/ }).click();
  await page.getByLabel("Compare the result with the original").check();
  const evaluation = page.locator("details", { has: page.getByLabel("Compare the result with the original") });
  for (const metric of ["perplexity", "kl", "top1_agreement", "layer_error"])
    await evaluation.getByLabel(metric, { exact: true }).check();
  await evaluation.locator('[data-pointer="/recipe/evaluation/num_samples"] input').fill("64");
  await evaluation.locator('[data-pointer="/recipe/evaluation/max_seq_length"] input').fill("128");
  await page.locator("summary", { hasText: /^Gates$/ }).click();
  await page.locator('[data-pointer="/recipe/gates/max_kl"] input').fill("5");
  const planned = page.waitForResponse(
    (answer) => answer.url().endsWith("/v1/plans") && answer.request().postData()?.includes('"max_kl":5'),
  );
  const { plan } = await (await planned).json();
  assert.deepEqual([plan.recipe.preset, plan.evaluation.sequences, plan.recipe.gates.max_kl], ["Q4_0", 64, 5]);
  const start = page.getByRole("button", { name: "Start the job" });
  await start.waitFor();
  assert.ok((await page.locator(".plan").innerText()).includes("Peak memory"));
  await browser.shot(page, "wizard-plan");

  // Watched from the queue to its end, without a reload.
  await start.click();
  await page.waitForURL(/#\/jobs\/job_/);
  const state = page.locator(".head .state");
  await page.locator(".head .state", { hasText: /queued|running/ }).waitFor();
  const seen = await page.locator(".events tbody tr").count();
  await page.locator(".head .state", { hasText: "succeeded" }).waitFor({ timeout: 240000 });
  assert.equal(await state.innerText(), "succeeded");
  await page.getByText("complete", { exact: true }).waitFor();
  assert.ok((await page.locator(".events tbody tr").count()) > seen, "events came in while the page was open");
  for (const stage of ["compress", "verify", "evaluate", "compare"])
    await page.locator(".timeline strong", { hasText: stage }).waitFor();
  await browser.shot(page, "job");
  const id = /job_[0-9a-f]+/.exec(page.url())[0];
  const job = await server.call("GET", `v1/jobs/${id}`);
  assert.equal(job.recipe.evaluation.num_samples, 64);

  await checkReport(page, browser, server, id);
  await page.getByRole("link", { name: "Job", exact: true }).click();
  await settled(page);
  await checkDownload(page, server, job);
  await page.context().close();
}

async function checkReport(page, browser, server, id) {
  await page.getByRole("link", { name: "Report" }).first().click();
  await settled(page);
  const report = await server.call("GET", `v1/jobs/${id}/report`);
  const text = await page.locator("#main").innerText();
  for (const words of [
    "Quality",
    "95 % interval",
    "at most 5: held",
    "Error behind each block",
    "Error of each tensor, worst first",
    "Bits of each matrix",
    "Recipe, spelled out",
    "Cost",
  ])
    assert.ok(text.includes(words), words);
  assert.ok(text.includes(report.formats[0].compression_ratio.toFixed(2)), "the ratio of the report");
  const worst = report.tensors
    .filter((one) => one.compressed && one.mse > 0)
    .sort((a, b) => b.mse / b.mean_square - a.mse / a.mean_square);
  const names = await page.getByRole("region", { name: "Tensors, worst first" }).locator("tbody tr td:first-child").allInnerTexts();
  assert.deepEqual(
    names,
    worst.slice(0, names.length).map((one) => one.name),
  );
  const whole = await page.getByRole("link", { name: "As one page" }).getAttribute("href");
  assert.equal((await fetch(`${server.origin}/${whole}`)).status, 200);
  await browser.shot(page, "report");
}

/** What is downloaded has the digest that is shown. */
async function checkDownload(page, server, job) {
  const artifact = await server.call("GET", `v1/artifacts/${job.artifacts[0]}`);
  const file = artifact.files.find((one) => one.name.endsWith(".gguf"));
  const coming = page.waitForEvent("download");
  await page.getByRole("link", { name: `Download ${file.name}`, exact: true }).click();
  const download = await coming;
  assert.equal(download.suggestedFilename(), file.name);
  assert.equal(`sha256:${sha256(await download.path())}`, file.digest);
}

/** A real checkpoint, where there is one: the same way, with a recipe that takes seconds. */
export async function reference({ browser, server }) {
  const folder = process.env.MODELPRESS_SMOLLM2;
  if (!folder) return console.log("        MODELPRESS_SMOLLM2 is not set: no large model is sent");
  const names = fs
    .readdirSync(folder)
    .filter((name) => /^(config|generation_config|tokenizer|tokenizer_config)\.json$|\.safetensors$/.test(name));
  const page = await browser.tab(server.origin);
  await visit(page, server.origin, "#/new");
  await page.getByRole("button", { name: "Upload", exact: true }).click();
  await page.getByLabel("Files", { exact: true }).setInputFiles(names.map((name) => path.join(folder, name)));
  for (const name of names) await row(page, name).getByText("complete").waitFor({ timeout: 300000 });
  await page.getByRole("button", { name: "Make the model" }).click();
  await page.locator("dd", { hasText: "LlamaForCausalLM" }).waitFor({ timeout: 60000 });
  await page.getByLabel("Preset", { exact: true }).selectOption("Q8_0");
  await page.locator(".plan", { hasText: "model-Q8_0.gguf" }).waitFor();
  await browser.shot(page, "reference-plan");
  await page.getByRole("button", { name: "Start the job" }).click();
  await page.locator(".head .state", { hasText: "succeeded" }).waitFor({ timeout: 600000 });
  const job = await server.call("GET", `v1/jobs/${/job_[0-9a-f]+/.exec(page.url())[0]}`);
  await checkDownload(page, server, job);
  await visit(page, server.origin, `#/jobs/${job.id}/report`);
  await browser.shot(page, "reference-report");
  await page.context().close();
}
