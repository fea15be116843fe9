// Messages that a real server sends, verified; and those that it did not send, refused.

import * as browser from '@modelpress/client';
import { Modelpress, verifyWebhook, WebhookVerificationError } from '@modelpress/client/node';
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type Server as Receiver } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { Server } from './server.js';

interface Heard {
  headers: IncomingHttpHeaders;
  body: Buffer;
}

let server: Server;
let client: Modelpress;
let receiver: Receiver;
let next: Promise<Heard>;
let secret: string;
let heard: Heard;

before(async () => {
  server = await Server.start();
  client = new Modelpress({ baseUrl: server.url });
  receiver = createServer();
  next = new Promise((resolve) => {
    receiver.on('request', async (request, response) => {
      const pieces: Buffer[] = [];
      for await (const piece of request) pieces.push(piece as Buffer);
      response.writeHead(204).end();
      resolve({ headers: request.headers, body: Buffer.concat(pieces) });
    });
  });
  receiver.listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  const url = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/hook`;
  const made = await client.webhooks.create({ url, events: ['webhook.test'] });
  secret = made.secret;
  await client.webhooks.test(made.webhook.id);
  heard = await next;
});
after(async () => {
  receiver.closeAllConnections();
  receiver.close();
  await server.stop();
});

test('a message of the server is verified, by both entries, as text and as bytes', async () => {
  const message = await verifyWebhook(heard.body, heard.headers, secret);
  assert.equal(message.type, 'webhook.test');
  assert.equal(message.data.object, 'webhook');
  // Not global in Node 18.
  if (globalThis.crypto === undefined) return;
  const headers = new Headers(
    Object.entries(heard.headers).map(([name, value]): [string, string] => [name, String(value)]),
  );
  assert.deepEqual(await browser.verifyWebhook(heard.body.toString(), headers, ['whsec_b3RoZXI=', secret]), message);
});

test("what was changed, is another secret's, old or unsigned is refused", async () => {
  const refused = (body: string | Uint8Array, headers: IncomingHttpHeaders, by: string, why: RegExp) => {
    return assert.rejects(
      verifyWebhook(body, headers, by),
      (error) => error instanceof WebhookVerificationError && why.test(error.message),
    );
  };
  await refused(`${heard.body} `, heard.headers, secret, /no signature/);
  await refused(heard.body, { ...heard.headers, 'webhook-id': 'msg_other' }, secret, /no signature/);
  await refused(heard.body, heard.headers, 'whsec_b3RoZXI=', /no signature/);
  await refused(heard.body, { ...heard.headers, 'webhook-signature': 'v2,AAAA v1,!! v1,' }, secret, /no signature/);
  await refused(heard.body, { ...heard.headers, 'webhook-signature': undefined }, secret, /no webhook-signature/);
  await refused(heard.body, { ...heard.headers, 'webhook-timestamp': 'now' }, secret, /timestamp/);
  // Rightly signed, but long ago.
  const then = String(Math.floor(Date.now() / 1000) - 600);
  const key = Buffer.from(secret.replace('whsec_', ''), 'base64');
  const signature = createHmac('sha256', key).update(`msg_1.${then}.{}`).digest('base64');
  const old = { 'webhook-id': 'msg_1', 'webhook-timestamp': then, 'webhook-signature': `v1,${signature}` };
  await refused('{}', old, secret, /timestamp/);
  assert.deepEqual(await verifyWebhook('{}', old, secret, { toleranceSeconds: 3600 }), {});
});

test('deliveries say what came of it', async () => {
  const [webhook] = await client.webhooks.list().toArray();
  assert(webhook !== undefined);
  let [delivery] = await client.webhooks.deliveries(webhook.id).toArray();
  for (let tries = 0; delivery?.status !== 'succeeded' && tries < 50; tries += 1) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    [delivery] = await client.webhooks.deliveries(webhook.id).toArray();
  }
  assert.equal(delivery?.attempts[0]?.status_code, 204);
  assert.equal((await client.webhooks.update(webhook.id, { enabled: false })).status, 'disabled');
  await client.webhooks.delete(webhook.id);
  assert.deepEqual(await client.webhooks.list().toArray(), []);
});
