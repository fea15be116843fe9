// Models and datasets: made from files that are sent in pieces, listed, deleted.

import type { DatasetOut, ModelIn, ModelOut, Operations, PlanIn, PlanOut, TensorOut } from './generated.js';
import { Pages, type PageOptions } from './pages.js';
import { rest } from './patience.js';
import type { Source } from './sources.js';
import type { UploadOptions, Uploads } from './uploads.js';
import { ModelpressError } from './errors.js';
import type { CallOptions } from './wire.js';

/** Makes sources of what a platform has: `File`s, paths. */
export type Opener<In> = (input: In, signal: AbortSignal | undefined) => Promise<Source[]>;

/** What a set of files is called. */
export interface Naming {
  name?: string | undefined;
  metadata?: { [key: string]: string } | undefined;
}

/** A server reads all headers of a model, or all records of a dataset, before it answers. */
const INSPECTION_MS = 600_000;
const POLL_MS = 1_000;

export class Models<In> {
  constructor(
    private readonly api: Operations,
    private readonly uploads: Uploads,
    private readonly opener: Opener<In>,
  ) {}

  /** Sends files side by side, goes on after lost connections, and makes a model of them. */
  async upload(files: In, { name, metadata, ...options }: UploadOptions & Naming = {}): Promise<ModelOut> {
    return sendAndMake(this.uploads, await this.opener(files, options.signal), options, (sent) => {
      return this.create({ ...named({ name, metadata }), files: sent }, { signal: options.signal });
    });
  }

  /** Makes a model of complete uploads, a `source` elsewhere or a `source_path` at the server; or an empty draft. */
  create(body: ModelIn, options: CallOptions = {}): Promise<ModelOut> {
    return this.api.createModel({ body }, { timeoutMs: INSPECTION_MS, ...options });
  }

  /** Has the server bring a model from elsewhere, `hf://org/name@revision`, and waits until it is there. */
  async pull(
    source: string,
    {
      onProgress,
      signal,
      ...body
    }: Omit<ModelIn, 'source' | 'files' | 'source_path'> & {
      onProgress?: ((model: ModelOut) => void) | undefined;
      signal?: AbortSignal | undefined;
    } = {},
  ): Promise<ModelOut> {
    let model = await this.create({ ...body, source }, { signal });
    for (; model.status === 'pulling'; model = await this.get(model.id, { signal })) {
      onProgress?.(model);
      await rest(POLL_MS, signal);
    }
    if (model.status === 'ready') return model;
    const { code, message } = model.pull?.error ?? { code: 'conflict', message: `${model.id} is ${model.status}` };
    throw new ModelpressError({ code, detail: message });
  }

  get(id: string, options?: CallOptions): Promise<ModelOut> {
    return this.api.getModel({ id }, options);
  }

  /** Models, newest first. */
  list({ signal, ...place }: PageOptions = {}): Pages<ModelOut> {
    return new Pages((at) => this.api.listModels(at, { signal }), place);
  }

  /** Its tensors, by name. */
  tensors(id: string, { signal, ...place }: PageOptions = {}): Pages<TensorOut> {
    return new Pages((at) => this.api.listModelTensors({ id, ...at }, { signal }), place);
  }

  /** What would come of a recipe, without doing it; what cannot work is refused as `jobs.create` would. */
  plan(body: PlanIn, options: CallOptions = {}): Promise<PlanOut> {
    return this.api.createPlan({ body }, { timeoutMs: INSPECTION_MS, ...options });
  }

  delete(id: string, options?: CallOptions): Promise<void> {
    return this.api.deleteModel({ id }, options);
  }
}

export class Datasets<In> {
  constructor(
    private readonly api: Operations,
    private readonly uploads: Uploads,
    private readonly opener: Opener<In>,
  ) {}

  /** Sends files and makes a dataset of them; a wrong record is refused with its file and line. */
  async upload(files: In, { name, metadata, ...options }: UploadOptions & Naming = {}): Promise<DatasetOut> {
    return sendAndMake(this.uploads, await this.opener(files, options.signal), options, (sent) => {
      const body = { ...named({ name, metadata }), files: sent };
      return this.api.createDataset({ body }, { timeoutMs: INSPECTION_MS, signal: options.signal });
    });
  }

  get(id: string, options?: CallOptions): Promise<DatasetOut> {
    return this.api.getDataset({ id }, options);
  }

  /** Datasets, newest first. */
  list({ signal, ...place }: PageOptions = {}): Pages<DatasetOut> {
    return new Pages((at) => this.api.listDatasets(at, { signal }), place);
  }

  delete(id: string, options?: CallOptions): Promise<void> {
    return this.api.deleteDataset({ id }, options);
  }
}

/** Only what was given. */
const named = ({ name, metadata }: Naming): Naming => ({
  ...(name === undefined ? {} : { name }),
  ...(metadata === undefined ? {} : { metadata }),
});

async function sendAndMake<T>(
  uploads: Uploads,
  sources: Source[],
  options: UploadOptions,
  make: (sent: { name: string; upload: string }[]) => Promise<T>,
): Promise<T> {
  const sent = await uploads.sendAll(sources, options);
  try {
    return await make(sent);
  } catch (error) {
    const isRefused = error instanceof ModelpressError && error.status >= 400 && error.status < 500;
    // Without an answer nobody knows whether they were taken.
    if (isRefused && options.resume === undefined) await uploads.discard(sent.map(({ upload }) => upload));
    throw error;
  }
}
