// Who is to be asked instead: the slots of a Redis Cluster, of which names they are, who has them, and what a server says that has them
// no more; the master that a Sentinel names.
//
// Thread rule: pure functions. What a server says is bytes from outside: any give something, or nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "config/books_url.h"

struct redisReply;

namespace tally {

// Below 16,384. Of the part in braces where there is one, else of all of the name.
uint16_t slot_of(std::string_view name);

struct SlotRange {
  uint16_t first = 0, last = 0;
  RedisAddress master;
  friend bool operator==(const SlotRange&, const SlotRange&) = default;
};
// What CLUSTER SLOTS answers. `asked`: whose address is meant where none is told. Ranges whose master has an
// address that is not known are left out.
std::vector<SlotRange> read_slots(const redisReply& reply, const RedisAddress& asked);

struct Redirection {
  bool moved = false;  // for good, and with it all names of the slot; else this one call (ASK), after ASKING
  RedisAddress to;
  friend bool operator==(const Redirection&, const Redirection&) = default;
};
// nullopt: it is another error.
std::optional<Redirection> read_redirection(std::string_view error, const RedisAddress& asked);

// What SENTINEL get-master-addr-by-name answers; nullopt: it knows none.
std::optional<RedisAddress> read_master(const redisReply& reply);

}  // namespace tally
