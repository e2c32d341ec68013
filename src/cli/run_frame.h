/* run_frame.h - what `train` and `resume` share: signals, progress, the run's folder. */
#ifndef KW_CLI_RUN_FRAME_H
#define KW_CLI_RUN_FRAME_H

#include "cli.h"
#include "train/train.h"

/* Opens the run, shows its plan, trains. recipe: written into the folder as recipe.toml (NULL when resuming). */
KW_MUST kw_status kw_run_frame(kw_cli *c, const kw_settings *s, const char *recipe, kw_err *e);

#endif
