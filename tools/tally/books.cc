// tally books: what a fleet keeps in Redis, and its removal.
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cxxopts.hpp>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "books/kept.h"
#include "configuration.h"
#include "daemon/log.h"
#include "planning.h"
#include "redis.h"
#include "table.h"

namespace tally::tool {
namespace {

constexpr int kDone = 0, kUsage = 2, kUnreachable = 3;
constexpr const char* kAtOnce = "1000";  // names that a SCAN looks at
constexpr uint64_t kMeasuredEach = 100;  // of a server's books, for their size

int fail(const std::string& message, int code) {
  return std::fprintf(stderr, "tally: %s\n", message.c_str()), code;
}

// What one master keeps.
struct Kept {
  std::string server;
  std::array<uint64_t, kBooksNames> names{};  // by BooksName
  std::map<uint64_t, uint64_t> generations;  // tags of each
  uint64_t measured = 0, bytes = 0;          // of the books that were measured

  uint64_t count(BooksName kind) const { return names[static_cast<size_t>(kind)]; }
  uint64_t books() const { return count(BooksName::window) + count(BooksName::bucket); }
  uint64_t all_bytes() const {
    return measured == 0 ? 0
                         : static_cast<uint64_t>(static_cast<double>(bytes) / static_cast<double>(measured) *
                                                 static_cast<double>(books()));
  }
  void add(const Kept& other) {
    for (size_t i = 0; i < names.size(); ++i) names[i] += other.names[i];
    for (const auto& [number, tags] : other.generations) generations[number] += tags;
  }
};

// All names of that prefix that the server has, some at a time. One may come twice, as SCAN does. False:
// `then` or Redis failed.
Result<bool> for_names(Redis& redis, const std::string& prefix,
                       const std::function<Result<bool>(const std::vector<std::string>&)>& then) {
  std::string cursor = "0";
  do {
    const auto scanned = redis.ask({"SCAN", cursor, "MATCH", books_pattern(prefix), "COUNT", kAtOnce});
    if (!scanned) return Failure{scanned.error()};
    const redisReply& reply = *scanned.value();
    if (reply.type != REDIS_REPLY_ARRAY || reply.elements != 2 || reply.element[1]->type != REDIS_REPLY_ARRAY)
      return Failure{"Redis at " + redis.address().text() + " answers SCAN with something else"};
    cursor = text_of(*reply.element[0]);
    std::vector<std::string> names;
    for (size_t i = 0; i < reply.element[1]->elements; ++i)
      names.emplace_back(text_of(*reply.element[1]->element[i]));
    if (names.empty()) continue;
    if (const auto done = then(names); !done) return done;
  } while (cursor != "0");
  return true;
}

Result<Kept> look(Redis& redis, const std::string& prefix) {
  Kept kept;
  kept.server = redis.address().text();
  const auto count = [&](const std::vector<std::string>& names) -> Result<bool> {
    std::vector<Redis::Words> questions;
    for (const std::string& name : names) {
      const BooksName kind = kind_of_name(prefix, name);
      ++kept.names[static_cast<size_t>(kind)];
      if (kind == BooksName::generation) questions.push_back({"GET", name});
      if (kind == BooksName::lives) questions.push_back({"HLEN", name});
      const bool book = kind == BooksName::window || kind == BooksName::bucket;
      if (book && kept.books() <= kMeasuredEach) questions.push_back({"MEMORY", "USAGE", name});
    }
    const auto replies = redis.ask_all(questions);
    if (!replies) return Failure{replies.error()};
    for (size_t i = 0; i < questions.size(); ++i) {
      const redisReply& reply = *replies.value()[i];
      const std::string& asked = questions[i].front();
      if (asked == "MEMORY") {  // who may not ask for it sees the rest all the same
        if (reply.type == REDIS_REPLY_INTEGER)
          ++kept.measured, kept.bytes += static_cast<uint64_t>(reply.integer);
        continue;
      }
      if (reply.type == REDIS_REPLY_ERROR)
        return Failure{"Redis at " + kept.server + ": " + asked + ": " + std::string(text_of(reply))};
      if (asked == "GET" && reply.type == REDIS_REPLY_STRING)
        if (const auto number = number_of_generation(text_of(reply))) ++kept.generations[*number];
      if (asked == "HLEN")
        kept.names[static_cast<size_t>(BooksName::lives)] = static_cast<uint64_t>(reply.integer);
    }
    return true;
  };
  if (const auto looked = for_names(redis, prefix, count); !looked) return Failure{looked.error()};
  return kept;
}

// "3", or "2 to 3"; "-": there is none.
std::string text_of_generations(const Kept& kept) {
  if (kept.generations.empty()) return "-";
  const uint64_t first = kept.generations.begin()->first, last = kept.generations.rbegin()->first;
  return first == last ? std::to_string(first) : std::to_string(first) + " to " + std::to_string(last);
}

std::string json_of(const Kept& kept) {
  std::string generations;
  for (const auto& [number, tags] : kept.generations)
    generations +=
        (generations.empty() ? "\"" : ",\"") + std::to_string(number) + "\":" + std::to_string(tags);
  return "\"windows\":" + std::to_string(kept.count(BooksName::window)) +
         ",\"buckets\":" + std::to_string(kept.count(BooksName::bucket)) +
         ",\"central\":" + std::to_string(kept.count(BooksName::central)) + ",\"generations\":{" +
         generations + "},\"lives\":" + std::to_string(kept.count(BooksName::lives)) +
         ",\"other\":" + std::to_string(kept.count(BooksName::other)) +
         ",\"bytes\":" + std::to_string(kept.all_bytes()) + ",\"measured\":" + std::to_string(kept.measured);
}

void print_json(const std::string& prefix, const std::vector<Kept>& all) {
  std::string servers;
  for (const Kept& kept : all)
    servers += (servers.empty() ? "{\"server\":" : ",{\"server\":") + json_quoted(kept.server) + "," +
               json_of(kept) + "}";
  std::printf("{\"prefix\":%s,\"servers\":[%s]}\n", json_quoted(prefix).c_str(), servers.c_str());
}

void print_table(const std::string& prefix, const std::vector<Kept>& all) {
  Cells rows{{"server", "windows", "buckets", "central", "generation", "tags", "lives", "other", "bytes"}};
  const auto add = [&](const std::string& server, const Kept& kept, uint64_t bytes) {
    rows.push_back(
        {server, std::to_string(kept.count(BooksName::window)), std::to_string(kept.count(BooksName::bucket)),
         std::to_string(kept.count(BooksName::central)), text_of_generations(kept), std::to_string(kept.count(BooksName::generation)),
         std::to_string(kept.count(BooksName::lives)), std::to_string(kept.count(BooksName::other)),
         bytes == 0 ? "-" : "~" + std::to_string(bytes)});
  };
  Kept sum;
  uint64_t bytes = 0;
  for (const Kept& kept : all) {
    add(kept.server, kept, kept.all_bytes());
    sum.add(kept);
    bytes += kept.all_bytes();
  }
  if (all.size() > 1) add("all", sum, bytes);
  std::printf("prefix %s\n", prefix.c_str());
  print_aligned(rows);
}

int list(std::vector<Redis>& masters, const std::string& prefix, bool json) {
  std::vector<Kept> all;
  for (Redis& redis : masters) {
    auto kept = look(redis, prefix);
    if (!kept) return fail(kept.error(), kUnreachable);
    all.push_back(std::move(kept.value()));
  }
  json ? print_json(prefix, all) : print_table(prefix, all);
  return kDone;
}

bool agreed(const std::string& prefix) {
  std::fprintf(
      stderr,
      "This removes all books with the prefix \"%s\". Daemons that use them are told of a loss: until a "
      "quiet time is over they decide by what they hold,\n"
      "what daemons that are gone had used is forgotten, and token buckets begin empty. Remove them? [y/N] ",
      prefix.c_str());
  const int answer = std::getchar();
  return answer == 'y' || answer == 'Y';
}

int remove(std::vector<Redis>& masters, const std::string& prefix, bool json) {
  uint64_t removed = 0;
  for (Redis& redis : masters) {
    const auto unlink = [&](const std::vector<std::string>& names) -> Result<bool> {
      std::vector<Redis::Words> commands;  // one each: in a cluster names are of many slots
      for (const std::string& name : names) commands.push_back({"UNLINK", name});
      const auto replies = redis.ask_all(commands);
      if (!replies) return Failure{replies.error()};
      for (const Redis::Reply& reply : replies.value()) {
        if (reply->type == REDIS_REPLY_ERROR)
          return Failure{"Redis at " + redis.address().text() + ": UNLINK: " + std::string(text_of(*reply))};
        removed += static_cast<uint64_t>(reply->integer);
      }
      return true;
    };
    if (const auto done = for_names(redis, prefix, unlink); !done)
      return fail(done.error() + " (" + std::to_string(removed) + " names were removed)", kUnreachable);
  }
  std::printf(json ? "{\"removed\":%llu}\n" : "removed %llu names\n",
              static_cast<unsigned long long>(removed));
  return kDone;
}

// Of the argument, or of the configuration; `code`, where there is none: how the command ends.
std::optional<BooksUrl> url_of(const cxxopts::ParseResult& args, int& code) {
  const std::vector<std::string>& words =
      args.unmatched();  // as they are: a list of cxxopts would be cut at commas
  const bool from_file = args.count("config") != 0;
  if (words.size() + (from_file ? 1 : 0) != 1)
    return code = fail("usage: tally books [--remove [--yes]] [--json] URL | -c FILE", kUsage), std::nullopt;
  if (!from_file) {
    auto url = parse_books_url(words.front());
    if (!url) return code = fail("URL: " + url.error(), kUsage), std::nullopt;
    return std::move(url.value());
  }
  const std::string path = args["config"].as<std::string>();
  auto config = read_configuration(path, false, code);
  if (!config) return std::nullopt;
  if (config->cluster.books) return config->cluster.books;
  return code = fail(path + ": its books are not in Redis", kUsage), std::nullopt;
}

}  // namespace

int run_books_command(int argc, char** argv) {
  cxxopts::Options options("tally books", "What a fleet keeps in Redis, or its removal\n");
  options.custom_help("[--remove [--yes]] [--json] URL | -c FILE");
  options.add_options()                                                                          //
      ("c,config", "the configuration that has the URL", cxxopts::value<std::string>(), "FILE")  //
      ("remove", "remove all names of the prefix; running daemons go through a quiet time")      //
      ("yes", "do not ask first")                                                                //
      ("json", "print JSON")                                                                     //
      ("h,help", "print this help");
  const auto args = options.parse(argc, argv);
  if (args.count("help") != 0) return std::printf("%s", options.help().c_str()), kDone;
  int code = kDone;
  const auto url = url_of(args, code);
  if (!url) return code;
  const bool json = args.count("json") != 0, removes = args.count("remove") != 0,
             sure = args.count("yes") != 0;
  if (sure && !removes) return fail("--yes goes with --remove", kUsage);
  if (removes && !sure && ::isatty(STDIN_FILENO) == 0)
    return fail("--remove asks first, and there is no terminal: add --yes", kUsage);
  auto masters = open_masters(*url);
  if (!masters) return fail(masters.error(), kUnreachable);
  if (!removes) return list(masters.value(), url->prefix, json);
  if (!sure && !agreed(url->prefix)) return fail("nothing was removed", kUsage);
  return remove(masters.value(), url->prefix, json);
}

}  // namespace tally::tool
