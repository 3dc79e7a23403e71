// Built without gRPC: what main is linked with in place of the door. Nobody gets here, as configurations that
// want it are refused.
#include "base/fail.h"
#include "rls/door.h"

namespace tally {

struct RlsDoor::Inside {};

RlsDoor::RlsDoor(Parts) { CHECK_THAT(!"built without gRPC"); }
RlsDoor::~RlsDoor() = default;
bool RlsDoor::adopt(Descriptor) { return false; }
void RlsDoor::drain(Duration) {}
GrpcCounts RlsDoor::counts() const { return {}; }

}  // namespace tally
