/* main.c - everything else is in cli.c and in one cmd_*.c per command. */
#include "cli.h"

int main(int argc, char **argv)
{
    return kw_cli_main(argc, argv);
}
