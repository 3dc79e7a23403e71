#include "daemon/peer_seal.h"

#include <sodium.h>

namespace tally {

std::span<const uint8_t> PeerSeal::seal(std::span<const uint8_t> content) {
  if (!secret_) return content;
  SealNonce nonce;
  randombytes_buf(nonce.data(), nonce.size());
  return tally::seal(content, secret_->seal, nonce, sealed_);
}

std::optional<std::span<const uint8_t>> PeerSeal::open(std::span<const uint8_t> bytes) {
  if (!secret_) {
    if (!looks_sealed(bytes)) return bytes;
    ++dropped_sealed_;
    return std::nullopt;
  }
  const Opened opened = tally::open(bytes, *secret_, opened_);
  if (opened.error != OpenError::none) {
    ++dropped_[static_cast<size_t>(opened.error)];
    return std::nullopt;
  }
  ++opened_by_[opened.key->fingerprint()];
  return opened.content;
}

Result<bool> PeerSeal::replace(const Secret& secret) {
  CHECK_THAT(secret_.has_value());
  if (secret.id != secret_->id) return Failure{kOtherFleetsSecret};
  secret_ = secret;
  std::erase_if(opened_by_, [&](const auto& count) { return secret_->find(count.first) == nullptr; });
  return true;
}

std::vector<PeerSeal::KeyUse> PeerSeal::keys() const {
  std::vector<KeyUse> all;
  const auto add = [&](const SealKey& key, const char* use) {
    const auto n = opened_by_.find(key.fingerprint());
    all.push_back({key.fingerprint_text(), use, n == opened_by_.end() ? 0 : n->second});
  };
  if (!secret_) return all;
  add(secret_->seal, "seal");
  if (secret_->next) add(*secret_->next, "next");
  if (secret_->old) add(*secret_->old, "old");
  return all;
}

void PeerSeal::add_dropped(NodeStats& stats) const {
  for (size_t i = 1; i < kOpenErrors; ++i)
    if (dropped_[i] > 0)
      stats.dropped[std::string(open_error_name(static_cast<OpenError>(i)))] += dropped_[i];
  if (dropped_sealed_ > 0) stats.dropped["sealed"] += dropped_sealed_;
}

}  // namespace tally
