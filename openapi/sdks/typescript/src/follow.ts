// Following a job: its events to the end, over lost connections and servers that go away.

import { isLost, ModelpressError } from './errors.js';
import { OPERATIONS, type EventOut, type JobOut, type Operations } from './generated.js';
import { backOff, rest } from './patience.js';
import { messages } from './stream.js';
import { lost, type Open, type Transport } from './transport.js';

/** What happens to a job: a line of its history, or how far it is. */
export type JobEvent = { type: 'event'; event: EventOut } | { type: 'progress'; job: JobOut };

/** How to follow a job. */
export interface FollowOptions {
  /** Ends it; the job goes on. */
  signal?: AbortSignal | undefined;
  /** Attempts to reconnect, without an event in between; the client's own unless given. */
  retries?: number | undefined;
}

/** From where on. */
export interface EventOptions extends FollowOptions {
  /** The `seq` of the last event that was seen. */
  after?: number | undefined;
}

/** The server says something every 15 seconds. */
const SILENCE_MS = 45_000;
const OVER = new Set(['succeeded', 'failed', 'cancelled']);

/** Whether it will not change any more. */
export const isOver = (work: { status: string }): boolean => OVER.has(work.status);

/** Whether asking again may help. */
export const mayPass = (error: ModelpressError): boolean =>
  isLost(error) || error.status >= 500 || error.kind === 'rate_limited';

/** The events behind `after`, in order and each once; `bears` says which errors it goes on after. */
export async function* follow(
  api: Operations,
  transport: Transport,
  id: string,
  { after = 0, ...options }: EventOptions,
  bears: (error: ModelpressError) => boolean,
): AsyncGenerator<JobEvent, void, undefined> {
  let seen = after;
  for (let failures = 0; ;) {
    const before = seen;
    let error = new ModelpressError({
      code: 'connection_failed',
      detail: `the events of ${id} end before the job does`,
    });
    try {
      const open = await listen(transport, id, seen, options);
      if (open === undefined) return;
      for await (const event of read(open, options)) {
        if (event.type === 'event') seen = event.event.seq;
        failures = 0;
        yield event;
      }
      // Ended in order: the job is over, or the server goes away. Asking again tells, but not of a job without events.
      if (seen === 0 && isOver(await api.getJob({ id }, options))) return;
      if (seen > before) continue;
    } catch (caught) {
      options.signal?.throwIfAborted();
      if (!(caught instanceof ModelpressError) || !bears(caught)) throw caught;
      error = caught;
    }
    failures += 1;
    const isPatient = failures <= (options.retries ?? transport.retries);
    const wait = isPatient ? backOff(failures - 1, error.retryAfterMs) : undefined;
    if (wait === undefined) throw error;
    await rest(wait, options.signal);
  }
}

/** The stream behind an event; nothing if nothing will follow. */
async function listen(
  transport: Transport,
  id: string,
  seen: number,
  options: FollowOptions,
): Promise<Open | undefined> {
  const input = { id, lastEventId: seen > 0 ? seen : undefined };
  const sent = { signal: options.signal, retries: 0, accept: 'text/event-stream' };
  const open = await transport.open(OPERATIONS.listJobEvents, input, sent);
  if (open.response.status !== 204) return open;
  open.limit.done();
  return undefined;
}

async function* read({ response, limit }: Open, { signal }: FollowOptions): AsyncGenerator<JobEvent, void, undefined> {
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
