// Event streams, in every way that bytes can be cut; waiting, as servers ask for it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backOff } from '../dist/patience.js';
import { messages, type Message } from '../dist/stream.js';

const TEXT =
  ': hello\nretry: 2000\n\nid: 1\nevent: state\ndata: {"a":\ndata: "ü"}\n\ndata\n\n: ping\n\nid: 2\ndata:x\n\nid: 3\ndata: half';
const EXPECTED: Message[] = [
  { id: '1', event: 'state', data: '{"a":\n"ü"}' },
  { id: undefined, event: 'message', data: '' },
  { id: '2', event: 'message', data: 'x' },
];

async function read(text: string, size: number): Promise<{ found: Message[]; heard: number }> {
  const bytes = new TextEncoder().encode(text);
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.subarray(at, at + size));
      controller.close();
    },
  });
  const found: Message[] = [];
  let heard = 0;
  for await (const message of messages(body, () => (heard += 1))) found.push(message);
  return { found, heard };
}

test('messages are whole, however their bytes come and lines end', async () => {
  for (const end of ['\n', '\r\n', '\r']) {
    for (const size of [1, 2, 3, 7, 1000]) {
      const { found, heard } = await read(TEXT.replaceAll('\n', end), size);

      assert.deepEqual(found, EXPECTED, `${JSON.stringify(end)} ${size}`);
      assert(heard > 0);
    }
  }
});

test('waiting grows to a limit, is never the same for all, and keeps to what the server asks', () => {
  const waits = Array.from({ length: 40 }, (_, attempt) => backOff(attempt) ?? -1);
  assert(
    waits.every((wait, attempt) => wait >= Math.min(8000, 500 * 2 ** attempt) / 2 && wait <= 8000),
    `${waits}`,
  );
  assert(new Set(waits).size > 30);
  assert((backOff(0, 5000) ?? 0) >= 5000);
  assert.equal(backOff(0, 61_000), undefined);
});
