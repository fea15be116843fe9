// Lists: items one by one over all pages, or a page at a time.

/** A page, as every list answers it. */
export interface Page<T> {
  data: T[];
  has_more: boolean;
  next_cursor: string | null;
}

const LARGEST_PAGE = 100;

/** A list that is fetched as it is gone through: `for await (const item of list)`. */
export class Pages<T> implements AsyncIterable<T> {
  readonly #fetch: (place: { limit: number; after?: string | undefined }) => Promise<Page<T>>;
  readonly #limit: number;
  readonly #after: string | undefined;

  constructor(
    fetch: (place: { limit: number; after?: string | undefined }) => Promise<Page<T>>,
    { limit = LARGEST_PAGE, after }: PageOptions = {},
  ) {
    this.#fetch = fetch;
    this.#limit = limit;
    this.#after = after;
  }

  /** The first page; its `next_cursor` is the `after` of the next list. */
  page(): Promise<Page<T>> {
    return this.#fetch({ limit: this.#limit, after: this.#after });
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    for (let after = this.#after; ;) {
      const page = await this.#fetch({ limit: this.#limit, after });
      yield* page.data;
      if (!page.has_more || page.next_cursor === null) return;
      after = page.next_cursor;
    }
  }

  /** All items, in memory. */
  async toArray(): Promise<T[]> {
    const items: T[] = [];
    for await (const item of this) items.push(item);
    return items;
  }
}

/** Where a list begins and how much comes at a time. */
export interface PageOptions {
  /** Items a page, 1 to 100; 100. */
  limit?: number | undefined;
  /** The `next_cursor` of the page before. */
  after?: string | undefined;
  /** Ends it. */
  signal?: AbortSignal | undefined;
}
