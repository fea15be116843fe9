// Webhooks: made and listed, and whether a message is the server's (Standard Webhooks).

import { WebhookVerificationError } from './errors.js';
import type { DeliveryOut, NewWebhookOut, Operations, WebhookIn, WebhookMessage, WebhookOut, WebhookPatch } from './generated.js';
import { Pages, type PageOptions } from './pages.js';
import type { CallOptions } from './wire.js';

/** Headers as a request has them: `Headers`, or Node's object. */
export type HeaderSource = Headers | { [name: string]: string | string[] | undefined };

/** How to verify. */
export interface VerifyOptions {
  /** Seconds that a message may be old or early; 300. */
  toleranceSeconds?: number | undefined;
}

const TOLERANCE_SECONDS = 300;

/**
 * The message, if it was signed with the secret (or one of several, while one is being rotated) just now; rejects with a
 * `WebhookVerificationError` otherwise. `payload` is the body as it arrived: parsed and written again it is another one.
 */
export async function verifyWebhook(
  payload: string | Uint8Array,
  headers: HeaderSource,
  secret: string | readonly string[],
  options: VerifyOptions = {},
): Promise<WebhookMessage> {
  const { crypto } = globalThis as { crypto?: Crypto };
  if (crypto?.subtle === undefined) throw new Error('there is no WebCrypto here; in Node 18 import from @modelpress/client/node');
  return verifyWith(crypto.subtle, payload, headers, secret, options);
}

/** The same, with a WebCrypto that is not global. */
export async function verifyWith(
  subtle: SubtleCrypto,
  payload: string | Uint8Array,
  headers: HeaderSource,
  secret: string | readonly string[],
  { toleranceSeconds = TOLERANCE_SECONDS }: VerifyOptions,
): Promise<WebhookMessage> {
  const id = header(headers, 'webhook-id');
  const timestamp = header(headers, 'webhook-timestamp');
  const signatures = header(headers, 'webhook-signature');
  const age = Math.abs(Date.now() / 1000 - Number(timestamp));
  if (!/^\d+$/.test(timestamp) || age > toleranceSeconds) throw new WebhookVerificationError('webhook-timestamp is not of now');
  const body = typeof payload === 'string' ? new TextEncoder().encode(payload) : payload;
  const signed = concat(new TextEncoder().encode(`${id}.${timestamp}.`), body);
  for (const one of typeof secret === 'string' ? [secret] : secret) {
    const key = await subtle.importKey('raw', secretBytes(one), { name: 'HMAC', hash: 'SHA-256' }, false, ['verify']);
    for (const candidate of signatures.split(' ')) {
      const signature = candidate.startsWith('v1,') ? base64(candidate.slice(3)) : undefined;
      // `verify` compares in constant time.
      if (signature !== undefined && (await subtle.verify('HMAC', key, signature, signed))) return message(body);
    }
  }
  throw new WebhookVerificationError('no signature is of this secret');
}

function message(body: Uint8Array): WebhookMessage {
  return JSON.parse(new TextDecoder().decode(body)) as WebhookMessage;
}

function header(headers: HeaderSource, name: string): string {
  const value = headers instanceof Headers ? headers.get(name) : Object.entries(headers).find(([key]) => key.toLowerCase() === name)?.[1];
  if (typeof value !== 'string' || value === '') throw new WebhookVerificationError(`the request has no ${name}`);
  return value;
}

function secretBytes(secret: string): Uint8Array<ArrayBuffer> {
  const bytes = base64(secret.replace(/^whsec_/, ''));
  if (bytes === undefined || bytes.length === 0) throw new TypeError('the secret is not whsec_ and base64');
  return bytes;
}

function base64(text: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  } catch {
    return undefined;
  }
}

function concat(head: Uint8Array, body: Uint8Array): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(head.length + body.length);
  all.set(head);
  all.set(body, head.length);
  return all;
}

export class Webhooks {
  constructor(private readonly api: Operations) {}

  /** Makes a webhook; its secret is in this answer and no other. */
  create(body: WebhookIn, options?: CallOptions): Promise<NewWebhookOut> {
    return this.api.createWebhook({ body }, options);
  }

  get(id: string, options?: CallOptions): Promise<WebhookOut> {
    return this.api.getWebhook({ id }, options);
  }

  /** Webhooks, newest first. */
  list({ signal, ...place }: PageOptions = {}): Pages<WebhookOut> {
    return new Pages((at) => this.api.listWebhooks(at, { signal }), place);
  }

  update(id: string, body: WebhookPatch, options?: CallOptions): Promise<WebhookOut> {
    return this.api.updateWebhook({ id, body }, options);
  }

  /** Sends a message of type `webhook.test`. */
  test(id: string, options?: CallOptions): Promise<DeliveryOut> {
    return this.api.testWebhook({ id }, options);
  }

  /** What was sent to it, and what came of every try. */
  deliveries(id: string, { signal, ...place }: PageOptions = {}): Pages<DeliveryOut> {
    return new Pages((at) => this.api.listDeliveries({ id, ...at }, { signal }), place);
  }

  delete(id: string, options?: CallOptions): Promise<void> {
    return this.api.deleteWebhook({ id }, options);
  }
}
