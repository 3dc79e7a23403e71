// The parts of the daemon that need no thread and no socket: waiting requests and the order of replies, the
// state file, and what is written for people and tools. The daemon as a process: daemon_process_test.py.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <asio/io_context.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "core_fixture.h"
#include "daemon/horizon.h"
#include "daemon/log.h"
#include "daemon/memory_file.h"
#include "daemon/paths.h"
#include "daemon/port.h"
#include "daemon/sockets.h"
#include "daemon/state_file.h"
#include "doctest/doctest.h"

using namespace tally;
using namespace tally::test;

namespace {

// A folder that goes away.
class Folder {
 public:
  Folder() {
    std::string pattern = std::filesystem::temp_directory_path() / "tally-XXXXXX";
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path = pattern;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string path;
};

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void put(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

constexpr WallTime kNoon = wall(kEpoch + std::chrono::hours(12));
constexpr Duration kAhead = secs(1);

std::unique_ptr<StateFile> open_state(const std::string& directory) {
  auto file = StateFile::open(directory, "n.state");
  REQUIRE_MESSAGE(bool(file), (file ? "" : file.error()));
  return std::move(file.value());
}

Life begin(StateFile& file, WallTime now, uint32_t roster = 1, const std::string& entry = "127.0.0.1:1", uint32_t previous = 0) {
  const auto life = file.begin_life(entry, roster, previous, now, kAhead);
  REQUIRE_MESSAGE(bool(life), (life ? "" : life.error()));
  return life.value();
}

}  // namespace

// --- the state file ---

TEST_CASE("a state record reads back as it was written") {
  const StateRecord record{"[::1]:8381", 17, {3, kNoon + secs(1), WallTime::max(), WallTime::min()}, kNoon};
  const auto back = parse_state(format_state(record));
  REQUIRE(bool(back));
  CHECK(back.value() == record);
}

TEST_CASE("a state file that was cut anywhere, or changed in any byte, is refused") {
  const std::string text = format_state({"127.0.0.1:8381", 17, {3, WallTime::max(), kNoon, WallTime::min()}, kNoon});
  for (size_t i = 0; i < text.size(); ++i) {
    CHECK_FALSE(bool(parse_state(std::string_view(text).substr(0, i))));
    for (const int flip : {1, 2, 4, 8, 16, 32, 64, 128}) {
      std::string changed = text;
      changed[i] = static_cast<char>(changed[i] ^ flip);
      CHECK_FALSE(bool(parse_state(changed)));
    }
  }
  CHECK_FALSE(bool(parse_state(text + "\n")));
}

TEST_CASE("the first life is a first one, and has a horizon on the disk before it begins") {
  Folder folder;
  auto file = open_state(folder.path + "/made/on/the/way");
  CHECK_FALSE(file->record().has_value());
  const Life life = begin(*file, kNoon);
  CHECK(life.first);
  const auto on_disk = parse_state(contents(file->path()));
  REQUIRE(bool(on_disk));
  CHECK(on_disk.value().incarnation == life.incarnation);
  CHECK(on_disk.value().entry == "127.0.0.1:1");
  CHECK(on_disk.value().horizon >= kNoon + kAhead + kHorizonStep);
}

TEST_CASE(
    "a later life has a later incarnation and reckons its start from the horizon where the clock was set "
    "back") {
  Folder folder;
  const Life first = begin(*open_state(folder.path), kNoon);
  const Life second = begin(*open_state(folder.path), kNoon - std::chrono::hours(3));
  CHECK_FALSE(second.first);
  CHECK(second.incarnation > first.incarnation);
  CHECK(second.reckoned_start >= kNoon + kAhead + kHorizonStep);
  const Life third = begin(*open_state(folder.path), kNoon + std::chrono::hours(1));
  CHECK(third.incarnation > second.incarnation);
  CHECK(third.reckoned_start == kNoon + std::chrono::hours(1));
}

TEST_CASE("the incarnation grows even where the state file was lost") {
  Folder folder;
  const Life first = begin(*open_state(folder.path), kNoon);
  std::filesystem::remove(folder.path + "/n.state");
  const Life again = begin(*open_state(folder.path), kNoon + ms(1));  // as soon as that
  CHECK(again.first);
  CHECK(again.incarnation > first.incarnation);
}

TEST_CASE("a state file that counts lives in seconds is followed by one in milliseconds") {
  Folder folder;
  const auto seconds = static_cast<uint64_t>(nanos(kNoon) / 1'000'000'000);
  const StateRecord old{"127.0.0.1:1", seconds, {1, WallTime::max(), WallTime::min(), WallTime::min()}, kNoon + kHorizonStep};
  put(folder.path + "/n.state", format_state(old));
  const Life next = begin(*open_state(folder.path), kNoon + secs(1));
  CHECK_FALSE(next.first);
  CHECK(next.reckoned_start == old.horizon);
  CHECK(next.incarnation == (seconds + 1) * 1000);
}

TEST_CASE("lives of a clock that was set back are far enough apart for the numbers that owners give") {
  Folder folder;
  const Life first = begin(*open_state(folder.path), kNoon);
  const Life second = begin(*open_state(folder.path), kNoon - std::chrono::hours(3));
  CHECK((second.incarnation << 20) - (first.incarnation << 20) >= uint64_t{1} << 32);
}

TEST_CASE("the horizon is moved on only when it comes near, and never back") {
  Folder folder;
  auto file = open_state(folder.path);
  begin(*file, kNoon);
  const WallTime before = file->record()->horizon;
  REQUIRE(bool(file->extend(kNoon, kAhead)));
  CHECK(file->record()->horizon == before);
  REQUIRE(bool(file->extend(kNoon - std::chrono::hours(1), kAhead)));
  CHECK(file->record()->horizon == before);
  REQUIRE(bool(file->extend(kNoon + secs(7), kAhead)));
  CHECK(file->record()->horizon == kNoon + secs(7) + kAhead + kHorizonStep);
  CHECK(parse_state(contents(file->path())).value() == *file->record());
}

TEST_CASE("where the state file cannot be written, the record stays as it is on the disk") {
  Folder folder;
  auto file = open_state(folder.path);
  begin(*file, kNoon);
  const StateRecord before = *file->record();
  std::filesystem::create_directory(file->path() + ".new");  // where the temporary file should go
  CHECK_FALSE(bool(file->extend(kNoon + secs(60), kAhead)));
  CHECK(*file->record() == before);
  CHECK(parse_state(contents(file->path())).value() == before);
}

TEST_CASE("two daemons cannot share a state file") {
  Folder folder;
  const auto file = open_state(folder.path);
  const auto second = StateFile::open(folder.path, "n.state");
  REQUIRE_FALSE(bool(second));
  CHECK(second.error().find("another tallyd is running with the state file") != std::string::npos);
  CHECK(bool(StateFile::open(folder.path, "other.state")));
}

TEST_CASE("a damaged state file is said to be damaged, and is not overwritten") {
  Folder folder;
  put(folder.path + "/n.state", "tallyd-state 1\nentry x\n");
  const auto file = StateFile::open(folder.path, "n.state");
  REQUIRE_FALSE(bool(file));
  CHECK(file.error().find(folder.path + "/n.state is damaged") != std::string::npos);
  CHECK(contents(folder.path + "/n.state") == "tallyd-state 1\nentry x\n");
}

TEST_CASE("a state file of another node, or of a list that may not be followed by this one, is refused") {
  Folder folder;
  const Tenure five{5, WallTime::max(), kNoon + secs(100), WallTime::min()};
  {
    const auto file = open_state(folder.path);
    begin(*file, kNoon, 5);
    REQUIRE(bool(file->keep(five)));
    CHECK(parse_state(contents(file->path())).value().tenure == five);
  }
  auto file = open_state(folder.path);
  const auto refused = [&](const std::string& entry, uint32_t version, uint32_t previous, WallTime now) {
    const auto life = file->begin_life(entry, version, previous, now, kAhead);
    return life ? "" : life.error();
  };
  CHECK(refused("127.0.0.1:2", 5, 0, kNoon).find("is of the node 127.0.0.1:1") != std::string::npos);
  CHECK(refused("127.0.0.1:1", 4, 0, kNoon).find("never goes back to 4") != std::string::npos);
  CHECK(refused("127.0.0.1:1", 5, 0, kNoon) ==
        "this node has gone by roster version 5 and the change to it is not over: keep cluster.previous until tallyd_roster_settled is 1 "
        "(a new fleet begins with roster_version 1, and without state files)");
  CHECK(refused("127.0.0.1:1", 6, 5, kNoon).find("begin the next one when tallyd_roster_settled is 1") != std::string::npos);
  CHECK(refused("127.0.0.1:1", 6, 0, kNoon + secs(100)) ==
        "this node has gone by roster version 5: give it that list as cluster.previous, beside version 6");
  CHECK(refused("127.0.0.1:1", 5, 4, kNoon) == "");
  CHECK(begin(*file, kNoon + secs(100), 6, "127.0.0.1:1", 5).tenure == five);
  CHECK(file->record()->tenure == five);  // until the node says otherwise
}

TEST_CASE("a state file of a version that knew of no change of the list is read as one where none is under way") {
  const std::string before = "tallyd-state 1\nentry x\nincarnation 17\nroster 3\nhorizon 5\n";
  char check[20];
  std::snprintf(check, sizeof check, "%016llx", static_cast<unsigned long long>(keyed_hash(before, kPublicIdKey)));
  const auto back = parse_state(before + "check " + check + "\n");
  REQUIRE_MESSAGE(bool(back), (back ? "" : back.error()));
  CHECK(back.value().tenure == Tenure{3, WallTime::max(), WallTime::min(), WallTime::min()});
}

namespace {

constexpr NodeId kNode = 77;
const Roster kRoster({"127.0.0.1:1", "127.0.0.1:2"}, 3, 2, kPublicIdKey);

Memory some_memory() {
  Memory memory;
  memory.incarnation = 5'000;
  for (uint64_t i = 0; i < 500; ++i) {  // of many datagrams
    Registered entry;
    entry.key.bytes[0] = static_cast<uint8_t>(i);
    entry.key.bytes[1] = static_cast<uint8_t>(i >> 8);
    entry.window = static_cast<int64_t>(i % 3);
    entry.length = secs(60);
    entry.promised = {static_cast<uint32_t>(i % 5), i};
    entry.mark_ballot = {static_cast<uint32_t>(i % 4), i + 1};
    entry.mark = i * i;
    memory.registers.push_back(entry);
  }
  memory.worth.count = memory.registers.size();
  memory.worth.votes_from_ns = 1;
  memory.worth.clock_ns = 2;
  memory.worth.remembers = secs(3);
  return memory;
}

}  // namespace

TEST_CASE("registers that a life leaves are read by the next one as they were, once, and by no other") {
  Folder folder;
  const MemoryFile file(folder.path + "/n.state", kNode, kPublicIdKey);
  CHECK(file.take(5'000, kRoster).value() == nullptr);
  const Memory memory = some_memory();
  REQUIRE(bool(file.leave(memory, kRoster)));
  CHECK(file.take(4'999, kRoster).value() == nullptr);  // of another life
  CHECK_FALSE(std::filesystem::exists(file.path()));
  REQUIRE(bool(file.leave(memory, kRoster)));
  const auto read = file.take(5'000, kRoster);
  REQUIRE(read.value() != nullptr);
  CHECK(read.value()->registers == memory.registers);
  CHECK(read.value()->worth == memory.worth);
  CHECK(read.value()->incarnation == 5'000);
  CHECK(file.take(5'000, kRoster).value() == nullptr);
}

TEST_CASE("registers of another node, or that were cut or changed anywhere, are of no use, and are gone all the same") {
  Folder folder;
  const MemoryFile file(folder.path + "/n.state", kNode, kPublicIdKey);
  const std::string text = format_memory(some_memory(), kNode, kPublicIdKey, kRoster);
  REQUIRE(bool(parse_memory(text, kNode, kPublicIdKey, kRoster)));
  CHECK(parse_memory(text, kNode + 1, kPublicIdKey, kRoster).error() == "it is another node's");
  const Roster next({"127.0.0.1:1", "127.0.0.1:2"}, 4, 2, kPublicIdKey);
  CHECK(parse_memory(text, kNode, kPublicIdKey, next).error() == "it is of another list of nodes");
  const Roster change({{"127.0.0.1:1", "127.0.0.1:3"}, 4, 2}, NodeList{{"127.0.0.1:1", "127.0.0.1:2"}, 3, 2}, kPublicIdKey);
  CHECK(bool(parse_memory(text, kNode, kPublicIdKey, change)));  // of the list before, which this one knows
  IdKey other = kPublicIdKey;
  other[0] ^= 1;
  CHECK(parse_memory(text, kNode, other, kRoster).error() == "a part of it is forged");
  for (size_t size = 0; size < text.size(); size += 1 + size / 50) CHECK_FALSE(bool(parse_memory(text.substr(0, size), kNode, kPublicIdKey, kRoster)));
  for (size_t at = 0; at < text.size(); at += 1 + at / 50) {
    std::string damaged = text;
    damaged[at] = static_cast<char>(damaged[at] ^ 4);
    CHECK_FALSE(bool(parse_memory(damaged, kNode, kPublicIdKey, kRoster)));
  }
  put(file.path(), text.substr(1));
  const auto read = file.take(5'000, kRoster);
  REQUIRE_FALSE(bool(read));
  CHECK(read.error().find("is of no use: ") != std::string::npos);
  CHECK_FALSE(std::filesystem::exists(file.path()));
}

TEST_CASE("a node stands still where its horizon cannot be synced, and goes on when it can") {
  Folder folder;
  auto file = open_state(folder.path);
  begin(*file, kNoon);
  asio::io_context admin;
  int fds[2];
  REQUIRE(::pipe(fds) == 0);
  Log log(LogLevel::info, LogFormat::text, fds[1]);
  Horizon horizon(*file, kAhead, admin, log);
  const auto keep = [&](WallTime now) {
    horizon.keep(now);
    admin.restart();
    admin.poll();
    return horizon.covers(now);
  };
  CHECK(keep(kNoon));
  CHECK(file->record()->horizon == kNoon + kAhead + kHorizonStep);  // near enough: nothing was written
  CHECK(horizon.covers(kNoon + kHorizonStep - Duration(1)));
  CHECK_FALSE(horizon.covers(kNoon + kHorizonStep));

  std::filesystem::create_directory(file->path() + ".new");
  CHECK(keep(kNoon + secs(6)));         // not yet passed
  CHECK_FALSE(keep(kNoon + secs(11)));  // passed, and nothing later is on the disk
  CHECK_FALSE(keep(kNoon + secs(12)));
  std::filesystem::remove(file->path() + ".new");
  CHECK(keep(kNoon + secs(13)));
  CHECK(parse_state(contents(file->path())).value().horizon == kNoon + secs(13) + kAhead + kHorizonStep);

  ::close(fds[1]);
  std::string said(4096, '\0');
  said.resize(static_cast<size_t>(::read(fds[0], said.data(), said.size())));
  ::close(fds[0]);
  CHECK(std::ranges::count(said, '\n') == 2);  // the trouble once, and its end
  CHECK(said.find("error: the state file cannot be written") != std::string::npos);
}

// --- sockets ---

namespace {
Address unix_address(const std::string& path, uint32_t mode = 0660) {
  Address address;
  address.path = path;
  address.mode = mode;
  return address;
}
}  // namespace

TEST_CASE("a listener sets its socket's mode and removes the file at the end") {
  Folder folder;
  const std::string path = folder.path + "/deep/t.sock";
  {
    const auto listener = Listener::open(unix_address(path, 0600));
    REQUIRE(bool(listener));
    struct stat found {};
    REQUIRE(::stat(path.c_str(), &found) == 0);
    CHECK((found.st_mode & 0777) == 0600);
  }
  CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("a second listener on the path of a living one is refused and leaves it alone") {
  Folder folder;
  const std::string path = folder.path + "/t.sock";
  const auto first = Listener::open(unix_address(path));
  REQUIRE(bool(first));
  const auto second = Listener::open(unix_address(path));
  REQUIRE_FALSE(bool(second));
  CHECK(second.error().find("another daemon is serving " + path) != std::string::npos);
  CHECK(std::filesystem::exists(path));
}

TEST_CASE("a listener that was replaced does not remove its successor's socket") {
  Folder folder;
  const std::string path = folder.path + "/t.sock";
  auto first = Listener::open(unix_address(path));
  REQUIRE(bool(first));
  std::filesystem::remove(path);
  const auto second = Listener::open(unix_address(path));
  REQUIRE(bool(second));
  first.value().close();
  CHECK(std::filesystem::exists(path));
}

TEST_CASE("a path that is no socket, or is too long, is refused") {
  Folder folder;
  put(folder.path + "/file", "precious");
  CHECK_FALSE(bool(Listener::open(unix_address(folder.path + "/file"))));
  CHECK(contents(folder.path + "/file") == "precious");
  const auto too_long = Listener::open(unix_address(folder.path + "/" + std::string(120, 'x')));
  REQUIRE_FALSE(bool(too_long));
  CHECK(too_long.error().find("107 bytes") != std::string::npos);
}

TEST_CASE("TCP port 0 is answered with the port that the kernel chose") {
  const auto address = parse_address("127.0.0.1:0");
  REQUIRE(bool(address));
  const auto listener = Listener::open(address.value());
  REQUIRE(bool(listener));
  CHECK(listener.value().address().port != 0);
  const auto second = Listener::open(listener.value().address());
  REQUIRE_FALSE(bool(second));
  CHECK(second.error().find("another program listens there") != std::string::npos);
}

// --- the bell ---

TEST_CASE("who is rung between getting up and lying down does not lie down, who is rung asleep is woken") {
  Bell bell;
  uint64_t n = 0;
  bell.get_up();
  bell.ring();
  CHECK_FALSE(bell.lie_down());
  CHECK(::read(bell.fd(), &n, sizeof n) == -1);  // nobody slept, so nothing was written
  bell.get_up();
  CHECK(bell.lie_down());
  bell.ring();
  bell.ring();
  CHECK(::read(bell.fd(), &n, sizeof n) == sizeof n);
  CHECK(n == 1);
}

TEST_CASE("of a million things pushed with a bell none is slept over") {
  constexpr int kThings = 1'000'000;
  Bell bell;
  Ring<int> ring(64);
  std::thread pusher([&] {
    for (int i = 1; i <= kThings;) {
      if (ring.push(i)) {
        ++i;
        bell.ring();
      } else {
        std::this_thread::yield();
      }
    }
  });
  int last = 0;
  bool in_order = true;
  while (last < kThings) {
    bell.get_up();
    for (int next; ring.pop(next);) in_order = in_order && next == std::exchange(last, next) + 1;
    if (last == kThings || !bell.lie_down()) continue;
    ::fcntl(bell.fd(), F_SETFL, 0);  // blocks: the test would hang where a ring was lost
    bell.silence();
  }
  pusher.join();
  CHECK(in_order);
}

// --- for people and tools ---

TEST_CASE("text for JSON is quoted byte by byte where it is not UTF-8") {
  CHECK(json_quoted("plain \xc3\xa9 \xf0\x9f\x98\x80") == "\"plain \xc3\xa9 \xf0\x9f\x98\x80\"");
  CHECK(json_quoted("a\"b\\c\n\x01\x7f") == "\"a\\\"b\\\\c\\u000a\\u0001\\u007f\"");
  CHECK(json_quoted("\xff\xc3") == "\"\\u00ff\\u00c3\"");
  CHECK(json_quoted("\xed\xa0\x80") == "\"\\u00ed\\u00a0\\u0080\"");  // a surrogate
  CHECK(json_quoted("\xc0\xaf") == "\"\\u00c0\\u00af\"");             // overlong
}

TEST_CASE("a log line is one line, whatever is in its fields") {
  int fds[2];
  REQUIRE(::pipe(fds) == 0);
  Log text(LogLevel::info, LogFormat::text, fds[1]), json(LogLevel::info, LogFormat::json, fds[1]);
  text.debug("not shown");
  text.info("peer is up", {{"peer", "a b\nc"}, {"n", 3}, {"plain", "x:1"}});
  json.error("no", {{"peer", "a\nb"}, {"n", 1.5}});
  ::close(fds[1]);
  std::string all(4096, '\0');
  all.resize(static_cast<size_t>(::read(fds[0], all.data(), all.size())));
  ::close(fds[0]);
  CHECK(std::ranges::count(all, '\n') == 2);
  CHECK(all.find(" info: peer is up peer=\"a b\\u000ac\" n=3 plain=x:1\n") != std::string::npos);
  CHECK(all.find("\"level\":\"error\",\"message\":\"no\",\"peer\":\"a\\u000ab\",\"n\":1.5") !=
        std::string::npos);
}

TEST_CASE("a time falls into the first bucket whose bound it does not pass") {
  TimeHistogram histogram;
  for (const Duration d : {Duration(-5), Duration(0), Duration(1000)}) histogram.observe(d);
  histogram.observe(Duration(1001));
  histogram.observe(std::chrono::microseconds(4));
  histogram.observe(std::chrono::hours(1));
  CHECK(histogram.bucket(0) == 3);
  CHECK(histogram.bucket(1) == 1);
  CHECK(histogram.bucket(2) == 1);
  CHECK(histogram.bucket(TimeHistogram::kBounds) == 1);
}

TEST_CASE("a name that becomes part of a file name has nothing else in it") {
  for (const char* good : {"edge-1", "a", "A_b.c"}) CHECK(is_file_name(good));
  for (const char* bad : {"", ".", "..", ".x", "a/b", "a b", "caf\xc3\xa9"}) CHECK_FALSE(is_file_name(bad));
  CHECK_FALSE(is_file_name(std::string(65, 'x')));
}
