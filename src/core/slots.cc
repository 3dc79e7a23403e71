#include "core/slots.h"
