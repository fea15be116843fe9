// Files of Node: paths as sources of uploads, artifacts saved into folders.

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Artifacts } from './artifacts.js';
import { ModelpressError } from './errors.js';
import type { ArtifactOut, FileOut } from './generated.js';
import { sources, type FileInput, type Hash, type Source } from './sources.js';
import { sideBySide } from './uploads.js';

/** What can be sent from Node: paths of files and folders too. */
export type NodeInput = string | URL | FileInput;

/** How to save an artifact. */
export interface SaveOptions {
  /** Ends it; what is there is gone on with next time. */
  signal?: AbortSignal | undefined;
  /** Hears how many bytes of all files are there. */
  onProgress?: ((progress: { file: string; bytes: number; total: number }) => void) | undefined;
  /** Files side by side; 4. */
  parallel?: number | undefined;
  /** Attempts without a byte of progress; the client's own unless given. */
  retries?: number | undefined;
}

const PARALLEL = 4;
/** What lies beside weights: configuration, tokenizers, templates. */
const BESIDE = /\.(json|jinja|model|tiktoken)$|^(merges|vocab)\.txt$/;
const WEIGHTS = /\.safetensors$/;
/** Where sentence encoders keep their modules. */
const MODULE = /^\d+_/;

export const sha256 = (): Hash => {
  const hash = createHash('sha256');
  return { update: (bytes) => hash.update(bytes), digest: () => hash.digest('hex') };
};

/** A source of each; a folder stands for the files of the model in it. */
export async function nodeSources(inputs: NodeInput | Iterable<NodeInput>): Promise<Source[]> {
  const isOne = typeof inputs === 'string' || inputs instanceof URL || !(Symbol.iterator in inputs);
  const found: Source[] = [];
  for (const input of isOne ? [inputs] : inputs) {
    if (typeof input === 'string' || input instanceof URL)
      found.push(...(await ofPath(input instanceof URL ? fileURLToPath(input) : input)));
    else found.push(...(await sources(input)));
  }
  return found;
}

async function ofPath(path: string): Promise<Source[]> {
  if (!(await stat(path)).isDirectory()) return [await FileSource.of(path, basename(path))];
  const names = await modelFiles(path);
  if (names.length === 0)
    throw new TypeError(`${path} has neither safetensors nor exactly one GGUF file; name the files instead`);
  return Promise.all(names.map((name) => FileSource.of(join(path, ...name.split('/')), name)));
}

/** The safetensors of a folder with what lies beside them, or its one GGUF file: what a server would bring from a hub. */
async function modelFiles(folder: string): Promise<string[]> {
  const names: string[] = [];
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    if (entry.name.startsWith('.')) continue;
    if (!entry.isDirectory()) names.push(entry.name);
    else if (MODULE.test(entry.name))
      names.push(...(await readdir(join(folder, entry.name))).map((name) => `${entry.name}/${name}`));
  }
  names.sort();
  if (names.some((name) => WEIGHTS.test(name))) {
    const isMain = (name: string) => /^model[^/]*\.safetensors$/.test(name);
    const hasMain = names.some(isMain);
    return names.filter((name) =>
      WEIGHTS.test(name) ? !hasMain || isMain(name) || name.includes('/') : BESIDE.test(name),
    );
  }
  const ggufs = names.filter((name) => name.endsWith('.gguf'));
  return ggufs.length === 1 ? ggufs : [];
}

/** A file that must stay what it is while it is sent. */
class FileSource implements Source {
  readonly hash = sha256;
  #handle: Promise<FileHandle> | undefined;

  private constructor(
    private readonly path: string,
    readonly name: string,
    readonly size: number,
    private readonly changed: number,
  ) {}

  static async of(path: string, name: string): Promise<FileSource> {
    const { size, mtimeMs } = await stat(path);
    return new FileSource(path, name, size, mtimeMs);
  }

  async read(begin: number, end: number, signal: AbortSignal | undefined): Promise<Uint8Array> {
    this.#handle ??= open(this.path, 'r');
    const handle = await this.#handle;
    const bytes = new Uint8Array(end - begin);
    for (let filled = 0; filled < bytes.length;) {
      signal?.throwIfAborted();
      const { bytesRead } = await handle.read(bytes, filled, bytes.length - filled, begin + filled);
      if (bytesRead === 0) throw this.#differs();
      filled += bytesRead;
    }
    const { size, mtimeMs } = await handle.stat();
    if (size !== this.size || mtimeMs !== this.changed) throw this.#differs();
    return bytes;
  }

  async close(): Promise<void> {
    const handle = await this.#handle?.catch(() => undefined);
    this.#handle = undefined;
    await handle?.close();
  }

  #differs(): ModelpressError {
    return new ModelpressError({ code: 'source_changed', detail: `${this.path} changed while it was read` });
  }
}

/**
 * Saves an artifact's files into a folder and answers their paths. A file gets its name when it is whole and its digest is
 * right; until then it is `NAME.part`, and is gone on with.
 */
export async function saveArtifact(
  artifacts: Artifacts,
  artifact: ArtifactOut,
  folder: string,
  options: SaveOptions,
): Promise<string[]> {
  const root = resolve(folder);
  const total = artifact.files.reduce((sum, { bytes }) => sum + bytes, 0);
  const there = new Map<string, number>();
  const tell = (file: string, bytes: number): void => {
    there.set(file, bytes);
    options.onProgress?.({ file, bytes: [...there.values()].reduce((sum, one) => sum + one, 0), total });
  };
  const others = new AbortController();
  const end = () => others.abort(options.signal?.reason);
  if (options.signal?.aborted) end();
  options.signal?.addEventListener('abort', end, { once: true });
  try {
    const save = (file: FileOut) =>
      saveFile(
        artifacts,
        artifact.id,
        file,
        inside(root, file.name),
        { signal: others.signal, retries: options.retries },
        tell,
      );
    return await sideBySide(artifact.files, options.parallel ?? PARALLEL, save, (error) => others.abort(error));
  } finally {
    options.signal?.removeEventListener('abort', end);
  }
}

/** A server does not choose where else files go. */
function inside(root: string, name: string): string {
  const path = resolve(root, name);
  if (!path.startsWith(root.endsWith(sep) ? root : root + sep))
    throw new ModelpressError({ code: 'answer_invalid', detail: `${name} leads out of the folder` });
  return path;
}

async function saveFile(
  artifacts: Artifacts,
  id: string,
  file: FileOut,
  path: string,
  options: { signal: AbortSignal; retries: number | undefined },
  tell: (file: string, bytes: number) => void,
): Promise<string> {
  const part = `${path}.part`;
  await mkdir(dirname(path), { recursive: true });
  const { hash, offset } = await begun(part, file);
  const handle = await open(part, offset > 0 ? 'r+' : 'w');
  try {
    let position = offset;
    tell(file.name, position);
    for await (const bytes of artifacts.checked(id, file, { ...options, offset }, hash)) {
      position += await writeAll(handle, bytes, position);
      tell(file.name, position);
    }
    await handle.sync();
  } catch (error) {
    // What is wrong as a whole cannot be gone on with.
    if (error instanceof ModelpressError && error.code === 'digest_mismatch') await rm(part, { force: true });
    throw error;
  } finally {
    await handle.close();
  }
  await rename(part, path);
  return path;
}

async function writeAll(handle: FileHandle, bytes: Uint8Array, position: number): Promise<number> {
  let written = 0;
  while (written < bytes.length)
    written += (await handle.write(bytes, written, bytes.length - written, position + written)).bytesWritten;
  return written;
}

/** What an earlier try has left, and its hash. */
async function begun(part: string, file: FileOut): Promise<{ hash: Hash; offset: number }> {
  const hash = sha256();
  const size = await stat(part).then(
    (found) => found.size,
    () => 0,
  );
  if (size === 0 || size > file.bytes) return { hash, offset: 0 };
  for await (const bytes of createReadStream(part)) hash.update(bytes as Uint8Array);
  return { hash, offset: size };
}
