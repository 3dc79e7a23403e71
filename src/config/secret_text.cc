#include "config/secret_text.h"

#include <algorithm>
#include <array>
#include <span>

namespace tally {
namespace {

constexpr std::array<std::string_view, 4> kWords = {"id", "seal", "next", "old"};
constexpr size_t kId = 0, kSeal = 1, kNext = 2, kOld = 3;

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

std::string hex(std::span<const uint8_t> bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(2 * bytes.size());
  for (const uint8_t byte : bytes) {
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
  return out;
}

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r'; }

class Reading {
 public:
  ParsedSecret all(std::string_view text) {
    if (text.size() > kSecretFileBytesMax) {
      line_ = 1;
      error(1, "", "a secret file has at most " + std::to_string(kSecretFileBytesMax) + " bytes");
      return std::move(out_);
    }
    for (; !text.empty(); text.remove_prefix(std::min(text.find('\n'), text.size() - 1) + 1)) {
      ++line_;
      read_line(text.substr(0, text.find('\n')));
    }
    ++line_;
    check_whole();
    if (out_.errors.empty()) make();
    std::stable_sort(out_.errors.begin(), out_.errors.end(), [](const Problem& a, const Problem& b) {
      return std::pair(a.line, a.column) < std::pair(b.line, b.column);
    });
    return std::move(out_);
  }
  ~Reading() {
    for (auto& key : keys_)
      if (key) wipe(*key);
  }

 private:
  void error(size_t column, std::string_view path, std::string message) {
    out_.errors.push_back({line_, static_cast<int>(column), std::string(path), std::move(message)});
  }

  void read_line(std::string_view line) {
    line = line.substr(0, line.find('#'));
    size_t at = 0;
    const auto take_word = [&] {
      while (at < line.size() && is_space(line[at])) ++at;
      const size_t from = at;
      while (at < line.size() && !is_space(line[at])) ++at;
      return std::pair(from + 1, line.substr(from, at - from));
    };
    const auto [word_at, word] = take_word();
    if (word.empty()) return;
    const auto which = static_cast<size_t>(std::find(kWords.begin(), kWords.end(), word) - kWords.begin());
    if (which == kWords.size())
      return error(word_at, "",
                   "a line begins with \"id\", \"seal\", \"next\" or \"old\", and then comes a key");
    const auto [key_at, key] = take_word();
    if (lines_[which] != 0)
      return error(word_at, word, "stands in line " + std::to_string(lines_[which]) + " already");
    lines_[which] = line_;
    read_key(which, key_at, key);
    if (const auto [more_at, more] = take_word(); !more.empty())
      error(more_at, word, "there is something behind the key");
  }

  void read_key(size_t which, size_t key_at, std::string_view text) {
    const size_t digits = 2 * (which == kId ? sizeof(IdKey) : SealKey::kBytes);
    const auto wrong = std::find_if(text.begin(), text.end(), [](char c) { return digit(c) < 0; });
    if (wrong != text.end())
      return error(key_at + static_cast<size_t>(wrong - text.begin()), kWords[which],
                   "not a hexadecimal digit (0-9, a-f)");
    if (text.size() != digits)
      return error(
          key_at, kWords[which],
          "must be " + std::to_string(digits) + " hexadecimal digits, got " + std::to_string(text.size()));
    std::string& bytes = keys_[which].emplace(digits / 2, '\0');
    for (size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<char>(digit(text[2 * i]) << 4 | digit(text[2 * i + 1]));
    if (std::all_of(bytes.begin(), bytes.end(), [&](char c) { return c == bytes.front(); }))
      error(key_at, kWords[which], "one byte again and again is no key; make one with: tally secret FILE");
  }

  void check_whole() {
    for (const size_t needed : {kId, kSeal})
      if (lines_[needed] == 0)
        error(1, kWords[needed], "is missing; make a whole file with: tally secret FILE");
    if (lines_[kNext] != 0 && lines_[kOld] != 0) {
      line_ = std::max(lines_[kNext], lines_[kOld]);
      error(1, "", "\"next\" and \"old\" are of different steps of a rotation: only one of them at a time");
    }
    for (const size_t other : {kNext, kOld})
      if (keys_[other] && keys_[kSeal] && *keys_[other] == *keys_[kSeal]) {
        line_ = std::max(lines_[other], lines_[kSeal]);
        error(1, kWords[other], "is the same key as seal");
      }
  }

  SealKey seal_key(size_t which) const {
    const auto* bytes = reinterpret_cast<const uint8_t*>(keys_[which]->data());
    return SealKey(std::span<const uint8_t, SealKey::kBytes>(bytes, SealKey::kBytes));
  }

  void make() {
    IdKey id;
    std::copy(keys_[kId]->begin(), keys_[kId]->end(), id.begin());
    Secret& secret = out_.secret.emplace(id, seal_key(kSeal));
    if (keys_[kNext]) secret.next = seal_key(kNext);
    if (keys_[kOld]) secret.old = seal_key(kOld);
    const auto& other = secret.next ? secret.next : secret.old;
    if (!other || other->fingerprint() != secret.seal.fingerprint()) return;
    out_.secret.reset();  // one in four billion
    line_ = std::max(lines_[kSeal], std::max(lines_[kNext], lines_[kOld]));
    error(1, "", "the two keys have the same fingerprint, by which hosts tell them apart: make another");
  }

  ParsedSecret out_;
  int line_ = 0;
  std::array<int, kWords.size()> lines_{};                      // where each stands; 0: nowhere
  std::array<std::optional<std::string>, kWords.size()> keys_;  // their bytes
};

std::string key_line(std::string_view word, std::span<const uint8_t> bytes, std::string_view comment) {
  std::string digits = hex(bytes);
  std::string line =
      std::string(word) + std::string(6 - word.size(), ' ') + digits + "  # " + std::string(comment) + "\n";
  wipe(digits);
  return line;
}

std::string key_line(std::string_view word, const SealKey& key, std::string_view comment) {
  return key_line(word, std::span(key.data(), SealKey::kBytes),
                  key.fingerprint_text() + ": " + std::string(comment));
}

}  // namespace

ParsedSecret parse_secret(std::string_view text) { return Reading().all(text); }

std::string format_secret(const Secret& secret) {
  std::string out =
      "# The secret of a tallyd fleet: the same file on every host, owned by the daemon's user or root, mode "
      "0600.\n"
      "# Whoever can read it can speak as any host of the fleet. Changed by: tally secret --rotate FILE\n"
      "# After each change bring it to all hosts, and send SIGHUP to their tallyd, before the next change.\n";
  out.reserve(4096);  // so that no copy is left behind
  out += key_line("id", secret.id, "the names of keys; never changes");
  out += key_line("seal", secret.seal, "datagrams are sealed with it");
  if (secret.next) out += key_line("next", *secret.next, "accepted; sealed with after the next --rotate");
  if (secret.old) out += key_line("old", *secret.old, "accepted; dropped by the next --rotate");
  return out;
}

}  // namespace tally
