// @grpc/grpc-js for the tests of the gRPC door: rls_client.mjs FOLDER TARGET. FOLDER has node_modules; TARGET is "unix:PATH" or
// "HOST:PORT". One JSON object a line in, one a line out with the same `id`, when all of its calls have ended:
//   {"id", "calls": [REQUEST...], "channels": n}   ShouldRateLimit, all at once, over n connections (default 1)
//   {"id", "health": SERVICE}                      grpc.health.v1.Health/Check
//   {"id", "raw": HEX, "path": PATH}               these bytes to this method
// Out: {"id", "replies": [{"code", "details", "response"}...]}, codes of gRPC, the response where the code is 0.
import path from 'node:path';
import readline from 'node:readline';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const [folder, target] = process.argv.slice(2);
const require = createRequire(`${path.resolve(folder)}/`);
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const protos = path.join(path.dirname(fileURLToPath(import.meta.url)), 'proto');
const loaded = grpc.loadPackageDefinition(loader.loadSync(
  ['envoy/service/ratelimit/v3/rls.proto', 'grpc/health/v1/health.proto'],
  { includeDirs: [protos], keepCase: true, enums: String, longs: Number, defaults: true }));
// A connection for each client, which does not wait longer than this before it tries again where nobody listened.
const options = { 'grpc.use_local_subchannel_pool': 1, 'grpc.max_reconnect_backoff_ms': 100, 'grpc.initial_reconnect_backoff_ms': 100 };
const credentials = grpc.credentials.createInsecure();
const limits = [];
const health = new loaded.grpc.health.v1.Health(target, credentials, options);
const bare = new grpc.Client(target, credentials, options);

function limiter(i) {
  limits[i] ??= new loaded.envoy.service.ratelimit.v3.RateLimitService(target, credentials, options);
  return limits[i];
}

function reply(start) {
  return new Promise((resolve) => start((error, response) =>
    resolve(error ? { code: error.code, details: error.details } : { code: 0, details: '', response })));
}

function replies(line) {
  if (line.calls) {
    return line.calls.map((request, i) => reply((done) => limiter(i % (line.channels ?? 1)).ShouldRateLimit(request, done)));
  }
  if (line.health !== undefined) return [reply((done) => health.Check({ service: line.health }, done))];
  const bytes = Buffer.from(line.raw, 'hex');
  return [reply((done) => bare.makeUnaryRequest(line.path, (b) => b, (b) => b.toString('hex'), bytes, done))];
}

const input = readline.createInterface({ input: process.stdin });
input.on('line', async (text) => {
  const line = JSON.parse(text);
  const ended = await Promise.all(replies(line));
  process.stdout.write(`${JSON.stringify({ id: line.id, replies: ended })}\n`);
});
input.on('close', () => process.exit(0));
