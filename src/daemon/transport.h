// By which way a peer is spoken to: UDP, and TCP as long as UDP does not pass.
//
// Thread rule: one owner. Pure: time and what happened in, what is to be done out; no socket, no clock, no dice of its own.
//
// A connection is opened by a node that has not heard a peer by UDP for a while. As long as there is one, both ends show once a second by
// UDP that they live (a knock), and say by TCP whether they hear the other by UDP. So each end knows of both directions, and both use
// TCP until both directions pass: where one is blocked, the end that hears well learns from the connection that the other does not.
// The echoes in the headers of datagrams do not tell that: they name the newest datagram, which on a busy pair is one that came by TCP.
#pragma once

#include <algorithm>

#include "base/time.h"

namespace tally {

class Transport {
 public:
  static constexpr Duration kUdpSilent = std::chrono::seconds(3);      // not heard by UDP for so long: TCP is tried
  static constexpr Duration kKnockEvery = std::chrono::seconds(1);     // while there is a connection
  static constexpr Duration kLately = std::chrono::milliseconds(2500);  // two knocks may be lost
  static constexpr Duration kSteady = std::chrono::seconds(3);         // UDP has to pass for so long before it is used again,
  static constexpr Duration kSteadyMost = std::chrono::minutes(5);     // and longer where it failed again within
  static constexpr Duration kCalm = std::chrono::minutes(1);           // this
  static constexpr Duration kLinger = std::chrono::seconds(10);        // a connection that nobody uses is kept for so long
  static constexpr Duration kStreamSilent = std::chrono::seconds(5);   // it is broken, or nobody of ours is there
  static constexpr Duration kDialAgain = std::chrono::seconds(1);      // doubled from failure to failure, up to
  static constexpr Duration kDialAgainMost = std::chrono::seconds(10);

  // What happened.
  void said(MonoTime now);       // something to the peer, by whatever way
  void heard_udp(MonoTime now);  // something good of the peer's
  void heard_tcp(MonoTime now);  // the same
  void told_heard(MonoTime now);  // the peer hears us by UDP, it says by TCP

  enum class Line : uint8_t { none, dialing, open };
  struct Due {
    bool dial = false;   // where nothing comes of it, the next look finds no line
    bool close = false;
    bool knock_udp = false, knock_tcp = false;
    bool tell_heard = false;  // by TCP
  };
  // To be asked some times a second. `line`: of the connections to the peer the best. `patience`: kUdpSilent or more, where peers speak
  // more seldom. `dice`: in [0, 1).
  Due look(MonoTime now, Line line, Duration patience, double dice);
  bool tcp() const { return tcp_; }  // the peer is spoken to by TCP

 private:
  void opened(MonoTime now);
  void closed(MonoTime now, double dice);
  void use_tcp(MonoTime now);
  void watch_udp(MonoTime now);
  bool lately(MonoTime what, MonoTime now) const { return what != MonoTime{} && now - what < kLately; }

  bool open_ = false, dialing_ = false, tcp_ = false;
  MonoTime said_first_{}, said_{};  // epoch, here and below: never
  MonoTime heard_udp_{}, told_heard_{};
  MonoTime opened_{}, heard_tcp_{};
  MonoTime passes_since_{};  // in both directions
  MonoTime udp_since_{};     // by UDP again
  MonoTime used_{};          // the connection, by the peer
  MonoTime knocked_{};
  Duration steady_ = kSteady;
  Duration dial_again_ = kDialAgain;
  MonoTime dial_not_before_{};
};

}  // namespace tally
