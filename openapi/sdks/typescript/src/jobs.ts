// Jobs: made, listed, followed to their end, their reports.

import { isLost, JobFailedError, ModelpressError } from './errors.js';
import type { AnalysisIn, EventOut, JobIn, JobOut, ListJobsInput, Operations } from './generated.js';
import { OPERATIONS } from './generated.js';
import { Pages, type PageOptions } from './pages.js';
import { backOff, rest } from './patience.js';
import type { Report } from './report.js';
import { messages } from './stream.js';
import { lost, type Open, type Transport } from './transport.js';
import type { CallOptions, JsonObject } from './wire.js';

/** What happens to a job: a line of its history, or how far it is. */
export type JobEvent = { type: 'event'; event: EventOut } | { type: 'progress'; job: JobOut };

/** How to make a job. */
export interface CreateOptions extends CallOptions {
  /** Requests with the same key make one job; a key of its own unless given, so that retries do. */
  idempotencyKey?: string | undefined;
}

/** How to follow a job. */
export interface FollowOptions {
  /** Ends it; the job goes on. */
  signal?: AbortSignal | undefined;
  /** Attempts to reconnect, without an event in between; the client's own unless given. */
  retries?: number | undefined;
}

/** How to wait for a job. */
export interface WaitOptions extends FollowOptions {
  /** Hears how far the job is. */
  onProgress?: ((job: JobOut) => void) | undefined;
  /** Hears every line of its history. */
  onEvent?: ((event: EventOut) => void) | undefined;
  /** Resolve with a job that failed or was cancelled, instead of rejecting. */
  allowFailure?: boolean | undefined;
}

/** The server says something every 15 seconds. */
const SILENCE_MS = 45_000;
const POLL_MS = 1_000;
const OVER = new Set(['succeeded', 'failed', 'cancelled']);

/** Whether it will not change any more. */
export const isOver = (work: { status: string }): boolean => OVER.has(work.status);

export class Jobs {
  constructor(
    private readonly api: Operations,
    private readonly transport: Transport,
  ) {}

  /** Makes a job. What cannot work is refused here, with a pointer to each reason in `errors`. */
  create(body: JobIn, { idempotencyKey, ...options }: CreateOptions = {}): Promise<JobOut> {
    return this.api.createJob({ body, idempotencyKey }, options);
  }

  /** Makes a job that looks at a model and publishes nothing but a report. */
  analyze(model: string, body: AnalysisIn = {}, { idempotencyKey, ...options }: CreateOptions = {}): Promise<JobOut> {
    return this.api.analyzeModel({ id: model, body, idempotencyKey }, options);
  }

  get(id: string, options?: CallOptions): Promise<JobOut> {
    return this.api.getJob({ id }, options);
  }

  /** Jobs, newest first. */
  list({ limit, after, signal, ...filter }: PageOptions & Pick<ListJobsInput, 'status' | 'model'> = {}): Pages<JobOut> {
    return new Pages((place) => this.api.listJobs({ ...filter, ...place }, { signal }), { limit, after });
  }

  /** Ends a job. One that is cancelled already answers itself; one that is over is refused. */
  cancel(id: string, options?: CallOptions): Promise<JobOut> {
    return this.api.cancelJob({ id }, options);
  }

  /** The report of a compression. */
  async report(id: string, options?: CallOptions): Promise<Report> {
    return (await this.api.getJobReport({ id }, options)) as Report;
  }

  /** The report of an analysis. */
  analysis(id: string, options?: CallOptions): Promise<JsonObject> {
    return this.api.getJobReport({ id }, options);
  }

  /** The report as one page of HTML. */
  reportHtml(id: string, options?: CallOptions): Promise<string> {
    return this.api.getJobReportHtml({ id }, options);
  }

  /** Follows a job to its end, from its first event or the one behind `after`; goes on where a lost connection left off. */
  async *events(
    id: string,
    { after = 0, ...options }: FollowOptions & { after?: number | undefined } = {},
  ): AsyncGenerator<JobEvent, void, undefined> {
    let seen = after;
    for (let failures = 0; ;) {
      const before = seen;
      let error: unknown;
      try {
        const open = await this.#listen(id, seen, options);
        if (open === undefined) return;
        for await (const event of this.#read(open, options)) {
          if (event.type === 'event') seen = event.event.seq;
          failures = 0;
          yield event;
        }
        // Ended in order: the job is over, or the server goes away. Asking again tells; only a job without events does not.
        if (seen === 0 && isOver(await this.get(id, options))) return;
      } catch (caught) {
        options.signal?.throwIfAborted();
        if (!isLost(caught)) throw caught;
        error = caught;
      }
      if (seen > before && error === undefined) continue;
      failures += 1;
      const wait = failures > (options.retries ?? this.transport.retries) ? undefined : backOff(failures - 1);
      if (wait === undefined)
        throw (
          error ??
          new ModelpressError({ code: 'connection_failed', detail: `the events of ${id} end before the job does` })
        );
      await rest(wait, options.signal);
    }
  }

  /** Waits until a job is over. Rejects with a `JobFailedError` if it failed or was cancelled. */
  async wait(id: string, { onProgress, onEvent, allowFailure = false, ...options }: WaitOptions = {}): Promise<JobOut> {
    try {
      for await (const told of this.events(id, options)) {
        if (told.type === 'progress') onProgress?.(told.job);
        else onEvent?.(told.event);
      }
    } catch (error) {
      // As many streams are open as the server has: asking again and again does, too.
      if (!(error instanceof ModelpressError && error.kind === 'overloaded')) throw error;
    }
    let job = await this.get(id, options);
    for (; !isOver(job); job = await this.get(id, options)) {
      onProgress?.(job);
      await rest(POLL_MS, options.signal);
    }
    onProgress?.(job);
    if (job.status !== 'succeeded' && !allowFailure) throw new JobFailedError(job);
    return job;
  }

  /** The stream behind an event; nothing if nothing will follow. */
  async #listen(id: string, seen: number, options: FollowOptions): Promise<Open | undefined> {
    const lastEventId = seen > 0 ? seen : undefined;
    const open = await this.transport.open(
      OPERATIONS.listJobEvents,
      { id, lastEventId },
      { ...options, accept: 'text/event-stream' },
    );
    if (open.response.status !== 204) return open;
    open.limit.done();
    return undefined;
  }

  async *#read({ response, limit }: Open, { signal }: FollowOptions): AsyncGenerator<JobEvent, void, undefined> {
    if (response.body === null) return;
    limit.heard(SILENCE_MS);
    try {
      for await (const { event, data } of messages(response.body, () => limit.heard(SILENCE_MS))) {
        // The reader may take its time with what it was told.
        limit.paused();
        if (event === 'progress') yield { type: 'progress', job: JSON.parse(data) as JobOut };
        else yield { type: 'event', event: JSON.parse(data) as EventOut };
        limit.heard(SILENCE_MS);
      }
    } catch (error) {
      throw lost(error, signal, response.url, SILENCE_MS);
    } finally {
      limit.cut();
    }
  }
}
