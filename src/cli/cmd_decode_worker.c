/* cmd_decode_worker.c - the hidden command that a decoding child runs: pictures in, pixels out, nothing else allowed. */
#include "cli.h"
#include "picture/picture.h"

#include <stdlib.h>

const char *const *kw_decoder_argv(void)
{
    static const char *const argv[][4] = { { "/proc/self/exe", "_decode-worker", "--lang=en", NULL },
                                           { "/proc/self/exe", "_decode-worker", "--lang=ja", NULL } };
    return argv[kw_i18n_lang() == KW_LANG_JA];
}

static kw_status run(kw_cli *c, void *config, kw_err *e)
{
    (void)c, (void)config, (void)e;
    exit(kw_picture_worker_main(KW_PICTURE_WORKER_FD));
}

const kw_command kw_command_decode_worker = {
    .name = "_decode-worker", .help = N_("decodes pictures for another kiwame"), .flags = KW_COMMAND_HIDDEN, .run = run,
};
