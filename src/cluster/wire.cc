#include "cluster/wire.h"
