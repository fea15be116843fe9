// What can go wrong, as errors with everything that the server said.

import type { FieldError, JobOut, Problem, ProblemCode } from './generated.js';

/** Codes of failures that no server answered. */
export type LocalCode = 'connection_failed' | 'timeout' | 'digest_mismatch' | 'source_changed' | 'answer_invalid';

/** What an error is made of. */
export interface ErrorParts {
  status?: number | undefined;
  /** The class of it; the code unless given. */
  kind?: ProblemCode | LocalCode | undefined;
  code: string;
  detail: string;
  requestId?: string | undefined;
  errors?: readonly FieldError[] | undefined;
  retryAfterMs?: number | undefined;
  expectedOffset?: number | undefined;
  cause?: unknown;
}

/** A request that failed: refused by the server, or never answered. */
export class ModelpressError extends Error {
  override readonly name: string = 'ModelpressError';
  /** The HTTP status; 0 if there was no answer. */
  readonly status: number;
  /** The class of what went wrong. */
  readonly kind: ProblemCode | LocalCode;
  /** Stable name of what went wrong; may be more specific than its class. */
  readonly code: string;
  /** What happened, for people. */
  readonly detail: string;
  /** The request's id in the server's log. */
  readonly requestId: string | undefined;
  /** Each wrong field or file: a JSON pointer into the request, a code, a sentence. */
  readonly errors: readonly FieldError[];
  /** How long the server asks to wait. */
  readonly retryAfterMs: number | undefined;
  /** Where an upload really stands. */
  readonly expectedOffset: number | undefined;

  constructor(parts: ErrorParts) {
    super(sentence(parts), parts.cause === undefined ? undefined : { cause: parts.cause });
    this.status = parts.status ?? 0;
    this.kind = parts.kind ?? parts.code;
    this.code = parts.code;
    this.detail = parts.detail;
    this.requestId = parts.requestId;
    this.errors = parts.errors ?? [];
    this.retryAfterMs = parts.retryAfterMs;
    this.expectedOffset = parts.expectedOffset;
  }
}

/** Whether a request may well have been heard, but nobody heard the answer. */
export function isLost(error: unknown): boolean {
  return error instanceof ModelpressError && (error.kind === 'connection_failed' || error.kind === 'timeout');
}

/** A job that ended otherwise than well. */
export class JobFailedError extends Error {
  override readonly name = 'JobFailedError';
  /** Stable name of why; `cancelled` for a job that was. */
  readonly code: string;

  constructor(readonly job: JobOut) {
    super(`${job.id} ${job.status}${job.error ? `: ${job.error.message} (${job.error.code})` : ''}`);
    this.code = job.error?.code ?? job.status;
  }
}

/** A message that is not to be believed. */
export class WebhookVerificationError extends Error {
  override readonly name = 'WebhookVerificationError';
}

/** The error of an answer that is not a success. */
export async function errorOf(response: Response): Promise<ModelpressError> {
  const problem = parse(await response.text().catch(() => ''));
  return new ModelpressError({
    status: response.status,
    kind: /#problem-(\w+)$/.exec(problem.type ?? '')?.[1],
    code: problem.code ?? `http_${response.status}`,
    detail: problem.detail ?? problem.title ?? `the server answered ${response.status} ${response.statusText}`.trim(),
    requestId: problem.request_id ?? response.headers.get('x-request-id') ?? undefined,
    errors: problem.errors,
    retryAfterMs: retryAfter(response.headers.get('retry-after')),
    expectedOffset: problem.expected_offset ?? undefined,
  });
}

/** A proxy in between may answer with anything. */
function parse(text: string): Partial<Problem> {
  try {
    const found: unknown = JSON.parse(text);
    return typeof found === 'object' && found !== null ? found : {};
  } catch {
    return {};
  }
}

function retryAfter(header: string | null): number | undefined {
  if (header === null) return undefined;
  const seconds = Number(header);
  const wait = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(header) - Date.now();
  return Number.isNaN(wait) ? undefined : Math.max(0, wait);
}

function sentence({ status, code, detail, errors, requestId }: ErrorParts): string {
  const lines = [`${status ? `${status} ` : ''}${code}: ${detail}`];
  for (const error of errors ?? []) lines.push(`  ${error.pointer}: ${error.detail} (${error.code})`);
  if (requestId !== undefined) lines.push(`  request ${requestId}`);
  return lines.join('\n');
}
