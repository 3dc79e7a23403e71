// Of the lessee: a token bucket whose tokens a region draws and issues (cluster/upstream.h).
#include <algorithm>

#include "cluster/lessee.h"

namespace tally {

std::optional<Lessee::RunningLease> Lessee::running_lease(const WireId& key, Now now) const {
  const Account* const account = accounts_.find(key);
  if (account == nullptr || !lease_runs(*account, now)) return std::nullopt;
  return RunningLease{account->lease.serial, account->lease.end};
}

void Lessee::hold(const WireId& key, uint64_t amount) {
  if (Account* account = accounts_.find(key)) account->lease.held += amount;
}

void Lessee::spent(const WireId& key, uint64_t amount) {
  Account* account = accounts_.find(key);
  if (account == nullptr) return;
  activate(*account);
  account->lease.held = minus(account->lease.held, amount);
  if (!account->pool_low()) return;
  account->tell_used = true;
  make_urgent(*account);
}

uint64_t Lessee::put_back(const WireId& key, uint64_t amount, Now now) {
  Account* account = accounts_.find(key);
  if (account == nullptr || !lease_runs(*account, now)) return 0;
  activate(*account);
  LeaseAccount& lease = account->lease;
  amount = std::min({amount, lease.held, minus(LeaseCell::kAmountMax, lease.granted + lease.refunded)});
  lease.held -= amount;
  lease.refunded += amount;
  limiter_.slots().raise_lease(account->slot, lease.tag, lease.ceiling(), lease.end);
  tell_workers(*account, now);
  return amount;
}

}  // namespace tally
