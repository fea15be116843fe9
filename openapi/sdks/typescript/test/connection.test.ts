// Lost connections, servers that go away, limits of time, signals, keys: against a real server behind a line that is cut.

import { Modelpress, ModelpressError, sourcesOf, type Source } from '@modelpress/client/node';
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { Line, makeKey, Server } from './server.js';
import { writeModel } from './tiny.js';

let server: Server;
let line: Line;
let direct: Modelpress;
let client: Modelpress;
/** A file of random bytes, and its digest. */
let big: string;
const BIG_BYTES = 24 << 20;
let bigDigest: string;

before(async () => {
  server = await Server.start();
  direct = new Modelpress({ baseUrl: server.url });
  await mkdir(join(server.folder, 'given'));
  big = join(server.folder, 'given', 'big.txt');
  const bytes = randomBytes(BIG_BYTES);
  bigDigest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  await writeFile(big, bytes);
});
beforeEach(async () => {
  line = await Line.to(server);
  client = new Modelpress({ baseUrl: line.url, retries: 3 });
});
afterEach(() => line.stop());
after(() => server.stop());

const only = async (path: string): Promise<Source> => (await sourcesOf(path))[0] as Source;

async function collect(stream: ReadableStream<Uint8Array>): Promise<Buffer> {
  return Buffer.from(await new Response(stream).arrayBuffer());
}

describe('uploads', () => {
  test('go on from where the server stands, every time the line is cut', async () => {
    line.cuts.push(
      { direction: 'up', bytes: 3 << 20 },
      { direction: 'up', bytes: 5 << 20 },
      { direction: 'up', bytes: 1 << 20 },
    );
    const offsets: number[] = [];
    const sent = await client.uploads.send(await only(big), {
      pieceBytes: 8 << 20,
      onProgress: ({ fileBytes }) => offsets.push(fileBytes),
    });
    assert.equal(line.cut, 3);
    assert.equal(sent.status, 'complete');
    assert.equal(sent.digest, bigDigest);
    assert.deepEqual(
      offsets,
      [...offsets].sort((a, b) => a - b),
    );
    // Not from the beginning, and not only at whole pieces.
    assert(
      offsets.some((offset) => offset % (8 << 20) !== 0),
      `${offsets}`,
    );
  });

  test('go on in another program, over the death of the server', async () => {
    const mortal = await Server.start();
    const resume = new Map<string, string>();
    const first = new Modelpress({ baseUrl: mortal.url, retries: 0 });
    const stop = new AbortController();
    const reason = new Error('enough');
    const sending = first.uploads.sendAll([await only(big)], {
      resume,
      signal: stop.signal,
      pieceBytes: 4 << 20,
      onProgress: ({ bytes }) => bytes >= 8 << 20 && stop.abort(reason),
    });
    await assert.rejects(sending, reason);
    await mortal.kill();
    const again = await Server.start({ folder: mortal.folder, port: mortal.port });
    try {
      const id = resume.get('big.txt');
      assert(id !== undefined);
      const second = new Modelpress({ baseUrl: again.url });
      const { offset } = await second.uploads.get(id);
      assert(offset >= 8 << 20 && offset < BIG_BYTES, `${offset}`);
      const begun: number[] = [];
      const [sent] = await second.uploads.sendAll([await only(big)], {
        resume,
        pieceBytes: 4 << 20,
        onProgress: ({ bytes }) => begun.push(bytes),
      });
      assert.equal(sent?.upload, id);
      assert.equal(begun[0], offset);
      assert.equal((await second.uploads.get(id)).digest, bigDigest);
    } finally {
      await again.stop();
    }
  });

  test('another file under the same name is noticed', async () => {
    const resume = new Map<string, string>();
    const half = await direct.api.createUpload({ body: { length: BIG_BYTES } });
    await direct.api.appendUpload({ id: half.id, uploadOffset: 0, body: new Uint8Array(1 << 20) });
    resume.set('big.txt', half.id);
    await assert.rejects(direct.uploads.sendAll([await only(big)], { resume }), { code: 'digest_mismatch' });
    assert.equal(resume.size, 0);
    await assert.rejects(
      direct.uploads.get(half.id),
      (error) => error instanceof ModelpressError && error.status >= 404,
    );
  });

  test('files of no bytes arrive, and two of one name are refused', async () => {
    const [one] = await direct.uploads.sendAll([{ name: 'a', size: 0, read: async () => new Uint8Array() }]);
    assert.equal((await direct.uploads.get(one?.upload ?? '')).status, 'complete');
    await assert.rejects(
      direct.models.upload([
        { name: 'a', data: 'x' },
        { name: 'a', data: 'y' },
      ]),
      TypeError,
    );
  });

  test('give up when the line stays cut, with the reason', async () => {
    for (let i = 0; i < 40; i += 1) line.cuts.push({ direction: 'up', bytes: 10 });
    const few = new Modelpress({ baseUrl: line.url, retries: 1 });
    await assert.rejects(few.uploads.send(await only(big)), (error) => {
      return (
        error instanceof ModelpressError &&
        error.code === 'connection_failed' &&
        error.status === 0 &&
        error.message.includes(line.url)
      );
    });
    assert(line.cut >= 2 && line.cut <= 4, `${line.cut}`);
  });
});

describe('downloads', () => {
  let id: string;
  let name: string;
  let whole: Buffer;

  before(async () => {
    const files = await writeModel(join(server.folder, 'given', 'model'));
    const { artifacts } = await direct.compress({ files, recipe: { preset: 'F16', formats: ['gguf'] } });
    id = artifacts[0]?.id ?? '';
    const file = artifacts[0]?.files.reduce((one, other) => (one.bytes > other.bytes ? one : other));
    name = file?.name ?? '';
    whole = await collect(await direct.artifacts.download(id, name));
    assert.equal(`sha256:${createHash('sha256').update(whole).digest('hex')}`, file?.digest);
  });

  test('a stream goes on by range', async () => {
    line.cuts.push({ direction: 'down', bytes: 50_000 }, { direction: 'down', bytes: 60_000 });
    const got = await collect(await client.artifacts.download(await direct.artifacts.get(id), name));
    assert.equal(line.cut, 2);
    assert(got.equals(whole));
  });

  test('a saved file goes on in another program, and is wrong only once', async () => {
    const folder = join(server.folder, 'saved');
    const part = join(folder, `${name}.part`);
    line.cuts.push({ direction: 'down', bytes: 80_000 });
    const artifact = await direct.artifacts.get(id);
    await assert.rejects(client.save(artifact, folder, { retries: 0, parallel: 1 }), { code: 'connection_failed' });
    const { size } = await stat(part);
    assert(size > 0 && size < whole.length, `${size}`);
    const asked: Array<string | null> = [];
    const spying: typeof fetch = (input, init) => {
      asked.push(new Headers(init?.headers).get('range'));
      return fetch(input, init);
    };
    const spied = new Modelpress({ baseUrl: server.url, fetch: spying });
    const paths = await spied.save(artifact, folder);
    assert(asked.includes(`bytes=${size}-`), `${asked}`);
    assert((await readFile(paths.find((path) => path.endsWith(name)) ?? '')).equals(whole));
    await writeFile(part, Buffer.alloc(size));
    await assert.rejects(spied.save(artifact, folder), { code: 'digest_mismatch' });
    await spied.save(artifact, folder);
    // Everything was there, but for its name.
    await writeFile(part, whole);
    await spied.save(artifact, folder);
  });

  test('nobody waits for a stream that is given up', async () => {
    const stream = await direct.artifacts.download(id, name);
    const reader = stream.getReader();
    await reader.read();
    await reader.cancel();
    await assert.rejects(direct.artifacts.download(id, 'nothing'), { code: 'not_found' });
    const stop = new AbortController();
    const aborted = await direct.artifacts.download(id, name, { signal: stop.signal });
    stop.abort(new Error('no more'));
    await assert.rejects(collect(aborted), /no more/);
  });
});

describe('jobs', () => {
  test('events go on behind the last one when the line is cut', async () => {
    const model = (await direct.models.upload(await writeModel(join(server.folder, 'given', 'long'), 5))).id;
    const recipe = { preset: 'Q4_K_M', evaluation: { num_samples: 400, max_seq_length: 256 } };
    const job = await direct.jobs.create({ model, recipe });
    const seqs: number[] = [];
    let connections = 0;
    const counting: typeof fetch = (input, init) => {
      connections += 1;
      return fetch(input, init);
    };
    const counted = new Modelpress({ baseUrl: line.url, fetch: counting });
    let ticks = 0;
    for await (const told of counted.jobs.events(job.id)) {
      if (told.type === 'event') seqs.push(told.event.seq);
      else if ((ticks += 1) <= 2) line.cutAll();
    }
    assert(connections >= 3, `${connections}`);
    assert.deepEqual(
      seqs,
      seqs.map((_, place) => place + 1),
    );
    assert.equal((await direct.jobs.get(job.id)).status, 'succeeded');
  });

  test('a wait asks again and again where no stream is left', async () => {
    const narrow = await Server.start({ env: { MODELPRESS_MAX_EVENT_STREAMS: '1', MODELPRESS_WORKERS: '1' } });
    try {
      const other = new Modelpress({ baseUrl: narrow.url });
      const model = (await other.models.upload(await writeModel(join(narrow.folder, 'given')))).id;
      const dataset = (await other.datasets.upload({ name: 'long.txt', data: randomBytes(1 << 18).toString('hex') }))
        .id;
      const recipe = { preset: 'Q8_0', evaluation: { dataset, num_samples: 20_000, max_seq_length: 256 } };
      const long = await other.jobs.create({ model, recipe });
      const held = other.jobs.events(long.id);
      await held.next();
      await assert.rejects(other.jobs.events(long.id, { retries: 0 }).next(), { code: 'overloaded' });
      const short = await other.jobs.create({ model, recipe: 'Q8_0', priority: 1 });
      const waiting = other.jobs.wait(short.id);
      await other.jobs.cancel(long.id);
      assert.equal((await waiting).status, 'succeeded');
      await held.return();
    } finally {
      await narrow.stop();
    }
  });

  test('an aborted wait leaves the job, an aborted compress cancels it', async () => {
    const files = await writeModel(join(server.folder, 'given', 'slow'), 6);
    const model = (await direct.models.upload(files)).id;
    const dataset = (await direct.datasets.upload({ name: 'long.txt', data: randomBytes(1 << 19).toString('hex') })).id;
    const recipe = { preset: 'Q8_0', evaluation: { dataset, num_samples: 20_000, max_seq_length: 256 } };
    const job = await direct.jobs.create({ model, recipe });
    await assert.rejects(direct.jobs.wait(job.id, { signal: AbortSignal.timeout(300) }), { name: 'TimeoutError' });
    assert.notEqual((await direct.jobs.get(job.id)).status, 'cancelled');
    await direct.jobs.cancel(job.id);
    await assert.rejects(direct.jobs.wait(job.id), { code: 'cancelled' });
    assert.equal((await direct.jobs.wait(job.id, { allowFailure: true })).status, 'cancelled');
    const stop = new AbortController();
    await assert.rejects(
      direct.compress({ model, recipe }, { signal: stop.signal, onEvent: () => stop.abort(new Error('never mind')) }),
      /never mind/,
    );
    const [newest] = (await direct.jobs.list({ limit: 1 }).page()).data;
    assert.notEqual(newest?.id, job.id);
    assert.equal((await direct.jobs.wait(newest?.id ?? '', { allowFailure: true })).status, 'cancelled');
  });
});

describe('requests', () => {
  test('are repeated where that does no harm, as the server asks', async () => {
    const times: number[] = [];
    const answers = [
      new Response('{"code":"overloaded"}', { status: 503, headers: { 'retry-after': '1' } }),
      new Response('<html>', { status: 502 }),
    ];
    const flaky: typeof fetch = async (input, init) => {
      times.push(Date.now());
      return answers.shift() ?? fetch(input, init);
    };
    const unlucky = new Modelpress({ baseUrl: server.url, fetch: flaky });
    assert.equal((await unlucky.api.livez()).status, 'ok');
    assert.equal(times.length, 3);
    assert((times[1] ?? 0) - (times[0] ?? 0) >= 990);
    answers.push(new Response('{"code":"unavailable","detail":"later"}', { status: 503 }));
    await assert.rejects(unlucky.models.create({}), { status: 503, code: 'unavailable', detail: 'later' });
    answers.push(new Response('', { status: 503, headers: { 'retry-after': '3600' } }));
    await assert.rejects(unlucky.api.livez(), { status: 503, retryAfterMs: 3_600_000 });
    answers.push(new Response('<html>', { status: 200 }));
    await assert.rejects(unlucky.api.livez(), { code: 'answer_invalid' });
  });

  test('end at their limit of time and with their signal', async () => {
    const deaf: typeof fetch = (_, init) =>
      new Promise((_resolve, reject) => init?.signal?.addEventListener('abort', () => reject(init.signal?.reason)));
    const client = new Modelpress({ baseUrl: server.url, fetch: deaf, timeoutMs: 50, retries: 1 });
    await assert.rejects(client.api.livez(), { name: 'ModelpressError', code: 'timeout' });
    const stop = new AbortController();
    const waiting = client.api.livez().catch(() => undefined);
    const aborted = client.jobs.get('job_0', { signal: stop.signal, timeoutMs: 10_000 });
    stop.abort(new Error('changed my mind'));
    await assert.rejects(aborted, /changed my mind/);
    await waiting;
  });

  test('carry the key, of the options or the environment, and never show it', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'modelpress-ts-'));
    const key = await makeKey(folder, 'models:write');
    const strict = await Server.start({ auth: 'required', folder });
    try {
      await assert.rejects(new Modelpress({ baseUrl: strict.url }).models.list().toArray(), {
        status: 401,
        code: 'unauthenticated',
      });
      const named = new Modelpress({ baseUrl: strict.url, apiKey: key });
      assert.deepEqual(await named.models.list().toArray(), []);
      await assert.rejects(named.jobs.list().toArray(), { status: 403, code: 'insufficient_scope' });
      process.env['MODELPRESS_URL'] = strict.url;
      process.env['MODELPRESS_API_KEY'] = key;
      const ambient = new Modelpress();
      assert.deepEqual(await ambient.models.list().toArray(), []);
      assert(!inspect(ambient, { depth: 9, showHidden: true }).includes(key));
      assert(!JSON.stringify(ambient).includes(key));
    } finally {
      delete process.env['MODELPRESS_URL'];
      delete process.env['MODELPRESS_API_KEY'];
      await strict.stop();
    }
  });

  test('a file that shrinks while it is sent is not sent', async () => {
    const path = join(server.folder, 'given', 'shrinking.txt');
    await writeFile(path, Buffer.alloc(2 << 20));
    const source = await only(path);
    await truncate(path, 1 << 20);
    await assert.rejects(direct.uploads.send(source), { code: 'source_changed' });
  });
});
