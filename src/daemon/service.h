// What a worker does with the bytes of its connections: commands, decisions, replies; and who has to wait.
//
// Thread rule: one worker's. No socket and no loop in it: the worker reads, calls, and sends what lies in
// Session::out.
//
// A read buffer is answered in batches: parse, hash and prefetch all of a batch, read the clock once, decide
// all, and write all replies. The clock is read once more after deciding: for the histogram, and because what
// was spent from a lease counts only while the lease runs (this process may have been stopped in between).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/limiter.h"
#include "core/order_table.h"
#include "daemon/clock.h"
#include "daemon/overview.h"
#include "daemon/parking.h"
#include "daemon/port.h"
#include "daemon/question.h"
#include "daemon/session.h"
#include "doors/commands.h"
#include "doors/http_replies.h"

namespace tally {

struct ServiceLimits {
  size_t key_bytes = 1024;
  size_t pipeline_bytes =
      1'048'576;              // output of one connection that may wait to be sent, or behind a held reply
  uint64_t waiting = 65'536;  // parked requests in the whole daemon
  Duration sync_interval{0};  // what `no_grant` says to retry after
};

class Service {
 public:
  // Of so many decisions one is looked at for how old the knowledge behind it was. Prime, so that it does not
  // keep step with pipelines.
  static constexpr uint32_t kSampleEvery = 97;

  // `port`: nullptr alone. `hand_out`: hands a reload and, alone, orders to main, metrics and the busiest keys to the admin thread; they come back through finish().
  Service(Overview& overview, WorkerCounters& counters, const Clock& clock, Port* port, ServiceLimits limits,
          std::function<void(std::unique_ptr<Call>)> hand_out);
  ~Service();
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  // Decides by these rules from now on. What waits, or is with the cluster thread, is answered by those that it came under.
  void use(std::shared_ptr<const RuleSet> rules, Duration sync_interval);
  // Whom they are about is decided by these from now on. nullptr, or empty: by its rule, as everybody else.
  void use(std::shared_ptr<const OrderTable> orders);
  // The node's life has ended, and with it the floors that those who wait came under: they are granted what they get, or nothing.
  void end_life();
  void begin_life();  // the next one has begun, which has not heard yet of who waits
  // Answers what can be answered of `input`, which must begin where the last call said it had come to.
  // Returns how many bytes are done; the rest is to be handed in again, with what arrives or when the session
  // is touched.
  size_t serve(Session& session, std::string_view input);
  // `input` will be served soon: the tags of its first key are fetched, and by prefetch_expected, a little later, its slot.
  void expect(const Session& session, std::string_view input);
  void prefetch_expected();
  // Whether serve would do anything: false while too much is unsent, or behind a barrier.
  bool may_read(const Session& session) const;

  // Waiting.
  void wake(KeyHash hash);  // its quota changed
  void wake_all();
  void expire();  // denies those whose time has come
  std::optional<MonoTime> next_due() const { return parking_.next_due(); }
  void end_waiting();     // what is left when all connections are gone: refused
  bool has_waiting() const { return !parking_.empty(); }
  void finish(std::unique_ptr<Call> call);  // it came back

  // Several takes, all or nothing, that came over no connection: answered by its `done`, here or when it has waited.
  void ask(std::unique_ptr<Question> question);
  // Tells a client over HTTP that it was too slow with its request, and ends the connection.
  void refuse_slow(Session& session);

  // The connection is going: what waits is dropped, uncharged.
  void drop(Session& session);
  // Clients whose output grew, or that may go on, outside serve; empties the list.
  void take_touched(std::vector<Session*>& into);
  // Rings for the cluster thread where something urgent was noted since the last call.
  void ring_if_urgent();

 private:
  enum class Fate : uint8_t { reply, park, call };
  struct Item {
    resp::Request request;
    size_t begin = 0;  // of the command, in the input
    KeyHash hash;
    uint32_t place = kNoPlace;  // of the hash, as Ask::place
    Answer answer;
    Portion portion;  // of a request that leases
    Duration ordered_for{0};  // how much longer what was ordered of the key holds; 0: nothing was
    Fate fate = Fate::reply;
    Parked* parked = nullptr;
    std::unique_ptr<Question> question;  // several takes; where it waits, `parked` has it
    bool noted = true;  // where it waits: the cluster thread was told
    std::unique_ptr<Call> call;
    size_t text_at = 0, text_size = 0;  // answered: the reply, in texts_
  };

  size_t read_batch(Session& session, std::string_view input);
  size_t read_http_batch(Session& session, std::string_view input);
  Item& begin_item(size_t begin);
  size_t decide_batch(Session& session);
  void decide(Session& session, Item& item);
  const OrderTable::Order* order_of(KeyHash hash, WallTime now) const;  // nullptr: nothing is ordered
  // What holds of the key: by an order, or else by its rule.
  Applied applied(const Rule& rule, std::string_view key, KeyHash hash, WallTime now) const;
  void apply_order(Item& item);
  void answer_by_override(Item& item);
  void take(Session& session, Item& item);
  Portion take_portion(const Ask& ask, uint32_t most);
  void put_back(Session& session, Item& item);
  void tell(Call::Kind kind, std::shared_ptr<const RuleSet> rules, const Ask& about, std::optional<int64_t> only_in);
  void give_along(const resp::Request& request);
  void reset_along(const resp::Request& request);

  std::unique_ptr<Question> question_of(const resp::Request& request) const;
  void take_all(Session& session, Item& item);
  void apply_gates(Question& question) const;
  bool prepare(Question& question) const;
  std::optional<size_t> begin(Question& question);
  std::optional<size_t> decide(Question& question);
  std::optional<size_t> look(Question& question);
  void give_back(Question& question);
  void refuse(Question& question, size_t missing);
  void conclude(Question& question, MonoTime now);
  void answer(std::unique_ptr<Question> question);
  void reply(std::unique_ptr<Question> question, const ReplyTo& to);
  Parked* park(std::unique_ptr<Question>& question, size_t missing);

  // Where Redis decides (service_central.cc).
  std::unique_ptr<Call> ask_redis(std::unique_ptr<Question>& question);
  void finish_question(std::unique_ptr<Call> call);
  void settle(Question::Part& part, bool dry);
  void give_back_to_redis(Question& question);
  Answer peek_of(const Call& call, Now now) const;

  static void wait_for(Parked& parked, size_t missing);
  bool retry_question(Parked& parked);
  void expire_question(Parked& parked);
  void end_wait(Parked& parked, TimeHistogram& histogram);
  void write_question(resp::Writer& writer, resp::Form form, const Question& question) const;

  void try_park(Session& session, Item& item);
  void ask_elsewhere(Session& session, Item& item, Call::Kind kind);
  void answer_batch(Session& session, size_t count);
  void write_reply(Session& session, Item& item);
  void write_lease(resp::Writer& writer, const Rule& rule, const Answer& answer, const Portion& portion) const;
  void write_own_facts(resp::Writer& writer, const Item& item);  // EXPLAIN, PEERS and STATS of a node alone
  std::vector<resp::Field> own_explanation(const Item& item) const;
  // The verdict of that take, with what is left before it.
  Answer peek(const Ask& ask, Now now) const;
  std::vector<resp::Field> explanation(const Call& call) const;
  http::Writer http_writer(std::string& out, http::Form form);
  void write_http_reply(std::string& out, const Item& item);
  void write_http_question(std::string& out, http::Form form, const Question& question);
  std::string http_answer(const Call& call);
  void refuse_http(Session& session);
  void retry(KeyHash hash);
  bool retry_one(Parked& parked);
  void refresh_env();
  bool may_park(const Rule& rule);
  bool begin_wait();
  void end_wait();
  std::unique_ptr<Parked> leave(Parked& which, TimeHistogram& histogram, MonoTime now);
  void end_wait(Parked& parked, const Answer& answer, TimeHistogram& histogram);
  Answer as_sent(Answer answer, MonoTime now);
  void count(const Rule& rule, std::string_view key, const KeyHash& hash, const Answer& answer) {
    count_outcome(rule, answer);
    if (counters_.top.due()) [[unlikely]]
      count_key(rule, key, hash, answer);
  }
  void count_outcome(const Rule& rule, const Answer& answer);
  [[gnu::cold]] void count_key(const Rule& rule, std::string_view key, const KeyHash& hash, const Answer& answer);
  void count_portion(const Rule& rule, std::string_view key, const KeyHash& hash, uint64_t n, TopKeys::Event::Kind kind);
  void touch(Session& session);

  Overview& overview_;
  Limiter& limiter_;
  WorkerCounters& counters_;
  const Clock& clock_;
  Port* const port_;
  ServiceLimits limits_;
  const std::function<void(std::unique_ptr<Call>)> hand_out_;

  std::shared_ptr<const RuleSet> rules_;
  std::shared_ptr<const OrderTable> orders_;  // nullptr: there are none
  Now now_{};  // of the batch
  resp::Env env_;
  MonoTime env_at_{};
  std::vector<Item> batch_;  // a fixed number of them, used again and again
  size_t batch_size_ = 0;
  resp::Request expected_;
  std::optional<KeyHash> expected_hash_;
  uint32_t until_sample_ = kSampleEvery;
  bool protocol_error_ = false;
  bool urgent_ = false;
  std::string texts_;
  http::DateField date_;
  Parking parking_;
  std::vector<KeyHash> to_retry_;
  std::vector<Session*> touched_;
};

}  // namespace tally
