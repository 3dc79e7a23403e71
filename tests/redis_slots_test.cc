// Whose slots are whose in a Redis Cluster, and who a Sentinel's master is, as servers tell it.
#include "daemon/redis_slots.h"

#include <doctest/doctest.h>
#include <hiredis/hiredis.h>

#include <memory>
#include <string>

using namespace tally;

namespace {

const RedisAddress kAsked{"10.0.0.1", 7000};

std::unique_ptr<redisReply, void (*)(void*)> reply_of(const std::string& bytes) {
  redisReader* reader = redisReaderCreate();
  redisReaderFeed(reader, bytes.data(), bytes.size());
  void* reply = nullptr;
  redisReaderGetReply(reader, &reply);
  redisReaderFree(reader);
  return {static_cast<redisReply*>(reply), freeReplyObject};
}

std::string range(int first, int last, const std::string& host, int port) {
  return "*3\r\n:" + std::to_string(first) + "\r\n:" + std::to_string(last) + "\r\n*3\r\n" + host + ":" +
         std::to_string(port) + "\r\n$2\r\nid\r\n";
}

}  // namespace

TEST_CASE("a name's slot is that of the part in braces") {
  CHECK(slot_of("123456789") == 0x31C3);  // the check value of CRC-16/XMODEM is below 16,384
  CHECK(slot_of("foo") == 12182);         // as CLUSTER KEYSLOT says
  CHECK(slot_of("tally:{foo}:generation") == slot_of("foo"));
  CHECK(slot_of("a{}b") != slot_of(""));
  CHECK(slot_of("a{}b") == slot_of("a{}b"));
  CHECK(slot_of("a{b") != slot_of("b"));
  CHECK(slot_of("x}{foo}{bar}") == slot_of("foo"));
}

TEST_CASE("ranges of slots are read, and those of a master without an address are left out") {
  const auto reply =
      reply_of("*5\r\n" + range(0, 5460, "$8\r\n10.0.0.2\r\n", 7001) + range(5461, 5461, "$-1\r\n", 7000) +
               range(5462, 5470, "$0\r\n\r\n", 7000) + range(5471, 6000, "$1\r\n?\r\n", 7000) +
               range(6001, 16383, "$3\r\n::1\r\n", 7002));
  REQUIRE(reply);
  const std::vector<SlotRange> expected{{0, 5460, {"10.0.0.2", 7001}},
                                        {5461, 5461, kAsked},
                                        {5462, 5470, kAsked},
                                        {6001, 16383, {"::1", 7002}}};
  CHECK(read_slots(*reply, kAsked) == expected);
  for (const char* wrong :
       {"*0\r\n", "+OK\r\n", "-ERR\r\n", "*1\r\n:1\r\n", "*1\r\n*3\r\n:0\r\n:1\r\n$1\r\nx\r\n",
        "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\nx\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\nx\r\n:0\r\n", "*1\r\n*3\r\n:-1\r\n:1\r\n*2\r\n$1\r\nx\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n:1\r\n:1\r\n"})
    CHECK_MESSAGE(read_slots(*reply_of(wrong), kAsked).empty(), wrong);
}

TEST_CASE("a server that sends away says where to, and for how long") {
  CHECK(read_redirection("MOVED 3999 10.0.0.3:6381", kAsked) == Redirection{true, {"10.0.0.3", 6381}});
  CHECK(read_redirection("ASK 3999 2001:db8::1:6381", kAsked) == Redirection{false, {"2001:db8::1", 6381}});
  CHECK(read_redirection("MOVED 3999 :6381", kAsked) == Redirection{true, {"10.0.0.1", 6381}});
  for (const char* other :
       {"", "MOVED", "MOVED ", "MOVED 1", "MOVED 1 x", "MOVED 1 x:", "MOVED 1 x:0", "MOVED 1 x:65536",
        "MOVED 1 ?:1", "ASKING 1 x:1", "CLUSTERDOWN Hash slot not served", "ASK 1 x:1y"})
    CHECK_MESSAGE(!read_redirection(other, kAsked), other);
}

TEST_CASE("a Sentinel names a master, or none") {
  CHECK(read_master(*reply_of("*2\r\n$8\r\n10.0.0.2\r\n$4\r\n6379\r\n")) == RedisAddress{"10.0.0.2", 6379});
  for (const char* other : {"*-1\r\n", "*0\r\n", "+OK\r\n", "*1\r\n$1\r\nx\r\n", "*2\r\n$1\r\nx\r\n:6379\r\n", "*2\r\n$1\r\nx\r\n$-1\r\n", "*2\r\n$-1\r\n$4\r\n6379\r\n",
                            "*2\r\n$1\r\nx\r\n$1\r\n0\r\n", "*2\r\n$1\r\nx\r\n$5\r\n65536\r\n"})
    CHECK_MESSAGE(!read_master(*reply_of(other)), other);
}
