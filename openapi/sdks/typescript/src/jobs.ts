// Jobs: made, listed, followed to their end, their reports.

import { JobFailedError, ModelpressError } from './errors.js';
import { follow, isOver, mayPass, type EventOptions, type FollowOptions, type JobEvent } from './follow.js';
import type { AnalysisIn, EventOut, JobIn, JobOut, ListJobsInput, Operations } from './generated.js';
import { Pages, type PageOptions } from './pages.js';
import { rest } from './patience.js';
import type { Report } from './report.js';
import type { Transport } from './transport.js';
import type { CallOptions, JsonObject } from './wire.js';

/** How to make a job. */
export interface CreateOptions extends CallOptions {
  /** Requests with the same key make one job; a key of its own unless given, so that retries do. */
  idempotencyKey?: string | undefined;
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

const POLL_MS = 1_000;

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

  /** Follows a job to its end, from its first event or the one behind `after`; a lost connection is made anew. */
  events(id: string, options: EventOptions = {}): AsyncGenerator<JobEvent, void, undefined> {
    return follow(this.api, this.transport, id, options, mayPass);
  }

  /** Waits until a job is over. Rejects with a `JobFailedError` if it failed or was cancelled. */
  async wait(id: string, { onProgress, onEvent, allowFailure = false, ...options }: WaitOptions = {}): Promise<JobOut> {
    try {
      const bears = (error: ModelpressError): boolean => mayPass(error) && !isCrowded(error);
      for await (const told of follow(this.api, this.transport, id, options, bears)) {
        if (told.type === 'progress') onProgress?.(told.job);
        else onEvent?.(told.event);
      }
    } catch (error) {
      // Asking again and again does, too.
      if (!isCrowded(error)) throw error;
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
}

/** As many streams are open as the server has. */
const isCrowded = (error: unknown): boolean => error instanceof ModelpressError && error.kind === 'overloaded';
