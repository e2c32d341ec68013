/* internal.h - what the files of model/ share. */
#ifndef KW_MODEL_INTERNAL_H
#define KW_MODEL_INTERNAL_H

#include "model.h"

/*
 * Calls `ask` once for every parameter that a part of this configuration has. What it finds must hold numbers only for
 * vectors (rank 1): matrices are never looked at, their data need only not be NULL.
 */
KW_MUST kw_status kw__part_ask(kw_part part, const json_t *config, kw_param_find *ask, void *ctx, kw_err *e);

#endif
