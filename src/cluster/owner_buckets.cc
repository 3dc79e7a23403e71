// The owner's part for token buckets: reports, leases and marks in time (see bucket_book.h).
#include <algorithm>

#include "cluster/owner.h"

namespace tally {

void Owner::report_bucket(Key& key, const Report& report, const Origin& from, Now now) {
  const Duration lease = lease_of(report.terms), span = span_of(report.terms);
  key.terms = report.terms;
  if (around_.upstream != nullptr) look_above_bucket(key, report.has_ballot ? report.ballot : Ballot{}, now);
  drop_bucket_if_over(key, now);
  if (!key.bucket && natural(key, 0) && find_contest(key, 0) == nullptr &&
      around_.standing.may_vote_bucket(keep_of(span), now) && around_.registers.may_begin(key.id, 0, now)) {
    // Where only the sketch may know of earlier books, this begins with all that they may have issued.
    const auto told = around_.registers.look(key.id, 0, now);
    const MonoTime base = around_.succession.bucket_base(key.groups, keep_of(span));
    const bool remembers_all = around_.standing.remembers(now) == Duration::max() && base == MonoTime::min();
    const MonoTime tat = std::max(base, now.mono + Duration(told ? static_cast<int64_t>(told->mark) : 0));
    key.bucket.emplace(report.terms, group(key, 0), Ballot{0, around_.roster.id(around_.self)}, lease, around_.recent(), numbers_,
                       BucketBook::Start{tat, now.mono, remembers_all ? Duration::max() : span});
  }
  if (!key.bucket) {
    heard_ballot(key, 0, std::max(report.ballot, report.highest), now);
    claim_if_lost(key, 0, report.insists, now);
    if (!key.bucket) return refuse(key, report, from, now);
  }
  key.bucket->use_terms(report.terms, lease);
  const LineKey line_key{around_.peers.id(from.rank), from.incarnation, report.line};
  BucketBook::Leased* leased = key.bucket->find(line_key);
  if (leased == nullptr && key.bucket->lines().size() >= kLinesMax) {
    ++dropped_["lines_full"];
    return;
  }
  if (leased == nullptr) {
    const MonoTime forgot = std::max({now.mono - line_kept(), started_, key.forgot});
    leased = &key.bucket->open(line_key, from.rank, from.sent_after > forgot ? forgot : now.mono);
  }
  leased->line.rank = from.rank;
  key.bucket->merge(*leased, report, now.mono);
  const bool same_books = report.has_ballot && report.ballot == key.bucket->ballot();
  const uint64_t given = key.bucket->give(*leased, same_books ? report.given : 0, from.sent_after, now.mono);
  if (given > 0 && around_.upstream != nullptr) around_.upstream->refund(key.id, key.rule, key.terms, given, now);
  issue_bucket(key, *leased, now);
  raise_mark_bucket(key, now);
  if (leased->line.turned_away) issue_bucket(key, *leased, now);  // in a group of one the mark is in force at once
  send_bucket_grant(key, *leased, report.stamp, now);
  serve_turned_away_bucket(key, now);
  if (around_.upstream != nullptr) ask_above_bucket(key, now);
}

uint64_t Owner::issue_bucket(Key& key, BucketBook::Leased& leased, Now now) {
  if (around_.upstream != nullptr) draw_bucket(key, leased, now);
  return key.bucket->issue(leased, now.mono);
}

void Owner::send_bucket_grant(Key& key, BucketBook::Leased& leased, uint64_t stamp, Now now) {
  BucketBook& bucket = *key.bucket;
  const Line& line = leased.line;
  const uint64_t cost = std::max(line.waiting_min, static_cast<uint64_t>(nanos(key.terms.emission)));
  Grant grant;
  grant.key = key.id;
  grant.ballot = bucket.ballot();
  grant.line = line.key.number;
  grant.incarnation = line.key.incarnation;
  grant.granted = line.granted;
  grant.lease = leased.lease;
  // A lease is counted from the sending of the report that it answers; unasked, there is nothing to count from.
  grant.lease_for = stamp != 0 ? leased.length : Duration(0);
  // What the fleet owes, regions and all.
  const Duration ahead = bucket.above() ? bucket.burst_span() - Duration(static_cast<int64_t>(bucket.above()->left)) : bucket.tat() - now.mono;
  grant.tat_ahead = std::max(Duration(0), ahead);
  grant.pool = level(static_cast<uint64_t>(nanos(bucket.room(now.mono))), static_cast<uint64_t>(nanos(bucket.burst_span())));
  grant.demand_share = bucket.demand_share(leased, now.mono, around_.shares_for());
  grant.backed = backed(key, bucket, now);
  grant.reset = key.reset;
  grant.stamp = stamp;
  grant.exhausted = bucket.exhausted(cost, now.mono);
  const Duration regrows = std::max(Duration(1), bucket.regrows_after(cost, now.mono));
  if (grant.exhausted) {
    grant.ask_again = regrows;
  } else if (line.turned_away && bucket.above() && grant.backed) {
    grant.ask_again = around_.pace.sync_interval;  // the level above was asked, and this line is told when there is more
  } else if (line.turned_away && nanos(bucket.room(now.mono)) < static_cast<int64_t>(std::min<uint64_t>(cost, INT64_MAX))) {
    grant.ask_again = std::min(around_.pace.sync_interval, regrows);
    ++denied_under_limit_;
  }
  tell(line, grant);
}

void Owner::serve_turned_away_bucket(Key& key, Now now) {
  for (size_t i = 0; i < key.bucket->lines().size(); ++i) {
    BucketBook::Leased& leased = key.bucket->lines()[i];
    const Line& line = leased.line;
    if (!line.turned_away || !key.bucket->is_recent(leased, now.mono)) continue;
    // Its own stamp still counts: the lease runs from when it asked.
    if (issue_bucket(key, leased, now) > 0) send_bucket_grant(key, leased, line.stamp, now);
  }
}

// The members may have forgotten it. Before anything else is said of it: a new mark that they accept would make it own again what
// others have issued from meanwhile.
void Owner::drop_bucket_if_over(Key& key, Now now) {
  if (key.bucket && now.mono >= key.bucket->owned_until()) drop_bucket(key, now);
}

void Owner::tick_bucket(Key& key, Now now) {
  resend_claim(key, 0, now);
  drop_bucket_if_over(key, now);
  if (!key.bucket) return;
  if (around_.upstream != nullptr) {
    tick_bucket_below(key, now);
  } else {
    if (key.bucket->mark_pending()) send_mark_bucket(key, now);
    raise_mark_bucket(key, now);
    serve_turned_away_bucket(key, now);
  }
  // Lines of lives that are over, and of keys that fell silent, hold nothing: forget them.
  std::erase_if(key.bucket->lines(), [&](const BucketBook::Leased& leased) {
    return leased.lease == 0 && now.mono - leased.line.heard > line_kept();
  });
}

void Owner::raise_mark_bucket(Key& key, Now now) {
  const Duration ahead = around_.pace.sync_interval * 2 + around_.peers.group_round_trip(group(key));
  if (key.bucket->next_mark(now.mono, ahead)) send_mark_bucket(key, now);
}

void Owner::send_mark_bucket(Key& key, Now now) {
  const auto& proposal = key.bucket->proposal();
  if (proposal.mark <= now.mono) return;
  Mark mark;
  mark.key = key.id;
  mark.ballot = key.bucket->ballot();
  mark.mark = static_cast<uint64_t>(nanos(proposal.mark - now.mono));
  mark.length = keep_of(key.bucket->longest_span());
  mark.number = proposal.number;
  send_to_group(key, mark, now);
}

}  // namespace tally
