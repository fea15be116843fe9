// Chromium: pages that report every error, violation and foreign request; axe; screenshots; the keyboard.
import assert from "node:assert/strict";
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(`${process.env.BROWSER_MODULES}/`);
const { chromium } = require("playwright-core");
const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8" };
/** What the server refuses on purpose: Chromium writes a line about each. */
const REFUSALS = [401, 403, 404, 409, 422];

export async function openBrowser({ assets, screenshots }) {
  const browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
  const faults = [];

  /** A tab of its own; `key` is in its session as if it had been typed. */
  async function tab(origin, { narrow = false, dark = false, key = null } = {}) {
    const context = await browser.newContext({
      viewport: narrow ? { width: 360, height: 740 } : { width: 1280, height: 860 },
      colorScheme: dark ? "dark" : "light",
      acceptDownloads: true,
    });
    context.setDefaultTimeout(30000);
    const told = (text) => faults.push(text);
    await context.exposeFunction("reportViolation", (text) => told(`policy: ${text}`));
    await context.addInitScript(() =>
      addEventListener("securitypolicyviolation", (event) =>
        window.reportViolation(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`),
      ),
    );
    if (key)
      await context.addInitScript((text) => {
        if (sessionStorage.getItem("modelpress-key") === null) sessionStorage.setItem("modelpress-key", text);
      }, key);
    if (assets) await fromFolder(context, origin, assets);
    const page = await context.newPage();
    page.on("pageerror", (error) => told(`error: ${error.stack}`));
    page.on("console", (message) => {
      const isRefusal = /status of (\d+)/.exec(message.text());
      if (message.type() !== "error" || (isRefusal && REFUSALS.includes(Number(isRefusal[1])))) return;
      if (/ERR_(INTERNET_DISCONNECTED|ABORTED|CONNECTION)/.test(message.text())) return;
      told(`console: ${message.text()} (${message.location().url}, on ${page.url()})`);
    });
    page.on("request", (request) => {
      const { protocol, origin: to } = new URL(request.url());
      if (!["data:", "blob:"].includes(protocol) && to !== new URL(origin).origin) told(`foreign request: ${request.url()}`);
    });
    return page;
  }

  return {
    tab,
    /** Everything that went wrong unasked since the last look. */
    clean() {
      assert.deepEqual(faults.splice(0), []);
    },
    async shot(page, name) {
      if (screenshots) await page.screenshot({ path: path.join(screenshots, `${name}.png`), fullPage: true });
    },
    close: () => browser.close(),
  };
}

/** Pages and modules from a folder, under the policy that the server gives. */
async function fromFolder(context, origin, folder) {
  const policy = (await fetch(`${origin}/`)).headers.get("content-security-policy");
  await context.route(
    (url) => url.origin === new URL(origin).origin && /(^|\/)$|\/assets\//.test(url.pathname) && !url.pathname.includes("/v1/"),
    (route) => {
      const { pathname } = new URL(route.request().url());
      const name = pathname.includes("/assets/") ? path.basename(pathname) : "index.html";
      const file = path.join(folder, name);
      if (!fs.existsSync(file)) return route.fulfill({ status: 404, body: "" });
      return route.fulfill({
        status: 200,
        headers: { "content-type": TYPES[path.extname(name)], "content-security-policy": policy },
        body: fs.readFileSync(file),
      });
    },
  );
}

/** Goes to a page and waits until it has read what it shows. */
export async function visit(page, origin, hash = "#/") {
  const to = `${origin}/${hash}`;
  if (page.url().split("#")[0] === `${origin}/`) {
    await page.evaluate((text) => {
      location.hash = text;
    }, hash);
    await page.waitForFunction((text) => location.hash.startsWith(text.split("?")[0]), hash);
  } else {
    await page.goto(to);
  }
  await settled(page);
}

/** Nothing loads any more. */
export async function settled(page) {
  await page.locator("#main h1").first().waitFor();
  await page.waitForFunction(() => !/(Loading|Reading|Planning)( |…)/.test(document.getElementById("main").innerText), null, {
    timeout: 30000,
  });
  await page.waitForTimeout(250);
}

/** No rule of axe is broken seriously. */
export async function accessible(page, where) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const serious = violations.filter((one) => ["serious", "critical"].includes(one.impact));
  assert.deepEqual(
    serious.map(
      (one) =>
        `${one.id}: ${one.nodes
          .slice(0, 3)
          .map((node) => `${node.target.join(" ")} (${node.failureSummary.split("\n")[1]})`)
          .join("; ")}`,
    ),
    [],
    where,
  );
}

/** The page itself does not scroll sideways. */
export async function fits(page, where) {
  const [wide, has] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert.ok(wide <= has, `${where} is ${wide} pixels wide in a window of ${has}`);
}

/** Tabs forward to what the selector names. */
export async function tabTo(page, selector, most = 150) {
  for (let at = 0; at < most; at += 1) {
    await page.keyboard.press("Tab");
    if (await page.evaluate((text) => document.activeElement?.matches(text), selector)) return;
  }
  assert.fail(`${selector} cannot be reached with the Tab key`);
}
