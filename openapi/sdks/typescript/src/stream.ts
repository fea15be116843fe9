// Server-sent events: from bytes to messages, as the HTML standard reads them.

/** A message of a stream. */
export interface Message {
  id: string | undefined;
  event: string;
  data: string;
}

/** The messages in a body of `text/event-stream`; `onBytes` hears of everything, comments too. */
export async function* messages(
  body: ReadableStream<Uint8Array>,
  onBytes: () => void,
): AsyncGenerator<Message, void, undefined> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  let fields = new Map<string, string>();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      // What follows the last empty line is not a whole message.
      if (done) return;
      onBytes();
      rest += decoder.decode(value, { stream: true });
      // A carriage return at the end may be half of a line break.
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop() ?? '';
      for (const line of lines) {
        if (line !== '') {
          field(fields, line);
          continue;
        }
        const data = fields.get('data');
        if (data !== undefined) yield { id: fields.get('id'), event: fields.get('event') ?? 'message', data };
        fields = new Map();
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

function field(fields: Map<string, string>, line: string): void {
  const colon = line.indexOf(':');
  // A comment.
  if (colon === 0) return;
  const name = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
  const before = fields.get(name);
  fields.set(name, name === 'data' && before !== undefined ? `${before}\n${value}` : value);
}
