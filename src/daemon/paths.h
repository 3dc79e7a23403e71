// Where a daemon puts its socket and its state when nobody says so.
//
// Thread rule: any; reads the environment, so before threads start.
#pragma once

#include <string>

#include "base/fail.h"

namespace tally {

// root: /run/tallyd/tallyd.sock; others: $XDG_RUNTIME_DIR/tallyd.sock. With a name: tallyd-NAME.sock.
Result<std::string> default_socket_path(const std::string& name);
// root: /var/lib/tallyd; others: $XDG_STATE_HOME/tallyd or ~/.local/state/tallyd.
Result<std::string> default_state_dir();
// NAME.state, or tallyd.state where there is no name.
std::string state_file_name(const std::string& name);
// Creates a directory and those above it, 0755; existing ones are left alone. The error says which one failed
// and why.
Result<bool> make_directories(const std::string& path);
// Letters, digits, '.', '_' and '-', at most 64, not beginning with '.': what may become part of a file name.
bool is_file_name(const std::string& name);

}  // namespace tally
