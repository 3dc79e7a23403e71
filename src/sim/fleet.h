// A whole fleet in one process on one virtual clock: the very Nodes and Limiters that ship, a seeded network
// between them, and applications that ask.
//
// Thread rule: one owner. Everything is decided by the config and the calls made: the same seed gives the
// same run, event by event (log_hash). Times are true time: how long ago the run began; each host has clocks
// of its own.
//
// A host is modelled as the daemon is built: an ask is decided at once by the worker and leaves notes in its
// ring; the cluster thread sees them `thread_delay` later, so that what arrives at one instant is one batch.
// What finds too little waits for rule.wait, the same key behind the same key, and is tried again when the
// node wakes it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/time.h"
#include "client/leases.h"
#include "cluster/node.h"
#include "core/limiter.h"
#include "core/rules.h"
#include "core/slots.h"
#include "sim/checkers.h"
#include "sim/network.h"

namespace tally::sim {

// A host's clocks: wall time is off by `offset`, both run fast by `drift_ppm`.
struct HostClock {
  Duration offset{0};
  int32_t drift_ppm = 0;
  Duration origin{0};  // what the monotonic one shows at the beginning; 0: default_origin
};
constexpr Duration default_origin(uint16_t rank) { return std::chrono::hours(100) * (rank + 1); }  // no two hosts alike

// A host whose configuration has another rule of that name than the others.
struct OwnRule {
  uint16_t host = 0;
  Rule rule;
};

// A numbered list of nodes, by host.
struct HostList {
  std::vector<uint16_t> hosts;
  uint32_t size = 0;  // cluster.size; 0: as many as there are hosts in it
  std::vector<uint16_t> gone{};  // of the list before: stopped for good, as the operator says
  std::vector<uint16_t> owners{};  // those of the hosts that keys may belong to; empty: all
};

// A process that admits by itself, on a host. Its clock is the host's.
struct ProcessTerms {
  uint16_t host = 0;
  Duration tick{0};         // between two looks at what it holds: long where it stands still now and then
  Duration answers_most{0};  // what a question or an answer takes, at most
};

// The way of one life of a host to books that are no node's (kBooksEntry). What they have said is taken when the host's cluster thread
// has its turn: see Fleet::nudge.
class BooksWay {
 public:
  virtual ~BooksWay() = default;
  virtual void say(const Bytes& datagram) = 0;
  virtual void flush() = 0;  // what was said goes out
  virtual std::function<bool(const WireId&)> take_lost() = 0;  // of which keys they may be lost: all that is held of them has to be told
  virtual std::vector<Bytes> take() = 0;
};

class Fleet;

struct FleetConfig {
  uint16_t nodes = 3;
  uint32_t size = 0;  // cluster.size; 0: as many as there are nodes
  // Lists of nodes that replace each other; the first has the version 1. Hosts begin with it, and those that are not in it are
  // not up (see give_list). Empty: one of all.
  std::vector<HostList> lists;
  std::vector<uint16_t> owners;  // with no lists: those of the hosts that keys may belong to; empty: all
  std::vector<Rule> rules;
  std::vector<OwnRule> own_rules;  // of names that are in `rules`
  bool own_rules_later = false;    // hosts begin without them: see reload()
  // Further hosts, each with the name (a rank) of one that is there already. The first has the number
  // `nodes`; none is up before start(). What they send comes from an address that is in no roster.
  std::vector<uint16_t> clones;
  std::vector<uint16_t> forgetful;  // names of clones' later lives without a state file: each that hears nobody has the floor once more
  std::vector<ProcessTerms> processes;
  uint16_t guests = 0;  // further hosts that are in no list, behind the clones; up from the beginning
  LinkTerms link;
  std::vector<HostClock> clocks;  // by host; those that are missing are true
  Duration sync_interval = std::chrono::milliseconds(100);
  Duration isolation_after = std::chrono::seconds(2);
  Duration lease = std::chrono::seconds(1);
  Duration thread_delay = std::chrono::microseconds(20);
  Duration horizon_step = std::chrono::seconds(10);  // of the state file
  WallTime epoch{
      std::chrono::seconds(1'800'000'000)};  // true wall time at the beginning: on a whole quarter of an hour
  size_t keys = 1000;                        // each host's slot table
  size_t registers = 1'048'576;              // marks that each host keeps
  size_t overflow_cells = 262'144;           // and for those that find no room: NodeConfig::overflow_cells_max
  bool sealed = false;                       // the hosts' datagrams travel sealed: NodeConfig::sealed (the seal itself is left out)
  bool isolation_possible = false;           // check against the bound of the isolation policies
  bool check_wire = true;
  bool sliding_late = false;    // see CheckedKey
  bool keep_datagrams = false;  // all that are sent, for who would send them again: see datagrams()
  // Levels (sim/world.h). What a host's owner draws from, when a life of it begins; hosts that draw for a region in another
  // fleet, and have no applications; and who hears that a host's cluster thread had its turn.
  std::function<Upstream*(uint16_t)> upstream;
  // All keys belong to books that are no node's: the way there, for each life. Without lists, clones and guests.
  std::function<std::unique_ptr<BooksWay>(Fleet& fleet, uint16_t rank, uint64_t incarnation)> books;
  Duration books_offset{0};  // of the clock that they go by, whose rate is true
  std::vector<uint16_t> region_hosts;
  std::function<void(uint16_t)> settled;
  std::function<void(const Rule& rule, const std::string& key, uint64_t cost)> admitted;  // who hears of every admission
  uint64_t seed = 1;
};

// The hosts of a fleet as lists of nodes name them, in sorted order: without config.lists a place is a rank.
std::vector<std::string> host_entries(uint16_t nodes);
NodeList host_list(uint16_t nodes, uint32_t size, const std::vector<uint16_t>& owners);
NodeList with_books(NodeList list);  // all keys belong to books that are no node's

// Rules as tests write them. A bucket's rate is `count` per `period`.
Rule window_rule(std::string name, Algorithm algorithm, uint32_t limit, Duration window,
                 uint32_t overcount_ppm);
Rule bucket_rule(std::string name, uint32_t burst, uint32_t count, Duration period, uint32_t overcount_ppm);

std::shared_ptr<const RuleSet> rule_set(std::vector<Rule> rules, Share share, const RuleSet* before = nullptr);

enum class Outcome : uint8_t { admitted, over_limit, no_grant, isolated, lost };
inline constexpr size_t kOutcomes = 5;
std::string_view outcome_name(Outcome outcome);

// What applications got, in costs.
struct Tally {
  uint64_t by_outcome[kOutcomes]{};
  uint64_t waited = 0;  // asks that were parked
  Duration waited_most{0};

  uint64_t admitted() const { return by_outcome[0]; }
  uint64_t offered() const;
  Tally& operator+=(const Tally& other);
};

class Fleet {
  struct KeyState;

 public:
  explicit Fleet(FleetConfig config);
  ~Fleet();
  Fleet(const Fleet&) = delete;
  Fleet& operator=(const Fleet&) = delete;

  // --- time ---
  Duration now() const { return now_; }
  void at(Duration when, std::function<void()> call);  // `when` is not before now
  void call_off();  // all calls that are still to come: traffic, faults
  void run_until(Duration when);
  Duration next_event() const { return queue_.empty() ? Duration::max() : queue_.front().at; }
  void run_for(Duration d) { run_until(now_ + d); }
  // Until every living node is ready; false where that takes longer than `at_most`.
  bool run_until_ready(Duration at_most);

  // --- applications ---
  using Done = std::function<void(Outcome)>;
  // A key that was looked up once, for traffic of many requests; good as long as the fleet.
  class KeyRef {
   public:
    explicit operator bool() const { return state_ != nullptr; }

   private:
    friend class Fleet;
    KeyState* state_ = nullptr;
  };
  KeyRef key(std::string_view rule, std::string_view key);
  void take(uint16_t rank, KeyRef key, uint32_t cost, Done done);
  void take(uint16_t rank, std::string_view rule, std::string_view key, uint32_t cost = 1, Done done = {}) {
    take(rank, this->key(rule, key), cost, std::move(done));
  }
  uint32_t give(uint16_t rank, std::string_view rule, std::string_view key, uint32_t n);
  bool reset(uint16_t rank, std::string_view rule, std::string_view key);
  // The node claims the key, of its running window or one `ahead` of it: whoever owns it, and whether it is
  // lost or not.
  bool claim(uint16_t rank, std::string_view rule, std::string_view key, int64_t ahead = 0);
  // Traffic from `from` to `until`: asks at random times, `rate` a second on average; and n asks evenly
  // spread.
  void poisson(uint16_t rank, std::string rule, std::string key, double rate, Duration from, Duration until);
  void evenly(uint16_t rank, std::string rule, std::string key, uint32_t n, Duration from, Duration until);

  // --- processes that admit by themselves (client/leases.h), beside a daemon: config.processes ---
  // Asks at once, and asks the host where what the process holds does not do.
  void take_by(size_t process, std::string_view rule, std::string_view key, uint32_t cost = 1);
  uint64_t admitted_by_processes() const { return by_processes_; }
  void poisson_by(size_t process, std::string rule, std::string key, double rate, Duration from, Duration until);

  // --- faults ---
  Network& network() { return network_; }
  void crash(uint16_t rank,
             bool keep_state = true);     // kill -9; without its state it is born again as a first life
  void start(uint16_t rank);              // after a crash or leaving
  // From its next start on the host goes by config.lists[list], with the one before beside it or without. False where its state
  // file does not let it.
  bool give_list(uint16_t rank, size_t list, bool with_previous);
  size_t list_of(uint16_t rank) const { return hosts_[rank].list; }
  void leave(uint16_t rank, bool keep_memory = true);  // says goodbye and is gone; leaves its registers for its next life
  // Goes on with the rules of its own, or without them; its workers decide by them `workers_after` later. A later life does too.
  void reload(uint16_t rank, bool own_rules, Duration workers_after);
  // Goes on at this pace; a later life does too. Its sync interval is at most that of the configuration.
  void set_pace(uint16_t rank, const Pace& pace);
  void pause(uint16_t rank, Duration d);  // a process stopped: everything for it happens afterwards
  void step_wall_clock(uint16_t rank, Duration by);
  bool is_up(uint16_t rank) const { return hosts_[rank].node != nullptr; }
  Duration paused_until(uint16_t rank) const { return hosts_[rank].paused_until; }  // may be past
  Duration born(uint16_t rank) const { return hosts_[rank].born; }  // when its newest life began
  // A datagram that no host has sent reaches `to` now. `from`: the host whose address it comes from; nullopt:
  // an address that is no host's.
  void inject(std::optional<uint16_t> from, uint16_t to, Bytes bytes);
  struct Sent {
    Duration at{0};
    uint16_t from = 0, to = 0;
    Bytes bytes;
  };
  // What hosts have sent so far, the oldest first, lost or not; with config.keep_datagrams.
  const std::vector<Sent>& datagrams() const { return kept_; }

  // --- what came of it ---
  uint16_t nodes() const { return config_.nodes; }  // of the roster; hosts from there on are clones, then guests
  std::vector<uint16_t> names() const;  // the hosts without the clones
  uint16_t first_guest() const { return static_cast<uint16_t>(hosts_.size() - config_.guests); }
  uint16_t hosts() const { return static_cast<uint16_t>(hosts_.size()); }
  Node& node(uint16_t rank) { return *hosts_[rank].node; }
  Limiter& limiter(uint16_t rank) { return *hosts_[rank].limiter; }
  // Its cluster thread has something to do.
  void nudge(uint16_t rank) {
    if (is_up(rank)) settle_soon(rank);
  }
  const Rule& rule(std::string_view name) const;
  Now clock(uint16_t rank) const;
  WallTime latest_wall() const;  // that any clock shows, or would if it had not been set back
  Tally tally(std::string_view rule, std::string_view key) const;
  Tally tally(std::string_view rule, std::string_view key, uint16_t rank) const;
  // Windows by number (0 for a bucket), over the fleet.
  const std::map<int64_t, Checkers::WindowCount>& windows(std::string_view rule, std::string_view key) const;
  double fullest(std::string_view rule, std::string_view key) const;
  uint64_t bound(std::string_view rule) const;  // as checked; of the hosts with the form in config.rules
  uint16_t owner(std::string_view rule, std::string_view key) const;  // the natural one
  Group group(std::string_view rule, std::string_view key) const;
  Explanation explain(uint16_t rank, std::string_view rule, std::string_view key);  // of a host that is up
  const std::vector<Violation>& violations() const { return checkers_.violations(); }

  // Holds what hosts may admit now against the bounds, adds up floors, and looks for what is full: fleet_audit.cc.
  void audit();
  // Found by somebody else than the checkers.
  void violate(std::string_view rule, std::string_view key, std::string_view checker, std::string what);

  struct Traffic {
    uint64_t datagrams = 0, bytes = 0, entries = 0;
    Traffic operator-(const Traffic& o) const {
      return {datagrams - o.datagrams, bytes - o.bytes, entries - o.entries};
    }
  };
  Traffic traffic() const { return traffic_; }     // sent between hosts
  uint64_t marks_overflowed() const;               // by all lives of all hosts: NodeStats::marks_overflowed
  uint64_t log_hash() const { return log_hash_; }  // of every event so far
  uint64_t events() const { return events_; }

  // Every message about one key, and every ask of it, as a line of text.
  void trace(std::string_view rule, std::string_view key, std::function<void(const std::string&)> line);

 private:
  static constexpr uint16_t kNobody = 0xffff;
  static constexpr uint16_t kBooksRank = 0;  // their entry sorts before all hosts
  // What one life of a host did with a key since the last reset that it heard of.
  struct Spent {
    uint64_t life = 0;
    uint64_t reset_account = 0, reset_books = 0;
    std::map<int64_t, uint64_t> by_window;
  };
  struct KeyState {
    const Rule* rule;  // the first of its forms
    std::string key;
    WireId id;
    std::vector<size_t> checked;                  // by form: its place in checkers_
    std::unordered_map<uint16_t, Tally> by_rank;  // of those that were asked
    std::unordered_map<uint16_t, Spent> spent;
    bool was_reset = false;
    std::map<int64_t, uint64_t> with_processes;  // by window (0: a bucket): counted at hosts, and not spent or put back yet
  };
  struct Process {
    static constexpr size_t kKeys = 16;  // more than are asked about
    explicit Process(const ProcessTerms& terms_) : terms(terms_) {}
    const ProcessTerms terms;
    client::Leases leases{kKeys};
    bool ticking = false;
    struct Taken {
      int64_t window = 0;   // 0: a bucket's
      Duration offset{0};   // of the host's wall clock then
    };
    struct Question {
      client::Leases::Asking asking;
      KeyHash hash;
      MonoTime sent;
    };
    std::map<std::pair<uint64_t, int64_t>, Taken> taken;  // by the key's hash and the end
  };
  struct Parked {
    uint64_t number;
    KeyState* state;
    uint32_t cost;
    Duration since;
    Done done;
    bool noted = true;  // the cluster thread knows that it waits
  };
  struct KeyHashHash {
    size_t operator()(const KeyHash& h) const { return static_cast<size_t>(h.lo); }
  };
  // A rule as hosts have it. Hosts whose algorithm or window differ do not share a limit, and each form has
  // its own bound; where only the numbers differ, the bound is that of the larger.
  struct Forms {
    std::vector<Rule> rules;       // the first: as in config.rules
    std::vector<uint8_t> of_host;  // by host: the place in `rules` of what its workers decide by
  };
  struct Host {
    uint16_t name = 0;         // its rank; a guest's own number
    uint64_t incarnation = 0;  // as in the state file; 0: there is none
    WallTime horizon{};
    Tenure tenure;
    std::shared_ptr<const Memory> memory;  // that its last life left, where it said goodbye
    size_t list = 0;
    bool with_previous = false;
    std::vector<uint16_t> by_rank;  // the hosts that it knows; kNobody: none is there
    HostClock clock;
    Duration furthest{0};  // the largest offset that its wall clock ever had
    Duration paused_until{0};
    uint64_t life = 0;  // events of an earlier one are void
    Duration born{0};

    Pace pace;
    bool own_rules = false;
    std::shared_ptr<const RuleSet> rules;  // that its workers decide by
    // One life. Nodes use the limiter, which uses the table: destroyed in this order's reverse.
    std::unique_ptr<SlotTable> slots;
    std::unique_ptr<Limiter> limiter;
    std::unique_ptr<NoteRing> notes;
    std::unique_ptr<Node> node;
    std::unique_ptr<BooksWay> books;
    std::unordered_map<KeyHash, std::deque<Parked>, KeyHashHash> parked;
    bool settle_due = false;
    Duration tick_due{0};
    int64_t decided_in = 0;  // the window of the newest admission; 0: a bucket's
  };
  enum class Kind : uint8_t { call, arrival, tick, settle, deadline };
  struct Event {
    Duration at{0};
    uint64_t order = 0;
    Kind kind = Kind::call;
    uint16_t host = kNobody;
    uint16_t from = kNobody;
    uint64_t life = 0;    // of `host`
    uint64_t number = 0;  // deadlines: of the parked ask
    KeyHash hash;
    Bytes bytes;
    std::function<void()> call;
  };
  MonoTime mono_origin(uint16_t rank) const { return MonoTime(config_.clocks[rank].origin); }
  // What a clock that began at 0 shows after `t`.
  static Duration shown(Duration t, int32_t drift_ppm);
  static bool later(const Event& a, const Event& b) { return a.at != b.at ? a.at > b.at : a.order > b.order; }

  void push(Event event);
  void handle(Event& event);
  void handle_for(Host& host, uint16_t rank, Event& event);
  void begin_life(uint16_t rank, const Life& life);
  NodeList node_list(size_t list) const;
  Share share_of(const Host& host) const;
  std::optional<uint16_t> rank_at(const Host& host, uint16_t other) const;
  void learn(Host& host, uint16_t rank, uint16_t other);
  bool is_guest(const Host& host) const { return host.name >= config_.nodes; }
  void end_life(uint16_t rank, bool keep_state);
  Life next_life(uint16_t rank);
  void keep_horizon(Host& host, uint16_t rank);

  void ask(uint16_t rank, KeyState& state, uint32_t cost, Done done);
  bool note_behind(Host& host, uint16_t rank, const KeyState& state, uint32_t cost);  // whether it was noted
  // `notes`: nullptr for one that waits.
  Verdict decide(Host& host, uint16_t rank, const KeyState& state, uint32_t cost, NoteRing* notes);
  void finish(uint16_t rank, KeyState& state, uint32_t cost, Outcome outcome, Duration waited,
              const Done& done);
  void ask_for(Process& process, KeyState& state, uint32_t cost);
  void answer(Process& process, KeyState& state, const Process::Question& asked, client::Reply reply, bool leases);
  Duration takes(const Process& process);  // a question, or an answer
  int64_t take_portion(Process& process, KeyState& state, uint32_t most, client::Reply& reply);  // in which window
  bool spend_held(Process& process, KeyState& state, uint32_t cost);
  void spent_by(Process& process, KeyState& state, uint32_t cost, const Process::Taken& taken);
  void tick(Process& process);
  void put_back(Process& process, const client::Leases::Order& order);
  bool retry(Host& host, uint16_t rank, KeyHash hash);  // whether anybody got an answer
  void expire(Host& host, uint16_t rank, KeyHash hash, uint64_t number);
  bool draws(uint16_t rank) const;  // for a region
  void settle_soon(uint16_t rank);
  void settle(Host& host, uint16_t rank, uint16_t source);
  void hear_books(Host& host, uint16_t rank);
  void send(uint16_t rank, const std::vector<Outgoing>& outbox, uint16_t source);
  void watch(const Bytes& bytes, uint16_t from, uint16_t to);
  void watch_books(const Bytes& bytes, uint16_t to);
  void trace_seen(uint16_t rank, const std::string& way);
  void woken_in_vain(const Host& host, KeyHash hash);
  void schedule_tick(Host& host, uint16_t rank);
  Spent& spent_of(KeyState& state, uint16_t rank);
  void take_back_all(KeyState& state, uint16_t rank);
  void look_at_resets(Host& host, uint16_t rank);
  void look_at_reset(KeyState& state, Host& host, uint16_t rank);

  uint64_t spendable(uint16_t rank, const KeyState& state, const Limit& limit, int64_t window) const;
  void audit_windows(const KeyState& state);

  KeyState& key_state(std::string_view rule, std::string_view key);
  const KeyState* known(std::string_view rule, std::string_view key) const;  // nullptr: never asked about
  void find_forms();
  void decide_by(uint16_t rank, std::shared_ptr<const RuleSet> rules);
  const Rule& rule_on(uint16_t rank, const KeyState& state) const;
  size_t checked_on(uint16_t rank, const KeyState& state) const;
  CheckedKey checked_key(const Rule& form, std::string_view key) const;
  uint64_t bound_in(Rule form) const;
  uint32_t bucket_overcount(const Rule& form) const;
  std::vector<Rule> rules_of(uint16_t rank) const;
  KeyHash hash_on(const Host& host, const KeyState& state) const;
  int64_t window_on(uint16_t rank, const Rule& rule) const;
  int64_t window_counted(uint16_t rank, const KeyState& state) const;
  std::map<int64_t, uint32_t> counted_ahead(uint16_t rank, const KeyState& state) const;
  Ask ask_of(const Host& host, const KeyState& state, uint32_t cost) const;
  void log(uint64_t a, uint64_t b, uint64_t c);
  void trace_line(uint16_t rank, const KeyState& state, const std::string& text);

  const FleetConfig config_;
  Random random_;
  Network network_;
  Checkers checkers_;
  std::vector<std::string> peers_;
  Roster roster_;
  std::shared_ptr<const RuleSet> reference_;  // the rules as in config.rules
  std::vector<Forms> forms_;                  // by the rule's id
  std::vector<Host> hosts_;
  std::vector<std::unique_ptr<Process>> processes_;
  uint64_t by_processes_ = 0;
  std::map<std::pair<std::string, std::string>, KeyState> keys_;

  Duration now_{0};
  std::vector<Event> queue_;  // a heap, soonest first
  uint64_t order_ = 0;
  uint64_t parked_ = 0;
  std::vector<KeyState*> were_reset_;
  uint64_t events_ = 0;
  uint64_t log_hash_ = 0;
  Traffic traffic_;
  uint64_t marks_overflowed_ = 0;  // by lives that are over
  Datagram seen_;  // scratch
  std::vector<Sent> kept_;

  const KeyState* traced_ = nullptr;
  std::function<void(const std::string&)> trace_;
};

}  // namespace tally::sim
