/* net_settings.h - what the environment says of the network, and names of models in place of paths. */
#ifndef KW_CLI_NET_SETTINGS_H
#define KW_CLI_NET_SETTINGS_H

#include "cli.h"
#include "net/net.h"

/*
 * The variables that huggingface_hub, curl and Python's requests know: HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HOME,
 * HF_HUB_CACHE, HF_HUB_OFFLINE, HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE, XDG_*; and CIVITAI_TOKEN,
 * CIVITAI_ENDPOINT. Limits are left at their defaults. KW_EUSAGE: a variable makes no sense.
 */
KW_MUST kw_status kw_net_settings(kw_arena *a, kw_web *n, kw_err *e);

/* *path may be a name (sd15, hf:org/name, civitai:123) of a model that was pulled: it becomes where that lies. What
 * exists under its own name stays as it is; NULL too. KW_EDATA: not pulled yet, with the command that does it. */
KW_MUST kw_status kw_model_named(kw_cli *c, const char **path, kw_err *e);

#endif
