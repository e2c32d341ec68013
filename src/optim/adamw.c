/* adamw.c - Adam with decoupled weight decay. Loshchilov & Hutter 2017 (arXiv:1711.05101). */
#include "optim.h"

static void step(kw_graph *g, const kw_optim_config *c, const kw_moving *m, kw_val *new_p, kw_val *new_moment)
{
    *new_p = kw_adamw_rounded(g, m->p, m->grad, m->moment[0], m->moment[1], m->scalars, m->key, m->at,
                              (kw_adam){ c->beta1, c->beta2, c->eps });
    new_moment[0] = kw_out(g, *new_p, 1);
    new_moment[1] = kw_out(g, *new_p, 2);
}

extern const kw_optimizer kw_optimizer_adamw;
const kw_optimizer kw_optimizer_adamw = {
    .name = "adamw", .spelled = "AdamW", .help = N_("Adam with decoupled weight decay"), .paper = "arXiv:1711.05101",
    .moment = { { "m", KW_F32, 1 }, { "v", KW_F32, 1 } }, .step = step,
};
