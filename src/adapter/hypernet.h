/*
 * hypernet.h - hypernetworks as A1111 and NovelAI have them: small nets before the keys and values of the U-Net's
 * attention, one pair for each width of context.
 *
 *   context (width d) ─┬───────────────────────────(+)── to_k          the same before to_v, with the pair's second net
 *                      └─ linear, f, norm, ... ─ · m ┘
 *
 * .pt: {320: (net of k, net of v), 640: ..., "activation_func": "relu", "activate_output": True ...}; a net's tensors:
 * linear.N.weight and .bias (older files: linear1, linear2), those of one dimension layer norms; f follows each linear
 * layer, the last only with activate_output.
 */
#ifndef KW_ADAPTER_HYPERNET_H
#define KW_ADAPTER_HYPERNET_H

#include "nn/nn.h"

typedef struct kw_hypernet kw_hypernet;

/* strength: the input (1, sum type) that holds m. KW_EDATA: no hypernetwork, or one with layers that are not known. */
KW_MUST kw_status kw_hypernet_open(kw_arena *a, kw_store *s, const char *path, const char *strength, kw_hypernet **out,
                                   kw_err *e);
size_t kw_hypernet_widths(const kw_hypernet *h);   /* how many widths it has nets for */
size_t kw_hypernet_used(const kw_hypernet *h);     /* of layers, in the graphs built so far */

/* Up to four on one net; kw_net.before with this as its context. */
typedef struct { kw_hypernet *item[4]; int n; } kw_hypernets;
kw_val kw_hypernets_before(void *hypernets, kw_net *n, kw_val x);

#endif
