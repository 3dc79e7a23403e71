// RESP commands that clients send about the connection and the server.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "commands_fixture.h"
#include "doors/command_table.h"

using namespace tally;
using namespace tally::test;

TEST_CASE("PING and ECHO") {
  Client client;
  CHECK(client.ask({"PING"}) == "+PONG\r\n");
  CHECK(client.ask({"ping", "a\r\nb"}) == bulk("a\r\nb"));
  CHECK(client.ask({"ECHO", "x"}) == bulk("x"));
}

TEST_CASE("HELLO chooses the protocol and tells who is there, and is a barrier") {
  Client client;
  const std::string fields =
      "$6\r\nserver\r\n$6\r\ntallyd\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$5\r\nproto\r\n:";
  const std::string rest =
      "\r\n$2\r\nid\r\n:7\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$"
      "7\r\nmodules\r\n*0\r\n";
  CHECK(client.ask({"HELLO"}) == "*14\r\n" + fields + "2" + rest);
  CHECK(client.request.barrier);
  CHECK(client.ask({"hello", "3"}) == "%7\r\n" + fields + "3" + rest);
  CHECK(client.connection.version == 3);
  CHECK(client.request.version == 3);
  CHECK(client.ask({"HELLO"}) == "%7\r\n" + fields + "3" + rest);
  CHECK(client.ask({"HELLO", "2", "AUTH", "default", "pw", "SETNAME", "me"}) ==
        "*14\r\n" + fields + "2" + rest);
  CHECK(client.connection.version == 2);
  CHECK(client.connection.name == "me");
}

TEST_CASE("a HELLO that fails changes nothing") {
  Client client;
  CHECK(client.ask({"HELLO", "4"}) == error("NOPROTO unsupported protocol version"));
  CHECK(client.ask({"HELLO", "x"}) == error("ERR Protocol version is not an integer or out of range"));
  CHECK(client.ask({"HELLO", "3", "SETNAME"}) == error("ERR Syntax error in HELLO option 'SETNAME'"));
  CHECK(client.ask({"HELLO", "3", "SETNAME", "me", "AUTH", "bob", "pw"}) ==
        error("WRONGPASS invalid username-password pair or user is disabled."));
  CHECK(client.request.fault == Fault::authentication);
  CHECK(client.ask({"HELLO", "3", "SETNAME", "a b"}) ==
        error("ERR Client names cannot contain spaces, newlines or special characters."));
  CHECK(client.connection.version == 2);
  CHECK(client.connection.name == "");
}

TEST_CASE("AUTH answers as a Redis without passwords") {
  Client client;
  CHECK(client.ask({"AUTH", "pw"}) == error("ERR AUTH <password> called without any password configured for "
                                            "the default user. Are you sure your "
                                            "configuration is correct?"));
  CHECK(client.ask({"AUTH", "default", "pw"}) == "+OK\r\n");
  CHECK(client.ask({"AUTH", "bob", "pw"}) ==
        error("WRONGPASS invalid username-password pair or user is disabled."));
}

TEST_CASE("there is database 0") {
  Client client;
  CHECK(client.ask({"SELECT", "0"}) == "+OK\r\n");
  CHECK(client.ask({"SELECT", "1"}) == error("ERR DB index is out of range"));
  CHECK(client.ask({"SELECT", "x"}) == error("ERR value is not an integer or out of range"));
}

TEST_CASE("CLIENT keeps what a client says of itself") {
  Client client;
  CHECK(client.ask({"CLIENT", "ID"}) == ":7\r\n");
  CHECK(client.ask({"CLIENT", "GETNAME"}) == "$-1\r\n");
  CHECK(client.ask({"client", "setname", "worker-1"}) == "+OK\r\n");
  CHECK(client.ask({"CLIENT", "GETNAME"}) == bulk("worker-1"));
  CHECK(client.ask({"CLIENT", "SETINFO", "LIB-NAME", "redis-py"}) == "+OK\r\n");
  CHECK(client.ask({"CLIENT", "SETINFO", "lib-ver", "4.3.4"}) == "+OK\r\n");
  CHECK(client.ask({"CLIENT", "LIST"}) ==
        bulk("id=7 name=worker-1 db=0 user=default resp=2 lib-name=redis-py lib-ver=4.3.4\n"));
  CHECK(client.ask({"CLIENT", "SETINFO", "LIB-AGE", "3"}) == error("ERR Unrecognized option 'LIB-AGE'"));
  CHECK(client.ask({"CLIENT", "SETNAME", "a b"}) ==
        error("ERR Client names cannot contain spaces, newlines or special characters."));
  CHECK(client.ask({"CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type", "none"}) == "+OK\r\n");
  CHECK(client.ask({"CLIENT", "KILL", "ID", "7"}) ==
        error("ERR unknown subcommand 'KILL'. CLIENT has SETNAME, GETNAME, ID, SETINFO, LIST, INFO."));
  CHECK(client.ask({"CLIENT", "SETNAME", std::string(100'000, 'x')}).starts_with("-ERR"));
}

TEST_CASE("INFO has what clients look for, by section or as a whole") {
  Client client;
  const std::string all = client.ask({"INFO"});
  for (const char* line : {"redis_version:7.0.0\r\n", "redis_mode:standalone\r\n", "loading:0\r\n",
                           "role:master\r\n", "tallyd_version:1.2.3\r\n", "uptime_in_seconds:90061\r\n",
                           "uptime_in_days:1\r\n", "connected_clients:2\r\n", "# Server\r\n"}) {
    CAPTURE(line);
    CHECK(all.find(line) != std::string::npos);
  }
  CHECK(client.ask({"INFO", "everything"}) == all);
  CHECK(client.ask({"info", "REPLICATION"}) ==
        bulk("# Replication\r\nrole:master\r\nconnected_slaves:0\r\n"));
  CHECK(client.ask({"info", "persistence", "cluster"}) ==
        bulk("# Persistence\r\nloading:0\r\n\r\n# Cluster\r\ncluster_enabled:0\r\n"));
  CHECK(client.ask({"info", "nonsense"}) == bulk(""));
}

TEST_CASE("COMMAND lists each command once, with its arity and keys") {
  Client client;
  const std::string n = std::to_string(commands().size());
  CHECK(client.ask({"COMMAND", "COUNT"}) == ":" + n + "\r\n");
  CHECK(
      client.ask({"COMMAND"})
          .starts_with("*" + n + "\r\n*10\r\n$11\r\ncl.throttle\r\n:-5\r\n*2\r\n+write\r\n+fast\r\n:1\r\n"));
  CHECK(client.ask({"COMMAND", "INFO", "tally.PEEK", "nonsense", "post"}) ==
        "*3\r\n*10\r\n$10\r\ntally.peek\r\n:3\r\n*2\r\n+readonly\r\n+fast\r\n:2\r\n:2\r\n:1\r\n*0\r\n*0\r\n*"
        "0\r\n*0\r\n"
        "$-1\r\n$-1\r\n");
  client.connection.version = 3;
  CHECK(client.ask({"COMMAND", "DOCS"})
            .starts_with("%" + n + "\r\n$11\r\ncl.throttle\r\n%4\r\n$7\r\nsummary\r\n"));
  CHECK(client.ask({"COMMAND", "DOCS", "echo", "nonsense"}) ==
        "%1\r\n$4\r\necho\r\n%4\r\n$7\r\nsummary\r\n$19\r\nAnswers the "
        "message\r\n$5\r\nsince\r\n$5\r\n0.1.0\r\n"
        "$5\r\ngroup\r\n$10\r\nconnection\r\n$9\r\narguments\r\n*1\r\n%2\r\n$4\r\nname\r\n$7\r\nmessage\r\n"
        "$4\r\ntype\r\n$6\r\nstring\r\n");
  CHECK(client.ask({"COMMAND", "LIST"}).starts_with("*" + n + "\r\n$11\r\ncl.throttle\r\n"));
}

TEST_CASE("CONFIG GET answers what benchmarks look up") {
  Client client;
  CHECK(client.ask({"CONFIG", "GET", "save"}) == "*2\r\n$4\r\nsave\r\n$0\r\n\r\n");
  CHECK(client.ask({"config", "get", "appendonly"}) == "*2\r\n$10\r\nappendonly\r\n$2\r\nno\r\n");
  CHECK(client.ask({"CONFIG", "GET", "max*", "SAV?"}) ==
        "*6\r\n$10\r\nmaxclients\r\n$5\r\n10000\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n$4\r\nsave\r\n$0\r\n\r\n");
  CHECK(client.ask({"CONFIG", "GET", "nonsense"}) == "*0\r\n");
  CHECK(client.ask({"CONFIG", "GET", "*****a*****b***"}) == "*2\r\n$9\r\ndatabases\r\n$1\r\n1\r\n");
  CHECK(client.ask({"CONFIG", "GET"}) == error("ERR wrong number of arguments for 'config|get' command"));
  CHECK(client.ask({"CONFIG", "SET", "save", ""}).starts_with("-ERR unknown subcommand 'SET'"));
}

TEST_CASE("TIME is the clock of the batch") {
  Client client;
  CHECK(client.ask({"TIME"}) == "*2\r\n$10\r\n1700000000\r\n$6\r\n123456\r\n");
}

TEST_CASE("QUIT answers and closes, RESET puts everything back") {
  Client client;
  client.ask({"HELLO", "3", "SETNAME", "me"});
  CHECK(client.ask({"RESET"}) == "+RESET\r\n");
  CHECK(client.request.barrier);
  CHECK_FALSE(client.request.close);
  CHECK(client.connection.version == 2);
  CHECK(client.connection.name == "");
  CHECK(client.ask({"QUIT"}) == "+OK\r\n");
  CHECK(client.request.close);
  CHECK(client.request.barrier);
}

TEST_CASE(
    "HTTP on a RESP port is refused and the connection closed, so that a web page can send no commands") {
  Client client;
  for (const char* word : {"POST", "Host:"}) {
    CHECK(client.ask({word, "/", "HTTP/1.1"}) == error("ERR this port speaks RESP, not HTTP"));
    CHECK(client.request.close);
    CHECK(client.request.fault == Fault::protocol);
  }
}
