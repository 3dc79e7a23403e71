// A rate limit for Express applications, by ioredis: await rateLimit({ ... }) is a middleware that answers 429 by itself.
//
//   npm install express ioredis
//   node express.mjs /run/tallyd/tallyd.sock api 8000    serves an application that says hello; [open|closed [DEADLINE_MS]] may follow
import express from 'express';
import { Redis } from 'ioredis';

export async function rateLimit({ socket, rule, key = (request) => request.ip, whenAway = 'open', deadlineMs = 50 }) {
  // One connection for all requests, which are pipelined. What cannot be sent, or has no answer in time, fails at once.
  const tallyd = new Redis(socket, { commandTimeout: deadlineMs, enableOfflineQueue: false, maxRetriesPerRequest: 0, enableReadyCheck: false,
                                     retryStrategy: () => 100 });
  tallyd.on('error', () => {});  // told by each request
  await new Promise((settled) => tallyd.once('ready', settled).once('error', settled));  // or the first requests would find no connection

  return async (request, response, next) => {
    // Any other key is an error for tallyd, and would count as its absence.
    const bytes = Buffer.from(String(key(request) ?? '')).subarray(0, 1024);
    let answer;
    try {
      answer = await tallyd.call('TALLY.TAKE', rule, bytes.length > 0 ? bytes : '-');
    } catch (problem) {
      console.error(`no answer from tallyd: ${problem.message}`);
      if (whenAway === 'closed') response.sendStatus(503);
      else next();
      return;
    }
    const [limited, limit, remaining, retryAfter, reset] = answer;
    response.set({ 'X-RateLimit-Limit': `${limit}`, 'X-RateLimit-Remaining': `${remaining}`, 'X-RateLimit-Reset': `${Math.ceil(reset / 1000)}` });
    if (!limited) {
      next();
      return;
    }
    if (retryAfter >= 0) response.set('Retry-After', `${Math.max(1, Math.ceil(retryAfter / 1000))}`);
    response.sendStatus(429);
  };
}

const [socket, rule, port, whenAway, deadline] = process.argv.slice(2);
const app = express();
app.use(await rateLimit({ socket, rule, whenAway, deadlineMs: Number(deadline ?? 50) }));
app.get('/', (request, response) => response.type('text/plain').send('hello\n'));
app.listen(Number(port), '127.0.0.1');
