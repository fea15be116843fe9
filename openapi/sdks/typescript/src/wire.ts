// What generated and hand-written code agree on: how an operation is described, and who carries it out.

/** Any JSON object; fields that a newer server adds are in it too. */
export type JsonObject = { [key: string]: unknown };

/** A body of bytes. */
export type Bytes = Blob | Uint8Array | ReadableStream<Uint8Array>;

/** What every call takes. */
export interface CallOptions {
  /** Ends the call; the promise rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Milliseconds for one attempt. */
  timeoutMs?: number | undefined;
  /** Attempts after the first. */
  retries?: number | undefined;
}

/** An operation on the wire. */
export interface Operation {
  readonly method: string;
  readonly path: string;
  /** Name in the input, place, name on the wire. */
  readonly parameters: ReadonlyArray<readonly [string, string, string]>;
  /** Content types that its body may have. */
  readonly sends: readonly string[];
  readonly accept: string;
  readonly answer: 'json' | 'text' | 'response' | 'headers' | 'none';
  /** Whether it takes an `Idempotency-Key`. */
  readonly keyed: boolean;
}

/** Carries operations out. */
export interface Caller {
  call<T>(operation: Operation, input: object, options: CallOptions): Promise<T>;
}
