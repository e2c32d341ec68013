/* cmd_debug.c - kiwame debug: commands that let anyone check this program against PyTorch. */
#include "cli.h"

extern const kw_command kw_command_debug_nearest, kw_command_debug_run, kw_command_debug_tokens, kw_command_debug_train;

static const kw_command *const commands[] = { &kw_command_debug_nearest, &kw_command_debug_run, &kw_command_debug_tokens, &kw_command_debug_train, NULL };

const kw_command kw_command_debug = {
    .name = "debug", .help = N_("proofs: run and train parts of a model from given tensors"), .commands = commands,
};
