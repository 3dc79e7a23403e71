#include "daemon/reload.h"

#include <asio/post.hpp>
#include <chrono>
#include <utility>

#include "config/config.h"

namespace tally {

void Reload::request(Done done) {
  asio::post(parts_.main, [this, done = std::move(done)] {
    waiting_.push_back(done);
    if (!under_way_) begin();
  });
}

void Reload::begin() {
  under_way_ = true;
  served_ = std::exchange(waiting_, {});
  if (parts_.overview.ready.load(std::memory_order_relaxed)) {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();  // as Type=notify-reload wants it
    parts_.notifier.send("RELOADING=1\nMONOTONIC_USEC=" +
                         std::to_string(std::chrono::duration_cast<std::chrono::microseconds>(now).count()));
  }
  before_ = parts_.overview.rules();
  const Running running{parts_.running, *before_};
  const auto next = std::make_shared<Loaded>(load_config(parts_.options, &running));
  for (const std::string& line : next->warnings) parts_.log.warning(line);
  if (!next->errors.empty()) return finish(next->errors);
  const auto rules = std::make_shared<const RuleSet>(next->config.rules, next->config.inline_rule, share_of(next->config),
                                                     next->secret ? next->secret->id : kPublicIdKey, before_.get());
  parts_.overview.make_room_for(*rules);
  seals_with_ = next->secret ? next->secret->seal.fingerprint_text() : "-";
  if (parts_.fleet == nullptr) return use(next, rules);
  if (other_lists(parts_.running, next->config)) return begin_anew(next, rules);
  ClusterThread::Change change{rules, pace_of(next->config), std::exchange(next->secret, std::nullopt)};
  parts_.fleet->use(std::move(change), [this, next, rules](const Result<bool>& taken) {
    asio::post(parts_.main, [this, next, rules, taken] {
      if (!taken) return finish({next->config.cluster.secret_file + ": " + taken.error()});
      use(next, rules);
    });
  });
}

void Reload::use(const std::shared_ptr<Loaded>& next, std::shared_ptr<const RuleSet> rules) {
  parts_.running = next->config;
  for (const auto& worker : parts_.workers) worker->use(rules, next->config.cluster.sync_interval);
  if (parts_.fleet == nullptr) parts_.orders.use(*rules);
  parts_.overview.use(std::move(rules));
  finish({});
}

// The workers must have left the last life before the next one has floors; see Fleet.
void Reload::begin_anew(const std::shared_ptr<Loaded>& next, const std::shared_ptr<const RuleSet>& rules) {
  if (const std::string why = parts_.fleet->refuses(next->config, next->secret); !why.empty()) return finish({why});
  parts_.log.info("another list of nodes: this node ends its life and begins the next", {{"roster_version", next->config.cluster.roster_version}});
  parts_.overview.ready.store(false, std::memory_order_relaxed);
  parts_.fleet->end();
  parts_.running = next->config;
  parts_.overview.use(rules);
  workers_to_come_ = parts_.workers.size();
  for (const auto& worker : parts_.workers)
    worker->end_life(rules, next->config.cluster.sync_interval, [this, next] {
      asio::post(parts_.main, [this, next] {
        if (--workers_to_come_ == 0) begin_life(next);
      });
    });
}

void Reload::begin_life(const std::shared_ptr<Loaded>& next) {
  parts_.overview.limiter.slots().forget_all();
  until_ready_ = true;
  if (const auto begun = parts_.fleet->begin(next->config, std::exchange(next->secret, std::nullopt)); !begun)
    return parts_.give_up("the configuration was read again, and this node cannot go on by it: " + begun.error());
  for (const auto& worker : parts_.workers) worker->begin_life();
}

bool Reload::ready() {
  const bool waited = std::exchange(until_ready_, false);
  if (waited) finish({});
  return waited;
}

void Reload::finish(const std::vector<std::string>& errors) {
  const bool fine = errors.empty();
  parts_.overview.last_reload_successful.store(fine, std::memory_order_relaxed);
  for (const std::string& line : errors) parts_.log.error(line);
  if (fine)
    parts_.log.info("the configuration was read again", {{"rules", parts_.running.rules.size()}, {"key", seals_with_}});
  else
    parts_.log.error("nothing was changed: what was loaded before stays", {{"errors", errors.size()}});
  if (parts_.overview.ready.load(std::memory_order_relaxed)) parts_.notifier.send(kServing);
  under_way_ = false;
  std::string why = fine ? "" : "nothing was changed: " + errors.front();
  if (errors.size() > 1) why += " (and " + std::to_string(errors.size() - 1) + " more errors: see the log)";
  const Result<bool> result = fine ? Result<bool>(true) : Result<bool>(Failure{why});
  for (const Done& done : std::exchange(served_, {})) done(result);
  if (!waiting_.empty()) begin();
}

}  // namespace tally
