// hiredis against tallyd: hiredis_client SOCKET. Run by run.py.
#include <hiredis/hiredis.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

namespace {

struct Free {
  void operator()(redisContext* c) const { redisFree(c); }
  void operator()(redisReply* r) const { freeReplyObject(r); }
};
using Context = std::unique_ptr<redisContext, Free>;
using Reply = std::unique_ptr<redisReply, Free>;
using Numbers = std::vector<long long>;

void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "hiredis: not so: %s\n", what);
  std::exit(1);
}

Reply next(redisContext* context) {
  void* reply = nullptr;
  if (redisGetReply(context, &reply) != REDIS_OK) {
    std::fprintf(stderr, "hiredis: %s\n", context->errstr);
    std::exit(1);
  }
  return Reply(static_cast<redisReply*>(reply));
}

template <typename... Args>
Reply ask(redisContext* context, const char* format, Args... args) {
  Reply reply(static_cast<redisReply*>(redisCommand(context, format, args...)));
  expect(reply != nullptr, "there is a reply");
  return reply;
}

Numbers numbers(const Reply& reply) {
  Numbers result;
  expect(reply->type == REDIS_REPLY_ARRAY, "the reply is an array");
  for (size_t i = 0; i < reply->elements; ++i) {
    expect(reply->element[i]->type == REDIS_REPLY_INTEGER, "the array is of integers");
    result.push_back(reply->element[i]->integer);
  }
  return result;
}

void pipelined(redisContext* context) {
  for (int i = 0; i < 150; ++i) redisAppendCommand(context, "CL.THROTTLE %s 99 1 3600", "hiredis");
  for (int i = 0; i < 150; ++i) redisAppendCommand(context, "TALLY.TAKE login %s", "hiredis");
  for (int i = 0; i < 150; ++i) {
    const Numbers n = numbers(next(context));
    expect(n.size() == 5 && n[0] == (i >= 100) && n[1] == 100,
           "100 of 150 CL.THROTTLE are admitted, the first ones");
    if (i == 0) expect(n == Numbers{0, 100, 99, -1, 3600}, "the first reply to CL.THROTTLE");
  }
  for (int i = 0; i < 150; ++i) {
    const Numbers n = numbers(next(context));
    expect(n.size() == 6 && n[0] == (i >= 100) && n[5] == (i >= 100), "100 of 150 TALLY.TAKE are admitted");
    expect(n[2] == (i < 100 ? 99 - i : 0), "remaining counts down");
  }
}

void one_by_one(redisContext* context) {
  const std::string key("\0\r\n\xff binary", 11);
  Numbers n = numbers(ask(context, "TALLY.TAKE api %b 40", key.data(), key.size()));
  expect(n.size() == 6 && n[0] == 0 && n[2] == 60, "a cost of 40");
  n = numbers(ask(context, "TALLY.PEEK api %b", key.data(), key.size()));
  expect(n[2] == 60, "a peek takes nothing");
  const Reply error = ask(context, "TALLY.TAKE lgoin k");
  expect(error->type == REDIS_REPLY_ERROR, "an unknown rule is an error");
  expect(std::string(error->str, error->len) == "NORULE no rule 'lgoin'; did you mean 'login'?",
         "the error's text");
  const Reply info = ask(context, "INFO");
  expect(info->type == REDIS_REPLY_STRING, "INFO is a string");
  const Reply name = ask(context, "CLIENT GETNAME");
  expect(name->type == REDIS_REPLY_NIL, "a connection begins without a name");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const Context context(redisConnectUnix(argv[1]));
  expect(context != nullptr && context->err == 0, "the connection stands");
  pipelined(context.get());
  one_by_one(context.get());
  std::printf("hiredis %d.%d.%d: 150 + 150 in one pipeline, errors, binary keys\n", HIREDIS_MAJOR,
              HIREDIS_MINOR, HIREDIS_PATCH);
}
