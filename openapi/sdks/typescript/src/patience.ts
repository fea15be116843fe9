// How long is waited: back-off between attempts, limits of time, signals that end both.

/** Retry-After beyond this is not waited for: whoever called decides. */
const LONGEST_WAIT_MS = 60_000;
const FIRST_WAIT_MS = 500;
const LONGEST_BACK_OFF_MS = 8_000;

/** Milliseconds before the attempt after this one; `undefined` if the server asks for longer than anybody waits. */
export function backOff(attempt: number, retryAfterMs?: number): number | undefined {
  if (retryAfterMs !== undefined && retryAfterMs > LONGEST_WAIT_MS) return undefined;
  const most = Math.min(LONGEST_BACK_OFF_MS, FIRST_WAIT_MS * 2 ** attempt);
  // Jitter: many clients that lost the same server do not come back at once.
  return Math.max(most * (0.5 + Math.random() / 2), retryAfterMs ?? 0);
}

/** Rests; rejects with the signal's reason as soon as it is aborted. */
export function rest(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const end = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', end);
      resolve();
    }, milliseconds);
    signal?.addEventListener('abort', end, { once: true });
  });
}

/** Why a limit of time ended something. */
export class Expired extends Error {}

/**
 * A signal of its own that also ends with another one, or when nothing was heard for so long. `AbortSignal.any` is younger
 * than Node 18.
 */
export class Limit {
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal | undefined;
  readonly #end = () => this.#controller.abort(this.#outer?.reason);
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(outer: AbortSignal | undefined, milliseconds: number) {
    this.#outer = outer;
    if (outer?.aborted) this.#end();
    outer?.addEventListener('abort', this.#end, { once: true });
    this.heard(milliseconds);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Begins to wait anew. */
  heard(milliseconds: number): void {
    this.paused();
    const expired = () => this.#controller.abort(new Expired(`nothing for ${milliseconds} ms`));
    this.#timer = setTimeout(expired, milliseconds);
  }

  /** Does not count time until something is `heard` again. */
  paused(): void {
    clearTimeout(this.#timer);
  }

  /** Ends it for good. */
  done(): void {
    this.paused();
    this.#outer?.removeEventListener('abort', this.#end);
  }

  /** Ends what still runs under it. */
  cut(): void {
    this.done();
    this.#controller.abort(new Expired('no longer wanted'));
  }
}
