/* targets.h - internal to adapter/. */
#ifndef KW_ADAPTER_TARGETS_H
#define KW_ADAPTER_TARGETS_H

#include "adapter.h"

/* The set that a layer of this part belongs to, or 0: it is never adapted. */
unsigned kw__target_of(kw_part part, const char *path);

#endif
