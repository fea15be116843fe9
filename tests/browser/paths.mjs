// Every path that the dashboard asks for is one that the API's document has.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";

const FOLDER = path.join(import.meta.dirname, "../../src/server/dashboard");

export async function paths({ server }) {
  const { paths: known } = await (await fetch(`${server.origin}/openapi.json`)).json();
  const patterns = Object.keys(known).map((one) => RegExp(`^${one.replace(/\{[^}]+\}/g, "[^/]+")}$`));
  const asked = new Set();
  for (const name of fs.readdirSync(FOLDER).filter((one) => one.endsWith(".js"))) {
    const text = fs.readFileSync(path.join(FOLDER, name), "utf8");
    for (const [, found] of text.matchAll(/["'`](v1\/[^"'`\s]*)["'`]/g)) asked.add(found);
  }
  assert.ok(asked.size > 30, `only ${asked.size} paths were found`);
  const unknown = [...asked].filter((one) => {
    const plain = `/${one.replace(/\$\{[^}]+\}/g, "x").split("?")[0]}`;
    return !patterns.some((pattern) => pattern.test(plain));
  });
  assert.deepEqual(unknown, []);
}
