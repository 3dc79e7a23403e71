// tally_rls_load SOCKET PID CALLS SECONDS KEYS: decisions over gRPC on one connection, CALLS of them under
// way at once.
//
// The descriptors are ("bench", one of KEYS numbers in turn), of the domain "bench". Prints one line of JSON,
// as tally_generator does: decisions, seconds, the microseconds of CPU that process PID spent meanwhile, the
// median and p99 of a call. A call that fails is the end: exit 1.
#include <envoy/service/ratelimit/v3/rls.grpc.pb.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using envoy::service::ratelimit::v3::RateLimitRequest;
using envoy::service::ratelimit::v3::RateLimitResponse;
using envoy::service::ratelimit::v3::RateLimitService;

double cpu_us(const std::string& pid) {
  std::ifstream file("/proc/" + pid + "/stat");
  std::string word;
  for (int i = 0; i < 13; ++i) file >> word;  // the name has no space here
  double user = 0, system = 0;
  file >> user >> system;
  return (user + system) * 1e6 / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

class Load {
 public:
  Load(const std::string& path, int keys)
      : stub_(RateLimitService::NewStub(
            grpc::CreateChannel("unix:" + path, grpc::InsecureChannelCredentials()))),
        keys_(keys) {}

  // Keeps `calls` under way until `end`, and returns how long each took.
  std::vector<double> run(int calls, Clock::time_point end) {
    end_ = end;
    took_.clear();
    open_ = calls;
    for (int i = 0; i < calls; ++i) begin();
    std::unique_lock lock(mutex_);
    none_open_.wait(lock, [&] { return open_ == 0; });
    return std::move(took_);
  }

 private:
  struct Call {
    grpc::ClientContext context;
    RateLimitRequest request;
    RateLimitResponse response;
    Clock::time_point since;
  };

  void begin() {
    const auto call = std::make_shared<Call>();
    call->request.set_domain("bench");
    auto& entry = *call->request.add_descriptors()->add_entries();
    entry.set_key("bench");
    entry.set_value(std::to_string(next_.fetch_add(1) % keys_));
    call->since = Clock::now();
    stub_->async()->ShouldRateLimit(
        &call->context, &call->request, &call->response, [this, call](const grpc::Status& status) {
          if (!status.ok() || call->response.statuses_size() != 1 ||
              !call->response.statuses(0).has_current_limit()) {
            std::fprintf(stderr, "tally_rls_load: a call failed: %s\n", status.error_message().c_str());
            std::_Exit(1);
          }
          ended(Clock::now() - call->since);
        });
  }

  void ended(Clock::duration took) {
    bool more = false;
    {
      const std::lock_guard lock(mutex_);
      took_.push_back(std::chrono::duration<double, std::micro>(took).count());
      more = Clock::now() < end_;
      if (!more && --open_ == 0) none_open_.notify_all();
    }
    if (more) begin();
  }

  std::unique_ptr<RateLimitService::Stub> stub_;
  const int keys_;
  std::atomic<int> next_{0};
  Clock::time_point end_;
  std::mutex mutex_;
  std::condition_variable none_open_;
  std::vector<double> took_;
  int open_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "tally_rls_load SOCKET PID CALLS SECONDS KEYS\n");
    return 64;
  }
  const std::string pid = argv[2];
  const int calls = std::atoi(argv[3]);
  Load load(argv[1], std::max(std::atoi(argv[5]), 1));
  load.run(calls, Clock::now() + std::chrono::milliseconds(200));  // connected and warm
  const double cpu = cpu_us(pid);
  const auto begin = Clock::now();
  std::vector<double> took = load.run(calls, begin + std::chrono::duration_cast<Clock::duration>(
                                                         std::chrono::duration<double>(std::atof(argv[4]))));
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count(),
               used = cpu_us(pid) - cpu;
  std::ranges::sort(took);
  std::printf(
      "{\"decisions\":%zu,\"seconds\":%.4f,\"server_cpu_us\":%.0f,\"batch_p50_us\":%.1f,\"batch_p99_us\":%."
      "1f}\n",
      took.size(), seconds, used, took[took.size() / 2], took[took.size() * 99 / 100]);
  std::fflush(stdout);
  std::_Exit(0);  // gRPC's threads may still be leaving the last calls
}
