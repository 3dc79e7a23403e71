#include "config/peer_entry.h"

#include <algorithm>
#include <charconv>
#include <vector>

#include "config/json_tree.h"
#include "config/values.h"

namespace tally {
namespace {

constexpr size_t kNameMax = 253;  // of DNS, without the dot at the end
constexpr size_t kLabelMax = 63;

Failure bad_peer(std::string_view text, std::string_view why) {
  return {
      "must be an address or a name with a port, such as \"10.0.0.1:8381\", \"[2001:db8::1]:8381\" or "
      "\"edge-1.example.org:8381\", or "
      "a name of SRV records such as \"_tally._udp.edge-1.example.org\", got " +
      quoted(text) + ": " + std::string(why)};
}

std::vector<std::string_view> labels_of(std::string_view name) {
  if (name.ends_with('.')) name.remove_suffix(1);
  std::vector<std::string_view> labels;
  for (size_t dot; (dot = name.find('.')) != std::string_view::npos; name.remove_prefix(dot + 1))
    labels.push_back(name.substr(0, dot));
  labels.push_back(name);
  return labels;
}

bool all_digits(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

// No name ends with a number: what does is an address, or was meant to be one.
bool is_numeric(std::string_view host) {
  return host.find_first_of("[]:") != std::string_view::npos || all_digits(labels_of(host).back());
}

// "" where it may be a name.
std::string wrong_name(std::string_view name) {
  if (name.empty()) return "the address is missing";
  if (name.size() - (name.ends_with('.') ? 1 : 0) > kNameMax)
    return "a name has at most " + std::to_string(kNameMax) + " characters";
  if (std::ranges::any_of(name, [](char c) { return c >= 'A' && c <= 'Z'; }))
    return "write the name in lower case: nodes are called by the text of their entry";
  for (const std::string_view label : labels_of(name)) {
    const bool allowed = std::ranges::all_of(label, [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    });
    if (label.empty() || label.size() > kLabelMax || !allowed || label.front() == '-' || label.back() == '-')
      return "this is no address and no name: between dots stand 1 to 63 letters, digits, '-' or '_'";
  }
  return "";
}

Result<PeerEntry> parse_service(std::string_view text) {
  if (text.find(':') != std::string_view::npos)
    return bad_peer(text, "a name of SRV records has no port here: each of the records has one");
  if (const std::string wrong = wrong_name(text); !wrong.empty()) return bad_peer(text, wrong);
  const auto labels = labels_of(text);
  if (labels.size() < 3 || labels[0].size() < 2 || labels[1] != "_udp")
    return bad_peer(text, "a name of SRV records is \"_SERVICE._udp.NAME\"");
  return PeerEntry{PeerEntry::Kind::service, std::string(text), 0, false};
}

}  // namespace

Result<PeerEntry> parse_peer(std::string_view text) {
  if (text.starts_with('_')) return parse_service(text);
  const size_t colon = text.rfind(':');
  const std::string_view host = text.substr(0, colon);
  if (is_numeric(host)) {
    const auto endpoint = parse_endpoint(text);
    if (!endpoint) return Failure{endpoint.error()};
    return PeerEntry{PeerEntry::Kind::numeric, endpoint.value().host, endpoint.value().port,
                     endpoint.value().loopback};
  }
  if (colon == std::string_view::npos) return bad_peer(text, "the port is missing");
  if (const std::string wrong = wrong_name(host); !wrong.empty()) return bad_peer(text, wrong);
  const std::string_view digits = text.substr(colon + 1);
  PeerEntry entry{PeerEntry::Kind::name, std::string(host), 0, false};
  const auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), entry.port);
  if (!is_unsigned_decimal(digits) || failed != std::errc() || end != digits.data() + digits.size())
    return bad_peer(text, "the port must be 1 to 65535");
  return entry;
}

}  // namespace tally
