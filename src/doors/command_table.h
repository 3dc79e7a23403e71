// Inside the RESP door: the table of commands, and what its handlers share.
//
// Thread rule: as commands.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "doors/commands.h"

namespace tally::resp {

// One command on its way. A handler either fills in `request` or writes to `reply`.
struct Call {
  std::span<const std::string_view> args;
  Connection& connection;
  const Env& env;
  Request& request;
  std::string& out;
  Writer reply;  // to `out`
};

struct Command {
  std::string_view name;        // lower case
  uint16_t args_min, args_max;  // the name included
  void (*run)(Call&);
  std::string_view flags;      // as COMMAND names them, by spaces
  int8_t key_first, key_last;  // places of keys among the arguments; 0: none; -1: the last
  std::string_view group;
  std::string_view usage;  // its arguments; optional ones in brackets
  std::string_view summary;
};

inline constexpr uint16_t kAnyArguments = UINT16_MAX;

std::span<const Command> commands();
const Command* find_command(std::string_view name);  // in any case; nullptr where there is none

bool equals_ignoring_case(std::string_view text, std::string_view lower);
std::string lower(std::string_view text);
std::string quoted(std::string_view text);  // 'text', shortened and without control characters, for messages

void refuse(Call& call, Fault fault, std::string_view message);
void refuse_arity(Call& call, std::string_view name);

// What clients ask on connecting and for housekeeping (connecting.cc).
void run_auth(Call& call);
void run_client(Call& call);
void run_command(Call& call);
void run_config(Call& call);
void run_echo(Call& call);
void run_hello(Call& call);
void run_http(Call& call);
void run_info(Call& call);
void run_ping(Call& call);
void run_quit(Call& call);
void run_reset(Call& call);
void run_select(Call& call);
void run_time(Call& call);

}  // namespace tally::resp
