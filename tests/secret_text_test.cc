// The secret file: what is read, what is written, and what is said of a bad one.
#include "config/secret_text.h"

#include <doctest/doctest.h>

#include <string>

#include "base/random.h"
#include "seed.h"

using namespace tally;

namespace {

const std::string kId(31, 'a'), kSealA = std::string(62, '1') + "23", kSealB = std::string(62, '4') + "56";
const std::string kIdLine = "id " + kId + "b\n", kSealLine = "seal " + kSealA + "\n";

std::string errors_of(std::string_view text) {
  const ParsedSecret parsed = parse_secret(text);
  CHECK(parsed.secret.has_value() == parsed.errors.empty());
  std::string all;
  for (const Problem& problem : parsed.errors) all += (all.empty() ? "" : "\n") + format_problem("f", problem);
  return all;
}

bool same(const Secret& a, const Secret& b) { return a.id == b.id && a.seal == b.seal && a.next == b.next && a.old == b.old; }

}  // namespace

TEST_CASE("what is written is read back, in every step of a rotation") {
  Secret secret = Secret::random();
  for (int i = 0; i < 7; ++i) {
    const std::string text = format_secret(secret);
    const ParsedSecret parsed = parse_secret(text);
    REQUIRE(parsed.errors.empty());
    CHECK(same(*parsed.secret, secret));
    CHECK(parsed.secret->id == secret.id);
    CHECK(text.find(secret.seal.fingerprint_text()) != std::string::npos);
    REQUIRE(rotate(secret, next_step(secret)));
  }
}

TEST_CASE("lines in any order, comments, blank lines, tabs, capitals and \\r\\n are read") {
  const ParsedSecret plain = parse_secret(kIdLine + kSealLine);
  REQUIRE(plain.errors.empty());
  std::string upper = kId;
  for (char& c : upper) c = 'A';
  const ParsedSecret odd = parse_secret("# a comment\r\n\r\n  seal\t" + kSealA + "  # x\r\nid " + upper + "B");
  REQUIRE(odd.errors.empty());
  CHECK(same(*plain.secret, *odd.secret));
}

TEST_CASE("each error has its line and column, and none says anything of a key") {
  CHECK(errors_of("") == "f:1:1: id: is missing; make a whole file with: tally secret FILE\n"
                         "f:1:1: seal: is missing; make a whole file with: tally secret FILE");
  CHECK(errors_of(kIdLine) == "f:2:1: seal: is missing; make a whole file with: tally secret FILE");
  CHECK(errors_of(kIdLine + "  sael " + kSealA + "\n" + kSealLine) ==
        "f:2:3: a line begins with \"id\", \"seal\", \"next\" or \"old\", and then comes a key");
  CHECK(errors_of(kIdLine + "seal " + kSealA.substr(1) + "\n") == "f:2:6: seal: must be 64 hexadecimal digits, got 63");
  CHECK(errors_of("id\n" + kSealLine) == "f:1:3: id: must be 32 hexadecimal digits, got 0");
  CHECK(errors_of(kIdLine + "seal 12x4\n") == "f:2:8: seal: not a hexadecimal digit (0-9, a-f)");
  CHECK(errors_of(kIdLine + kSealLine + kIdLine) == "f:3:1: id: stands in line 1 already");
  CHECK(errors_of(kIdLine + "seal " + kSealA + " " + kSealB) == "f:2:71: seal: there is something behind the key");
  CHECK(errors_of(kIdLine + kSealLine + "next " + kSealA) == "f:3:1: next: is the same key as seal");
  CHECK(errors_of(kIdLine + kSealLine + "next " + kSealB + "\nold " + kSealB) ==
        "f:4:1: \"next\" and \"old\" are of different steps of a rotation: only one of them at a time");
  CHECK(errors_of(kIdLine + "seal " + std::string(64, '0')) ==
        "f:2:6: seal: one byte again and again is no key; make one with: tally secret FILE");
  CHECK(errors_of(std::string(kSecretFileBytesMax + 1, '\n')) == "f:1:1: a secret file has at most 16384 bytes");
}

TEST_CASE("any bytes are a secret or errors, and what is a secret can be written again") {
  Random random(test_seed(1));
  const std::string whole = format_secret(Secret::random());
  for (int i = 0; i < 20'000; ++i) {
    std::string text = whole;
    for (uint64_t changes = random.below(4) + 1; changes > 0; --changes) {
      const size_t at = random.below(text.size());
      if (random.chance(0.5))
        text[at] = static_cast<char>(random.next());
      else
        text.erase(at, random.below(100));
      if (text.empty()) break;
    }
    const ParsedSecret parsed = parse_secret(text);
    REQUIRE(parsed.secret.has_value() == parsed.errors.empty());
    if (!parsed.secret) continue;
    const ParsedSecret again = parse_secret(format_secret(*parsed.secret));
    REQUIRE(again.secret.has_value());
    REQUIRE(same(*again.secret, *parsed.secret));
  }
}
