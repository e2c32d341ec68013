/* cmd_bench.c - kiwame bench: how fast this machine is, and how much of that the program reaches. */
#include "cli.h"

extern const kw_command kw_command_bench_peak, kw_command_bench_op, kw_command_bench_step, kw_command_bench_image;

static const kw_command *const commands[] = { &kw_command_bench_peak, &kw_command_bench_op, &kw_command_bench_step,
                                              &kw_command_bench_image, NULL };

const kw_command kw_command_bench = {
    .name = "bench", .help = N_("measure speed and memory, as a share of what this machine can do"),
    .about = N_("Work is counted in useful FLOPs: two for each multiply-add of convolutions, linear layers and "
                "attention, forward and for the wanted gradients; nothing for norms, activations and updates, nor for "
                "what is computed again to save memory. The peak is a loop of multiply-adds on registers alone, "
                "measured before and after on the same threads."),
    .commands = commands,
};
