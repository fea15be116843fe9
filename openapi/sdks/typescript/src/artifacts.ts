// Artifacts: their files as streams that go on after a lost connection, checked against their digests.

import { isLost, ModelpressError } from './errors.js';
import { OPERATIONS, type ArtifactOut, type FileOut, type Operations } from './generated.js';
import { backOff, rest } from './patience.js';
import type { Hash } from './sources.js';
import { lost, type Open, type Transport } from './transport.js';
import type { CallOptions } from './wire.js';

/** How to download a file. */
export interface DownloadOptions {
  /** Ends it. */
  signal?: AbortSignal | undefined;
  /** Bytes of the file that are there already. */
  offset?: number | undefined;
  /** Attempts without a byte of progress; the client's own unless given. */
  retries?: number | undefined;
}

/** Downloads that say nothing for so long have lost their connection. */
const SILENCE_MS = 60_000;

export class Artifacts {
  constructor(
    private readonly api: Operations,
    private readonly transport: Transport,
    private readonly hash: (() => Hash) | undefined,
  ) {}

  get(id: string, options?: CallOptions): Promise<ArtifactOut> {
    return this.api.getArtifact({ id }, options);
  }

  /**
   * A file's bytes. A lost connection is made anew for the rest; the stream fails if the file does not have the size it
   * should have or, in Node, the digest.
   */
  async download(
    artifact: string | ArtifactOut,
    name: string,
    options: DownloadOptions = {},
  ): Promise<ReadableStream<Uint8Array>> {
    const { id, files } = typeof artifact === 'string' ? await this.get(artifact, options) : artifact;
    const file = files.find((one) => one.name === name);
    if (file === undefined)
      throw new ModelpressError({
        code: 'not_found',
        detail: `${id} has ${files.map((one) => one.name).join(', ')}, but no ${name}`,
      });
    const bytes = this.checked(id, file, options);
    return new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          const { done, value } = await bytes.next();
          if (done) controller.close();
          else controller.enqueue(value);
        },
        async cancel() {
          await bytes.return();
        },
      },
      { highWaterMark: 0 },
    );
  }

  /** All files as a tar archive, made while it is sent. */
  async archive(id: string, options: CallOptions = {}): Promise<ReadableStream<Uint8Array>> {
    const response = await this.api.getArtifactArchive({ id }, options);
    if (response.body === null)
      throw new ModelpressError({ status: response.status, code: 'answer_invalid', detail: 'the archive has no body' });
    return response.body;
  }

  /** The bytes from `offset` on; `hash` knows those before. */
  async *checked(
    id: string,
    file: FileOut,
    { offset = 0, ...options }: DownloadOptions,
    hash = offset === 0 ? this.hash?.() : undefined,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    let position = offset;
    for (let failures = 0; position < file.bytes;) {
      const before = position;
      try {
        for await (const bytes of this.#read(id, file, position, options)) {
          position += bytes.length;
          hash?.update(bytes);
          failures = 0;
          yield bytes;
        }
        if (position < file.bytes)
          throw new ModelpressError({
            code: 'connection_failed',
            detail: `${file.name} ends after ${position} of ${file.bytes} bytes`,
          });
      } catch (error) {
        options.signal?.throwIfAborted();
        if (!isLost(error)) throw error;
        failures = position > before ? 1 : failures + 1;
        const wait = failures <= (options.retries ?? this.transport.retries) ? backOff(failures - 1) : undefined;
        if (wait === undefined) throw error;
        await rest(wait, options.signal);
      }
    }
    const digest = hash === undefined ? file.digest : `sha256:${hash.digest()}`;
    if (position !== file.bytes || digest !== file.digest) {
      throw new ModelpressError({
        code: 'digest_mismatch',
        detail: `${file.name}: got ${position} bytes with ${digest}, should be ${file.bytes} with ${file.digest}`,
      });
    }
  }

  async *#read(
    id: string,
    file: FileOut,
    position: number,
    options: DownloadOptions,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    // `If-Range`: the rest of this file, or all of another one, never a mixture.
    const range = position > 0 ? { range: `bytes=${position}-`, ifRange: `"${file.digest}"` } : {};
    const { response, limit } = await this.transport.open(
      OPERATIONS.getArtifactFile,
      { id, path: file.name, ...range },
      options,
    );
    try {
      if (position > 0 && response.status !== 206) {
        throw new ModelpressError({
          status: response.status,
          code: 'digest_mismatch',
          detail: `${file.name} is not what it was when the download began`,
        });
      }
      if (response.body !== null) yield* chunks({ response, limit }, response.body.getReader(), options.signal);
    } finally {
      limit.cut();
    }
  }
}

async function* chunks(
  { response, limit }: Open,
  reader: ReadableStreamDefaultReader<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  for (;;) {
    limit.heard(SILENCE_MS);
    const { done, value } = await reader.read().catch((error: unknown) => {
      throw lost(error, signal, response.url, SILENCE_MS);
    });
    // Whoever takes the bytes may take their time.
    limit.paused();
    if (done) return;
    yield value;
  }
}
