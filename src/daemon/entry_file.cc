#include "daemon/entry_file.h"

#include <span>

namespace tally {

void EntryFileWriter::end_datagram() {
  const Bytes datagram = writer_.finish();
  text_.push_back(static_cast<char>(datagram.size() & 0xff));
  text_.push_back(static_cast<char>(datagram.size() >> 8));
  text_.append(datagram.begin(), datagram.end());
}

void EntryFileWriter::add(const Entry& entry) {
  if (writer_.add(entry)) return;
  end_datagram();
  writer_ = DatagramWriter(header_, key_);
  CHECK_THAT(writer_.add(entry));
}

std::string EntryFileWriter::finish() {
  end_datagram();
  return std::move(text_);
}

Result<bool> read_entries(std::string_view text, const IdKey& key,
                          const std::function<std::string(const Datagram&)>& take) {
  Datagram datagram;
  while (!text.empty()) {
    if (text.size() < 2) return Failure{"it is cut off"};
    const auto bytes = reinterpret_cast<const uint8_t*>(text.data());
    const size_t size = bytes[0] | size_t{bytes[1]} << 8;
    if (text.size() < 2 + size) return Failure{"it is cut off"};
    if (const DecodeError error = decode(std::span(bytes + 2, size), key, datagram);
        error != DecodeError::none)
      return Failure{"a part of it is " + std::string(decode_error_name(error))};
    if (std::string wrong = take(datagram); !wrong.empty()) return Failure{std::move(wrong)};
    text.remove_prefix(2 + size);
  }
  return true;
}

}  // namespace tally
