// The gRPC door by gRPC's own client, over pairs of sockets: calls, health, cancelled calls, the end.
#include "rls/door.h"

#include <doctest/doctest.h>
#include <envoy/service/ratelimit/v3/rls.grpc.pb.h>
#include <grpc/health/v1/health.grpc.pb.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel_posix.h>
#include <sys/socket.h>

#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <thread>

#include "rls_fixture.h"

using namespace tally;
using namespace tally::test;
using envoy::service::ratelimit::v3::RateLimitService;
using grpc::StatusCode;
using rls::Response;

namespace {

constexpr auto kRules =
    R"({ "name": "per-address", "algorithm": "fixed_window", "limit": 10, "window": "366d",
    "match": { "domain": "edge", "descriptors": [{ "key": "remote_address" }] } })";
constexpr auto kPatience = std::chrono::seconds(60);  // for what is certain to come
const Entries kAddress{{"remote_address", "10.0.0.1"}};

// Keeps the questions until somebody takes them.
class Questions {
 public:
  void put(std::unique_ptr<Question> question) {
    const std::lock_guard lock(mutex_);
    all_.push_back(std::move(question));
    came_.notify_all();
  }
  std::unique_ptr<Question> take() {
    std::unique_lock lock(mutex_);
    REQUIRE(came_.wait_for(lock, kPatience, [&] { return !all_.empty(); }));
    auto question = std::move(all_.front());
    all_.pop_front();
    return question;
  }

 private:
  std::mutex mutex_;
  std::condition_variable came_;
  std::deque<std::unique_ptr<Question>> all_;
};

void finish(std::unique_ptr<Question> question) {
  const auto done = std::move(question->done);
  done(std::move(question));
}

class Open {
 public:
  explicit Open(uint64_t connections_max = 100)
      : door({[this] { return rules; }, [this] { return ready.load(); },
              [this](auto question) { questions.put(std::move(question)); }, connections_max}) {}
  ~Open() { door.drain(kPatience); }

  // nullptr: turned away.
  std::shared_ptr<grpc::Channel> connect() {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    Descriptor here(ends[0]), there(ends[1]);
    if (!door.adopt(std::move(there))) return nullptr;
    return grpc::CreateInsecureChannelFromFd("test", here.release());
  }

  std::shared_ptr<const RuleSet> rules = rules_of(kRules);
  std::atomic<bool> ready{true};
  Questions questions;
  RlsDoor door;
};

struct Reply {
  grpc::Status status;
  Response response;
};

// Waits for the answer on a thread of its own.
std::future<Reply> call(const std::shared_ptr<grpc::Channel>& channel, rls::Request request,
                        grpc::ClientContext& context) {
  return std::async(std::launch::async, [channel, request = std::move(request), &context] {
    Reply reply;
    reply.status = RateLimitService::NewStub(channel)->ShouldRateLimit(&context, request, &reply.response);
    return reply;
  });
}

grpc::Status check_health(const std::shared_ptr<grpc::Channel>& channel, const char* service, int& serving) {
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckRequest request;
  grpc::health::v1::HealthCheckResponse response;
  request.set_service(service);
  const auto status = grpc::health::v1::Health::NewStub(channel)->Check(&context, request, &response);
  serving = response.status();
  return status;
}

}  // namespace

TEST_CASE("a call is answered when its question is done, on whatever thread") {
  Open open;
  const auto channel = open.connect();
  grpc::ClientContext context;
  auto reply = call(channel, request_of({kAddress}), context);
  auto question = open.questions.take();
  REQUIRE(question->parts.size() == 1);
  question->parts[0].reason = resp::Reason::over_limit;
  question->parts[0].answer.retry_after = secs(3);
  std::thread([&] { finish(std::move(question)); }).join();
  const Reply got = reply.get();
  CHECK(got.status.ok());
  CHECK(got.response.overall_code() == Response::OVER_LIMIT);
  CHECK(got.response.response_headers_to_add(5).key() == "Retry-After");
  CHECK(open.door.counts().answered == 1);
  CHECK(open.door.counts().connections == 1);
}

TEST_CASE("calls of one connection do not wait for each other") {
  Open open;
  const auto channel = open.connect();
  grpc::ClientContext first_context, second_context;
  auto first = call(channel, request_of({kAddress}), first_context);
  auto held = open.questions.take();
  auto second = call(channel, request_of({kAddress}), second_context);
  finish(open.questions.take());
  CHECK(second.get().status.ok());
  finish(std::move(held));
  CHECK(first.get().status.ok());
}

TEST_CASE("what needs no decision is answered without a worker") {
  Open open;
  const auto channel = open.connect();
  grpc::ClientContext unmatched, wrong;
  const Reply through = call(channel, request_of({{{"color", "red"}}}), unmatched).get();
  CHECK(through.status.ok());
  CHECK(through.response.overall_code() == Response::OK);
  const Reply refused = call(channel, request_of({}), wrong).get();
  CHECK(refused.status.error_code() == StatusCode::INVALID_ARGUMENT);
  CHECK(refused.status.error_message() == "descriptors: must have 1 to 100, got 0");
  CHECK(open.door.counts().answered == 2);
  CHECK(open.door.counts().invalid == 1);
}

TEST_CASE("a message that is too large is refused before it is read") {
  Open open;
  grpc::ClientContext context;
  const Reply reply =
      call(open.connect(), request_of({{{"remote_address", std::string(RlsDoor::kMessageBytesMax, 'x')}}}),
           context)
          .get();
  CHECK(reply.status.error_code() == StatusCode::RESOURCE_EXHAUSTED);
}

TEST_CASE("rules that were replaced decide what came under them, and new ones what comes") {
  Open open;
  const auto channel = open.connect();
  grpc::ClientContext before_context, after_context;
  auto before = call(channel, request_of({kAddress}), before_context);
  auto held = open.questions.take();
  open.rules = rules_of("");
  grpc::ClientContext context;
  CHECK(call(channel, request_of({kAddress}), after_context).get().response.response_headers_to_add_size() ==
        0);
  finish(std::move(held));
  CHECK(before.get().response.statuses(0).current_limit().name() == "per-address");
}

TEST_CASE("health tells whether the daemon is ready, of the server and of the service") {
  Open open;
  const auto channel = open.connect();
  using grpc::health::v1::HealthCheckResponse;
  for (const char* service : {"", "envoy.service.ratelimit.v3.RateLimitService"}) {
    int serving = 0;
    open.ready = true;
    CHECK(check_health(channel, service, serving).ok());
    CHECK(serving == HealthCheckResponse::SERVING);
    open.ready = false;
    CHECK(check_health(channel, service, serving).ok());
    CHECK(serving == HealthCheckResponse::NOT_SERVING);
  }
  int serving = 0;
  CHECK(check_health(channel, "another", serving).error_code() == StatusCode::NOT_FOUND);
}

TEST_CASE("a call whose client gave up is over, and its question may be done later") {
  Open open;
  const auto channel = open.connect();
  grpc::ClientContext context;
  auto reply = call(channel, request_of({kAddress}), context);
  auto question = open.questions.take();
  context.TryCancel();
  CHECK(reply.get().status.error_code() == StatusCode::CANCELLED);
  grpc::ClientContext next;  // the door goes on
  auto other = call(channel, request_of({kAddress}), next);
  finish(open.questions.take());
  CHECK(other.get().status.ok());
  finish(std::move(question));
}

TEST_CASE("the end waits for calls that are there") {
  auto open = std::make_unique<Open>();
  const auto channel = open->connect();
  grpc::ClientContext context;
  auto reply = call(channel, request_of({kAddress}), context);
  auto question = open->questions.take();
  auto drained = std::async(std::launch::async, [&] { open->door.drain(kPatience); });
  finish(std::move(question));
  CHECK(reply.get().status.ok());
  drained.get();
  grpc::ClientContext late;
  CHECK(call(channel, request_of({kAddress}), late).get().status.error_code() == StatusCode::UNAVAILABLE);
}

TEST_CASE(
    "the end does not wait longer than its grace, and a question of that call may be done after the door is "
    "gone") {
  auto open = std::make_unique<Open>();
  grpc::ClientContext context;
  auto reply = call(open->connect(), request_of({kAddress}), context);
  auto question = open->questions.take();
  open->door.drain(std::chrono::milliseconds(10));
  CHECK_FALSE(reply.get().status.ok());
  open.reset();
  finish(std::move(question));
}

TEST_CASE("connections are counted, and turned away above the limit until one has gone") {
  Open open(2);
  auto first = open.connect();
  const auto second = open.connect();
  int serving = 0;
  CHECK(check_health(first, "", serving).ok());
  CHECK(check_health(second, "", serving).ok());
  CHECK(open.connect() == nullptr);
  CHECK(open.door.counts().connections == 2);
  first.reset();
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (open.door.counts().connections != 1) {  // gRPC closes it when it has seen the end
    REQUIRE(std::chrono::steady_clock::now() < deadline);
    std::this_thread::yield();
  }
  CHECK(open.connect() != nullptr);
}
