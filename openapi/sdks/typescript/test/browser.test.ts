// The entry for browsers in a real one: a page that uploads files, compresses, follows, downloads and verifies.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Server } from './server.js';
import { writeModel } from './tiny.js';

const PAGE = `<!doctype html><script type="module">
import { Modelpress, ModelpressError, verifyWebhook } from '/dist/index.js';
const told = {};
try {
  const client = new Modelpress({ baseUrl: location.origin });
  const names = ['config.json', 'tokenizer.json', 'model.safetensors'];
  const given = await Promise.all(names.map(async (name) => new File([await (await fetch('/given/' + name)).blob()], name)));
  const { job, report, artifacts } = await client.compress({ files: given, recipe: 'Q8_0' }, { upload: { pieceBytes: 100000 } });
  told.status = job.status;
  told.parameters = report.totals.parameters;
  const file = artifacts[0].files.find(({ name }) => name.endsWith('.gguf'));
  const bytes = await new Response(await client.artifacts.download(artifacts[0], file.name)).arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  told.isWhole = file.digest === 'sha256:' + [...digest].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  told.events = 0;
  for await (const { type } of client.jobs.events(job.id)) told.events += type === 'event';
  told.refused = await client.jobs.create({ model: job.model, recipe: 'nothing' }).catch((error) => error instanceof ModelpressError && error.status);
  const unsigned = { 'webhook-id': 'a', 'webhook-timestamp': String(Math.floor(Date.now() / 1000)), 'webhook-signature': 'v1,AAAA' };
  told.unsigned = await verifyWebhook('{}', unsigned, 'whsec_AAAA').catch((error) => error.name);
} catch (error) {
  told.error = String(error.stack);
}
await fetch('/told', { method: 'POST', body: JSON.stringify(told) });
</script>`;

function found(): string | undefined {
  const names = [process.env['CHROMIUM'] ?? 'chromium', 'chromium-browser', 'google-chrome'];
  return names.find((name) => {
    try {
      execFileSync(name, ['--version'], { stdio: 'ignore' });
      return true;
    } catch {
      return false;
    }
  });
}

/** The page, the package's files and the API under one origin. */
function serve(api: Server, given: string, tell: (text: string) => void) {
  const file = async (path: string, response: ServerResponse): Promise<void> => {
    response.writeHead(200, { 'content-type': path.endsWith('.js') ? 'text/javascript' : 'application/octet-stream' });
    response.end(await readFile(path));
  };
  const pass = (from: IncomingMessage, to: ServerResponse): void => {
    const onward = request(api.url + from.url, { method: from.method, headers: from.headers }, (answer) => {
      to.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(to);
    });
    from.pipe(onward.on('error', () => to.destroy()));
  };
  return createServer(async (from, to) => {
    const url = from.url ?? '';
    if (url === '/') to.writeHead(200, { 'content-type': 'text/html' }).end(PAGE);
    else if (url.startsWith('/dist/')) await file(fileURLToPath(new URL(`..${url}`, import.meta.url)), to);
    else if (url.startsWith('/given/')) await file(join(given, url.slice('/given/'.length)), to);
    else if (url === '/told') {
      let text = '';
      for await (const piece of from) text += String(piece);
      to.writeHead(204).end();
      tell(text);
    } else pass(from, to);
  });
}

const chromium = found();

test('a page does what a program does', { skip: chromium === undefined && 'there is no chromium' }, async () => {
  const server = await Server.start();
  const given = await writeModel(join(server.folder, 'given'));
  const profile = await mkdtemp(join(tmpdir(), 'modelpress-chromium-'));
  let tell: (text: string) => void = () => undefined;
  const told = new Promise<string>((resolve) => (tell = resolve));
  const pages = serve(server, given, (text) => tell(text));
  pages.listen(0, '127.0.0.1');
  await once(pages, 'listening');
  const address = `http://127.0.0.1:${(pages.address() as AddressInfo).port}/`;
  const browser = spawn(
    chromium ?? '',
    ['--headless', '--no-sandbox', '--disable-gpu', `--user-data-dir=${profile}`, address],
    { stdio: 'ignore' },
  );
  try {
    const late = new Promise<never>((_, reject) =>
      setTimeout(() => reject(new Error('the page says nothing')), 30_000).unref(),
    );
    const { events, ...rest } = JSON.parse(await Promise.race([told, late])) as { events: number };
    assert.deepEqual(rest, {
      status: 'succeeded',
      parameters: 94_528,
      isWhole: true,
      refused: 422,
      unsigned: 'WebhookVerificationError',
    });
    assert(events >= 3, `${events}`);
  } finally {
    browser.kill('SIGKILL');
    if (browser.exitCode === null && browser.signalCode === null) await once(browser, 'exit');
    pages.closeAllConnections();
    pages.close();
    await server.stop();
    await rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
});
