// The client: its parts, and the calls that do a whole thing at once.

import { Artifacts } from './artifacts.js';
import {
  Operations,
  type ArtifactOut,
  type JobIn,
  type JobOut,
  type ModelOut,
  type PointOut,
  type Recipe,
  type SearchOut,
} from './generated.js';
import { Jobs, type WaitOptions } from './jobs.js';
import { Datasets, Models, type Naming, type Opener } from './models.js';
import type { Report } from './report.js';
import { bestOf, frontOf, Searches, type SearchRequest, type SearchWaitOptions } from './searches.js';
import type { Hash } from './sources.js';
import { Transport, type TransportOptions } from './transport.js';
import { Uploads, type UploadOptions } from './uploads.js';
import { Webhooks } from './webhooks.js';
import type { JsonObject } from './wire.js';

/** What `compress` does: a model that is there, or files that become one. */
export type CompressRequest<In> = ({ model: string | ModelOut; files?: never } | { files: In; model?: never }) &
  Naming &
  Pick<JobIn, 'formats' | 'priority'> & { recipe: Recipe };

/** How `compress` goes about it. An aborted signal cancels the job, too. */
export interface CompressOptions extends Pick<WaitOptions, 'signal' | 'onProgress' | 'onEvent'> {
  /** How the files are sent. */
  upload?: Omit<UploadOptions, 'signal'> | undefined;
}

/** What came of it. */
export interface Compressed {
  job: JobOut;
  report: Report;
  artifacts: ArtifactOut[];
}

/** How an analysis is waited for, and what it weighs beside the weights. */
export interface AnalyzeOptions extends Omit<WaitOptions, 'allowFailure'> {
  /** A recipe with calibration, or a preset's name: what each of its schemes would cost each tensor. */
  sensitivity?: Recipe | undefined;
}

/** What an analysis found. */
export interface Analyzed {
  job: JobOut;
  report: JsonObject;
}

/** What a search found. */
export interface Searched {
  search: SearchOut;
  /** The points that no other beats in size and loss, from the smallest to the one that loses least. */
  front: PointOut[];
  /** The point of the front that is best for size, quality and the balance of both, and for speed where it was timed. */
  best: {
    size: PointOut | undefined;
    quality: PointOut | undefined;
    balance: PointOut | undefined;
    speed: PointOut | undefined;
  };
}

/** A client, on a platform that has `In` for files. */
export class Client<In> {
  /** Every operation of the API, one by one. */
  readonly api: Operations;
  readonly uploads: Uploads;
  readonly models: Models<In>;
  readonly datasets: Datasets<In>;
  readonly jobs: Jobs;
  readonly artifacts: Artifacts;
  readonly searches: Searches;
  readonly webhooks: Webhooks;

  constructor(options: TransportOptions, opener: Opener<In>, hash?: () => Hash) {
    const transport = new Transport(options);
    this.api = new Operations(transport);
    this.uploads = new Uploads(this.api, transport);
    this.models = new Models(this.api, this.uploads, opener);
    this.datasets = new Datasets(this.api, this.uploads, opener);
    this.jobs = new Jobs(this.api, transport);
    this.artifacts = new Artifacts(this.api, transport, hash);
    this.searches = new Searches(this.api);
    this.webhooks = new Webhooks(this.api);
  }

  /** Compresses a model and waits: uploads files if there are any, makes the job, answers job, report and artifacts. */
  async compress(request: CompressRequest<In>, options: CompressOptions = {}): Promise<Compressed> {
    const { signal, upload } = options;
    const { model: _model, files: _files, name, ...asked } = request;
    const source =
      request.model !== undefined
        ? request.model
        : await this.models.upload(request.files, { ...upload, name, signal });
    const made = await this.jobs.create({ ...asked, model: idOf(source) }, { signal });
    const job = await this.#finish(made, options);
    const artifacts = job.artifacts.map((id) => this.artifacts.get(id, { signal }));
    return { job, report: await this.jobs.report(job.id, { signal }), artifacts: await Promise.all(artifacts) };
  }

  /** Says what a model's weights are, and what each preset would make of them. */
  async analyze(model: string | ModelOut, options: AnalyzeOptions = {}): Promise<Analyzed> {
    const { sensitivity, ...waiting } = options;
    const asked = sensitivity === undefined ? {} : { sensitivity };
    const job = await this.#finish(await this.jobs.analyze(idOf(model), asked, { signal: options.signal }), waiting);
    return { job, report: await this.jobs.analysis(job.id, { signal: options.signal }) };
  }

  /** Tries many recipes and waits; the points say what came of each. */
  async search(request: SearchRequest, options: SearchWaitOptions = {}): Promise<Searched> {
    const made = await this.searches.create(request, { signal: options.signal });
    const search = await this.searches.wait(made.id, options).catch(async (error: unknown) => {
      if (options.signal?.aborted) await this.searches.cancel(made.id).catch(() => undefined);
      throw error;
    });
    const best = {
      size: bestOf(search, 'size'),
      quality: bestOf(search, 'quality'),
      balance: bestOf(search, 'balance'),
      speed: bestOf(search, 'speed'),
    };
    return { search, front: frontOf(search), best };
  }

  /** A job that nobody else knows of ends with the call that made it. */
  async #finish(job: JobOut, options: WaitOptions): Promise<JobOut> {
    try {
      return await this.jobs.wait(job.id, {
        signal: options.signal,
        onProgress: options.onProgress,
        onEvent: options.onEvent,
      });
    } catch (error) {
      if (options.signal?.aborted) await this.jobs.cancel(job.id).catch(() => undefined);
      throw error;
    }
  }
}

const idOf = (model: string | ModelOut): string => (typeof model === 'string' ? model : model.id);
