// `tally top`: the keys that a daemon is asked for most, as a table or as JSON, and a terminal that is drawn
// anew.
//
// Thread rule: one thread. A Screen ends the process with 0 on SIGINT and SIGTERM.
#pragma once

#include <cstddef>
#include <string>

#include "connection.h"
#include "table.h"

namespace tally::tool {

// Of the replies to TALLY.TOP and TALLY.STATS.
Cells top_cells(const Reply& top, const Reply& stats);       // how often a second, rule, key
std::string top_json(const Reply& top, const Reply& stats);  // as GET /v1/top

class Screen {
 public:
  Screen();  // the standard output, a terminal
  ~Screen();
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  size_t lines() const;  // it has so many now
  void begin();          // what is printed next stands on top
  void end();
};

}  // namespace tally::tool
