// The whole way against a real server: upload, plan, compress, follow, report, download, search, analyze.

import { ModelpressError, JobFailedError, Modelpress, isOver, type JobOut } from '@modelpress/client/node';
import * as browser from '@modelpress/client';
import assert from 'node:assert/strict';
import * as buffer from 'node:buffer';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Server } from './server.js';
import { weights, writeModel } from './tiny.js';

/** Not global in Node 18. */
const File = buffer.File as unknown as typeof globalThis.File;

let server: Server;
let client: Modelpress;
let folder: string;
let model: string;

before(async () => {
  server = await Server.start();
  client = new Modelpress({ baseUrl: `${server.url}/` });
  folder = await writeModel(join(server.folder, 'given', 'tiny'));
  await writeFile(join(folder, 'README.md'), 'for people');
  model = (await client.models.upload(folder, { name: 'tiny' })).id;
});
after(() => server.stop());

const digestOf = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

async function collect(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

describe('models', () => {
  test('a folder is the files of the model in it', async () => {
    const got = await client.models.get(model);
    assert.equal(got.status, 'ready');
    assert.equal(got.name, 'tiny');
    assert.deepEqual(got.files.map(({ name }) => name).sort(), ['config.json', 'model.safetensors', 'tokenizer.json']);
    const sent = got.files.find(({ name }) => name === 'model.safetensors');
    assert.equal(sent?.digest, digestOf(await readFile(join(folder, 'model.safetensors'))));
  });

  test('the entry for browsers sends blobs, and reads nothing of Node', async () => {
    const plain = new browser.Modelpress({ baseUrl: server.url });
    const seen: number[] = [];
    const made = await plain.models.upload(
      [
        { name: 'config.json', data: await readFile(join(folder, 'config.json')) },
        new File([await readFile(join(folder, 'tokenizer.json'))], 'tokenizer.json'),
        { name: 'model.safetensors', data: new Blob([weights(7) as BlobPart]) },
      ],
      { pieceBytes: 100_000, onProgress: ({ bytes }) => seen.push(bytes), metadata: { from: 'blobs' } },
    );
    assert.equal(made.files.find(({ name }) => name === 'model.safetensors')?.digest, digestOf(weights(7)));
    assert.deepEqual(made.metadata, { from: 'blobs' });
    assert.equal(seen.at(-1), made.bytes);
    assert.deepEqual(
      seen,
      [...seen].sort((a, b) => a - b),
    );
    await plain.models.delete(made.id);
    await assert.rejects(
      plain.models.get(made.id),
      (error) => error instanceof ModelpressError && error.status === 404 && error.code === 'not_found',
    );
  });

  test('what is no model is refused and leaves no upload behind', async () => {
    const ids: string[] = [];
    const spying: typeof fetch = async (...call) => {
      const response = await fetch(...call);
      const place = response.headers.get('location');
      if (place?.includes('/uploads/')) ids.push(place.split('/').at(-1) ?? '');
      return response;
    };
    const spied = new Modelpress({ baseUrl: server.url, fetch: spying });
    await assert.rejects(spied.models.upload({ name: 'model.safetensors', data: 'no weights' }), (error) => {
      assert(error instanceof ModelpressError);
      assert.equal(error.code, 'invalid_safetensors');
      assert.equal(error.kind, 'model_rejected');
      assert.match(error.requestId ?? '', /^\S+$/);
      return true;
    });
    assert.equal(ids.length, 1);
    await assert.rejects(client.uploads.get(ids[0] ?? ''), { status: 404 });
  });

  test('lists go through all pages, and begin where another ended', async () => {
    const names = await client.models.tensors(model, { limit: 5 }).toArray();
    assert.equal(names.length, 21);
    assert.equal(new Set(names.map(({ name }) => name)).size, 21);
    const first = await client.models.tensors(model, { limit: 5 }).page();
    assert.equal(first.has_more, true);
    const others = await client.models.tensors(model, { limit: 5, after: first.next_cursor ?? '' }).toArray();
    assert.deepEqual(others, names.slice(5));
  });
});

describe('models from elsewhere', () => {
  test('are waited for, and say why they cannot come', async () => {
    const bytes = weights(11);
    const elsewhere = createServer((request, response) => {
      const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
      if (request.url !== '/model.safetensors') return response.writeHead(404).end();
      const headers = {
        'content-length': bytes.length - from,
        'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}`,
      };
      return response.writeHead(from > 0 ? 206 : 200, headers).end(bytes.subarray(from));
    });
    elsewhere.listen(0, '127.0.0.1');
    await once(elsewhere, 'listening');
    const url = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}`;
    const open = await Server.start({ env: { MODELPRESS_PULL_ALLOWED: url } });
    try {
      const there = new Modelpress({ baseUrl: open.url });
      const seen: string[] = [];
      const got = await there.models.pull(`${url}/model.safetensors`, {
        name: 'brought',
        onProgress: ({ status }) => seen.push(status),
      });
      assert.equal(got.status, 'ready');
      assert.equal(got.files[0]?.digest, digestOf(bytes));
      assert.equal(seen[0], 'pulling');
      await assert.rejects(there.models.pull(`${url}/missing.safetensors`), (error) => {
        return error instanceof ModelpressError && error.status === 0 && error.detail.includes('missing');
      });
      await assert.rejects(client.models.pull(`${url}/model.safetensors`), { status: 403, code: 'source_not_allowed' });
    } finally {
      elsewhere.closeAllConnections();
      elsewhere.close();
      await open.stop();
    }
  });
});

describe('jobs', () => {
  test('compress: files in, job, report and artifacts out, files saved and checked', async () => {
    const progress: JobOut[] = [];
    const files = await writeModel(join(server.folder, 'given', 'other'), 3);
    const { job, report, artifacts } = await client.compress(
      { files, recipe: 'Q8_0', metadata: { why: 'test' } },
      { onProgress: (told) => progress.push(told) },
    );
    assert.equal(job.status, 'succeeded');
    assert.deepEqual(job.metadata, { why: 'test' });
    assert.equal(progress.at(-1)?.progress, 1);
    assert.equal(report.version, 1);
    assert.equal(report.totals.parameters, 94_528);
    assert.equal(report.formats[0]?.format, 'gguf');
    assert((report.formats[0]?.compression_ratio ?? 0) > 3.5);
    const [artifact] = artifacts;
    assert(artifact !== undefined);
    const paths = await client.save(artifact, join(server.folder, 'saved'));
    assert.deepEqual(
      paths.map((path) => path.split('/').at(-1)),
      artifact.files.map(({ name }) => name),
    );
    for (const [place, path] of paths.entries())
      assert.equal(digestOf(await readFile(path)), artifact.files[place]?.digest);
    const tar = await collect(await client.artifacts.archive(artifact.id));
    assert(tar.length > artifact.bytes);
    assert.match(await client.jobs.reportHtml(job.id), /^<!doctype html>/i);
  });

  test('a refusal names each place in the request', async () => {
    const refused = client.compress({ model, recipe: { preset: 'W4A16', options: { group_size: 48 } } });
    await assert.rejects(refused, (error) => {
      assert(error instanceof ModelpressError);
      assert.equal(error.status, 422);
      assert(error.errors.length > 0);
      assert.match(error.errors[0]?.pointer ?? '', /^\/recipe/);
      assert(error.message.includes(`${error.errors[0]?.pointer}: `));
      assert(error.message.includes(error.requestId ?? 'no id'));
      return true;
    });
    await assert.rejects(client.models.plan({ model, recipe: 'nothing' }), { status: 422 });
    const plan = await client.models.plan({ model, recipe: 'Q8_0' });
    assert.equal(plan.object, 'plan');
  });

  test('one key makes one job; a retried request carries the same one', async () => {
    const body = { model, recipe: 'Q8_0', metadata: { key: 'one' } };
    const [one, two] = await Promise.all([
      client.jobs.create(body, { idempotencyKey: 'k1' }),
      client.jobs.create(body, { idempotencyKey: 'k1' }),
    ]);
    assert.equal(one.id, two.id);
    assert.notEqual((await client.jobs.create(body)).id, one.id);
    const keys: Array<string | null> = [];
    const losing: typeof fetch = async (input, init) => {
      keys.push(new Headers(init?.headers).get('idempotency-key'));
      const response = await fetch(input, init);
      // The job is made, and nobody hears of it.
      if (keys.length === 1) throw new TypeError('fetch failed', { cause: new Error('socket hang up') });
      return response;
    };
    const unlucky = new Modelpress({ baseUrl: server.url, fetch: losing });
    const job = await unlucky.jobs.create({ model, recipe: 'Q8_0', metadata: { key: 'lost' } });
    assert.equal(keys.length, 2);
    assert.equal(keys[0], keys[1]);
    const made = await client.jobs.list({ model }).toArray();
    assert.deepEqual(
      made.filter(({ metadata }) => metadata['key'] === 'lost').map(({ id }) => id),
      [job.id],
    );
  });

  test('events arrive in order, and go on behind one that was seen', async () => {
    const job = await client.jobs.create({ model, recipe: 'Q4_K_M' });
    const seqs: number[] = [];
    let last = '';
    for await (const told of client.jobs.events(job.id)) {
      if (told.type === 'event') {
        seqs.push(told.event.seq);
        last = told.event.message;
      } else assert.equal(told.job.id, job.id);
    }
    assert(seqs.length >= 3, `${seqs}`);
    assert.deepEqual(
      seqs,
      seqs.map((_, place) => place + 1),
    );
    assert.notEqual(last, '');
    assert(isOver(await client.jobs.get(job.id)));
    const rest: number[] = [];
    for await (const told of client.jobs.events(job.id, { after: 1 }))
      if (told.type === 'event') rest.push(told.event.seq);
    assert.deepEqual(rest, seqs.slice(1));
    for await (const told of client.jobs.events(job.id, { after: seqs.at(-1) })) assert.fail(JSON.stringify(told));
  });

  test('a job that misses a gate rejects with the job, which has its report', async () => {
    const recipe = {
      preset: 'Q2_K',
      evaluation: { num_samples: 2, max_seq_length: 64, metrics: ['kl'] },
      gates: { max_kl: 0 },
    };
    const error: unknown = await client.compress({ model, recipe }).catch((caught: unknown) => caught);
    assert(error instanceof JobFailedError);
    assert.equal(error.code, 'quality_gate');
    assert.equal((await client.jobs.report(error.job.id)).version, 1);
  });

  test('analyze', async () => {
    const { job, report } = await client.analyze(model);
    assert.equal(job.kind, 'analysis');
    assert.deepEqual(job.artifacts, []);
    assert(Object.keys(report).length > 3);
  });

  test('search: points, front and what is best', async () => {
    const { search, front, best } = await client.search({
      model,
      recipes: ['Q8_0', { preset: 'Q4_K_M' }, 'W4A16'],
      evaluation: { num_samples: 2, max_seq_length: 64 },
    });
    assert.equal(search.status, 'succeeded');
    assert.equal(search.points.length, 3);
    assert.deepEqual(
      front.map(({ name }) => name),
      search.front,
    );
    assert(front.length > 0 && front.every((point) => point.on_front));
    assert.equal(best.size?.name, front[0]?.name);
    const listed = await client.searches.list().toArray();
    assert(listed.some(({ id }) => id === search.id));
  });
});

describe('datasets', () => {
  test('a wrong record is refused, a right one read', async () => {
    const made = await client.datasets.upload(
      { name: 'a.jsonl', data: '{"text": "one"}\n{"text": "two"}\n' },
      { name: 'two' },
    );
    assert.equal(made.records, 2);
    await assert.rejects(client.datasets.upload({ name: 'b.jsonl', data: '{"text": 1}\n' }), (error) => {
      return (
        error instanceof ModelpressError && error.code === 'invalid_record' && error.message.includes('b.jsonl, line 1')
      );
    });
    const direct = await client.api.createDataset({ body: 'all of it\n', contentType: 'text/plain' });
    assert.equal(direct.format, 'txt');
    await client.datasets.delete(made.id);
  });
});

describe('every operation', () => {
  test('generated calls answer what the document says', async () => {
    assert.equal((await client.api.livez()).status, 'ok');
    assert.match(await client.api.metrics(), /^# HELP/m);
    assert.equal((await client.api.getOpenapi())['openapi'], '3.1.0');
    assert((await client.api.listPresets()).data.length > 20);
    assert((await client.api.describeUploads()).get('tus-version')?.includes('1.0.0'));
    const page = await client.api.listJobs({ limit: 1, status: 'succeeded' });
    assert.equal(page.data.length, 1);
  });

  test('identifiers cannot make another address', async () => {
    for (const id of ['', '.', '..']) await assert.rejects(client.jobs.get(id), TypeError);
    await assert.rejects(client.api.getArtifactFile({ id: 'art_0', path: 'a/../../b' }), TypeError);
    // A slash is part of the identifier: there is no such one.
    await assert.rejects(client.jobs.get('../models'), { status: 404 });
  });
});
