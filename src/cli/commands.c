/* commands.c - the table of commands, from commands.def. */
#include "cli.h"

#define KW_COMMAND(name) extern const kw_command kw_command_##name;
#include "commands.def"
#undef KW_COMMAND

const kw_command *const kw_commands[] = {
#define KW_COMMAND(name) &kw_command_##name,
#include "commands.def"
#undef KW_COMMAND
    NULL
};
