//   datagram  magic (2) | version (1) | header | entry ... | keyed_hash of all before (8)
//   header    length (varint) | body
//   entry     type (varint) | length (varint) | body; of the types that come in lists: body | body of each ...
//   body      presence (varint) | fields (wire_fields.h)
//
// Numbers are little-endian base-128 varints, signed ones zig-zag. Each optional field and each boolean owns
// one bit of the presence word. A newer version appends fields, hence bits; an older reader skips both.
#include "cluster/wire.h"

#include <algorithm>
#include <concepts>
#include <cstring>
#include <utility>

#include "base/fail.h"
#include "cluster/codec.h"
#include "cluster/wire_fields.h"

namespace tally {
namespace {

using namespace codec;

constexpr uint8_t kMagic[2] = {'T', 'y'};
constexpr size_t kPrefixBytes = sizeof kMagic + 1;
constexpr size_t kHashBytes = 8;

// The types on the wire, by place in Entry. Never renumbered, never used again.
constexpr uint8_t kTypes[kEntryKinds] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
constexpr std::string_view kKindNames[kEntryKinds] = {"report",         "grant",      "mark",          "accepted", "member",    "hello",        "reset", "clone",
                                                      "read_registers", "registered", "registers_end", "moved",    "key_order", "orders_digest"};
static_assert(std::same_as<Entry, std::variant<Report, Grant, Mark, Accepted, Member, Hello, Reset, Clone, ReadRegisters,
                                               Registered, RegistersEnd, Moved, KeyOrder, OrdersDigest>>);

// --- datagrams ---

template <typename T>
bool read_into(Datagram& out, Reader body) {
  T& e = std::get<T>(out.entries.emplace_back(std::in_place_type<T>));
  body.read_presence();
  fields(body, e, out.header);
  return body.ok();
}

template <Listed T>
bool read_into(Datagram& out, Reader list) {
  T all;
  list.read_presence();
  of_all(list, all, out.header);
  list.skip_unknown();
  while (list.ok() && list.left() > 0) {
    T& e = std::get<T>(out.entries.emplace_back(std::in_place_type<T>, all));
    list.read_presence();
    of_each(list, e, out.header);
    list.skip_unknown();
  }
  return list.ok();
}

bool read_entry(Datagram& out, uint64_t type, Reader body) {
  switch (type) {
    case kTypes[0]:
      return read_into<Report>(out, body);
    case kTypes[1]:
      return read_into<Grant>(out, body);
    case kTypes[2]:
      return read_into<Mark>(out, body);
    case kTypes[3]:
      return read_into<Accepted>(out, body);
    case kTypes[4]:
      return read_into<Member>(out, body);
    case kTypes[5]:
      return read_into<Hello>(out, body);
    case kTypes[6]:
      return read_into<Reset>(out, body);
    case kTypes[7]:
      return read_into<Clone>(out, body);
    case kTypes[8]:
      return read_into<ReadRegisters>(out, body);
    case kTypes[9]:
      return read_into<Registered>(out, body);
    case kTypes[10]:
      return read_into<RegistersEnd>(out, body);
    case kTypes[11]:
      return read_into<Moved>(out, body);
    case kTypes[12]:
      return read_into<KeyOrder>(out, body);
    case kTypes[13]:
      return read_into<OrdersDigest>(out, body);
    default:
      return true;  // a newer node says something that we do not know
  }
}

uint64_t hash_of(std::span<const uint8_t> bytes, const IdKey& id_key) {
  return keyed_hash({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, id_key);
}

}  // namespace

std::string_view entry_kind_name(size_t index) { return index < kEntryKinds ? kKindNames[index] : "unknown"; }

std::string_view decode_error_name(DecodeError error) {
  switch (error) {
    case DecodeError::none:
      return "none";
    case DecodeError::too_short:
      return "too_short";
    case DecodeError::too_long:
      return "too_long";
    case DecodeError::bad_magic:
      return "bad_magic";
    case DecodeError::version:
      return "version";
    case DecodeError::forged:
      return "forged";
    case DecodeError::malformed:
      return "malformed";
  }
  return "unknown";
}

DatagramWriter::DatagramWriter(const Header& header, const IdKey& id_key, size_t bytes_max)
    : header_(header), bytes_max_(bytes_max), key_(id_key) {
  Writer fields_of;
  fields(fields_of, header_);
  const auto body = fields_of.body();
  bytes_.reserve(kDatagramMax);
  bytes_.assign(std::begin(kMagic), std::end(kMagic));
  bytes_.push_back(kWireVersion);
  append_number(body.size());
  append(body);
  header_bytes_ = bytes_.size();
}

void DatagramWriter::append(std::span<const uint8_t> bytes) {
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
}

void DatagramWriter::append_number(uint64_t n) {
  uint8_t number[kVarintMax];
  append({number, put_varint(number, n)});
}

bool DatagramWriter::fits(size_t more) const { return bytes_.size() + more + kHashBytes <= bytes_max_; }

bool DatagramWriter::add(const Entry& entry) {
  return std::visit(
      [&]<typename T>(const T& e) {
        if constexpr (Listed<T>) {
          return add_to_list(e);
        } else {
          Writer writer;
          fields(writer, e, header_);
          const auto body = writer.body();
          if (!fits(1 + varint_bytes(body.size()) + body.size())) return false;
          bytes_.push_back(kTypes[entry.index()]);
          append_number(body.size());
          append(body);
          list_at_ = 0;
          return true;
        }
      },
      entry);
}

template <typename T>
bool DatagramWriter::add_to_list(const T& e) {
  Writer writer;
  of_each(writer, e, header_);
  const T* const list = list_at_ != 0 ? std::get_if<T>(&list_) : nullptr;
  return list != nullptr && together(*list, e) ? lengthen(writer.body()) : begin_list(e, writer.body());
}
template bool DatagramWriter::add_to_list(const Report&);
template bool DatagramWriter::add_to_list(const Grant&);
template bool DatagramWriter::add_to_list(const Mark&);
template bool DatagramWriter::add_to_list(const Accepted&);

template <typename T>
bool DatagramWriter::begin_list(const T& e, std::span<const uint8_t> each) {
  Writer writer;
  of_all(writer, e, header_);
  const auto all = writer.body();
  const size_t length = all.size() + each.size();
  if (!fits(1 + varint_bytes(length) + length)) return false;
  list_ = e;
  bytes_.push_back(kTypes[list_.index()]);
  append_number(length);
  list_at_ = bytes_.size();
  append(all);
  append(each);
  return true;
}

bool DatagramWriter::lengthen(std::span<const uint8_t> each) {
  const size_t before = bytes_.size() - list_at_, length = before + each.size();
  const size_t longer = varint_bytes(length) - varint_bytes(before);
  if (!fits(longer + each.size())) return false;
  const auto list_at = [&] { return bytes_.begin() + static_cast<ptrdiff_t>(list_at_); };
  bytes_.insert(list_at(), longer, 0);
  list_at_ += longer;
  put_varint(&*list_at() - varint_bytes(length), length);
  append(each);
  return true;
}

bool DatagramWriter::empty() const { return bytes_.size() <= header_bytes_; }

Bytes DatagramWriter::finish() {
  CHECK_THAT(!bytes_.empty());
  uint8_t hash[kHashBytes];
  put_word(hash, hash_of(bytes_, key_));
  append(hash);
  return std::exchange(bytes_, {});
}

// What is said of one key in one window stays in order: of one datagram the last counts.
template <typename T>
void bring_together(std::span<T> entries) {
  const auto place_of = [](const T& e) {
    if constexpr (std::same_as<T, Report>)
      return std::pair(e.window, e.rule);
    else
      return e.window;
  };
  constexpr size_t kInList = 8;  // so many to a list, in the mean, are enough
  size_t lists = 1;
  for (size_t i = 1; i < entries.size(); ++i)
    lists += place_of(entries[i - 1]) == place_of(entries[i]) ? 0 : 1;
  if (lists * kInList <= entries.size() || lists < 3) return;
  std::vector<std::pair<decltype(place_of(entries[0])), size_t>> order;
  order.reserve(entries.size());
  for (const T& e : entries) order.emplace_back(place_of(e), order.size());
  std::ranges::sort(order);
  const std::vector<T> before(entries.begin(), entries.end());
  for (size_t i = 0; i < order.size(); ++i) entries[i] = before[order[i].second];
}
template void bring_together(std::span<Report>);
template void bring_together(std::span<Grant>);
template void bring_together(std::span<Mark>);
template void bring_together(std::span<Accepted>);

DecodeError decode(std::span<const uint8_t> bytes, const IdKey& id_key, Datagram& out) {
  if (bytes.size() < kPrefixBytes + kHashBytes) return DecodeError::too_short;
  if (bytes.size() > kDatagramMax) return DecodeError::too_long;
  if (std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) return DecodeError::bad_magic;
  // Before the hash: an older node shall count a newer one as such, whatever that one's hash is.
  if (bytes[sizeof kMagic] != kWireVersion) return DecodeError::version;
  const auto signed_part = bytes.first(bytes.size() - kHashBytes);
  if (Reader(bytes.last(kHashBytes)).take_word() != hash_of(signed_part, id_key)) return DecodeError::forged;

  Reader in(signed_part.subspan(kPrefixBytes));
  Reader header = in.take_part(in.take_varint());
  header.read_presence();
  fields(header, out.header);
  if (!in.ok() || !header.ok()) return DecodeError::malformed;
  out.entries.clear();
  while (in.left() > 0) {
    const uint64_t type = in.take_varint();
    const Reader body = in.take_part(in.take_varint());
    if (!in.ok() || !read_entry(out, type, body)) return DecodeError::malformed;
  }
  return DecodeError::none;
}

}  // namespace tally
