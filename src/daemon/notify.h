// What systemd is told (sd_notify's protocol: a datagram to $NOTIFY_SOCKET). Nothing where nobody asked.
//
// Thread rule: any thread after construction.
#pragma once

#include <string>
#include <string_view>

namespace tally {

inline constexpr std::string_view kServing = "READY=1\nSTATUS=serving";

class Notifier {
 public:
  Notifier();  // reads NOTIFY_SOCKET: before threads start
  // `state` as in sd_notify(3): "READY=1", "STATUS=...", "STOPPING=1", several separated by newlines.
  void send(std::string_view state) const;

 private:
  std::string path_;
};

}  // namespace tally
