// The entry for browsers and everything else that has `fetch`, Web Streams and WebCrypto.

import { Client } from './client.js';
import { sources, type FileInput } from './sources.js';
import type { TransportOptions } from './transport.js';

export * from './exports.js';
export { verifyWebhook } from './webhooks.js';

/** A client of a modelpress server. Files are `File`s, or bytes with a name. */
export class Modelpress extends Client<FileInput | Iterable<FileInput>> {
  constructor(options: TransportOptions = {}) {
    super(options, sources);
  }
}
