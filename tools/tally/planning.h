// The commands that need no daemon: `tally plan` and `tally try`, with options of their own.
#pragma once

namespace tally::tool {

// argv[0] is the command's name. Both return the tool's exit codes: 0, 2 usage; plan: 1 where the engine
// broke one of its own promises. Throw what cxxopts throws.
int run_plan_command(int argc, char** argv);
int run_try_command(int argc, char** argv);

}  // namespace tally::tool
