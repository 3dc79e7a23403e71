#include "core/limiter.h"
