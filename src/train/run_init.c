/* run_init.c - a run that starts from a LoRA: it must be one, and all of it must go on being trained. */
#include "run_internal.h"

/* In any spelling. */
kw_status kw__run_check_init_file(const kw_run *r, kw_err *e)
{
    kw_lora_file *f;
    bool any = false;
    if (!r->tc.init)
        return KW_OK;
    KW_TRY(kw_lora_file_of(r->arena, r->tc.init, NULL, &f, e));
    for (size_t i = 0; i < f->n; i++)
        any |= kw_delta_is_branch(&f->item[i]);
    return any ? KW_OK : kw_fail(e, KW_EDATA, N_("%s: is no LoRA"), r->s.init);
}

/* A module of another rank than the one asked for; NULL: there is none. */
static const kw_lora_module *other_rank(const kw_run *r, const kw_lora *l)
{
    for (size_t k = 0; k < kw_lora_n_modules(l); k++)
        if (kw_lora_at(l, k)->rank != r->s.rank && kw_lora_at(l, k)->geometry.kh <= 1)
            return kw_lora_at(l, k);
    return NULL;
}

/* What is not trained would be missing in the result. The file's own rank counts. */
kw_status kw__run_check_init(const kw_run *r, kw_err *e)
{
    const kw_adapters *all = kw_trainer_adapters(r->trainer);
    const kw_lora_module *other = NULL;
    kw_lora *list[KW_LEN(all->item)];
    const char *first = NULL;
    size_t at = 0, n = 0;
    for (int i = 0; i < all->n; i++)
        list[i] = all->item[i];
    for (const char *key; (key = kw_lora_unmatched(list, all->n, r->tc.init, &at)); n++)
        first = first ? first : key;
    if (n) {
        kw_status s = kw_fail(e, KW_EDATA, N_("%s: %zu of %zu keys fit no layer that is trained here, the first is %s"),
                              r->s.init, n, kw_tensors_n(r->tc.init), first);
        return kw_advise(e, s, N_("train the layers it has (--targets), on the base it was made for"));
    }
    for (int i = 0; i < all->n && !other; i++)
        other = other_rank(r, all->item[i]);
    if (other)
        kw__run_note(r, kw_translate(N_("%s has rank %d: it keeps it, --rank is not used")), r->s.init, other->rank);
    return KW_OK;
}
