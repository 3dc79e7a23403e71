#include "rls/door.h"

#include <envoy/service/ratelimit/v3/rls.grpc.pb.h>
#include <grpc/health/v1/health.grpc.pb.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_posix.h>

#include <atomic>
#include <chrono>
#include <string>
#include <utility>

#include "base/fail.h"
#include "rls/handed_over.h"
#include "rls/translate.h"

namespace tally {
namespace {

using envoy::service::ratelimit::v3::RateLimitService;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

constexpr int kPingsEveryMs = 1'000;  // what a client may send without being taken for an attacker: proxies
                                      // look after their connections

struct Tally {
  std::atomic<uint64_t> answered{0}, invalid{0};
};

// One call. It is over when it is cancelled or its question is done, whichever comes first; the other finds
// that and does nothing. Who comes second may come when gRPC has long forgotten the call, so each of the two
// holds it.
class Call final : public grpc::ServerUnaryReactor {
 public:
  Call(rls::Response& response, Tally& tally) : response_(response), tally_(tally) {}
  void hold(std::shared_ptr<Call> self) { self_ = std::move(self); }  // until OnDone

  void answer(const Question& question, const std::vector<rls::Asked>& descriptors) {
    if (over_.exchange(true)) return;
    rls::fill_response(question, descriptors, response_);
    tally_.answered.fetch_add(1, std::memory_order_relaxed);
    Finish(grpc::Status::OK);
  }
  void OnCancel() override {
    if (!over_.exchange(true)) Finish(grpc::Status::CANCELLED);
  }
  void OnDone() override { const std::shared_ptr<Call> last = std::move(self_); }

 private:
  rls::Response& response_;  // gRPC's, until OnDone
  Tally& tally_;             // the door's, which outlives every call that is not over
  std::atomic<bool> over_{false};
  std::shared_ptr<Call> self_;
};

class Limits final : public RateLimitService::CallbackService {
 public:
  explicit Limits(const RlsDoor::Parts& parts) : parts_(parts) {}

  grpc::ServerUnaryReactor* ShouldRateLimit(grpc::CallbackServerContext* context, const rls::Request* request,
                                            rls::Response* response) override {
    auto translated = rls::translate(*request, parts_.rules());
    if (!translated) {
      tally.answered.fetch_add(1, std::memory_order_relaxed);
      tally.invalid.fetch_add(1, std::memory_order_relaxed);
      return finished(context, {grpc::StatusCode::INVALID_ARGUMENT, translated.error()});
    }
    std::unique_ptr<Question> question = std::move(translated.value().question);
    std::vector<rls::Asked> descriptors = std::move(translated.value().descriptors);
    if (question->parts.empty()) {
      rls::fill_response(*question, descriptors, *response);
      tally.answered.fetch_add(1, std::memory_order_relaxed);
      return finished(context, grpc::Status::OK);
    }
    auto call = std::make_shared<Call>(*response, tally);
    call->hold(call);
    grpc::ServerUnaryReactor* const reactor = call.get();
    question->done = [call = std::move(call), descriptors = std::move(descriptors)](
                         std::unique_ptr<Question> done) { call->answer(*done, descriptors); };
    parts_.ask(std::move(question));
    return reactor;
  }

  Tally tally;

 private:
  static grpc::ServerUnaryReactor* finished(grpc::CallbackServerContext* context,
                                            const grpc::Status& status) {
    auto* const reactor = context->DefaultReactor();
    reactor->Finish(status);
    return reactor;
  }

  const RlsDoor::Parts& parts_;
};

// Of the whole server ("") and of the one service.
class Health final : public grpc::health::v1::Health::CallbackService {
 public:
  explicit Health(const RlsDoor::Parts& parts) : parts_(parts) {}

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context, const HealthCheckRequest* request,
                                  HealthCheckResponse* response) override {
    auto* const reactor = context->DefaultReactor();
    if (!request->service().empty() && request->service() != RateLimitService::service_full_name()) {
      reactor->Finish(
          {grpc::StatusCode::NOT_FOUND,
           "there is " + std::string(RateLimitService::service_full_name()) + ", and \"\" for all"});
      return reactor;
    }
    response->set_status(parts_.ready() && !draining ? HealthCheckResponse::SERVING
                                                     : HealthCheckResponse::NOT_SERVING);
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  std::atomic<bool> draining{false};

 private:
  const RlsDoor::Parts& parts_;
};

}  // namespace

struct RlsDoor::Inside {
  explicit Inside(Parts parts_) : parts(std::move(parts_)) {
    grpc::ServerBuilder builder;
    builder.RegisterService(&limits);
    builder.RegisterService(&health);
    builder.SetMaxReceiveMessageSize(kMessageBytesMax);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kCallsMax);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kPingsEveryMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    server = builder.BuildAndStart();
    CHECK_THAT(server != nullptr);  // it has no port that could be taken
  }

  const Parts parts;
  Limits limits{parts};
  Health health{parts};
  rls::HandedOver connections;
  std::unique_ptr<grpc::Server> server;
};

RlsDoor::RlsDoor(Parts parts) : inside_(std::make_unique<Inside>(std::move(parts))) {}
RlsDoor::~RlsDoor() = default;

bool RlsDoor::adopt(Descriptor fd) {
  if (inside_->connections.open() >= inside_->parts.connections_max) return false;
  inside_->connections.add(fd.get());
  grpc::AddInsecureChannelFromFd(inside_->server.get(), fd.release());
  return true;
}

void RlsDoor::drain(Duration grace) {
  inside_->health.draining = true;
  inside_->server->Shutdown(std::chrono::system_clock::now() +
                            std::chrono::duration_cast<std::chrono::system_clock::duration>(grace));
}

GrpcCounts RlsDoor::counts() const {
  const auto read = [](const std::atomic<uint64_t>& n) { return n.load(std::memory_order_relaxed); };
  return {read(inside_->limits.tally.answered), read(inside_->limits.tally.invalid),
          inside_->connections.open()};
}

}  // namespace tally
