// Webhooks: made and listed, their messages verified.

import type {
  DeliveryOut,
  NewWebhookOut,
  Operations,
  WebhookIn,
  WebhookMessage,
  WebhookOut,
  WebhookPatch,
} from './generated.js';
import { Pages, type PageOptions } from './pages.js';
import { verifyWith } from './signature.js';
import type { CallOptions } from './wire.js';

/** Headers as a request has them: `Headers`, or Node's object. */
export type HeaderSource = Headers | { [name: string]: string | string[] | undefined };

/** How to verify. */
export interface VerifyOptions {
  /** Seconds that a message may be old or early; 300. */
  toleranceSeconds?: number | undefined;
}

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
  if (crypto?.subtle === undefined)
    throw new Error('there is no WebCrypto here; in Node 18 import from @modelpress/client/node');
  return verifyWith(crypto.subtle, payload, headers, secret, options);
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
