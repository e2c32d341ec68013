/* lora_file.c - the metadata of a run's LoRA, in kohya's keys. */
#include "run_internal.h"

#include <stdio.h>

/* What A1111 and Forge need to list the file, and what tells a user how it was made. */
kw_status kw__save_lora(kw_run *r, kw_arena *a, const char *path, const kw_tensor *t, size_t n, int64_t epoch, kw_err *e)
{
    char hash[65], legacy[9];
    kw_meta m[64];
    size_t k = 0;
#define ADD(key_, ...) m[k++] = (kw_meta){ key_, kw_sprintf(a, __VA_ARGS__) }
    ADD("ss_output_name", "%s", r->s.name);
    ADD("ss_network_module", "networks.lora");
    ADD("ss_network_dim", "%d", r->s.rank);
    ADD("ss_network_alpha", "%g", (double)r->s.alpha);
    ADD("ss_v2", "False");
    ADD("ss_base_model_version", "sd_v1");
    ADD("ss_steps", "%lld", (long long)kw_trainer_steps(r->trainer));
    ADD("ss_epoch", "%lld", (long long)KW_MAX(epoch, 0));
    ADD("ss_learning_rate", "%g", r->s.learning_rate);
    ADD("ss_seed", "%llu", (unsigned long long)r->s.seed);
#undef ADD
    KW_TRY(kw_tensors_hash_list(t, n, m, k, hash, legacy, e));
    m[k++] = (kw_meta){ "sshs_model_hash", hash };
    m[k++] = (kw_meta){ "sshs_legacy_hash", legacy };
    return kw_tensors_save(path, t, n, m, k, e);
}
