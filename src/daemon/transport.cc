#include "daemon/transport.h"

namespace tally {

void Transport::said(MonoTime now) {
  if (said_first_ == MonoTime{}) said_first_ = now;
  said_ = now;
}

void Transport::heard_udp(MonoTime now) {
  heard_udp_ = now;
  dial_again_ = kDialAgain;
}

void Transport::heard_tcp(MonoTime now) {
  opened(now);
  heard_tcp_ = now;
  used_ = now;
  dial_again_ = kDialAgain;
}

void Transport::told_heard(MonoTime now) {
  told_heard_ = now;
  heard_tcp_ = now;
}

void Transport::opened(MonoTime now) {
  if (open_) return;
  open_ = true;
  dialing_ = false;
  opened_ = now;
  told_heard_ = MonoTime{};  // it said so on another connection
  use_tcp(now);
}

void Transport::closed(MonoTime now, double dice) {
  dial_not_before_ = now + Duration(static_cast<int64_t>(static_cast<double>(nanos(dial_again_)) * (0.5 + dice)));
  dial_again_ = std::min(dial_again_ * 2, kDialAgainMost);
  open_ = dialing_ = tcp_ = false;
}

// Where UDP fails again soon after it passed, it is trusted later and later: it may pass now and then, or only what is small.
void Transport::use_tcp(MonoTime now) {
  if (tcp_) return;
  tcp_ = true;
  passes_since_ = MonoTime{};
  const bool again = udp_since_ != MonoTime{} && now - udp_since_ < kCalm;
  steady_ = again ? std::min(steady_ * 2, kSteadyMost) : kSteady;
}

void Transport::watch_udp(MonoTime now) {
  if (!lately(heard_udp_, now) || !lately(told_heard_, now)) return use_tcp(now), void(passes_since_ = MonoTime{});
  if (passes_since_ == MonoTime{}) passes_since_ = now;
  if (!tcp_ || now - passes_since_ < steady_) return;
  tcp_ = false;
  udp_since_ = now;
}

Transport::Due Transport::look(MonoTime now, Line line, Duration patience, double dice) {
  Due due;
  if (line == Line::open) opened(now);
  if (line == Line::none && (open_ || dialing_)) closed(now, dice);
  if (!open_) {
    const bool asked = said_ != MonoTime{} && now - said_ < patience;
    due.dial = !dialing_ && asked && now - std::max(heard_udp_, said_first_) >= patience && now >= dial_not_before_;
    dialing_ = dialing_ || due.dial;
    return due;
  }
  watch_udp(now);
  const bool broken = now - std::max(opened_, heard_tcp_) >= kStreamSilent;
  const bool unused = !tcp_ && now - std::max(udp_since_, used_) >= kLinger;
  if (broken || unused) {
    due.close = true;
    return due;
  }
  if (now - knocked_ < kKnockEvery) return due;
  knocked_ = now;
  due.knock_udp = true;
  due.knock_tcp = tcp_;
  due.tell_heard = lately(heard_udp_, now);
  return due;
}

}  // namespace tally
