/* store.h - what program.c needs of the store; internal to run/. */
#ifndef KW_RUN_STORE_H
#define KW_RUN_STORE_H

#include "run.h"

/* A kept packed copy of a state for this need; *copy is KW_NONE when the limit does not allow one. */
KW_MUST kw_status kw__store_packed(kw_store *s, int state, const kw_need *need, int *copy, kw_err *e);
/* Under a limit of the whole: so many bytes more than the copies that are there take, but never less than they take. */
void kw__store_allow_packed(kw_store *s, size_t more);
size_t kw__store_copy_bytes(const kw_store *s, int copy);
/* Its memory, NULL where there is no more; *fresh: it holds the state's present version (it is marked so in any case: pack it if not). */
void *kw__store_copy(kw_store *s, int copy, bool *fresh);

/* kw_forecast_beside as it was before the first program under a limit. */
size_t kw__store_beside(kw_store *s);

/* resident.c: what lies in memory now, of this process (code and libraries too), of a range of it; 0 where the system
 * does not say. */
size_t kw__resident_bytes(void);
size_t kw__resident_of(const void *data, size_t bytes);

#endif
