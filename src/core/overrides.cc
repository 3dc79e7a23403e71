// Addresses of both families are 128 bits here, IPv4 as IPv6 has it (::ffff:a.b.c.d). No block of IPv6 that is shorter than 96 bits
// covers an address of IPv4: "::/0" is all of IPv6.
#include "core/overrides.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <unordered_map>

#include "core/patterns.h"

namespace tally {
namespace {

constexpr unsigned kMappedBits = 96;
constexpr std::array<uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

struct Block {
  uint64_t high = 0, low = 0;
  unsigned length = 0;  // bits, 0 to 128
  friend bool operator==(const Block&, const Block&) = default;
};
struct BlockHash {
  size_t operator()(const Block& block) const { return static_cast<size_t>(mix(block.high ^ mix(block.low ^ mix(block.length)))); }
};

uint64_t word_of(const uint8_t* bytes) {
  uint64_t word = 0;
  for (int i = 0; i < 8; ++i) word = word << 8 | bytes[i];
  return word;
}

bool is_ipv4(const Block& address) { return address.high == 0 && address.low >> 32 == 0xffff; }

// The first `bits` of 64.
uint64_t masked(uint64_t word, unsigned bits) { return bits == 0 ? 0 : word & ~uint64_t{0} << (64 - bits); }

Block cut(const Block& address, unsigned length) {
  return {masked(address.high, std::min(length, 64u)), length > 64 ? masked(address.low, length - 64) : 0, length};
}

// As a block of 128 bits; nullopt: the text is no address.
std::optional<Block> address_of(std::string_view text) {
  char copy[INET6_ADDRSTRLEN];
  if (text.size() >= sizeof copy || text.find('\0') != std::string_view::npos) return std::nullopt;
  std::memcpy(copy, text.data(), text.size());
  copy[text.size()] = '\0';
  std::array<uint8_t, 16> bytes{};
  std::ranges::copy(kMapped, bytes.begin());
  if (::inet_pton(AF_INET, copy, bytes.data() + kMapped.size()) != 1 && ::inet_pton(AF_INET6, copy, bytes.data()) != 1) return std::nullopt;
  return Block{word_of(bytes.data()), word_of(bytes.data() + 8), 128};
}

std::string text_of(const Block& block) {
  std::array<uint8_t, 16> bytes{};
  for (size_t i = 0; i < 16; ++i) bytes[i] = static_cast<uint8_t>((i < 8 ? block.high : block.low) >> (56 - i % 8 * 8));
  const bool ipv4 = block.length >= kMappedBits && is_ipv4(block);
  char text[INET6_ADDRSTRLEN];
  ::inet_ntop(ipv4 ? AF_INET : AF_INET6, ipv4 ? bytes.data() + kMapped.size() : bytes.data(), text, sizeof text);
  return std::string(text) + "/" + std::to_string(block.length - (ipv4 ? kMappedBits : 0));
}

bool is_made_of(std::string_view text, std::string_view letters) {
  return !text.empty() && text.find_first_not_of(letters) == std::string_view::npos;
}

// Whether a key means a block of addresses, rightly written or not: keys such as "/api/1" or "a/b" do not.
bool means_block(std::string_view key) {
  const size_t slash = key.rfind('/');
  if (slash == std::string_view::npos || !is_made_of(key.substr(slash + 1), "0123456789")) return false;
  const std::string_view address = key.substr(0, slash);
  return (is_made_of(address, "0123456789.") && address.find('.') != std::string_view::npos) ||
         (is_made_of(address, "0123456789abcdefABCDEF:.") && address.find(':') != std::string_view::npos);
}

// Requires means_block(key). `why`: what is wrong with it, where it is none.
std::optional<Block> block_of(std::string_view key, std::string& why) {
  const size_t slash = key.rfind('/');
  const std::string_view digits = key.substr(slash + 1);
  const auto address = address_of(key.substr(0, slash));
  if (!address) {
    why = "is no block of addresses: what stands before the '/' is no address";
    return std::nullopt;
  }
  const bool ipv4 = is_ipv4(*address) && key.find(':') == std::string_view::npos;
  const unsigned most = ipv4 ? 32 : 128;
  const unsigned length = digits.size() <= 3 ? static_cast<unsigned>(std::stoul(std::string(digits))) : most + 1;
  if (length > most) {
    why = "is no block of addresses: the length is 0 to " + std::to_string(most) + " bits";
    return std::nullopt;
  }
  const Block block = cut(*address, length + (ipv4 ? kMappedBits : 0));
  if (block.high != address->high || block.low != address->low) {
    why = "is no block of addresses: the address has more bits than that; the block that it lies in is \"" + text_of(block) + "\"";
    return std::nullopt;
  }
  return block;
}

}  // namespace

struct Overrides::Index {
  Patterns patterns;
  std::unordered_map<Block, uint32_t, BlockHash> blocks;
  std::vector<unsigned> lengths;  // of the blocks, each once, falling
  std::vector<bool> addresses;    // by place: written as an address, without a length
  size_t limited = 0;             // entries with a limit
  std::vector<Entry> written;
  std::string file;
};

struct Overrides::Found {
  uint32_t place = 0;
  std::optional<Block> block;
  std::optional<size_t> prefix;  // its length
};

Overrides::Overrides() : index_(std::make_shared<Index>()) {}
Overrides::~Overrides() = default;

std::string Overrides::add(std::string_view key, const Override& override) {
  if (key.empty()) return "a key has 1 byte or more";
  const auto place = static_cast<uint32_t>(values_.size());
  bool fresh = false;
  const auto address = address_of(key);
  if (address || means_block(key)) {
    std::string why;
    const auto block = address ? address : block_of(key, why);
    if (!block) return why;
    fresh = index_->blocks.try_emplace(*block, place).second;
    const auto at = std::ranges::lower_bound(index_->lengths, block->length, std::ranges::greater());
    if (at == index_->lengths.end() || *at != block->length) index_->lengths.insert(at, block->length);
  } else {
    fresh = index_->patterns.add(key, place) == nullptr;
  }
  if (!fresh) return "stands in these overrides already";
  values_.push_back(override);
  index_->addresses.push_back(address.has_value());
  index_->limited += override.treatment == Treatment::limited;
  std::string text(key);
  for (const int64_t n : {static_cast<int64_t>(override.treatment), int64_t{override.limit.limit}, nanos(override.limit.emission)})
    text += '|' + std::to_string(n);
  fingerprint_ += keyed_hash(text, kPublicIdKey);
  return "";
}

std::optional<std::string> Overrides::meant_by(std::string_view key) {
  if (address_of(key) || means_block(key) || Patterns::is_prefix(key)) return std::nullopt;
  const std::string_view blanks = " \t\r\n";
  const size_t first = key.find_first_not_of(blanks);
  if (first == std::string_view::npos) return std::nullopt;
  const std::string_view bare = key.substr(first, key.find_last_not_of(blanks) - first + 1);
  const auto is_block = [](std::string_view text) { return address_of(text) || means_block(text); };
  if (bare.size() < key.size()) return is_block(bare) ? std::optional(std::string(bare)) : meant_by(bare);
  if (const size_t bracket = bare.find(']'); bare.starts_with('[') && bracket != std::string_view::npos) {
    const std::string_view length = bare.substr(bracket + 1);
    const std::string text = std::string(bare.substr(1, bracket - 1)) + std::string(length);
    return (length.empty() || length.starts_with('/')) && is_block(text) ? std::optional(text) : std::nullopt;
  }
  const size_t mark = bare.find_first_of("/-%");
  if (mark == std::string_view::npos || !address_of(bare.substr(0, mark))) return std::nullopt;
  std::string_view rest = bare.substr(mark + 1);
  if (bare[mark] == '-') return address_of(rest) ? std::optional(std::string()) : std::nullopt;
  if (bare[mark] == '%') {  // a zone
    const size_t slash = rest.find('/');
    return slash == std::string_view::npos ? std::nullopt : std::optional(std::string(bare.substr(0, mark)) + std::string(rest.substr(slash)));
  }
  const auto mask = address_of(rest);
  if (!mask || !is_ipv4(*mask)) return std::nullopt;
  const auto bits = static_cast<uint32_t>(mask->low);
  const int length = std::countl_one(bits);
  if (length < 32 && bits << length != 0) return std::string();  // a mask with holes
  return std::string(bare.substr(0, mark)) + "/" + std::to_string(length);
}

void Overrides::came_from(std::vector<Entry> written, std::string file) {
  index_->written = std::move(written);
  index_->file = std::move(file);
}

bool Overrides::find(std::string_view key, Found& found) const {
  const Index& index = *index_;
  if (const uint32_t* place = index.patterns.exact(key)) {
    found.place = *place;
    return true;
  }
  if (!index.lengths.empty())
    if (const auto address = address_of(key)) {
      const unsigned least = is_ipv4(*address) ? kMappedBits : 0;
      for (const unsigned length : index.lengths) {
        if (length < least) break;
        const auto block = index.blocks.find(cut(*address, length));
        if (block == index.blocks.end()) continue;
        found.place = block->second;
        found.block = block->first;
        return true;
      }
    }
  return index.patterns.visit_prefixes(key, [&](uint32_t place, size_t length) {
    found.place = place;
    found.prefix = length;
    return true;
  });
}

const Override* Overrides::find(std::string_view key) const {
  Found found;
  return find(key, found) ? &values_[found.place] : nullptr;
}

std::string Overrides::key_of(std::string_view key) const {
  Found found;
  if (!find(key, found)) return "";
  if (found.block) {
    const std::string text = text_of(*found.block);
    return index_->addresses[found.place] ? text.substr(0, text.rfind('/')) : text;
  }
  return found.prefix ? std::string(key.substr(0, *found.prefix)) + "*" : std::string(key);
}

bool Overrides::limits_nothing() const {
  return index_->limited == 0 && index_->patterns.visit_prefixes("", [](uint32_t, size_t) { return true; });
}

const std::vector<Overrides::Entry>& Overrides::written() const { return index_->written; }
const std::string& Overrides::file() const { return index_->file; }

std::shared_ptr<const Overrides> Overrides::with_floors(const FloorTerms& terms) const {
  const auto copy = std::make_shared<Overrides>(*this);
  for (Override& value : copy->values_)
    if (value.treatment == Treatment::limited) set_floor(value.limit, terms);
  return copy;
}

}  // namespace tally
