// ioredis against tallyd: ioredis_client.mjs SOCKET FOLDER. Run by run.py; FOLDER has node_modules.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { check } from './checks.mjs';

const require = createRequire(`${process.argv[3]}/`);
const { Redis } = require('ioredis');
const { version } = require('ioredis/package.json');
const client = new Redis({ path: process.argv[2], maxRetriesPerRequest: 0, connectionName: 'ioredis-test' });
client.on('error', (error) => { throw error; });

assert.equal(await client.ping(), 'PONG');
assert.equal(await client.client('GETNAME'), 'ioredis-test');
await check(
  (...words) => client.call(...words),
  async (commands) => {
    const pipeline = client.pipeline();
    for (const [name, ...args] of commands) pipeline.call(name, ...args);
    return (await pipeline.exec()).map(([error, reply]) => {
      if (error) throw error;
      return reply;
    });
  });
const key = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
assert.deepEqual((await client.call('TALLY.TAKE', 'api', key)).slice(0, 3), [0, 100, 99]);
await client.quit();
console.log(`ioredis ${version} on node ${process.version}: 150 + 150 in one pipeline, errors, binary keys`);
