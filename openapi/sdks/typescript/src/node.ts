// The entry for Node: paths of files and folders, digests, Node 18's WebCrypto.

import { webcrypto } from 'node:crypto';
import { Client } from './client.js';
import { nodeSources, saveArtifact, sha256, type NodeInput, type SaveOptions } from './folders.js';
import type { ArtifactOut, WebhookMessage } from './generated.js';
import { verifyWith } from './signature.js';
import type { TransportOptions } from './transport.js';
import type { HeaderSource, VerifyOptions } from './webhooks.js';

export * from './exports.js';
export { nodeSources as sourcesOf, type NodeInput, type SaveOptions } from './folders.js';

/** A client of a modelpress server. Files are paths of files or folders, `File`s, or bytes with a name. */
export class Modelpress extends Client<NodeInput | Iterable<NodeInput>> {
  constructor(options: TransportOptions = {}) {
    super(options, nodeSources, sha256);
  }

  /** Saves an artifact's files into a folder, checked, going on where an earlier try stopped; answers their paths. */
  async save(artifact: string | ArtifactOut, folder: string, options: SaveOptions = {}): Promise<string[]> {
    const found =
      typeof artifact === 'string' ? await this.artifacts.get(artifact, { signal: options.signal }) : artifact;
    return saveArtifact(this.artifacts, found, folder, options);
  }
}

/**
 * The message, if it was signed with the secret (or one of several, while one is being rotated) just now; rejects with a
 * `WebhookVerificationError` otherwise. `payload` is the body as it arrived: parsed and written again it is another one.
 */
export function verifyWebhook(
  payload: string | Uint8Array,
  headers: HeaderSource,
  secret: string | readonly string[],
  options: VerifyOptions = {},
): Promise<WebhookMessage> {
  return verifyWith(webcrypto.subtle as SubtleCrypto, payload, headers, secret, options);
}
