// The status page: one static text on the endpoints beside it, no build step, no outside asset.
//
// Thread rule: immutable.
#pragma once

#include <string_view>

namespace tally {

extern const std::string_view kPage;

}  // namespace tally
