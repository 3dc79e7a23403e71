#include "cluster/roster.h"
