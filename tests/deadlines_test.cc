// By when connections over HTTP have to have done something: lists in order, each with its own length.
#include "daemon/deadlines.h"

#include <memory>
#include <vector>

#include "core_fixture.h"
#include "daemon/session.h"
#include "doctest/doctest.h"

using namespace tally;
using namespace tally::test;

namespace {

struct Connections {
  explicit Connections(size_t n) {
    for (size_t i = 0; i < n; ++i) {
      sessions.push_back(std::make_unique<Session>(Descriptor(), i, true, resp::Limits{}));
      all.push_back(std::make_unique<Deadline>(*sessions.back()));
      deadlines.add(*all.back());
    }
  }
  std::vector<std::unique_ptr<Session>> sessions;
  std::vector<std::unique_ptr<Deadline>> all;
  Deadlines deadlines{secs(75)};
};

}  // namespace

TEST_CASE("nothing is due for whom nothing is asked") {
  Connections c(2);
  CHECK_FALSE(c.deadlines.next_due().has_value());
  CHECK(c.deadlines.due(mono(secs(1'000'000))) == nullptr);
}

TEST_CASE("a request that does not grow into a whole one is due after its time, however often bytes come") {
  Connections c(1);
  c.deadlines.set(*c.all[0], Until::asked, 7, mono(secs(1)));
  for (int i = 1; i <= 9; ++i) c.deadlines.set(*c.all[0], Until::asked, 7, mono(secs(1 + i)));
  CHECK(c.deadlines.next_due() == mono(secs(11)));
  CHECK(c.deadlines.due(mono(secs(11) - Duration(1))) == nullptr);
  CHECK(c.deadlines.due(mono(secs(11))) == c.all[0].get());
  c.deadlines.set(*c.all[0], Until::asked, 8, mono(secs(5)));  // the next request
  CHECK(c.deadlines.next_due() == mono(secs(15)));
}

TEST_CASE("who is asked for something else has the time for that") {
  Connections c(3);
  c.deadlines.set(*c.all[0], Until::idle, 0, mono(secs(0)));
  c.deadlines.set(*c.all[1], Until::taken, 0, mono(secs(1)));
  c.deadlines.set(*c.all[2], Until::gone, 0, mono(secs(2)));
  CHECK(c.deadlines.due(mono(secs(4))) == c.all[2].get());
  c.deadlines.remove(*c.all[2]);
  CHECK(c.deadlines.due(mono(secs(11))) == c.all[1].get());
  c.deadlines.set(*c.all[1], Until::nothing, 0, mono(secs(9)));
  CHECK(c.deadlines.due(mono(secs(74))) == nullptr);
  CHECK(c.deadlines.due(mono(secs(75))) == c.all[0].get());
}

TEST_CASE("those who were busy last are due last, and one that is busy all the time is moved seldom") {
  Connections c(3);
  for (auto& one : c.all) c.deadlines.set(*one, Until::idle, 0, mono(secs(0)));
  c.deadlines.set(*c.all[0], Until::idle, 1, mono(secs(3)));  // less than a sixteenth later
  CHECK(c.all[0]->due == mono(secs(75)));
  c.deadlines.set(*c.all[0], Until::idle, 2, mono(secs(10)));
  CHECK(c.all[0]->due == mono(secs(85)));
  c.deadlines.set(*c.all[1], Until::idle, 1, mono(secs(20)));
  CHECK(c.deadlines.due(mono(secs(80))) == c.all[2].get());
  c.deadlines.remove(*c.all[2]);
  CHECK(c.deadlines.due(mono(secs(84))) == nullptr);
  CHECK(c.deadlines.due(mono(secs(85))) == c.all[0].get());
}
