// Resumable uploads: a file in pieces, from wherever the server says it stands; several side by side.

import { isLost, ModelpressError } from './errors.js';
import { OPERATIONS, type Operations, type UploadOut } from './generated.js';
import { backOff, rest } from './patience.js';
import type { Hash, Source } from './sources.js';
import type { Transport } from './transport.js';
import type { CallOptions } from './wire.js';

/** How far an upload of several files is. */
export interface UploadProgress {
  /** The file that has just gone on. */
  file: string;
  /** Its bytes that are durable at the server, and its size. */
  fileBytes: number;
  fileTotal: number;
  /** The same of all files. */
  bytes: number;
  total: number;
}

/** How to send files. */
export interface UploadOptions {
  /** Ends it. */
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: UploadProgress) => void) | undefined;
  /** Files side by side; 4. */
  parallel?: number | undefined;
  /** Bytes a request; 16 MiB. So much of each file is in memory. */
  pieceBytes?: number | undefined;
  /** Attempts without a byte of progress; the client's own unless given. */
  retries?: number | undefined;
  /**
   * Uploads by file name: those that are in it are gone on with, those that are begun are put into it. Keep it, and a
   * program that was ended goes on where it was. Without it, uploads of a model that does not come about are deleted.
   */
  resume?: Map<string, string> | undefined;
}

/** An upload that is complete. */
export interface Sent {
  name: string;
  upload: string;
}

const PARALLEL = 4;
const PIECE_BYTES = 16 << 20;
const DISK_FULL = 507;
/** A piece may take the time of a request, and what this many bytes a second take. */
const SLOWEST_BYTES_PER_SECOND = 64 << 10;

export class Uploads {
  constructor(
    private readonly api: Operations,
    private readonly transport: Transport,
  ) {}

  get(id: string, options?: CallOptions): Promise<UploadOut> {
    return this.api.getUpload({ id }, options);
  }

  delete(id: string, options?: CallOptions): Promise<void> {
    return this.api.deleteUpload({ id }, options);
  }

  /** Sends one file and answers its complete upload. */
  async send(source: Source, options: UploadOptions = {}): Promise<UploadOut> {
    const [sent] = await this.sendAll([source], options);
    return this.get(sent?.upload ?? '', { signal: options.signal });
  }

  /** Sends files side by side; answers a complete upload of each. If one fails, the others are ended. */
  async sendAll(sources: readonly Source[], options: UploadOptions = {}): Promise<Sent[]> {
    const names = sources.map(({ name }) => name);
    const twice = names.find((name, place) => names.indexOf(name) !== place);
    if (twice !== undefined) throw new TypeError(`two files are called ${twice}`);
    const begun = options.resume ?? new Map<string, string>();
    const all = new AbortController();
    const end = () => all.abort(options.signal?.reason);
    if (options.signal?.aborted) end();
    options.signal?.addEventListener('abort', end, { once: true });
    const tell = teller(sources, options.onProgress);
    try {
      return await sideBySide(
        sources,
        options.parallel ?? PARALLEL,
        async (source) => {
          const send = new Sending(this.api, this.transport, source, { ...options, signal: all.signal }, begun, tell);
          return { name: source.name, upload: await send.run() };
        },
        (error) => all.abort(error),
      );
    } catch (error) {
      if (options.resume === undefined) await this.discard([...begun.values()]);
      throw error;
    } finally {
      options.signal?.removeEventListener('abort', end);
      await Promise.all(sources.map((source) => source.close?.()));
    }
  }

  /** Takes uploads back that nothing will be made of; what cannot be deleted runs out by itself. */
  async discard(ids: readonly string[]): Promise<void> {
    await Promise.allSettled(ids.map((id) => this.delete(id, { retries: 0 })));
  }
}

/** One file on its way. */
class Sending {
  #offset = 0;
  #hash: Hash | undefined;
  /** How much of the file the hash has seen. */
  #hashed = 0;

  constructor(
    private readonly api: Operations,
    private readonly transport: Transport,
    private readonly source: Source,
    private readonly options: UploadOptions & { signal: AbortSignal },
    private readonly begun: Map<string, string>,
    private readonly tell: (source: Source, offset: number) => void,
  ) {
    this.#hash = source.hash?.();
  }

  async run(): Promise<string> {
    const id = await this.#begin();
    for (let failures = 0; this.#offset < this.source.size;) {
      const before = this.#offset;
      try {
        if (failures > 0) await this.#ask(id);
        if (this.#offset < this.source.size) await this.#piece(id);
        failures = 0;
      } catch (error) {
        this.options.signal.throwIfAborted();
        failures = this.#offset > before ? 1 : failures + 1;
        await this.#bear(error, failures);
      }
      this.tell(this.source, this.#offset);
    }
    await this.#verify(id, await this.#complete(id));
    return id;
  }

  async #begin(): Promise<string> {
    const { name, size } = this.source;
    const known = this.begun.get(name);
    if (known !== undefined && (await this.#goOn(known))) return known;
    // One that is made twice holds nothing and runs out.
    const made = await this.transport.call<UploadOut>(
      OPERATIONS.createUpload,
      { body: { length: size } },
      { ...this.#call(), repeatable: true },
    );
    this.begun.set(name, made.id);
    this.tell(this.source, 0);
    return made.id;
  }

  /** Whether an upload of before is still there, and of this file. */
  async #goOn(id: string): Promise<boolean> {
    try {
      const upload = await this.api.getUpload({ id }, this.#call());
      if (upload.length !== this.source.size) return false;
      this.#offset = upload.offset;
      this.tell(this.source, this.#offset);
      return true;
    } catch (error) {
      if (error instanceof ModelpressError && (error.status === 404 || error.status === 410)) return false;
      throw error;
    }
  }

  async #piece(id: string): Promise<void> {
    const { signal, pieceBytes = PIECE_BYTES } = this.options;
    const begin = this.#offset;
    const end = Math.min(this.source.size, begin + pieceBytes);
    const body = await this.source.read(begin, end, signal);
    if (body instanceof Uint8Array) this.#count(begin, body);
    const timeoutMs = this.transport.timeoutMs + ((end - begin) / SLOWEST_BYTES_PER_SECOND) * 1000;
    const headers = await this.api.appendUpload({ id, uploadOffset: begin, body }, { signal, timeoutMs });
    this.#offset = Number(headers.get('upload-offset') ?? end);
  }

  /** Where it stands; asking also ends a request that hangs there. */
  async #ask(id: string): Promise<void> {
    const stands = await this.api.headUpload({ id }, { signal: this.options.signal, retries: 0 });
    this.#offset = Number(stands.get('upload-offset') ?? 0);
  }

  /** Rests after a request that failed; errors that no repetition mends go on to the caller. */
  async #bear(error: unknown, failures: number): Promise<void> {
    if (!(error instanceof ModelpressError)) throw error;
    const isElsewhere = error.status === 409 && error.expectedOffset !== undefined;
    const isBusy = error.status === 408 || error.kind === 'rate_limited';
    const isOurs = error.status >= 500 && error.status !== DISK_FULL;
    const passes = isElsewhere || isBusy || isOurs || isLost(error);
    const isPatient = failures <= (this.options.retries ?? this.transport.retries);
    const wait = passes && isPatient ? backOff(failures - 1, error.retryAfterMs) : undefined;
    if (wait === undefined) throw error;
    await rest(wait, this.options.signal);
  }

  /** A server that died behind the last byte has all of them and does not know it. */
  async #complete(id: string): Promise<UploadOut> {
    const upload = await this.api.getUpload({ id }, this.#call());
    if (upload.status === 'complete') return upload;
    await this.api.appendUpload(
      { id, uploadOffset: this.source.size, body: new Uint8Array() },
      { signal: this.options.signal },
    );
    return this.api.getUpload({ id }, this.#call());
  }

  /** Each byte once, also where an offset goes back. */
  #count(begin: number, bytes: Uint8Array): void {
    const known = this.#hashed - begin;
    if (this.#hash === undefined || known < 0 || known >= bytes.length) return;
    this.#hash.update(bytes.subarray(known));
    this.#hashed = begin + bytes.length;
  }

  /** What arrived is what was read. */
  async #verify(id: string, upload: UploadOut): Promise<void> {
    if (this.#hash === undefined) return;
    const { signal, pieceBytes = PIECE_BYTES } = this.options;
    // What an earlier program sent was not seen by this one; only the hash decides whether it is the same file.
    while (this.#hashed < this.source.size) {
      const bytes = await this.source.read(this.#hashed, Math.min(this.source.size, this.#hashed + pieceBytes), signal);
      if (!(bytes instanceof Uint8Array)) return;
      this.#count(this.#hashed, bytes);
    }
    const digest = `sha256:${this.#hash.digest()}`;
    if (upload.digest === digest) return;
    this.begun.delete(this.source.name);
    await this.api.deleteUpload({ id }, { signal, retries: 0 }).catch(() => undefined);
    throw new ModelpressError({
      code: 'digest_mismatch',
      detail: `${this.source.name}: sent ${digest}, the server has ${upload.digest}`,
    });
  }

  #call(): CallOptions {
    return { signal: this.options.signal, retries: this.options.retries };
  }
}

function teller(
  sources: readonly Source[],
  onProgress: UploadOptions['onProgress'],
): (source: Source, offset: number) => void {
  const offsets = new Map<Source, number>();
  const total = sources.reduce((sum, { size }) => sum + size, 0);
  return (source, offset) => {
    offsets.set(source, offset);
    const bytes = [...offsets.values()].reduce((sum, sent) => sum + sent, 0);
    onProgress?.({ file: source.name, fileBytes: offset, fileTotal: source.size, bytes, total });
  };
}

/** Results in order; the first failure is told at once, and thrown when nothing runs any more. */
export async function sideBySide<T, R>(
  items: readonly T[],
  lanes: number,
  work: (item: T) => Promise<R>,
  onFailure: (error: unknown) => void,
): Promise<R[]> {
  const results = new Map<number, R>();
  const failures: unknown[] = [];
  const queue = [...items.entries()];
  const lane = async (): Promise<void> => {
    for (let next = queue.shift(); next !== undefined && failures.length === 0; next = queue.shift()) {
      try {
        results.set(next[0], await work(next[1]));
      } catch (error) {
        if (failures.push(error) === 1) onFailure(error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, lanes) }, lane));
  if (failures.length > 0) throw failures[0];
  return items.map((_, place) => results.get(place) as R);
}
