// What is published: packed, installed into a fresh folder, typed for strict consumers; and every block of README.md, run.

import { Modelpress } from '@modelpress/client/node';
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHmac, randomBytes } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { Server } from './server.js';
import { writeModel } from './tiny.js';

const run = promisify(execFile);
const root = fileURLToPath(new URL('..', import.meta.url));
const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
const STRICT = {
  target: 'ES2022',
  module: 'NodeNext',
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  skipLibCheck: false,
};

let server: Server;
let fresh: string;
let blocks: string[];

before(async () => {
  server = await Server.start();
  fresh = await mkdtemp(join(tmpdir(), 'modelpress-consumer-'));
  await run('npm', ['pack', '--silent', '--pack-destination', fresh], { cwd: root });
  await writeFile(join(fresh, 'package.json'), '{"name": "consumer", "private": true, "type": "module"}');
  const tarball = (await readdir(fresh)).find((name) => name.endsWith('.tgz'));
  await run('npm', ['install', '--silent', '--no-audit', '--no-fund', '--offline', `./${tarball}`], { cwd: fresh });
  const readme = await readFile(join(root, 'README.md'), 'utf8');
  blocks = [...readme.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code ?? '');
});
after(async () => {
  await server.stop();
  await rm(fresh, { recursive: true, force: true });
});

/** Compiles files of a folder with these compiler options; what tsc says otherwise is thrown. */
async function compile(folder: string, options: object): Promise<void> {
  await writeFile(
    join(folder, 'tsconfig.json'),
    JSON.stringify({ compilerOptions: { ...STRICT, ...options }, include: ['*.ts'] }),
  );
  await run(process.execPath, [tsc, '-p', folder]).catch((error: { stdout: string }) => assert.fail(error.stdout));
}

/** A folder inside the consumer, with the compiler's types of Node. */
async function corner(name: string): Promise<string> {
  const folder = join(fresh, name);
  await mkdir(join(folder, 'node_modules'), { recursive: true });
  await symlink(join(root, 'node_modules', '@types'), join(folder, 'node_modules', '@types'));
  await symlink(join(root, 'node_modules', 'undici-types'), join(folder, 'node_modules', 'undici-types'));
  return folder;
}

const CONSUMER = `
import { Modelpress, ModelpressError, type JobIn, type JobOut, type Recipe } from '@modelpress/client';
const client = new Modelpress({ baseUrl: 'http://127.0.0.1:1', retries: 0 });
export const recipe: Recipe = { preset: 'a preset of tomorrow', gates: { max_kl: 0.1 }, calibration: { num_samples: 8 } };
export const job: JobIn = { model: 'mdl_', recipe, metadata: { a: 'b' } };
export const made: Promise<JobOut> = client.jobs.create(job);
export const code = (error: unknown): string | undefined => (error instanceof ModelpressError ? error.errors[0]?.pointer : undefined);
// @ts-expect-error: a recipe is needed
client.jobs.create({ model: 'mdl_' });
// @ts-expect-error: this entry takes no paths
client.models.upload('folder');
// @ts-expect-error: jobs have no such field
made.then(({ colour }) => colour);
made.catch(() => undefined);
`;

test('only what is needed is packed, and the folder needs nothing else', async () => {
  const installed = join(fresh, 'node_modules', '@modelpress', 'client');
  assert.deepEqual((await readdir(installed)).sort(), ['README.md', 'dist', 'package.json']);
  assert.deepEqual(await readdir(join(fresh, 'node_modules')), ['.package-lock.json', '@modelpress']);
  const code = `import * as core from '@modelpress/client'; import * as node from '@modelpress/client/node';
    console.log(typeof core.Modelpress, typeof node.Modelpress, (await new core.Modelpress({ baseUrl: '${server.url}' }).api.livez()).status);`;
  await writeFile(join(fresh, 'use.js'), code);
  assert.equal((await run(process.execPath, ['use.js'], { cwd: fresh })).stdout, 'function function ok\n');
});

test('the entry for browsers imports nothing but its own files', async () => {
  const seen = new Set<string>();
  const visit = async (url: URL): Promise<void> => {
    if (seen.has(url.href)) return;
    seen.add(url.href);
    for (const [, name] of (await readFile(url, 'utf8')).matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)) {
      assert.match(name ?? '', /^\.\//, url.href);
      await visit(new URL(name ?? '', url));
    }
  };
  await visit(pathToFileURL(join(fresh, 'node_modules', '@modelpress', 'client', 'dist', 'index.js')));
  assert(seen.size > 10, `${seen.size}`);
});

test('types are strict, for browsers and for Node without the DOM', async () => {
  for (const [name, options] of Object.entries({
    browser: { lib: ['ES2022', 'DOM', 'DOM.Iterable'], types: [], module: 'ESNext', moduleResolution: 'Bundler' },
    node: { lib: ['ES2022'], types: ['node'] },
  })) {
    const folder = await corner(name);
    await writeFile(join(folder, 'consumer.ts'), CONSUMER);
    await compile(folder, { ...options, noEmit: true });
  }
});

test('every block of the README compiles and runs', async () => {
  const folder = await corner('readme');
  await writeModel(join(folder, 'SmolLM2'));
  for (const [place, block] of blocks.entries())
    await writeFile(join(folder, `block${place}.ts`), block.replace('http://127.0.0.1:8080', server.url));
  await compile(folder, { lib: ['ES2022', 'DOM', 'DOM.Iterable'], types: ['node'] });
  const env = { ...process.env, MODELPRESS_URL: server.url };
  const said: string[] = [];
  for (const place of blocks.keys())
    said.push((await run(process.execPath, [`block${place}.js`], { cwd: folder, env })).stdout);
  const [compress, files, steps, many, webhook] = said;
  assert.equal(said.length, 5);
  assert.match(compress ?? '', /succeeded 1\n6\.\d+\n\[[\s\S]*'.*\.gguf'/);
  assert((await readdir(join(folder, 'small'))).some((name) => name.endsWith('.gguf')));
  assert.match(files ?? '', /6 of 6\nds_/);
  assert.match(steps ?? '', /422 recipe_refused .*\n\/recipe\S* .*\n(.*\n)*\d+ .*\n(.*\n)*job_/);
  assert.match(many ?? '', /^\[(.|\n)*\]\n(\S+ \d+ .+\n)+\S+\n$/);
  assert.equal(webhook, '');
});

test('the receiver of the README believes the server only', async () => {
  const { receive } = (await import(join(fresh, 'readme', `block${blocks.length - 1}.js`))) as {
    receive: (request: Request) => Promise<Response>;
  };
  const key = randomBytes(32);
  process.env['WEBHOOK_SECRET'] = `whsec_${key.toString('base64')}`;
  const body = JSON.stringify({
    type: 'job.succeeded',
    timestamp: new Date().toISOString(),
    data: { object: 'job', id: 'job_1' },
  });
  const timestamp = String(Math.floor(Date.now() / 1000));
  const signature = `v1,${createHmac('sha256', key).update(`msg_1.${timestamp}.${body}`).digest('base64')}`;
  const headers = { 'webhook-id': 'msg_1', 'webhook-timestamp': timestamp, 'webhook-signature': signature };
  assert.equal((await receive(new Request('http://here/', { method: 'POST', body, headers }))).status, 204);
  assert.equal((await receive(new Request('http://here/', { method: 'POST', body: `${body} `, headers }))).status, 401);
});

test('a document that says something else is noticed', async () => {
  const sdk = join(fresh, 'openapi', 'sdks', 'typescript');
  const checkout = process.env['MODELPRESS_SDK'] ?? root;
  await mkdir(join(sdk, 'src'), { recursive: true });
  for (const name of ['generate.mjs', 'package.json', 'src/generated.ts'])
    await copyFile(join(checkout, name), join(sdk, name));
  const document = await readFile(join(checkout, '..', '..', 'openapi.json'), 'utf8');
  const check = async (text: string): Promise<string> => {
    await writeFile(join(fresh, 'openapi', 'openapi.json'), text);
    const ended = await run(process.execPath, ['generate.mjs', '--check'], { cwd: sdk }).catch(
      (error: { stderr: string }) => error,
    );
    return ended.stderr;
  };
  assert.equal(await check(document), '');
  assert.match(await check(document.replace('"recipe"', '"receipt"')), /generated\.ts is not what/);
  assert.match(await check(document.replace(/("version": )"[^"]+"/, '$1"99.0.0"')), /package\.json has version/);
});

test('it is the version of the server', async () => {
  const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string };
  assert.equal((await new Modelpress({ baseUrl: server.url }).api.livez()).version, version);
});
