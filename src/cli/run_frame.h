/* run_frame.h - what `train` and `resume` share: signals, progress, the run's folder. */
#ifndef KW_CLI_RUN_FRAME_H
#define KW_CLI_RUN_FRAME_H

#include "cli.h"
#include "train/train.h"

/*
 * Opens the run, shows its plan, trains, says what came of it. recipe: written into the folder as recipe.toml; NULL when
 * resuming, and then accept_changes goes on although settings or pictures are not what they were.
 */
KW_MUST kw_status kw_run_frame(kw_cli *c, const kw_settings *s, const char *recipe, bool accept_changes, kw_err *e);

#endif
