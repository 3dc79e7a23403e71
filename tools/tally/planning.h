// The commands that need no daemon and have options of their own: `tally plan`, `tally try`, `tally secret`, `tally rules test`,
// `tally convert`, `tally books`.
#pragma once

namespace tally::tool {

// argv[0] is the command's name. All return the tool's exit codes: 0, 2 usage; plan: 1 where the engine
// broke one of its own promises; secret, rules test, convert, books: 78 for a file that cannot be used; books:
// 3 where Redis cannot be asked. Throw what cxxopts throws.
int run_plan_command(int argc, char** argv);
int run_try_command(int argc, char** argv);
int run_secret_command(int argc, char** argv);
int run_rules_test_command(int argc, char** argv);
int run_convert_command(int argc, char** argv);
int run_books_command(int argc, char** argv);

}  // namespace tally::tool
