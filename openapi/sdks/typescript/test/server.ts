// A real server on a free port with a data folder of its own, and a line to it that can be cut.

import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Server as Listener, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';

const binary = process.env['MODELPRESS_BINARY'] ?? '/usr/bin/false';

export class Server {
  private constructor(
    readonly url: string,
    readonly folder: string,
    private readonly process: ChildProcess,
  ) {}

  static async start(
    options: { auth?: 'required' | 'auto'; port?: number; folder?: string; env?: Record<string, string> } = {},
  ): Promise<Server> {
    const folder = options.folder ?? (await mkdtemp(join(tmpdir(), 'modelpress-ts-')));
    const env = {
      ...process.env,
      MODELPRESS_OUTBOUND_ALLOWED: '127.0.0.1',
      MODELPRESS_AUTH: options.auth ?? 'auto',
      MODELPRESS_LOG_FORMAT: 'json',
      ...options.env,
    };
    const child = spawn(binary, ['serve', '--listen', `127.0.0.1:${options.port ?? 0}`, '--data-dir', folder], {
      env,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const said: string[] = [];
    const url = await new Promise<string>((resolve, reject) => {
      createInterface({ input: child.stderr }).on('line', (line) => {
        said.push(line);
        const address = /"message":"serving","address":"([^"]+)"/.exec(line)?.[1];
        if (address !== undefined) resolve(`http://${address}`);
      });
      child.once('exit', (code) => reject(new Error(`the server ended with ${code}:\n${said.join('\n')}`)));
    });
    return new Server(url, folder, child);
  }

  get port(): number {
    return Number(new URL(this.url).port);
  }

  /** Ends it; the data stay. */
  async kill(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    this.process.kill('SIGKILL');
    await once(this.process, 'exit');
  }

  async stop(): Promise<void> {
    await this.kill();
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** A key for the data of a server that does not run yet. */
export async function makeKey(folder: string, scopes: string): Promise<string> {
  const { stdout } = await promisify(execFile)(binary, [
    'keys',
    'create',
    '--name',
    'test',
    '--scopes',
    scopes,
    '--data-dir',
    folder,
  ]);
  const key = /mp_\w+/.exec(stdout)?.[0];
  if (key === undefined) throw new Error(`no key in ${stdout}`);
  return key;
}

/** A proxy of bytes in front of a server; connections can be cut after so many bytes in one direction. */
export class Line {
  readonly cuts: Array<{ direction: 'up' | 'down'; bytes: number }> = [];
  cut = 0;
  readonly #sockets = new Set<Socket>();

  private constructor(private readonly listener: Listener) {}

  static async to(server: { port: number }): Promise<Line> {
    const listener = createServer();
    const line = new Line(listener);
    listener.on('connection', (client) => line.#carry(client, connect(server.port, '127.0.0.1')));
    listener.listen(0, '127.0.0.1');
    await once(listener, 'listening');
    return line;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.listener.address() as AddressInfo).port}`;
  }

  /** Ends every connection now. */
  cutAll(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop(): Promise<void> {
    this.cutAll();
    this.listener.close();
    await once(this.listener, 'close');
  }

  #carry(client: Socket, server: Socket): void {
    const end = (): void => {
      client.destroy();
      server.destroy();
      this.#sockets.delete(client);
    };
    this.#sockets.add(client);
    let carried = { up: 0, down: 0 };
    const watch = (direction: 'up' | 'down', to: Socket) => (bytes: Buffer) => {
      carried[direction] += bytes.length;
      const cut = this.cuts[0];
      if (cut?.direction === direction && carried[direction] > cut.bytes) {
        this.cuts.shift();
        this.cut += 1;
        // What came before the cut arrives.
        to.end(bytes.subarray(0, bytes.length - (carried[direction] - cut.bytes)), end);
        return;
      }
      to.write(bytes);
    };
    client.on('data', watch('up', server)).on('error', end).on('close', end);
    server.on('data', watch('down', client)).on('error', end).on('close', end);
  }
}
