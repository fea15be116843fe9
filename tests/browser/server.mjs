// The real server on a free port with a folder of its own, and requests to it beside the browser.
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";

const freePort = () =>
  new Promise((resolve, reject) => {
    const probe = net.createServer();
    probe.on("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });

/** Starts the binary; `keys` makes it ask for keys. */
export async function startServer(binary, { keys = false, flags = [] } = {}) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "modelpress-browser-"));
  const makeKey = (name, scopes) => {
    const made = spawnSync(
      binary,
      ["keys", "create", "--name", name, ...(scopes ? ["--scopes", scopes] : []), "--data-dir", folder],
      { encoding: "utf8" },
    );
    const token = /mp_[0-9A-Za-z_]+/.exec(made.stdout)?.[0];
    if (!token) throw new Error(`no key was made: ${made.stdout}${made.stderr}`);
    return token;
  };
  const admin = keys ? makeKey("admin") : null;
  const reader = keys ? makeKey("reader", "models:read,datasets:read,jobs:read,artifacts:read,webhooks:read") : null;
  const port = await freePort();
  const log = path.join(folder, "log");
  const out = fs.openSync(log, "a");
  const child = spawn(
    binary,
    ["serve", "--listen", `127.0.0.1:${port}`, "--data-dir", folder, ...(keys ? ["--auth", "required"] : []), ...flags],
    { stdio: ["ignore", out, out] },
  );
  const origin = `http://127.0.0.1:${port}`;
  for (let tries = 0; ; tries += 1) {
    if (
      await fetch(`${origin}/readyz`).then(
        (answer) => answer.ok,
        () => false,
      )
    )
      break;
    if (tries > 300 || child.exitCode !== null)
      throw new Error(`the server does not start:\n${fs.readFileSync(log, "utf8").slice(-2000)}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return {
    origin,
    admin,
    reader,
    async stop() {
      const gone = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      const slow = setTimeout(() => child.kill("SIGKILL"), 20000);
      await gone;
      clearTimeout(slow);
      fs.rmSync(folder, { recursive: true, force: true });
    },
    async call(method, route, body) {
      const answer = await fetch(`${origin}/${route}`, {
        method,
        headers: {
          ...(body === undefined || body instanceof FormData ? {} : { "Content-Type": "application/json" }),
          ...(admin ? { Authorization: `Bearer ${admin}` } : {}),
        },
        body: body === undefined ? undefined : body instanceof FormData ? body : JSON.stringify(body),
      });
      const text = await answer.text();
      if (!answer.ok) throw new Error(`${method} ${route}: ${answer.status} ${text}`);
      return text ? JSON.parse(text) : null;
    },
    async model(files, name) {
      const form = new FormData();
      form.append("name", name);
      for (const file of files) form.append("file", new Blob([fs.readFileSync(file)]), path.basename(file));
      return this.call("POST", "v1/models", form);
    },
    async ended(route) {
      for (;;) {
        const found = await this.call("GET", route);
        if (!["queued", "running"].includes(found.status)) return found;
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    },
  };
}

/** A proxy that serves the same server under a path. */
export async function underPath(origin, prefix) {
  const to = new URL(origin);
  const server = http.createServer((request, response) => {
    if (!request.url.startsWith(`${prefix}/`)) return response.writeHead(404).end();
    const onward = http.request(
      {
        host: to.hostname,
        port: to.port,
        method: request.method,
        path: request.url.slice(prefix.length),
        headers: request.headers,
      },
      (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
      },
    );
    onward.on("error", () => response.destroy());
    request.pipe(onward);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** Somebody who is told: answers 204 and remembers what came. */
export async function receiver() {
  const came = [];
  const server = http.createServer((request, response) => {
    let body = "";
    request.on("data", (chunk) => {
      body += chunk;
    });
    request.on("end", () => {
      came.push(JSON.parse(body));
      response.writeHead(204).end();
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}/hook`, came, stop: () => server.close() };
}
