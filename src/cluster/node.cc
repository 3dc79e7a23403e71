#include <algorithm>

#include "cluster/node_impl.h"
#include "core/calendar.h"
#include "core/overrides.h"

namespace tally {

namespace {

constexpr Duration kReachedLately = std::chrono::seconds(5);
constexpr Duration kMovesWithin = std::chrono::minutes(2);  // until name servers and this host know the new address
constexpr Duration kReadyAtLast = std::chrono::seconds(10);  // though others have not told their registers yet
constexpr Duration kAskRulesEvery = std::chrono::seconds(1);

uint64_t fingerprint(const RuleSet& rules) {
  std::string text;
  for (const Rule& rule : rules.all()) {
    const Limit& l = rule.limit;
    text += rule.name;
    for (const int64_t n : {static_cast<int64_t>(l.algorithm), int64_t{l.limit}, nanos(l.window), nanos(l.emission),
                            static_cast<int64_t>(rule.max_overcount.ppm), int64_t{rule.max_overcount.unbounded}})
      text += '|' + std::to_string(n);
    if (rule.mode == Mode::central) text += "|central";
    if (rule.overrides != nullptr) text += '|' + std::to_string(rule.overrides->fingerprint());
    text += '\n';
  }
  return keyed_hash(text, kPublicIdKey);
}

// What the shortest of all rules lasts at the least; buckets have none, they go by the monotonic clock.
Duration shortest_window(const RuleSet& rules) {
  Duration shortest = Duration::max();
  for (const Rule& rule : rules.all())
    if (rule.limit.algorithm != Algorithm::token_bucket && rule.limit.window > Duration(0))
      shortest = std::min(shortest, shortest_length(rule.limit.window));
  return shortest;
}

// A region's rules differ from those above it, in their floors.
uint64_t told_fingerprint(const NodeConfig& config, const RuleSet& rules) { return config.region ? 0 : fingerprint(rules); }

std::vector<std::string> entries_of(const NodeConfig& config) {
  return config.peers.empty() ? std::vector<std::string>{config.self} : config.peers;
}

bool asks_who_it_is(const Datagram& datagram) {
  return std::any_of(datagram.entries.begin(), datagram.entries.end(), [](const Entry& entry) {
    const auto* hello = std::get_if<Hello>(&entry);
    return hello != nullptr && !hello->answer;
  });
}

Peers make_peers(const Roster& roster, const NodeConfig& config) {
  if (config.guest) return Peers(roster, static_cast<uint16_t>(roster.count()), config.guest, config.pace.sync_interval);
  const auto self = roster.rank_of(config.self);
  CHECK_THAT(self.has_value());  // the configuration was validated
  return Peers(roster, *self, std::nullopt, config.pace.sync_interval);
}

std::vector<uint16_t> others_of(const Roster& roster, const NodeConfig& config, uint16_t self) {
  std::vector<uint16_t> others;
  for (uint16_t rank = 0; rank < roster.count(); ++rank)
    if (rank != self && (!config.guest || roster.owns(Which::current, rank) || roster.owns(Which::previous, rank)))
      others.push_back(rank);
  return others;
}

}  // namespace

Node::Impl::Impl(NodeConfig c, Life which, Limiter& l, std::shared_ptr<const RuleSet> r, uint64_t seed, Now now)
    : config(std::move(c)),
      rules(std::move(r)),
      pace(config.pace),
      limiter(l),
      started(now.mono),
      incarnation(which.incarnation),
      random(seed),
      roster({entries_of(config), config.roster_version, config.size, config.owners}, config.previous, config.id_key),
      peers(make_peers(roster, config)),
      others(others_of(roster, config, peers.self())),
      standing(which.first, which.reckoned_start, pace.sync_interval, !alone(), now),
      succession(roster, peers.self(), which.tenure, config.gone, standing, pace.sync_interval, now),
      recovery(roster, peers.self(), incarnation, standing, succession),
      registers(config.registers_max, config.overflow_cells_max, roster, standing, succession, recovery),
      mail(roster, peers, incarnation, config.id_key, around_datagrams()),
      owner(around(), config.ledgers_max, now.mono),
      lessee(around(), limiter, config.accounts_max, now.mono),
      rules_fingerprint(told_fingerprint(config, *rules)),
      window_min(shortest_window(*rules)),
      next_sync(now.mono + pace.sync_interval),
      next_gossip(now.mono),
      next_ask(now.mono) {
  if (which.memory) recovery.remember(*which.memory, registers, now);
  open_floors();
}

Life stateless_life(WallTime now, uint64_t dice) {
  constexpr unsigned kDiceBits = 20;
  Life life;
  life.incarnation = static_cast<uint64_t>(std::max<int64_t>(1, nanos(now) / 1'000'000)) << kDiceBits | dice >> (64 - kDiceBits);
  return life;
}

Node::Node(NodeConfig config, Life life, Limiter& limiter, std::shared_ptr<const RuleSet> rules, uint64_t seed, Now now)
    : impl_(std::make_unique<Impl>(std::move(config), life, limiter, std::move(rules), seed, now)) {}

Node::~Node() = default;

// ---- what comes in ---------------------------------------------------------------------------------------------------

void Node::note(const Note& note, Now now) {
  if (alone()) return;
  look_at_clock(now);
  impl_->lessee.note(note, now);
}

// The clock is looked at first: a member that has left a window shall say so, though it has not ticked since.
Taken Node::receive(std::span<const uint8_t> bytes, std::optional<uint16_t> from, Now now) {
  look_at_clock(now);
  Datagram& datagram = impl_->incoming;
  if (!impl_->decoded(bytes, datagram)) return {.malformed = true};
  return impl_->receive_from(from, datagram, bytes.size(), now);
}

Taken Node::receive(std::span<const uint8_t> bytes, std::span<const uint16_t> there, Now now) {
  look_at_clock(now);
  Datagram& datagram = impl_->incoming;
  if (!impl_->decoded(bytes, datagram)) return {.malformed = true};
  auto sender = impl_->roster.rank_of(datagram.header.sender);
  if (!sender) sender = impl_->peers.guest(datagram.header.sender);
  const bool is_there = sender && std::ranges::find(there, *sender) != there.end();
  return impl_->receive_from(is_there ? sender : std::nullopt, datagram, bytes.size(), now);
}

bool Node::Impl::decoded(std::span<const uint8_t> bytes, Datagram& datagram) {
  const DecodeError error = decode(bytes, config.id_key, datagram);
  if (error != DecodeError::none) ++dropped[std::string(decode_error_name(error))];
  return error == DecodeError::none;
}

Bytes Node::knock(uint16_t to, Now now) {
  return impl_->mail.alone(impl_->peers, to, Member{impl_->peers.id(impl_->peers.self()), impl_->incarnation, 0}, now);
}

// Whoever is in no list is a guest of the owners, where it goes by their list. It gets a rank with its first datagram. nullopt: it is
// nobody here, which is counted.
std::optional<uint16_t> Node::Impl::rank_of_sender(const Header& header, bool known_list, bool listed_place, Now now) {
  if (header.sender == peers.id(peers.self())) return peers.self();
  if (const auto listed = roster.rank_of(header.sender)) return listed;
  if (const auto guest = peers.guest(header.sender)) return guest;
  const bool owns = roster.owns(Which::current, peers.self()) || roster.owns(Which::previous, peers.self());
  if (!known_list || listed_place || !owns || config.guest) {
    ++dropped[known_list ? "foreign" : "roster"];
    return std::nullopt;
  }
  const auto rank = peers.welcome(header.sender, config.guests_max, now.mono);
  if (!rank) ++dropped["guests_full"];
  return rank;
}

Taken Node::Impl::receive_from(std::optional<uint16_t> from, const Datagram& datagram, size_t bytes, Now now) {
  const Header& header = datagram.header;
  if (header.sender == peers.id(peers.self()) && header.receiver != header.sender) {
    ++dropped["reflected"];
    return {};
  }
  if (header.receiver != peers.id(peers.self())) {
    ++dropped["foreign"];
    return {};
  }
  const auto spoken = roster.find(header.roster_version, header.roster_hash);
  const bool listed_place = from && !peers.is_guest(*from);  // of the address
  const auto rank = rank_of_sender(header, spoken.has_value(), listed_place, now);
  if (!rank) return {};
  const bool guests = config.guest || peers.is_guest(*rank);
  // Those who know both lists speak with all in either: who leaves with who joins.
  const bool all = spoken == Which::current && roster.has_previous();
  if (!spoken || !(guests || all || (roster.lists(*spoken, *rank) && roster.lists(*spoken, peers.self())))) {
    peers[*rank].roster_mismatch = true;
    ++dropped["roster"];
    return {};
  }
  if (is_self(*rank)) {
    ++dropped["own_name"];
    return {};
  }
  if (config.sealed && peers.replayed(*rank, header)) {
    ++dropped["replayed"];
    return {};
  }
  // A guest is where its newest datagram came from, unless that is a place of somebody in the list.
  const bool moved = peers.is_guest(*rank) && !listed_place && header.sequence > peers[*rank].sequence_in;
  if (from != rank && !moved) {
    // Somebody uses the name of a member from elsewhere. Where that member lives, this is a clone, and is told so: it must
    // not open floors that the member has too.
    ++dropped["wrong_source"];
    const Peer& peer = peers[*rank];
    if (!peers.is_guest(*rank) && peer.incarnation != 0 && peers.up(*rank, now.mono))
      mail.answer_source(peers, *rank, Clone{peer.incarnation, header.incarnation, true}, now);
    return {};
  }
  switch (peers.hear(*rank, header, now)) {
    case Peers::Heard::older_life:
      ++dropped["older_life"];
      // A node that begins with a lower number than its name has had (state file lost, clock set back) must not take itself
      // for a first life. Where the datagram is merely late, its name's next life finds that another is meant.
      if (asks_who_it_is(datagram)) mail.send(*rank, Clone{peers[*rank].incarnation, header.incarnation, false});
      return {.from = rank};
    case Peers::Heard::clone:
      ++dropped["clone"];
      mail.send(*rank, asks_who_it_is(datagram) ? Clone{peers[*rank].incarnation, header.incarnation, false}
                                                : Clone{header.incarnation, peers[*rank].incarnation, false});
      return {.from = rank};
    case Peers::Heard::fine:
      if (peers.sent_after(header, now.mono) > started) reached = now.mono;
      break;
    case Peers::Heard::replayed: break;
  }
  peers[*rank].roster_mismatch = false;
  if (peers.is_guest(*rank)) {
    mail.speak(*rank, *spoken);
  } else if (*spoken == Which::current && roster.has_previous()) {
    succession.heard_current(*rank);
    mail.speak(*rank, Which::current);
  }
  peers[*rank].bytes_in += bytes + around_datagrams();
  ++datagrams_in;
  const Origin origin{*rank, header.incarnation, header.sequence, peers.sent_after(header, now.mono)};
  for (int step = 0; step < kPrefetchSteps; ++step)
    for (const Entry& entry : datagram.entries) prefetch(entry, step);
  for (const Entry& entry : datagram.entries) {
    ++entries_in[entry.index()];
    if (says_what_it_may(entry, *rank))
      handle(entry, origin, now);
    else
      ++dropped["not_member"];
  }
  return {.from = rank, .moved = moved};
}

bool Node::Impl::says_what_it_may(const Entry& entry, uint16_t from) const {
  return !peers.is_guest(from) || std::holds_alternative<Report>(entry) || std::holds_alternative<Hello>(entry) ||
         std::holds_alternative<Reset>(entry) || std::holds_alternative<Member>(entry) || std::holds_alternative<KeyOrder>(entry) ||
         std::holds_alternative<OrdersDigest>(entry);
}

void Node::Impl::handle(const Entry& entry, const Origin& origin, Now now) {
  const uint16_t from = origin.rank;
  if (const auto* report = std::get_if<Report>(&entry)) return owner.on_report(*report, origin, now);
  if (const auto* grant = std::get_if<Grant>(&entry)) return lessee.on_grant(*grant, origin, now);
  if (const auto* mark = std::get_if<Mark>(&entry)) return on_mark(*mark, from, now);
  if (const auto* accepted = std::get_if<Accepted>(&entry)) return owner.on_accepted(*accepted, from, now);
  if (const auto* hello = std::get_if<Hello>(&entry)) return on_hello(*hello, origin, now);
  if (const auto* reset = std::get_if<Reset>(&entry)) return on_reset(reset->key, reset->number, now);
  if (const auto* clone = std::get_if<Clone>(&entry)) return on_clone(*clone, now);
  if (const auto* order = std::get_if<KeyOrder>(&entry)) return on_order(*order, now);
  if (const auto* digest = std::get_if<OrdersDigest>(&entry)) return orders.on_digest(*digest, from, mail, now);
  if (const auto* read = std::get_if<ReadRegisters>(&entry)) {
    if (read->life == origin.incarnation) recovery.on_read(*read, from, registers, mail, now);
    return;
  }
  if (const auto* registered = std::get_if<Registered>(&entry)) return recovery.on_registered(*registered, from, origin.incarnation, registers, now);
  if (const auto* end = std::get_if<RegistersEnd>(&entry)) return recovery.on_end(*end, from, origin.incarnation, mail, now);
  if (const auto* moved = std::get_if<Moved>(&entry)) return on_moved(*moved, from, now);
  if (peers.is_guest(from)) return;  // what it knows of others is no guest's to tell: of itself there is nothing to say that it has not shown
  const auto& member = std::get<Member>(entry);
  const auto rank = roster.rank_of(member.node);
  const auto ago = [&](uint64_t ms) { return now.mono - std::chrono::milliseconds(std::min<uint64_t>(ms, 3'600'000)); };
  if (rank && !is_self(*rank))
    peers.hear_of(*rank, member.incarnation, ago(member.heard_ms_ago),
                  member.asked_ms_ago != 0 ? ago(member.asked_ms_ago) : MonoTime{});
}

void Node::Impl::on_moved(const Moved& moved, uint16_t from, Now now) {
  succession.on_moved(moved, from, mail, now);
  if (succession.knows(from)) mail.speak(from, Which::current);
  take_turn(now);
}

// Another list rules, or this node has left the one before.
void Node::Impl::take_turn(Now now) {
  if (!succession.turned()) return;
  owner.on_turn(now);
  open_floors();
}

void Node::Impl::on_mark(const Mark& mark, uint16_t from, Now now) {
  const Group group = succession.group(roster.groups(mark.key), mark.window, mark.length);
  const bool natural = mark.ballot.counter == 0 && mark.ballot.node == roster.id(group.rank[0]);
  if (!group.contains(peers.self()) || !group.contains(from) || mark.ballot.node != roster.id(from) ||
      (mark.ballot.counter == 0 && (!natural || mark.claim))) {
    ++dropped["not_member"];
    return;
  }
  const auto answer = registers.accept(mark, now);
  if (!answer) return;
  mail.send(from, *answer);
  if (answer->taken()) owner.on_promise(mark.key, mark.window, mark.ballot, now);
}

void Node::Impl::on_hello(const Hello& hello, const Origin& from, Now now) {
  Peer& peer = peers[from.rank];
  if (hello.rules != 0) peer.rules = hello.rules;  // a probe only asks whether anybody is there
  if (!hello.answer) {
    mail.send(from.rank, Hello{true, peer.other_life(), rules_fingerprint, from.incarnation});
    succession.answer_newcomer(from.rank, mail);
    return;
  }
  if (hello.life != incarnation) {
    ++dropped["answer_to_another_life"];
    return;
  }
  peer.answered_hello = true;
  if (hello.remembered != incarnation) recovery.heard_of_life(hello.remembered);
  if (hello.remembered == 0 || hello.remembered == incarnation) return;
  standing.remembered(now);
  open_floors();
}

// Two lives of one name at once double a floor: the later one has no floor, no vote and owns nothing.
void Node::Impl::on_clone(const Clone& clone, Now now) {
  if (clone.told != incarnation || standing.is_clone()) return;
  // Whoever says a node's datagrams again from another address gets such a warning, and may send it on to the node. But
  // there where nobody looks for the name, peers' ordinary datagrams do not come.
  if (clone.elsewhere && reached != MonoTime{} && now.mono - reached < kReachedLately) return;
  // Where its name has another address than the others know yet, what has been there until now may be its own last life. Told so
  // again and again it has no part until they find it here, as one that begins.
  if (clone.elsewhere && config.movable) {
    if (elsewhere_since == MonoTime{} || reached > elsewhere_since) elsewhere_since = now.mono;
    if (now.mono - elsewhere_since < kMovesWithin) {
      standing.doubted(now);
      open_floors();
      return;
    }
  }
  standing.cloned();
  open_floors();
  ++dropped["this_node_is_a_clone"];
}

void Node::Impl::on_reset(const WireId& key, uint64_t number, Now now) {
  if (!around().plausible_reset(number, now)) {
    ++dropped["reset_ahead"];
    return;
  }
  if (!resets.hear(key, number, now.mono)) return;
  lessee.on_reset(key, number, now);
  owner.on_reset(key, number, now);
}

// ---- time --------------------------------------------------------------------------------------------------------------

bool Node::Impl::all_answered() const {
  return std::ranges::all_of(others, [&](uint16_t rank) { return peers[rank].answered_hello; });
}

void Node::Impl::ask(Now now) {
  for (const uint16_t rank : others)
    if (!peers[rank].answered_hello) mail.send(rank, Hello{.rules = rules_fingerprint});
  next_ask = now.mono + (standing.over() ? kAskRulesEvery : kAskEvery);
}

bool Node::look_at_clock(Now now) {
  if (alone() || !impl_->standing.set_back(now, impl_->window_min)) return false;
  impl_->open_floors();
  return true;
}

void Node::use(std::shared_ptr<const RuleSet> rules, Now now) {
  Impl& n = *impl_;
  const std::shared_ptr<const RuleSet> before = std::exchange(n.rules, std::move(rules));  // until nothing points there any more
  for (size_t id = 0; id < before->ids(); ++id)
    CHECK_THAT(same_form(before->by_id(static_cast<uint16_t>(id)).limit, n.rules->by_id(static_cast<uint16_t>(id)).limit));
  n.rules_fingerprint = told_fingerprint(n.config, *n.rules);
  n.window_min = shortest_window(*n.rules);
  n.orders_seen = 0;
  if (alone()) return;
  n.lessee.use_rules();
  n.owner.use_rules();
  // Each other is told of them, and asked for its own, until it answers.
  for (const uint16_t rank : n.others) n.peers[rank].answered_hello = false;
  n.next_ask = now.mono;
}

void Node::use(const Pace& pace, Now now) {
  Impl& n = *impl_;
  n.pace = pace;
  n.peers.use(pace.sync_interval);
  n.owner.use_pace();
  n.next_sync = std::min(n.next_sync, now.mono + pace.sync_interval);
  n.next_gossip = std::min(n.next_gossip, n.next_sync);
}

void Node::tick(Now now) {
  Impl& n = *impl_;
  if (alone()) return;
  look_at_clock(now);
  if (n.standing.tick(now, n.all_answered())) n.open_floors();
  if (now.mono >= n.next_ask) {
    if (n.all_answered())
      n.next_ask = MonoTime::max();
    else
      n.ask(now);
  }
  n.succession.tick(n.peers, now);
  n.take_turn(now);
  if (now.mono >= n.next_gossip) n.gossip(now);
  n.recovery.tick(n.mail, now);
  n.ready = n.ready || (n.standing.over() && (n.recovery.complete() || now.mono - n.started > kReadyAtLast));
  if (now.mono < n.next_sync) return;
  n.next_sync = std::max(n.next_sync + n.pace.sync_interval, now.mono + n.pace.sync_interval / 2);
  n.lessee.tick(now);
  n.deliver_local(now);
  n.owner.tick(now);
  n.registers.expire(now);
  n.orders.tick(n.mail, now.wall);
}

MonoTime Node::next_tick() const {
  if (alone()) return MonoTime::max();
  return std::min({impl_->next_sync, impl_->next_gossip, impl_->next_ask, impl_->lessee.next_urgent()});
}

void Node::Impl::deliver_local(Now now) {
  Entry entry;
  while (mail.pop_local(entry)) handle(entry, {peers.self(), incarnation, 0, now.mono}, now);
}

void Node::flush(Now now) {
  if (alone()) return;
  impl_->look_at_orders(now);
  if (impl_->config.upstream != nullptr)
    for (const WireId& key : impl_->config.upstream->take_woken()) impl_->owner.on_woken(key, now);
  impl_->lessee.send_urgent(now);
  impl_->deliver_local(now);
  impl_->mail.flush(impl_->peers, now);
}

void Node::leave(Now now) {
  if (alone()) return;
  impl_->lessee.leave(now);
  impl_->deliver_local(now);
}

std::vector<Outgoing> Node::take_outbox() { return impl_->mail.take(); }

std::vector<Wake> Node::take_wakes() { return impl_->lessee.take_wakes(); }

bool Node::alone() const { return impl_->alone(); }

bool Node::ready() const { return alone() || impl_->ready; }

std::optional<Tenure> Node::tenure_to_keep() const { return impl_->succession.to_keep(); }

void Node::tenure_kept(const Tenure& tenure, Now now) {
  impl_->succession.kept(tenure, now);
  impl_->take_turn(now);
}

const Tenure& Node::tenure() const { return impl_->succession.tenure(); }

const Roster& Node::roster() const { return impl_->roster; }

bool Node::is_guest(uint16_t rank) const { return impl_->peers.is_guest(rank); }

}  // namespace tally
