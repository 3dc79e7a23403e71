#include "daemon/state_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>

#include "base/hash.h"
#include "daemon/paths.h"
#include "daemon/whole_file.h"

namespace tally {
namespace {

constexpr std::string_view kFirstLine = "tallyd-state 1";
constexpr size_t kFileBytesMax = 4096;
// Owners number leases and marks by incarnation << 20 and a count: 2^32 numbers for a life whose clock was set
// back to before its own beginning.
constexpr uint64_t kLifeApart = 4096;

Failure system_failure(const std::string& what) { return Failure{what + ": " + std::strerror(errno)}; }

std::string checksum(std::string_view lines) {
  char text[20];
  std::snprintf(text, sizeof text, "%016llx",
                static_cast<unsigned long long>(keyed_hash(lines, kPublicIdKey)));
  return text;
}

// Takes "NAME VALUE\n" from the front of `text`.
bool take_line(std::string_view& text, std::string_view name, std::string_view& value) {
  const size_t end = text.find('\n');
  if (end == std::string_view::npos) return false;
  const std::string_view line = text.substr(0, end);
  if (line.substr(0, name.size()) != name || line.size() <= name.size() || line[name.size()] != ' ')
    return false;
  value = line.substr(name.size() + 1);
  text.remove_prefix(end + 1);
  return true;
}

template <typename Number>
bool take_number(std::string_view& text, std::string_view name, Number& out) {
  std::string_view value;
  if (!take_line(text, name, value)) return false;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), out);
  return error == std::errc() && end == value.data() + value.size();
}

// Why a node that went by the list that it kept may not go on by another; "" where it may.
std::string wrong_list(const Tenure& kept, uint32_t version, uint32_t previous, WallTime clock) {
  const std::string went_by = "this node has gone by roster version " + std::to_string(kept.version);
  switch (succeeds(kept, version, previous, clock)) {
    case Succeeds::yes:
      return "";
    case Succeeds::older:
      return went_by + " and never goes back to " + std::to_string(version) +
             "; issue the old list again under a new cluster.roster_version";
    case Succeeds::without_previous:
      return went_by + ": give it that list as cluster.previous, beside version " + std::to_string(version);
    case Succeeds::unsettled:
      break;
  }
  return version == kept.version
             ? went_by + " and the change to it is not over: keep cluster.previous until tallyd_roster_settled is 1 "
                         "(a new fleet begins with roster_version 1, and without state files)"
             : went_by + " and the change to it is not over: go on by it, and begin the next one when tallyd_roster_settled is 1";
}

}  // namespace

std::string format_state(const StateRecord& record) {
  std::string text(kFirstLine);
  text += "\nentry " + record.entry;
  text += "\nincarnation " + std::to_string(record.incarnation);
  text += "\nroster " + std::to_string(record.tenure.version);
  text += "\nhorizon " + std::to_string(nanos(record.horizon));
  text += "\nleaves " + std::to_string(nanos(record.tenure.leaves));
  text += "\nsettled " + std::to_string(nanos(record.tenure.settled));
  text += "\nsettled-before " + std::to_string(nanos(record.tenure.settled_before)) + "\n";
  return text + "check " + checksum(text) + "\n";
}

Result<StateRecord> parse_state(std::string_view text) {
  const std::string_view whole = text;
  StateRecord record;
  std::string_view value;
  int64_t horizon = 0;
  if (text.substr(0, kFirstLine.size() + 1) != std::string(kFirstLine) + "\n")
    return Failure{"it does not begin with \"" + std::string(kFirstLine) + "\""};
  text.remove_prefix(kFirstLine.size() + 1);
  if (!take_line(text, "entry", value)) return Failure{"the line \"entry\" is missing"};
  record.entry = value;
  if (!take_number(text, "incarnation", record.incarnation))
    return Failure{"the line \"incarnation\" is not a number"};
  if (!take_number(text, "roster", record.tenure.version))
    return Failure{"the line \"roster\" is not a number"};
  if (!take_number(text, "horizon", horizon)) return Failure{"the line \"horizon\" is not a number"};
  record.horizon = WallTime(Duration(horizon));
  if (text.starts_with("leaves ")) {
    for (const auto& [name, time] : {std::pair("leaves", &record.tenure.leaves), std::pair("settled", &record.tenure.settled),
                                     std::pair("settled-before", &record.tenure.settled_before)}) {
      int64_t at = 0;
      if (!take_number(text, name, at)) return Failure{"the line \"" + std::string(name) + "\" is not a number"};
      *time = WallTime(Duration(at));
    }
  } else {  // of a version that knew of no change
    record.tenure.settled = WallTime::min();
  }
  const std::string_view checked = whole.substr(0, whole.size() - text.size());
  if (!take_line(text, "check", value) || value != checksum(checked) || !text.empty())
    return Failure{"its checksum is wrong"};
  return record;
}

Result<std::unique_ptr<StateFile>> StateFile::open(const std::string& directory, const std::string& name) {
  if (const auto made = make_directories(directory); !made) return Failure{made.error()};
  const std::string path = directory + "/" + name;
  Descriptor lock(::open((path + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock) return system_failure("cannot open " + path + ".lock");
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return system_failure("cannot lock " + path + ".lock");
    return Failure{"another tallyd is running with the state file " + path +
                   "; give this one another --name"};
  }
  std::unique_ptr<StateFile> file(new StateFile(path, std::move(lock)));

  const auto text = read_whole_file(path, kFileBytesMax);
  if (!text) return Failure{"the state file: " + text.error()};
  if (!text.value()) return file;
  const auto record = parse_state(*text.value());
  if (!record)
    return Failure{
        "the state file " + path + " is damaged: " + record.error() +
        "; restore it, or remove it once every window that this node spent in has ended (without it the node "
        "asks its peers whether it lived before)"};
  file->record_ = record.value();
  return file;
}

Result<bool> StateFile::write(const StateRecord& record) {
  if (const auto written = replace_file(path_, format_state(record)); !written) return written;
  record_ = record;
  return true;
}

Result<Life> StateFile::begin_life(const std::string& entry, uint32_t roster_version, uint32_t previous, WallTime now,
                                   Duration look_ahead) {
  Life life;
  StateRecord next{entry, 1, {}, now + look_ahead + kHorizonStep};
  life.reckoned_start = now;
  if (record_) {
    if (record_->entry != entry)
      return Failure{"the state file " + path_ + " is of the node " + record_->entry + ", and this one is " +
                     entry + "; give it another --name or node.state_dir"};
    if (const std::string wrong = refuses(roster_version, previous, now); !wrong.empty()) return Failure{wrong};
    next.tenure = life.tenure = record_->tenure;
    life.first = false;
    life.reckoned_start = std::max(now, record_->horizon);
    next.incarnation = record_->incarnation + kLifeApart;
    next.horizon = std::max(next.horizon, record_->horizon);
  }
  // Peers tell lives apart by it, so it must grow even where the file was lost: it is the clock's milliseconds,
  // and no two starts are in one. (Seconds were too coarse: a life that began in the second of the one before
  // was taken for it, and had its floor again.) Only where the clock was set back is it more than those.
  const auto clock = static_cast<uint64_t>(std::max<int64_t>(1, nanos(now) / 1'000'000));
  if (!record_ || clock > record_->incarnation) next.incarnation = clock;
  life.incarnation = next.incarnation;
  if (const auto written = write(next); !written) return Failure{written.error()};
  return life;
}

std::string StateFile::refuses(uint32_t roster_version, uint32_t previous, WallTime now) const {
  return record_ ? wrong_list(record_->tenure, roster_version, previous, std::max(now, record_->horizon)) : "";
}

Result<bool> StateFile::keep(const Tenure& tenure) {
  CHECK_THAT(record_.has_value());
  StateRecord next = *record_;
  next.tenure = tenure;
  return write(next);
}

Result<bool> StateFile::extend(WallTime now, Duration look_ahead) {
  CHECK_THAT(record_.has_value());
  StateRecord next = *record_;
  if (next.horizon >= now + look_ahead + kHorizonStep) return true;
  next.horizon = now + look_ahead + kHorizonStep;
  return write(next);
}

}  // namespace tally
