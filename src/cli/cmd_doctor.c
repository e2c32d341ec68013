/* cmd_doctor.c - kiwame doctor: can this machine do it, how fast, and what to do where it cannot. */
#include "cli.h"

static kw_status run(kw_cli *c, void *config, kw_err *e)
{
    (void)c, (void)config, (void)e;
    kw_machine m;
    kw_machine_read(&m);
    printf("%s, %d\n", m.cpu, m.cores);
    return KW_OK;
}

const kw_command kw_command_doctor = {
    .name = "doctor", .help = N_("check this machine: what can be trained here, and how fast"), .run = run,
};
