// What Node's run-time asks of a kernel, a part at a time: `node node.js PART`. Status 0 if all is well.
'use strict';
const assert = require('assert');
const child = require('child_process');
const fs = require('fs');
const net = require('net');
const os = require('os');
const path = require('path');
const { once } = require('events');
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');

const folder = () => fs.mkdtempSync(path.join(os.tmpdir(), 'node-'));

/** Atomics.wait and notify are futexes between threads. */
async function workers() {
  const shared = new Int32Array(new SharedArrayBuffer(8));
  const all = [0, 1, 2, 3].map(() => new Worker(__filename, { workerData: shared }));
  Atomics.store(shared, 1, 1);
  Atomics.notify(shared, 1);
  await Promise.all(all.map((worker) => once(worker, 'exit')));
  assert.strictEqual(shared[0], 4000);
}

function work(shared) {
  Atomics.wait(shared, 1, 0, 30000);
  for (let i = 0; i < 1000; i++) Atomics.add(shared, 0, 1);
}

async function echo(where) {
  const server = net.createServer((socket) => socket.pipe(socket));
  server.listen(where);
  await once(server, 'listening');
  const at = server.address();
  const talk = async (n) => {
    const socket = net.connect(typeof at === 'string' ? at : at.port);
    const data = Buffer.alloc(50000, n);
    socket.end(data);
    const parts = [];
    for await (const part of socket) parts.push(part);
    assert(Buffer.concat(parts).equals(data));
  };
  await Promise.all(Array.from({ length: 30 }, (_, n) => talk(n)));
  server.close();
  await once(server, 'close');
}

async function processes() {
  const run = async (n) => {
    const shell = child.spawn('sh', ['-c', 'read line; echo "$line" twice; exit 7']);
    shell.stdin.end(`${n}\n`);
    let text = '';
    shell.stdout.on('data', (data) => { text += data; });
    const [status] = await once(shell, 'close');
    assert.deepStrictEqual([status, text], [7, `${n} twice\n`]);
  };
  await Promise.all([1, 2, 3, 4, 5, 6].map(run));
  const sleeper = child.spawn('sleep', ['100']);
  await once(sleeper, 'spawn');
  sleeper.kill('SIGTERM');
  assert.deepStrictEqual(await once(sleeper, 'exit'), [null, 'SIGTERM']);
  assert.strictEqual(child.execFileSync('echo', ['sync']).toString(), 'sync\n');
}

/** A channel to a process of Node's, with a socket passed over it. */
async function messages() {
  const other = child.fork(__filename, ['messages-child']);
  const server = net.createServer().listen(0);
  await once(server, 'listening');
  other.send('server', server);
  const [ready] = await once(other, 'message');
  assert.strictEqual(ready, 'ready');
  const { port } = server.address();
  server.close();
  const socket = net.connect(port);
  let text = '';
  for await (const part of socket) text += part;
  assert.strictEqual(text, 'from the child');
  const [status] = await once(other, 'exit');
  assert.strictEqual(status, 5);
}

function messagesChild() {
  process.on('message', (_, server) => {
    server.on('connection', (socket) => socket.end('from the child', () => process.exit(5)));
    process.send('ready');
  });
}

/** The thread pool: many files at once. */
async function files() {
  const where = folder();
  const one = async (n) => {
    const name = path.join(where, String(n));
    await fs.promises.writeFile(name, Buffer.alloc(100000, n));
    assert((await fs.promises.readFile(name)).equals(Buffer.alloc(100000, n)));
    await fs.promises.unlink(name);
  };
  await Promise.all(Array.from({ length: 40 }, (_, n) => one(n)));
  await fs.promises.rmdir(where);
}

async function watching() {
  const where = folder();
  const watcher = fs.watch(where);
  fs.writeFileSync(path.join(where, 'new'), 'x');
  const [, name] = await once(watcher, 'change');
  assert.strictEqual(name, 'new');
  watcher.close();
}

async function timers() {
  const order = [];
  const start = process.hrtime.bigint();
  const after = (delay) => new Promise((resolve) => setTimeout(() => { order.push(delay); resolve(); }, delay));
  await Promise.all([90, 30, 60].map(after));
  assert.deepStrictEqual(order, [30, 60, 90]);
  assert(process.hrtime.bigint() - start >= 89000000n);
}

async function signals() {
  const got = once(process, 'SIGUSR2');
  process.kill(process.pid, 'SIGUSR2');
  assert.strictEqual((await got)[0], 'SIGUSR2');
}

const parts = {
  workers, processes, messages, files, watching, timers, signals,
  tcp: () => echo(0),
  unix: () => echo(path.join(folder(), 'socket')),
};

if (!isMainThread) {
  work(workerData);
} else if (process.argv[2] === 'messages-child') {
  messagesChild();
} else {
  parts[process.argv[2]]().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
}
