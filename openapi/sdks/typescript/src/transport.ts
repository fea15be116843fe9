// Carries operations out over `fetch`: addresses, keys, limits of time, retries, errors.

import { errorOf, isLost, ModelpressError } from './errors.js';
import { VERSION } from './generated.js';
import { backOff, Expired, Limit, rest } from './patience.js';
import type { Caller, CallOptions, Operation } from './wire.js';

/** How a client reaches its server. */
export interface TransportOptions {
  /** Where the server is; `MODELPRESS_URL` of the environment, or http://127.0.0.1:8080. */
  baseUrl?: string | undefined;
  /** The key; `MODELPRESS_API_KEY` of the environment. None is sent if there is none. */
  apiKey?: string | undefined;
  /** Another `fetch`. */
  fetch?: typeof globalThis.fetch | undefined;
  /** Milliseconds for one attempt of a request; 60,000. Waiting for jobs and moving files is not limited by it. */
  timeoutMs?: number | undefined;
  /** Attempts after the first, of requests that may be repeated; 6, which is patience for about 20 s. */
  retries?: number | undefined;
}

/** What hand-written code may ask for besides. */
export interface SendOptions extends CallOptions {
  /** Another type than the operation's own. */
  accept?: string | undefined;
  /** Repeating it does no harm, although its method does not say so. */
  repeatable?: boolean | undefined;
}

/** A response whose body is still to come, and the limit under which it does. */
export interface Open {
  response: Response;
  limit: Limit;
}

const TIMEOUT_MS = 60_000;
const RETRIES = 6;
const REPEATABLE = new Set(['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS']);
/** Answers after which the same request may succeed. */
const PASSING = new Set([408, 425, 500, 502, 503, 504]);

type Environment = { process?: { env?: Record<string, string | undefined>; versions?: { node?: string } } };
const { process } = globalThis as Environment;

export class Transport implements Caller {
  readonly retries: number;
  readonly timeoutMs: number;
  readonly baseUrl: string;
  readonly #apiKey: string | undefined;
  readonly #fetch: typeof globalThis.fetch;

  constructor(options: TransportOptions) {
    const url = options.baseUrl ?? process?.env?.['MODELPRESS_URL'] ?? 'http://127.0.0.1:8080';
    this.baseUrl = url.replace(/\/+$/, '');
    this.#apiKey = options.apiKey ?? process?.env?.['MODELPRESS_API_KEY'];
    // Called as a method of anything else, a browser's fetch throws.
    this.#fetch = options.fetch ?? ((...call) => globalThis.fetch(...call));
    this.timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.retries = options.retries ?? RETRIES;
  }

  call<T>(operation: Operation, input: object, options: SendOptions): Promise<T> {
    return this.#attempts(operation, input, options, async ({ response, limit }) => {
      const answer = await read(operation, response);
      // The body of a `Response` comes later, at its reader's pace.
      if (answer !== response) limit.done();
      return answer as T;
    });
  }

  /** The response as soon as its headers are there; its limit does not count time any more, and is the caller's to end. */
  open(operation: Operation, input: object, options: SendOptions): Promise<Open> {
    return this.#attempts(operation, input, options, async (open) => open);
  }

  async #attempts<T>(
    operation: Operation,
    input: object,
    options: SendOptions,
    take: (open: Open) => Promise<T>,
  ): Promise<T> {
    const request = this.#request(operation, input, options);
    const repeatable =
      options.repeatable ?? (REPEATABLE.has(operation.method) || request.headers.has('idempotency-key'));
    const retries = options.retries ?? this.retries;
    let wasLost = false;
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.#attempt(request, options, take);
      } catch (error) {
        if (!(error instanceof ModelpressError)) throw error;
        // What an attempt without an answer has deleted is gone.
        if (wasLost && operation.method === 'DELETE' && error.status === 404) return undefined as T;
        const wait = mayPass(error, repeatable) && attempt < retries ? backOff(attempt, error.retryAfterMs) : undefined;
        if (wait === undefined) throw error;
        wasLost ||= isLost(error) || error.status >= 500;
        await rest(wait, options.signal);
      }
    }
  }

  async #attempt<T>(request: Prepared, options: SendOptions, take: (open: Open) => Promise<T>): Promise<T> {
    options.signal?.throwIfAborted();
    const milliseconds = options.timeoutMs ?? this.timeoutMs;
    const limit = new Limit(options.signal, milliseconds);
    try {
      const response = await this.#fetch(request.url, {
        ...request.init,
        headers: request.headers,
        signal: limit.signal,
      });
      if (!response.ok && response.status !== 304) throw await errorOf(response);
      const taken = await take({ response, limit });
      limit.paused();
      return taken;
    } catch (error) {
      limit.done();
      throw lost(error, options.signal, request.url, milliseconds);
    }
  }

  #request(operation: Operation, input: object, options: SendOptions): Prepared {
    const given = input as Record<string, unknown>;
    const headers = new Headers({ accept: options.accept ?? operation.accept });
    if (this.#apiKey !== undefined) headers.set('authorization', `Bearer ${this.#apiKey}`);
    // Browsers have a name of their own and let nobody change it.
    if (process?.versions?.node !== undefined) headers.set('user-agent', `modelpress-typescript/${VERSION}`);
    const url = this.#place(operation, given, headers);
    if (operation.keyed && !headers.has('idempotency-key')) headers.set('idempotency-key', newKey());
    const init: RequestInit = { method: operation.method };
    const body = given['body'];
    if (body !== undefined) init.body = encode(operation, body, given['contentType'], headers);
    // Streams are sent as they come, which `fetch` wants to be told.
    if (body instanceof ReadableStream) Object.assign(init, { duplex: 'half' });
    return { url, headers, init };
  }

  #place(operation: Operation, given: Record<string, unknown>, headers: Headers): string {
    let path = operation.path;
    const query = new URLSearchParams();
    for (const [name, where, wire] of operation.parameters) {
      const value = given[name];
      if (value === undefined || value === null) continue;
      if (where === 'path')
        path = path.replace(`{${wire}}`, () => segments(wire === 'path' ? String(value).split('/') : [String(value)]));
      else if (where === 'query') query.set(wire, String(value));
      else headers.set(wire, String(value));
    }
    const search = query.toString();
    return `${this.baseUrl}${path}${search === '' ? '' : `?${search}`}`;
  }
}

interface Prepared {
  url: string;
  headers: Headers;
  init: RequestInit;
}

/** An empty or dotted segment would make another address of it. Only names of files have several. */
function segments(parts: string[]): string {
  if (parts.some((part) => part === '' || part === '.' || part === '..')) {
    throw new TypeError(`${JSON.stringify(parts.join('/'))} is no identifier or file name`);
  }
  return parts.map(encodeURIComponent).join('/');
}

function encode(operation: Operation, body: unknown, contentType: unknown, headers: Headers): BodyInit {
  if (body instanceof FormData) return body;
  const isRaw =
    typeof body === 'string' || body instanceof Uint8Array || body instanceof Blob || body instanceof ReadableStream;
  if (isRaw) {
    const type = contentType ?? operation.sends.find((media) => !/json$|^multipart/.test(media));
    if (typeof type === 'string') headers.set('content-type', type);
    return body as BodyInit;
  }
  headers.set('content-type', 'application/json');
  return JSON.stringify(body);
}

async function read(operation: Operation, response: Response): Promise<unknown> {
  switch (operation.answer) {
    case 'json':
      return response.status === 204 ? undefined : parse(await response.text(), response);
    case 'text':
      return response.text();
    case 'headers':
      return response.headers;
    case 'none':
      return undefined;
    case 'response':
      return response;
  }
}

function parse(text: string, response: Response): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    const requestId = response.headers.get('x-request-id') ?? undefined;
    throw new ModelpressError({
      status: response.status,
      code: 'answer_invalid',
      detail: 'the answer is not JSON',
      requestId,
      cause,
    });
  }
}

function mayPass(error: ModelpressError, repeatable: boolean): boolean {
  // Refused before anything was done, whatever the method.
  if (error.kind === 'rate_limited') return true;
  if (!repeatable) return false;
  return isLost(error) || error.kind === 'idempotency_running' || PASSING.has(error.status);
}

/** Why there is no answer. An aborted call rejects with its signal's reason, as `fetch` does. */
export function lost(error: unknown, signal: AbortSignal | undefined, url: string, milliseconds: number): unknown {
  if (signal?.aborted) return signal.reason;
  if (error instanceof ModelpressError) return error;
  if (error instanceof Expired) {
    return new ModelpressError({ code: 'timeout', detail: `no answer from ${url} within ${milliseconds} ms` });
  }
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const why = cause instanceof Error ? cause.message || cause.name : String(cause);
  return new ModelpressError({ code: 'connection_failed', detail: `no answer from ${url}: ${why}`, cause: error });
}

/** Unlike any other key; nobody has to be unable to guess it. */
function newKey(): string {
  const { crypto } = globalThis as { crypto?: Crypto };
  if (typeof crypto?.randomUUID === 'function') return crypto.randomUUID();
  const digits = () => Math.random().toString(36).slice(2);
  return `${Date.now().toString(36)}-${digits()}${digits()}`;
}
