// Where the bytes of an upload come from: anything that has a name, a size and can be read from an offset.

/** A file to send. */
export interface Source {
  /** Its name in the model or dataset: a relative path with `/`. */
  readonly name: string;
  readonly size: number;
  /** The bytes from `begin` up to `end`. */
  read(begin: number, end: number, signal: AbortSignal | undefined): Promise<Blob | Uint8Array>;
  /** Checks bytes while they are read; where there is none the connection is trusted. */
  readonly hash?: (() => Hash) | undefined;
  /** Told when it was sent or given up. */
  close?(): Promise<void>;
}

/** SHA-256 as bytes come. */
export interface Hash {
  update(bytes: Uint8Array): unknown;
  /** Hexadecimal. */
  digest(): string;
}

/** What can be sent from anywhere: a `File`, bytes with a name, or a source of your own. */
export type FileInput =
  (Blob & { readonly name: string }) | { name: string; data: Blob | Uint8Array | string } | Source;

/** A source of each. */
export async function sources(inputs: FileInput | Iterable<FileInput>): Promise<Source[]> {
  return [...(isMany(inputs) ? inputs : [inputs])].map(sourceOf);
}

const isMany = (inputs: FileInput | Iterable<FileInput>): inputs is Iterable<FileInput> => Symbol.iterator in inputs;

function sourceOf(input: FileInput): Source {
  if ('read' in input) return input;
  if ('data' in input)
    return ofBlob(input.name, input.data instanceof Blob ? input.data : new Blob([input.data as BlobPart]));
  return ofBlob(nameOf(input), input);
}

/** Files of a chosen folder name it first; a model's files are named from inside. */
function nameOf(file: Blob & { name: string; webkitRelativePath?: string }): string {
  const path = file.webkitRelativePath ?? '';
  return path.includes('/') ? path.slice(path.indexOf('/') + 1) : file.name;
}

/** A slice of a blob is read by the browser while it is sent, not before. */
function ofBlob(name: string, blob: Blob): Source {
  return { name, size: blob.size, read: async (begin, end) => blob.slice(begin, end) };
}
