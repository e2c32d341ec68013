/* main.c - the table of commands. Everything else is in cli.c and in one cmd_*.c per command. */
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

int main(int argc, char **argv)
{
    return kw_cli_main(argc, argv);
}
