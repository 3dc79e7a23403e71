// node-redis against tallyd: node_redis_client.mjs SOCKET FOLDER. Run by run.py; FOLDER has node_modules. Once in RESP2, once
// in RESP3 (HELLO 3).
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { check } from './checks.mjs';

const require = createRequire(`${process.argv[3]}/`);
const { createClient } = require('redis');
const { version } = require('redis/package.json');
for (const RESP of [2, 3]) {
  const client = createClient({ RESP, name: 'node-test', socket: { path: process.argv[2], reconnectStrategy: false } });
  client.on('error', (error) => { throw error; });
  await client.connect();
  assert.equal(await client.ping(), 'PONG');
  assert.equal(await client.sendCommand(['CLIENT', 'GETNAME']), 'node-test');
  await client.sendCommand(['TALLY.RESET', 'login', 'npm']);  // of the round before
  await check(
    (...words) => client.sendCommand(words),
    (commands) => Promise.all(commands.map((words) => client.sendCommand(words))));
  const rules = await client.sendCommand(['TALLY.RULES']);
  if (RESP === 3) {
    assert.equal(rules.login.limit, 100);
    assert.equal(rules.login.shadow, false);
  } else {
    assert.equal(rules[0], 'login');
  }
  await client.close();
}
console.log(`node-redis ${version} on node ${process.version}: 150 + 150 at once in RESP2 and in RESP3, errors, maps`);
