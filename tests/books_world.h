// Hosts of a simulated fleet whose books are in a Redis: the very peer and scripts that ship, connections that take their time and break,
// a server that forgets.
//
// Thread rule: one owner; the fleet's clock is the only one. Everything comes from the seeds.
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cluster/node.h"
#include "daemon/books_peer.h"
#include "scripted_redis.h"
#include "sim/fleet.h"

namespace tally::test {

struct WayTerms {
  Duration delay_min = std::chrono::microseconds(200), delay_max = std::chrono::milliseconds(2);  // of one way
  uint32_t tags = 1;
};

// The server. A life of it begins with whatever it remembers.
struct BooksServer {
  ScriptedRedis redis;
  uint64_t life = 1;
  Duration paused_until{0};
  std::string run_id() const { return "run" + std::to_string(life); }
};

class BooksWorld;

// A host's connection, of one life of it. Calls go out in order and answers come back in order; where it breaks nobody knows which calls
// were carried out.
class BooksLine : public BooksStore {
 public:
  BooksLine(BooksWorld& world, sim::Fleet& fleet, uint16_t host);
  bool ready(uint32_t) const override { return connected_; }
  std::string address() const override { return "books"; }
  void call(uint32_t tag, BooksScript script, Make make, Then then) override;
  Counts counts() const override { return {}; }
  void broke();
  void pushed(const std::string& to, const std::string& message);

 private:
  struct Question {
    Then then;
    bool over = false;
  };
  void later(Duration when, std::function<void()> what);  // for as long as this lives; when its host stands still, afterwards
  void connect();
  void carry_out(BooksScript script, const Words& words, uint64_t server, const std::shared_ptr<Question>& question);
  void answer(const std::optional<std::string>& text, const std::shared_ptr<Question>& question);
  Duration delay();

  BooksWorld& world_;
  sim::Fleet& fleet_;
  const uint16_t host_;
  bool connected_ = false;
  uint64_t connection_ = 0;  // of this life
  int failures_ = 0;
  Duration sent_until_{0}, answered_until_{0};
  std::deque<std::shared_ptr<Question>> waiting_;
  std::shared_ptr<void> here_ = std::make_shared<int>(0);
};

class BooksWay : public sim::BooksWay {
 public:
  BooksWay(BooksWorld& world, sim::Fleet& fleet, uint16_t host, uint64_t incarnation);
  ~BooksWay() override;
  void say(const Bytes& datagram) override { peer_.say(datagram); }
  void flush() override { peer_.flush(); }
  std::function<bool(const WireId&)> take_lost() override { return peer_.take_lost(); }
  std::vector<Bytes> take() override { return peer_.take(); }
  BooksLine& line() { return line_; }
  BooksPeer::Counts counts() const { return peer_.counts(); }

 private:
  BooksWorld& world_;
  BooksLine line_;
  Log log_{LogLevel::error, LogFormat::text};
  TimeHistogram times_;
  BooksPeer peer_;
};

class BooksWorld {
 public:
  BooksWorld(const sim::FleetConfig& config_, const WayTerms& terms_)
      : terms(terms_), random(config_.seed + 1), config(completed(config_)), fleet(config) {}
  BooksWorld(const BooksWorld&) = delete;
  BooksWorld& operator=(const BooksWorld&) = delete;

  // Faults. What is remembered by the server that answers from now on: `all` of a moment before; nullopt: nothing.
  void another_server(std::optional<ScriptedRedis::All> all) {
    if (all)
      server.redis.go_back_to(*all);
    else
      server.redis.flush();
    ++server.life;
    server.paused_until = fleet.now();
    for (BooksWay* way : ways) way->line().broke();
  }
  void hang(Duration for_long) { server.paused_until = std::max(server.paused_until, fleet.now() + for_long); }
  void break_line(size_t which) { ways[which % ways.size()]->line().broke(); }

  const WayTerms terms;
  BooksServer server;
  Random random;
  std::vector<BooksWay*> ways;  // of hosts that are up
  const sim::FleetConfig config;
  sim::Fleet fleet;

 private:
  sim::FleetConfig completed(sim::FleetConfig all) {
    all.books = [this](sim::Fleet& of, uint16_t host, uint64_t incarnation) { return std::make_unique<BooksWay>(*this, of, host, incarnation); };
    return all;
  }
};

inline BooksLine::BooksLine(BooksWorld& world, sim::Fleet& fleet, uint16_t host)
    : BooksStore(world.config.isolation_after, 2), world_(world), fleet_(fleet), host_(host) {
  later(delay(), [this] { connect(); });
}

inline Duration BooksLine::delay() {
  const auto spread = static_cast<uint64_t>(nanos(world_.terms.delay_max - world_.terms.delay_min));
  return world_.terms.delay_min + Duration(static_cast<int64_t>(world_.random.below(spread + 1)));
}

inline void BooksLine::later(Duration when, std::function<void()> what) {
  fleet_.at(std::max(when, fleet_.now()), [this, what = std::move(what), here = std::weak_ptr<void>(here_)] {
    if (here.expired()) return;
    if (const Duration stands_until = fleet_.paused_until(host_); stands_until > fleet_.now()) return later(stands_until, what);
    what();
    fleet_.nudge(host_);
  });
}

// A greeting that a server which hangs does not answer in time.
inline void BooksLine::connect() {
  const Duration answered = std::max(fleet_.now(), world_.server.paused_until) + delay() * 4;
  const bool in_time = answered - fleet_.now() <= patience();
  later(in_time ? answered : fleet_.now() + patience(), [this, in_time, server = world_.server.life] {
    if (!in_time || server != world_.server.life) return broke();
    connected_ = true;
    ++connection_;
    failures_ = 0;
    sent_until_ = answered_until_ = fleet_.now();
  });
}

inline void BooksLine::broke() {
  connected_ = false;
  ++connection_;
  for (const auto& question : std::exchange(waiting_, {}))
    if (!std::exchange(question->over, true)) later(fleet_.now(), [question] { question->then(nullptr); });
  later(fleet_.now() + backoff(failures_++, world_.random.unit()), [this, connection = connection_] {
    if (connection == connection_) connect();
  });
}

inline void BooksLine::call(uint32_t, BooksScript script, Make make, Then then) {
  const auto question = std::make_shared<Question>(Question{std::move(then)});
  if (!connected_) return later(fleet_.now(), [question] { question->then(nullptr); });
  waiting_.push_back(question);
  const Words words = make(world_.server.run_id());
  sent_until_ = std::max(sent_until_, fleet_.now() + delay());
  // Once it is sent it may be carried out, whatever becomes of the host and the connection.
  fleet_.at(sent_until_, [this, here = std::weak_ptr<void>(here_), &world = world_, &fleet = fleet_, script, words, server = world_.server.life, question] {
    BooksWorld* const at = &world;
    const auto run = [this, here, at, &fleet, script, words, server, question] {
      if (at->server.life != server) return;
      const auto text = at->server.redis.call(script, words.keys, words.arguments, at->config.epoch + at->config.books_offset + fleet.now());
      for (const auto& [to, message] : at->server.redis.take_published())
        for (BooksWay* way : at->ways) way->line().pushed(to, message);
      if (!here.expired() && !question->over) answer(text, question);
    };
    if (at->server.paused_until > fleet.now()) return fleet.at(at->server.paused_until, run);
    run();
  });
  later(fleet_.now() + patience(), [this, question, connection = connection_] {
    if (!question->over && connection == connection_) broke();
  });
}

inline void BooksLine::answer(const std::optional<std::string>& text, const std::shared_ptr<Question>& question) {
  answered_until_ = std::max(answered_until_, fleet_.now() + delay());
  later(answered_until_, [this, text, question] {
    if (std::exchange(question->over, true)) return;
    std::erase(waiting_, question);
    redisReply reply{};
    std::string copy = text.value_or("");
    reply.type = text ? REDIS_REPLY_STRING : REDIS_REPLY_NIL;
    reply.str = copy.data();
    reply.len = copy.size();
    question->then(&reply);
  });
}

inline void BooksLine::pushed(const std::string& to, const std::string& message) {
  if (!connected_ || to != channel()) return;
  later(fleet_.now() + delay(), [this, message] { on_message()(message); });
}

inline BooksWay::BooksWay(BooksWorld& world, sim::Fleet& fleet, uint16_t host, uint64_t incarnation)
    : world_(world),
      line_(world, fleet, host),
      peer_({line_, [&fleet, host] { return fleet.clock(host); }, times_, log_}, BooksNames("tally", world.terms.tags),
            [&] {
              const Roster& roster = fleet.node(host).roster();
              const std::string entry = sim::host_entries(fleet.nodes())[host];
              return BooksPeer::Node{entry, keyed_hash(entry, kPublicIdKey), incarnation, kPublicIdKey, roster.version(), roster.hash()};
            }(),
            Pace{world.config.sync_interval, world.config.isolation_after}, world.config.lease) {
  Node& node = fleet.node(host);
  peer_.ask_past([&node, &fleet, host](const Report& report) {
    const Node::Past past = node.past_of(report, fleet.clock(host));
    return BooksBegin{past.takes_part, past.knows_before, past.takes_next, past.charged, past.order, past.order_until};
  });
  node.books_heard_by(*node.roster().rank_of(std::string(kBooksEntry)), [this](const WireId& key) { return peer_.heard(key); });
  world_.ways.push_back(this);
}

inline BooksWay::~BooksWay() { std::erase(world_.ways, this); }

}  // namespace tally::test
