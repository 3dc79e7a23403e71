#include "daemon/memory_file.h"

#include <utility>
#include <variant>

#include "daemon/entry_file.h"
#include "daemon/whole_file.h"

namespace tally {
namespace {

constexpr size_t kBytesMax = size_t{1} << 31;

}  // namespace

std::string format_memory(const Memory& memory, NodeId node, const IdKey& key, const Roster& roster) {
  Header header;
  header.sender = header.receiver = node;
  header.incarnation = memory.incarnation;
  header.roster_version = roster.version();
  header.roster_hash = roster.hash();
  EntryFileWriter file(header, key);
  for (const Registered& entry : memory.registers) file.add(entry);
  file.add(memory.worth);
  return file.finish();
}

Result<Memory> parse_memory(std::string_view text, NodeId node, const IdKey& key, const Roster& roster) {
  Memory memory;
  bool ended = false;
  const auto read = read_entries(text, key, [&](const Datagram& datagram) -> std::string {
    if (datagram.header.sender != node || datagram.header.receiver != node) return "it is another node's";
    if (!roster.find(datagram.header.roster_version, datagram.header.roster_hash)) return "it is of another list of nodes";
    if (memory.incarnation != 0 && memory.incarnation != datagram.header.incarnation) return "it is of several lives";
    memory.incarnation = datagram.header.incarnation;
    for (const Entry& entry : datagram.entries) {
      if (const auto* registered = std::get_if<Registered>(&entry)) memory.registers.push_back(*registered);
      if (const auto* worth = std::get_if<RegistersEnd>(&entry)) {
        memory.worth = *worth;
        ended = true;
      }
    }
    return "";
  });
  if (!read) return Failure{read.error()};
  if (!ended || memory.worth.count != memory.registers.size()) return Failure{"it is cut off"};
  return memory;
}

Result<std::shared_ptr<const Memory>> MemoryFile::take(uint64_t incarnation, const Roster& roster) const {
  const auto text = read_whole_file(path_, kBytesMax);
  if (!text) return Failure{text.error()};
  if (!text.value()) return std::shared_ptr<const Memory>();
  if (const auto removed = remove_file(path_); !removed) return Failure{removed.error()};
  auto memory = parse_memory(*text.value(), node_, key_, roster);
  if (!memory) return Failure{path_ + " is of no use: " + memory.error()};
  if (memory.value().incarnation != incarnation) return std::shared_ptr<const Memory>();
  return std::shared_ptr<const Memory>(std::make_shared<Memory>(std::move(memory.value())));
}

Result<bool> MemoryFile::leave(const Memory& memory, const Roster& roster) const {
  return replace_file(path_, format_memory(memory, node_, key_, roster));
}

}  // namespace tally
