// What the clients from npm check alike. `call` sends one command, `pipeline` sends several at once.
import assert from 'node:assert/strict';

export async function check(call, pipeline) {
  const replies = await pipeline([
    ...Array.from({ length: 150 }, () => ['CL.THROTTLE', 'npm', '99', '1', '3600']),
    ...Array.from({ length: 150 }, () => ['TALLY.TAKE', 'login', 'npm']),
  ]);
  assert.equal(replies.length, 300);
  const throttled = replies.slice(0, 150), taken = replies.slice(150);
  assert.deepEqual(throttled.map((r) => r[0]), [...Array(100).fill(0), ...Array(50).fill(1)]);
  assert.deepEqual(throttled[0], [0, 100, 99, -1, 3600]);
  assert.deepEqual(taken.map((r) => r[5]), [...Array(100).fill(0), ...Array(50).fill(1)]);
  assert.deepEqual(taken.slice(0, 100).map((r) => r[2]), Array.from({ length: 100 }, (_, i) => 99 - i));

  assert.deepEqual((await call('TALLY.TAKE', 'api', 'k', '40')).slice(0, 3), [0, 100, 60]);
  assert.deepEqual((await call('TALLY.GIVE', 'api', 'k', '10')).slice(0, 3), [0, 100, 70]);
  assert.deepEqual((await call('TALLY.PEEK', 'api', 'k')).slice(0, 3), [0, 100, 70]);
  assert.equal(await call('TALLY.RESET', 'api', 'k'), 'OK');
  assert.deepEqual((await call('TALLY.PEEK', 'api', 'k')).slice(0, 3), [0, 100, 100]);
  assert.equal(await call('DEL', 'npm', 'never-seen'), 1);
  await assert.rejects(call('TALLY.TAKE', 'lgoin', 'k'), { message: "NORULE no rule 'lgoin'; did you mean 'login'?" });
  await assert.rejects(call('EVAL', 'return 1', '0'), /ERR unknown command 'EVAL'/);
  assert.match(await call('INFO', 'replication'), /role:master/);
}
