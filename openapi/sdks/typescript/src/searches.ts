// Searches: many recipes on one model, and which of the results are worth having.

import { isOver } from './follow.js';
import type { Operations, PointOut, Recipe, SearchEntryOut, SearchIn, SearchOut } from './generated.js';
import type { CreateOptions } from './jobs.js';
import { Pages, type PageOptions } from './pages.js';
import { rest } from './patience.js';
import type { CallOptions } from './wire.js';

type Parts = Exclude<Recipe, string>;

/** What to search. */
export interface SearchRequest extends Omit<SearchIn, 'recipes' | 'grid' | 'calibration' | 'evaluation'> {
  /** Presets and recipes, at most 64 with those of the grid. */
  recipes?: readonly Recipe[] | undefined;
  /** A recipe, and lists of values for JSON pointers into it: every combination is tried. */
  grid?: { recipe: Recipe; vary: { [pointer: string]: readonly unknown[] } } | undefined;
  /** Calibration of the recipes that have none of their own. */
  calibration?: Parts['calibration'];
  /** Evaluation of the recipes that have none of their own; `true` unless given. */
  evaluation?: Parts['evaluation'];
}

/** How to wait for a search. */
export interface SearchWaitOptions {
  /** Ends the waiting; the search goes on. */
  signal?: AbortSignal | undefined;
  /** Hears of it about every second. */
  onProgress?: ((search: SearchOut) => void) | undefined;
}

const POLL_MS = 1_000;

export class Searches {
  constructor(private readonly api: Operations) {}

  /** Makes a job of every recipe. */
  create(request: SearchRequest, { idempotencyKey, ...options }: CreateOptions = {}): Promise<SearchOut> {
    // The document has recipes and `evaluation` as objects only; names and `true` are taken too.
    return this.api.createSearch({ body: request as SearchIn, idempotencyKey }, options);
  }

  get(id: string, options?: CallOptions): Promise<SearchOut> {
    return this.api.getSearch({ id }, options);
  }

  /** Searches, newest first. */
  list({ signal, ...place }: PageOptions = {}): Pages<SearchEntryOut> {
    return new Pages((at) => this.api.listSearches(at, { signal }), place);
  }

  /** Cancels its jobs. */
  cancel(id: string, options?: CallOptions): Promise<SearchOut> {
    return this.api.cancelSearch({ id }, options);
  }

  /** Waits until every recipe is done, whatever came of it: `status` and each point say so. */
  async wait(id: string, { signal, onProgress }: SearchWaitOptions = {}): Promise<SearchOut> {
    for (;;) {
      const search = await this.get(id, { signal });
      onProgress?.(search);
      if (isOver(search)) return search;
      await rest(POLL_MS, signal);
    }
  }
}

/** The points that no other beats in size and loss, from the smallest to the one that loses least. */
export function frontOf(search: SearchOut): PointOut[] {
  return search.front.flatMap((name) => search.points.filter((point) => point.name === name));
}

/** The point that is best for something; nothing if no recipe was measured. */
export function bestOf(search: SearchOut, what: 'size' | 'quality' | 'balance' | 'speed'): PointOut | undefined {
  return search.points.find((point) => point.best_for === what);
}
