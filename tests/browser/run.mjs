// Runs the parts one after another and says which failed: run.mjs MODELPRESS [--assets DIR] [--only PARTS] [--screenshots DIR]
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { openBrowser } from "./browser.mjs";
import { keys } from "./keys.mjs";
import { mainJob, reference } from "./main_job.mjs";
import { everywhere, firstLoad, keyboard, prefix } from "./everywhere.mjs";
import { analyses, comparison, search, trouble } from "./pages.mjs";
import { paths } from "./paths.mjs";
import { cancels, recipes } from "./recipes.mjs";
import { startServer } from "./server.mjs";
import { writeModel } from "./tiny_model.mjs";

const PARTS = {
  paths,
  mainJob,
  reference,
  recipes,
  cancels,
  comparison,
  analyses,
  search,
  trouble,
  keyboard,
  firstLoad,
  prefix,
  everywhere,
  keys,
};

const {
  values,
  positionals: [binary],
} = parseArgs({
  allowPositionals: true,
  options: { assets: { type: "string" }, only: { type: "string" }, screenshots: { type: "string" } },
});
const named = values.only ? values.only.split(",") : Object.keys(PARTS);
for (const name of named) if (!PARTS[name]) throw new Error(`no part ${name}: ${Object.keys(PARTS).join(" ")}`);
// Always in the order above: later parts add jobs to the server that earlier ones count.
const asked = Object.keys(PARTS).filter((name) => named.includes(name));
if (values.screenshots) fs.mkdirSync(values.screenshots, { recursive: true });

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "modelpress-models-"));
const files = writeModel(path.join(folder, "tiny"));
const larger = writeModel(path.join(folder, "larger"), { hidden: 128, inner: 256, blocks: 8, seed: 2 });
const server = await startServer(binary);
const browser = await openBrowser({ assets: values.assets && path.resolve(values.assets), screenshots: values.screenshots });
const failed = [];
try {
  for (const name of asked) {
    const began = Date.now();
    try {
      await PARTS[name]({ binary, browser, server, files, larger, folder });
      browser.clean();
      console.log(`ok      ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
    } catch (error) {
      failed.push(name);
      console.log(`FAILED  ${name}: ${error.stack}`);
      try {
        browser.clean();
      } catch (more) {
        console.log(more.message);
      }
    }
  }
} finally {
  await browser.close();
  await server.stop();
  fs.rmSync(folder, { recursive: true, force: true });
}
if (failed.length > 0) {
  console.log(`${failed.length} of ${asked.length} parts failed: ${failed.join(" ")}`);
  process.exitCode = 1;
}
