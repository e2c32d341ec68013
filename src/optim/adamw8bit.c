/*
 * adamw8bit.c - AdamW with moments of one byte, each 256 of them with one scale: 2 bytes for each weight instead of 8.
 * Dettmers, Lewis, Shleifer, Zettlemoyer 2022 (arXiv:2110.02861).
 */
#include "optim.h"

static void step(kw_graph *g, const kw_optim_config *c, const kw_moving *m, kw_val *new_p, kw_val *new_moment)
{
    kw_adamw8_in in = { .p = m->p, .grad = m->grad, .m = m->moment[0], .v = m->moment[1], .m_scale = m->moment[2],
                        .v_scale = m->moment[3], .scalars = m->scalars, .key = m->key, .at = m->at };
    *new_p = kw_adamw8_step(g, &in, (kw_adam){ c->beta1, c->beta2, c->eps });
    for (int i = 0; i < 4; i++)
        new_moment[i] = kw_out(g, *new_p, i + 1);
}

extern const kw_optimizer kw_optimizer_adamw8bit;
const kw_optimizer kw_optimizer_adamw8bit = {
    .name = "adamw8bit", .spelled = "AdamW8bit", .help = N_("AdamW with moments of one byte each"), .paper = "arXiv:2110.02861",
    .moment = { { "m", KW_U8, 1 }, { "v", KW_U8, 1 }, { "m_scale", KW_F32, KW_BLOCK8 }, { "v_scale", KW_F32, KW_BLOCK8 } },
    .each = KW_BLOCK8, .step = step,
};
