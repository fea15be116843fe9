// Whether a message is the server's, as Standard Webhooks has it, by whichever WebCrypto there is. No exported type leads
// here: those of WebCrypto are not known everywhere.

import { WebhookVerificationError } from './errors.js';
import type { WebhookMessage } from './generated.js';
import type { HeaderSource, VerifyOptions } from './webhooks.js';

const TOLERANCE_SECONDS = 300;

/** The message, if it was signed with one of the secrets just now. */
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
  if (!/^\d+$/.test(timestamp) || age > toleranceSeconds)
    throw new WebhookVerificationError('webhook-timestamp is not of now');
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
  const value =
    headers instanceof Headers
      ? headers.get(name)
      : Object.entries(headers).find(([key]) => key.toLowerCase() === name)?.[1];
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
