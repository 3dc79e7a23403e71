#include "doors/resp.h"
