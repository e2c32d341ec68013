/* program.c - a planned graph with its kernels, and its execution, node by node. */
#include "store.h"
#include "kern/kern.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {                          /* how one node runs */
    const kw_kernel *kernel;              /* NULL: the reference */
    kw_need need;
    int copy;                             /* a kept packed weight, or KW_NONE */
} step;

struct kw_program {
    kw_graph *g;
    kw_store *store;
    kw_memory_plan *plan;
    step *steps;
    const void **input;                   /* by value: the host's memory */
    size_t scratch_at, bytes, passing, repacked, repacks;
    kw_workspace *last;                   /* where the results lie */
    bool profile;
    double *seconds, packing;             /* by node, without packing; packing weights, of all nodes */
    int64_t runs;                         /* timed ones */
};

struct kw_workspace { char *data; size_t bytes; };

static void release_workspace(void *arg) { kw_block_free(((kw_workspace *)arg)->data); }

kw_workspace *kw_workspace_new(kw_arena *a)
{
    kw_workspace *w = kw_alloc(a, sizeof *w);
    return w && !kw_defer(a, release_workspace, w) ? w : NULL;
}

size_t kw_workspace_bytes(const kw_workspace *w) { return w->bytes; }

void kw_workspace_empty(kw_workspace *w)
{
    kw_block_free(w->data);
    *w = (kw_workspace){ 0 };
}

/* ---- making ------------------------------------------------------------------------------------------------ */

static void release_kernels(void *arg)
{
    kw_program *p = arg;
    for (size_t i = 0; i < p->g->n_nodes; i++)
        if (p->steps[i].kernel && p->steps[i].kernel->release && p->steps[i].need.held)
            p->steps[i].kernel->release(p->steps[i].need.held);
}

static bool is_leaf(const kw_node *n) { return n->op == &kw_op_input || n->op == &kw_op_state; }

/* By rule: the first fast kernel that takes the node. Double graphs are for the reference. */
static const kw_kernel *choose(const kw_graph *g, const kw_node *n, bool reference)
{
    for (size_t k = 0; !reference && g->compute != KW_F64 && k < KW_LEN(n->op->fast); k++)
        if (n->op->fast[k].run && (!n->op->fast[k].fits || n->op->fast[k].fits(g, n)))
            return &n->op->fast[k];
    return NULL;
}

static size_t aligned(size_t n) { return (n + KW_ALIGN - 1) & ~(size_t)(KW_ALIGN - 1); }

static bool packs(const step *s) { return s->need.packed_in >= 0 && s->need.packed_bytes; }

static kw_status ask_need(kw_program *p, size_t i, kw_err *e)
{
    step *s = &p->steps[i];
    s->copy = KW_NONE;
    s->need.packed_in = KW_NONE;
    return s->kernel && s->kernel->prepare ? s->kernel->prepare(p->g, &p->g->node[i], &s->need, e) : KW_OK;
}

/* Weights of convolutions are laid out anew, others only converted, which costs a fraction of it for each byte. */
static bool is_costly(const kw_program *p, size_t i)
{
    kw_shape w = kw_shape_of(p->g, p->g->node[i].in[p->steps[i].need.packed_in]);
    return w.rank == 4 && w.d[2] * w.d[3] > 1;
}

/* Where packed weights live: kept by the store for states, the costly ones first; else packed at each run. */
static kw_status keep_copies(kw_program *p, bool costly, kw_err *e)
{
    for (size_t i = 0; i < p->g->n_nodes; i++) {
        step *s = &p->steps[i];
        if (!packs(s) || is_costly(p, i) != costly)
            continue;
        int state = p->plan->state[p->g->node[i].in[s->need.packed_in]];
        if (state >= 0)
            KW_TRY(kw__store_packed(p->store, state, &s->need, &s->copy, e));
    }
    return KW_OK;
}

static bool converts(kw_dtype t) { return t != KW_F64 && t != KW_I64 && t != KW_U8; }

/* What the reference takes for a moment, where a node has no kernel: a double for each number that is none. */
static size_t reference_bytes(const kw_graph *g, const kw_node *n, const kw_kernel *kernel)
{
    size_t sum = 0;
    for (int k = 0; !is_leaf(n) && !kernel && k < n->n_in + n->n_out; k++) {
        kw_val v = k < n->n_in ? n->in[k] : n->out[k - n->n_in];
        sum += v >= 0 && converts(kw_dtype_of(g, v)) ? (size_t)kw_count(kw_shape_of(g, v)) * sizeof(double) : 0;
    }
    return sum;
}

/* A mapped weight without a kept copy: its pages are there while it is packed. */
static size_t pages_read(const kw_program *p, size_t i)
{
    const step *s = &p->steps[i];
    kw_val v = packs(s) && s->copy < 0 ? p->g->node[i].in[s->need.packed_in] : KW_NONE;
    int state = v < 0 ? KW_NONE : p->plan->state[v];
    return state >= 0 && kw_store_at(p->store, state)->mapped ? kw_value_bytes(p->g, v) : 0;
}

static kw_status prepare(kw_arena *a, kw_program *p, const kw_run_options *o, kw_err *e)
{
    size_t scratch = 0, n = p->g->n_nodes;
    p->steps = kw_alloc_array(a, n, sizeof *p->steps);
    p->input = kw_alloc_array(a, p->g->n_values, sizeof *p->input);
    p->seconds = kw_alloc_array(a, n, sizeof *p->seconds);
    if (!p->steps || !p->input || !p->seconds || kw_defer(a, release_kernels, p))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        p->steps[i].kernel = is_leaf(&p->g->node[i]) ? NULL : choose(p->g, &p->g->node[i], o->reference);
        KW_TRY(ask_need(p, i, e));
    }
    KW_TRY(keep_copies(p, true, e));
    KW_TRY(keep_copies(p, false, e));
    for (size_t i = 0; i < n; i++) {      /* what is not kept is packed behind the kernel's own scratch */
        const step *s = &p->steps[i];
        p->passing = KW_MAX(p->passing, KW_MAX(reference_bytes(p->g, &p->g->node[i], s->kernel), pages_read(p, i)));
        p->repacked += packs(s) && s->copy < 0 ? s->need.packed_bytes : 0;
        p->repacks += packs(s) && s->copy < 0;
        scratch = KW_MAX(scratch,
                         aligned(s->need.scratch) + (packs(s) && s->copy < 0 ? aligned(s->need.packed_bytes) : 0));
    }
    p->scratch_at = aligned(p->plan->bytes);
    p->bytes = p->scratch_at + scratch;
    return KW_OK;
}

static kw_graph *clone(kw_arena *a, const kw_graph *g)
{
    kw_graph *copy = kw_alloc(a, sizeof *copy);
    if (!copy)
        return NULL;
    *copy = *g;
    copy->arena = a;
    copy->result = kw_alloc_array(a, g->n_results + 1, sizeof *g->result);
    copy->bound = kw_alloc_array(a, g->n_bound + 1, sizeof *g->bound);
    if (!copy->result || !copy->bound)
        return NULL;
    if (g->n_results)
        memcpy(copy->result, g->result, g->n_results * sizeof *g->result);
    if (g->n_bound)
        memcpy(copy->bound, g->bound, g->n_bound * sizeof *g->bound);
    copy->result_capacity = g->n_results;
    copy->bound_capacity = g->n_bound;
    return copy;
}

typedef struct { kw_memory_level level; double worth; } choice;

static kw_status plan_at(kw_arena *a, const kw_graph *original, choice c, kw_graph **g, kw_memory_plan **out, kw_err *e)
{
    *g = clone(a, original);
    if (!*g)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw_recompute(*g, c.level, c.worth, e));
    return kw_memory_plan_new(a, *g, out, e);
}

/* What such a plan would take, in memory that is given back. */
static kw_status bytes_at(const kw_graph *original, choice c, size_t *bytes, kw_err *e)
{
    kw_arena *a = kw_arena_new();
    kw_graph *g;
    kw_memory_plan *plan;
    kw_status s = a ? plan_at(a, original, c, &g, &plan, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    if (!s)
        *bytes = plan->bytes;
    kw_arena_free(a);
    return s;
}

enum { ROOM = 2 << 20 };

static kw_status too_small(size_t least, size_t fixed, const kw_run_options *o, kw_err *e)
{
    char need[32], left[32];
    double all = (double)least + (double)fixed;
    if (o->total)  /* what is said must be enough: it is rounded, and a process's own bytes vary */
        all = 1.005 * all + ROOM;
    kw_size_text(all, need);
    kw_size_text((double)o->memory_limit, left);
    kw_status s = o->total ? kw_fail(e, KW_ENOMEM, N_("%s of memory are needed at least; the limit is %s"), need, left)
                           : kw_fail(e, KW_ENOMEM, "activations need %s at least; the limit leaves %s", need, left);
    return kw_advise(e, s, "choose a smaller batch or resolution, or a higher --memory");
}

/* At the floor as much as possible of what is worth most is kept: bisection, since bytes fall as `worth` rises. */
static kw_status raise_floor(const kw_graph *g, size_t limit, choice *c, kw_err *e)
{
    kw_arena *a = kw_arena_new();
    double *worth;
    size_t n = 0, low = 0, bytes;
    kw_status s = a ? kw_recompute_worths(a, g, &worth, &n, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t high = n ? n - 1 : 0; !s && low < high;) {
        size_t middle = (low + high) / 2;
        s = bytes_at(g, (choice){ KW_FLOOR, worth[middle] }, &bytes, e);
        if (bytes <= limit)
            high = middle;
        else
            low = middle + 1;
    }
    if (!s)
        c->worth = worth[low];
    kw_arena_free(a);
    return s;
}

/* The first level from o->memory on whose plan fits under the limit beside what is fixed. */
static kw_status choose_level(const kw_graph *g, const kw_run_options *o, size_t fixed, choice *c, kw_err *e)
{
    size_t bytes = 0, limit = o->memory_limit > fixed ? o->memory_limit - fixed : 0;
    *c = (choice){ o->memory, HUGE_VAL };
    if (!o->memory_limit)
        return KW_OK;
    for (; c->level <= KW_FLOOR; c->level++) {
        KW_TRY(bytes_at(g, *c, &bytes, e));
        if (bytes <= limit)
            return c->level == KW_FLOOR ? raise_floor(g, limit, c, e) : KW_OK;
    }
    return too_small(bytes, fixed, o, e);
}

/* ---- a limit for the whole process ------------------------------------------------------------------------------- */

/* What nodes take while they run, each by itself, and which matrices they read as copies of their own. */
typedef struct { size_t scratch, passing; bool *copied; } burden;

static kw_status add_burden(const kw_program *p, const kw_node *n, bool reference, burden *b, kw_err *e)
{
    const kw_kernel *kernel = is_leaf(n) ? NULL : choose(p->g, n, reference);
    kw_need need = { .packed_in = KW_NONE };
    b->passing = KW_MAX(b->passing, reference_bytes(p->g, n, kernel));
    if (!kernel || !kernel->prepare)
        return KW_OK;
    KW_TRY(kernel->prepare(p->g, n, &need, e));
    size_t packed = need.packed_in >= 0 ? need.packed_bytes : 0;
    if (need.held && kernel->release)
        kernel->release(need.held);
    b->scratch = KW_MAX(b->scratch, aligned(need.scratch) + aligned(packed));
    if (!packed)
        return KW_OK;
    b->passing = KW_MAX(b->passing, kw_value_bytes(p->g, n->in[need.packed_in]));
    b->copied[n->in[need.packed_in]] = true;
    return KW_OK;
}

/* Matrices that lie in files' pages and are read there. */
static size_t bytes_in_place(const kw_program *p, const burden *b)
{
    size_t sum = 0;
    for (size_t i = 0; i < p->g->n_nodes; i++) {
        const kw_node *n = &p->g->node[i];
        if (n->op == &kw_op_state && kw_shape_of(p->g, n->out[0]).rank > 1 && !b->copied[n->out[0]]
            && kw_store_at(p->store, kw_state_of(p->g, n->out[0]))->mapped)
            sum += kw_value_bytes(p->g, n->out[0]);
    }
    return sum;
}

/* What there is beside activations and packed copies: the store's own memory, files read in place, what nodes take. */
static kw_status fixed_bytes(const kw_program *p, bool reference, size_t *bytes, kw_err *e)
{
    burden b = { .copied = calloc(p->g->n_values, sizeof *b.copied) };
    kw_status s = b.copied ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; !s && i < p->g->n_nodes; i++)
        s = add_burden(p, &p->g->node[i], reference, &b, e);
    if (!s)
        *bytes = kw__store_beside(p->store) + KW_RESERVE + kw_store_bytes(p->store) + bytes_in_place(p, &b) + b.scratch
                 + b.passing;
    free(b.copied);
    return s;
}

static kw_status plan(kw_arena *a, kw_program *p, const kw_run_options *o, kw_err *e)
{
    size_t fixed = 0;
    if (o->total && o->memory_limit)
        KW_TRY(fixed_bytes(p, o->reference, &fixed, e));
    choice c;
    KW_TRY(choose_level(p->g, o, fixed, &c, e));
    KW_TRY(plan_at(a, p->g, c, &p->g, &p->plan, e));
    if (fixed) {                          /* choose_level has refused what has no room beside it */
        size_t left = o->memory_limit - fixed;
        kw__store_allow_packed(p->store, left - KW_MIN(left, p->plan->bytes));
    }
    return kw_verify(p->g, e);
}

kw_status kw_program_new(kw_arena *a, kw_graph *g, kw_store *s, const kw_run_options *o, kw_program **out, kw_err *e)
{
    static const kw_run_options defaults;
    if (!o)
        o = &defaults;
    kw_program *p = kw_alloc(a, sizeof *p);
    if (!p)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *p = (kw_program){ .g = g, .store = s, .profile = o->profile };
    KW_TRY(kw_verify(g, e));
    KW_TRY(kw_prune(g, e));
    KW_TRY(kw_fuse(g, e));
    KW_TRY(plan(a, p, o, e));
    KW_TRY(prepare(a, p, o, e));
    *out = p;
    return KW_OK;
}

/* ---- running ------------------------------------------------------------------------------------------------- */

static void *memory_of(const kw_program *p, const kw_workspace *w, kw_val v)
{
    if (v < 0)
        return NULL;
    kw_val root = p->plan->root[v];
    if (p->plan->state[v] >= 0)
        return kw_store_at(p->store, p->plan->state[v])->data;
    if (p->plan->offset[root] == SIZE_MAX)
        return (void *)(uintptr_t)p->input[root];
    return w->data + p->plan->offset[root];
}

static kw_status grow(kw_workspace *w, size_t bytes, kw_err *e)
{
    if (w->bytes >= bytes && w->data)
        return KW_OK;
    kw_block_free(w->data);
    w->bytes = 0;
    w->data = kw_block_new(bytes);
    if (!w->data)
        return kw_fail(e, KW_ENOMEM, "out of memory: %.2f GB for activations", (double)bytes * 1e-9);
    w->bytes = bytes;
    return KW_OK;
}

/* Once packed, a mapped weight is not needed again soon; if only for this run, its pages are in the system's cache. */
static void let_go(const kw_program *p, kw_val v)
{
    int state = p->plan->state[v];
    const kw_stored *s = state >= 0 ? kw_store_at(p->store, state) : NULL;
    if (s && s->mapped)
        kw_pages_drop(s->data, kw_value_bytes(p->g, v));
}

/* Weights are laid out anew when they have changed, or when no copy is kept. */
static void pack(kw_program *p, size_t i, const kw_call *c, void *to)
{
    const step *s = &p->steps[i];
    kw_val v = p->g->node[i].in[s->need.packed_in];
    double start = p->profile ? kw_now() : 0;
    s->kernel->pack(s->need.held, kw_dtype_of(p->g, v), c->in[s->need.packed_in], to);
    let_go(p, v);
    if (p->profile) {
        double took = kw_now() - start;
        p->packing += took;
        p->seconds[i] -= took;
    }
}

static kw_status find_packed(kw_program *p, size_t i, kw_call *c, kw_err *e)
{
    step *s = &p->steps[i];
    if (s->need.packed_in < 0 || !s->need.packed_bytes)
        return KW_OK;
    bool fresh = false;
    void *to = s->copy >= 0 ? kw__store_copy(p->store, s->copy, &fresh) : (char *)c->scratch + aligned(s->need.scratch);
    if (!to)
        return kw_fail(e, KW_ENOMEM, "out of memory: %zu bytes of packed weights", s->need.packed_bytes);
    if (!fresh)
        pack(p, i, c, to);
    c->packed = to;
    return KW_OK;
}

/* A weight of one byte a number goes by way of f32. */
static bool widen_codes(double *to, const void *w, kw_shape s)
{
    int64_t n = kw_count(s);
    float *wide = kw_block_new((size_t)n * sizeof *wide);
    if (!wide)
        return false;
    kw_int8_rows(KW_F32, w, s.d[0], n / s.d[0], wide);
    kw_convert(KW_F64, to, KW_F32, wide, (size_t)n);
    kw_block_free(wide);
    return true;
}

/* The reference computes in double: what is not double, an integer or a code is converted on the way in and out. */
static kw_status run_reference(const kw_program *p, const kw_node *n, kw_call *c, kw_err *e)
{
    kw_call d = *c;
    void *made[KW_INS + KW_OUTS] = { 0 };
    bool failed = false;
    for (int k = 0; k < n->n_in + n->n_out && !failed; k++) {
        kw_val v = k < n->n_in ? n->in[k] : n->out[k - n->n_in];
        if (v < 0 || !converts(kw_dtype_of(p->g, v)))
            continue;
        made[k] = kw_block_new((size_t)kw_count(kw_shape_of(p->g, v)) * sizeof(double));
        failed = !made[k];
        if (k >= n->n_in)
            d.out[k - n->n_in] = made[k];
        else if (made[k] && kw_dtype_of(p->g, v) == KW_I8) {
            failed = !widen_codes(made[k], c->in[k], kw_shape_of(p->g, v));
            d.in[k] = made[k];
        } else if (made[k]) {
            kw_convert(KW_F64, made[k], kw_dtype_of(p->g, v), c->in[k], (size_t)kw_count(kw_shape_of(p->g, v)));
            d.in[k] = made[k];
        }
    }
    if (!failed)
        n->op->ref(&d);
    for (int k = n->n_in; k < n->n_in + n->n_out; k++)
        if (made[k] && !failed)
            kw_convert(kw_dtype_of(p->g, n->out[k - n->n_in]), c->out[k - n->n_in], KW_F64, made[k],
                       (size_t)kw_count(kw_shape_of(p->g, n->out[k - n->n_in])));
    for (int k = 0; k < n->n_in + n->n_out; k++)
        kw_block_free(made[k]);
    return failed ? kw_fail(e, KW_ENOMEM, "out of memory in %s", n->op->name) : KW_OK;
}

static kw_status run_node(kw_program *p, size_t i, kw_workspace *w, kw_err *e)
{
    const kw_node *n = &p->g->node[i];
    kw_call c = { .g = p->g, .node = n, .scratch = w->data + p->scratch_at, .held = p->steps[i].need.held };
    for (int k = 0; k < n->n_in; k++)
        c.in[k] = memory_of(p, w, n->in[k]);
    for (int k = 0; k < n->n_out; k++)
        c.out[k] = memory_of(p, w, n->out[k]);
    if (!p->steps[i].kernel)
        return run_reference(p, n, &c, e);
    KW_TRY(find_packed(p, i, &c, e));
    p->steps[i].kernel->run(&c);
    return KW_OK;
}

static kw_status check_inputs(const kw_program *p, kw_err *e)
{
    for (size_t v = 0; v < p->g->n_values; v++)
        if (kw_node_of(p->g, (kw_val)v)->op == &kw_op_input && !p->input[v])
            return kw_fail(e, KW_EDEVICE, "input %s was not given", p->g->value[v].name);
    return KW_OK;
}

/* One look at the clock for each node (some 25 ns): a node lasts from the end of the one before to its own. */
static void note_time(kw_program *p, size_t i, double *at)
{
    double t = kw_now();
    p->seconds[i] += t - *at;
    *at = t;
}

kw_status kw_program_run(kw_program *p, kw_workspace *w, kw_err *e)
{
    KW_TRY(check_inputs(p, e));
    KW_TRY(grow(w, p->bytes, e));
    double at = p->profile ? kw_now() : 0;
    for (size_t i = 0; i < p->g->n_nodes; i++) {
        if (is_leaf(&p->g->node[i]))
            continue;
        KW_TRY(run_node(p, i, w, e));
        if (p->profile)
            note_time(p, i, &at);
    }
    for (size_t i = 0; i < p->g->n_bound; i++)
        (void)kw_store_write(p->store, p->g->bound[i].state);
    p->last = w;
    p->runs += p->profile;
    return KW_OK;
}

/* ---- looking -------------------------------------------------------------------------------------------------- */

static kw_val find_input(const kw_program *p, const char *name)
{
    for (size_t v = 0; v < p->g->n_values; v++)
        if (kw_node_of(p->g, (kw_val)v)->op == &kw_op_input && p->g->value[v].name
            && !strcmp(p->g->value[v].name, name))
            return (kw_val)v;
    return KW_NONE;
}

bool kw_program_wants(const kw_program *p, const char *input) { return find_input(p, input) >= 0; }

void kw_program_set(kw_program *p, const char *input, const void *data)
{
    kw_val v = find_input(p, input);
    if (v >= 0)
        p->input[v] = data;
}

static kw_val find_result(const kw_program *p, const char *name)
{
    for (size_t i = 0; i < p->g->n_results; i++)
        if (!strcmp(p->g->result[i].name, name))
            return p->g->result[i].value;
    return KW_NONE;
}

const void *kw_program_result(const kw_program *p, const char *name)
{
    return p->last ? memory_of(p, p->last, find_result(p, name)) : NULL;
}

kw_shape kw_program_result_shape(const kw_program *p, const char *name)
{
    return kw_shape_of(p->g, find_result(p, name));
}

kw_dtype kw_program_result_type(const kw_program *p, const char *name)
{
    return kw_dtype_of(p->g, find_result(p, name));
}

size_t kw_program_bytes(const kw_program *p) { return p->bytes; }
size_t kw_program_passing_bytes(const kw_program *p) { return p->passing; }
size_t kw_program_repacks(const kw_program *p, size_t *bytes)
{
    *bytes = p->repacked;
    return p->repacks;
}
const kw_store *kw_program_store(const kw_program *p) { return p->store; }

/* Each state and each copy once. */
size_t kw_program_weight_bytes(const kw_program *p)
{
    size_t sum = 0;
    int n = kw_store_count(p->store), most = n;
    for (size_t i = 0; i < p->g->n_nodes; i++)
        most = KW_MAX(most, p->steps[i].copy + 1);
    bool *state = calloc((size_t)most + 1, 1), *copy = calloc((size_t)most + 1, 1);
    for (size_t i = 0; i < p->g->n_nodes && state && copy; i++) {
        const step *s = &p->steps[i];
        const kw_node *node = &p->g->node[i];
        for (int k = 0; k < node->n_in; k++) {
            int id = node->in[k] < 0 ? KW_NONE : p->plan->state[node->in[k]];
            bool packed = s->need.packed_in == k && s->need.packed_bytes;
            if (id < 0 || state[id] || (packed && kw_store_at(p->store, id)->mapped))
                continue;
            state[id] = true;
            sum += (size_t)kw_count(kw_store_at(p->store, id)->shape) * kw_dtype_size(kw_store_at(p->store, id)->dtype);
        }
        if (s->copy >= 0 && !copy[s->copy])
            sum += kw__store_copy_bytes(p->store, s->copy);
        if (s->copy >= 0)
            copy[s->copy] = true;
    }
    free(state);
    free(copy);
    return sum;
}

double kw_program_flops(const kw_program *p) { return kw_graph_flops(p->g); }
double kw_program_useful_flops(const kw_program *p) { return kw_graph_useful_flops(p->g); }
const kw_graph *kw_program_graph(const kw_program *p) { return p->g; }

/* By way of double, which a graph in double does not take. */
static bool by_reference(const kw_program *p, size_t i)
{
    return p->g->compute != KW_F64 && reference_bytes(p->g, &p->g->node[i], p->steps[i].kernel);
}

size_t kw_program_references(const kw_program *p)
{
    size_t sum = 0;
    for (size_t i = 0; i < p->g->n_nodes; i++)
        sum += by_reference(p, i);
    return sum;
}

void kw_program_print(const kw_program *p, kw_str *text)
{
    kw_graph_print(p->g, text);
    kw_str_printf(text,
                  "workspace %.3f MB (alive at the peak %.3f MB, without sharing %.3f MB), "
                  "peak at node %d (%s in %s)\n",
                  (double)p->bytes * 1e-6, (double)p->plan->peak_alive * 1e-6, (double)p->plan->sum * 1e-6,
                  p->plan->peak_node, p->g->node[p->plan->peak_node].op->name, p->g->node[p->plan->peak_node].scope);
    for (size_t i = 0; i < p->g->n_nodes; i++)
        if (by_reference(p, i))
            kw_str_printf(text, "reference kernel: %s in %s\n", p->g->node[i].op->name, p->g->node[i].scope);
}

/* ---- where the time goes ----------------------------------------------------------------------------------------- */

void kw_program_profile(kw_program *p, bool on)
{
    p->profile = on;
    p->runs = 0;
    p->packing = 0;
    memset(p->seconds, 0, p->g->n_nodes * sizeof *p->seconds);
}

bool kw_program_time(const kw_program *p, int i, kw_op_time *t)
{
    const kw_op *which = kw_op_at(i);
    if (!which) {
        *t = (kw_op_time){ .op = "pack", .seconds = p->packing, .bytes = (double)p->repacked * (double)p->runs,
                            .count = (int64_t)p->repacks * p->runs };
        return i >= 0 && i == kw_op_count();
    }
    *t = (kw_op_time){ .op = which->name };
    for (size_t k = 0; k < p->g->n_nodes; k++) {
        const kw_node *n = &p->g->node[k];
        if (n->op != which)
            continue;
        t->seconds += p->seconds[k];
        t->flops += kw_node_flops(p->g, n) * (double)p->runs;
        t->bytes += kw_node_bytes(p->g, n) * (double)p->runs;
        t->count += p->runs;
    }
    return true;
}

double kw_program_node_seconds(const kw_program *p, size_t node) { return p->seconds[node]; }
int64_t kw_program_timed_runs(const kw_program *p) { return p->runs; }
