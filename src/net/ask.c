/* ask.c - questions that are answered by JSON; what an answer that is no success means, and when to ask again. */
#include "net_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

kw_status kw__net_note(kw_web *n, const char *name, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, kw_translate(fmt), ap);
    va_end(ap);
    kw_net_event v = { .note = text, .name = name };
    return n->tell ? n->tell(n->user, &v, NULL) : KW_OK;
}

kw_status kw__offline(kw_err *e, const char *what)
{
    return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: not here, and the network is not asked (HF_HUB_OFFLINE)"), what),
                     N_("unset HF_HUB_OFFLINE to download it"));
}

const char *kw__bearer(const kw_web *n, kw__site site)
{
    const char *token = site == KW__HUB ? n->hub_token : site == KW__CIVITAI ? n->civitai_token : NULL;
    return token && *token ? token : NULL;
}

/* ---- what an answer means ---------------------------------------------------------------------------------------- */

/*  site (-1: any), status (0: any), X-Error-Code (NULL: any), what happened, what to do, what to do with a token  */
static const struct { int site; long status; const char *code, *what, *advice, *with_token; } answers[] = {
    { KW__HUB, 0, "GatedRepo", N_("%s: its authors ask who you are before they give it out"),
      N_("1. open its page on huggingface.co, sign in and accept the conditions  2. make a token (read) at "
         "huggingface.co/settings/tokens  3. HF_TOKEN=hf_... kiwame pull, or put it in ~/.cache/huggingface/token"),
      N_("the token is known, but its owner has not yet been let in: open the model's page on huggingface.co, accept "
         "the conditions, and wait where the authors look at each request") },
    { KW__HUB, 0, "RevisionNotFound", N_("%s: there is no such revision"),
      N_("leave out @..., or see the branches on its page"), NULL },
    { KW__HUB, 0, "EntryNotFound", N_("%s: there is no such file"), N_("see the files on its page"), NULL },
    { KW__HUB, 0, "DisabledRepo", N_("%s: the hub has closed this repository"), NULL, NULL },
    { KW__HUB, 401, NULL, N_("%s: no such repository, or a private one"),
      N_("check the spelling; for a private one put a token in HF_TOKEN (huggingface.co/settings/tokens)"),
      N_("check the spelling, and whether the token in HF_TOKEN is still valid and may read it") },
    { KW__HUB, 404, NULL, N_("%s: there is no such thing on the hub"),
      N_("check the spelling; some models have been withdrawn by their authors"), NULL },
    { KW__HUB, 403, NULL, N_("%s: the hub refuses it"),
      N_("put a token that may read it in HF_TOKEN (huggingface.co/settings/tokens)"),
      N_("the token in HF_TOKEN may not read it: see huggingface.co/settings/tokens") },
    { KW__CIVITAI, 401, NULL, N_("%s: Civitai gives it to signed-in users only"),
      N_("make an API key at civitai.com/user/account and put it in CIVITAI_TOKEN"),
          N_("is the key in CIVITAI_TOKEN still valid?") },
    { KW__CIVITAI, 403, NULL, N_("%s: Civitai refuses it: early access, or an account is needed"),
      N_("make an API key at civitai.com/user/account and put it in CIVITAI_TOKEN"),
      N_("its page says whether it must be bought, or when it becomes free") },
    { KW__CIVITAI, 404, NULL, N_("%s: Civitai does not know it"),
      N_("the number is that of the version (modelVersionId in the page's address), not of the model; or it was "
         "deleted"), NULL },
    { KW__OTHER, 401, NULL, N_("%s: the server wants to know who asks"),
      N_("download it with a browser where you are signed in"), NULL },
    { KW__OTHER, 403, NULL, N_("%s: the server refuses it"), N_("download it with a browser where you are signed in"),
      NULL },
    { -1, 404, NULL, N_("%s: there is no such file"), N_("check the address"), NULL },
    { -1, 410, NULL, N_("%s: it is gone"), NULL, NULL },
    { -1, 429, NULL, N_("%s: the server has had too many questions"), N_("try again later"), NULL },
    { -1, 451, NULL, N_("%s: not given out for legal reasons"), NULL, NULL },
};

/* Hub: {"error": "..."}; Civitai: {"error": "...", "message": "..."}. One line of it, if it is a text. */
static void reason_of(const kw__reply *r, char why[400])
{
    json_error_t unused;
    json_t *j = json_loads(r->text, 0, &unused);
    const char *text = *r->why ? r->why : json_string_value(json_object_get(j, "message"));
    if (!text)
        text = json_string_value(json_object_get(j, "error"));
    snprintf(why, 400, "%s", text ? text : "");
    json_decref(j);
}

static kw_status broken(const char *what, const kw__reply *r, kw_err *e)
{
    kw_status s = r->end == KW__QUIET ? kw_fail(e, KW_ESTORAGE, N_("%s: the server has gone silent: %s"), what, r->why)
                : r->end == KW__CUT ? kw_fail(e, KW_ESTORAGE, N_("%s: the connection breaks again and again: %s"),
                                              what, r->why)
                : kw_fail(e, KW_ESTORAGE, N_("%s: no connection: %s"), what, r->why);
    return kw_advise(e, s, r->end == KW__NO_CONNECTION ? N_("is there a network here? a proxy is named in HTTPS_PROXY")
                                                      : N_("the same command goes on from where it broke off"));
}

kw_status kw__explain(const kw_web *n, kw__site site, const char *what, const kw__reply *r, bool had_token, kw_err *e)
{
    char why[400], named[600];
    (void)n;
    if (r->end != KW__WHOLE)
        return broken(what, r, e);
    reason_of(r, why);
    for (size_t i = 0; i < KW_LEN(answers); i++) {
        if ((answers[i].site >= 0 && answers[i].site != (int)site)
            || (answers[i].status && answers[i].status != r->status)
            || (answers[i].code && strcmp(answers[i].code, r->error_code)))
            continue;
        const char *advice = had_token && answers[i].with_token ? answers[i].with_token : answers[i].advice;
        snprintf(named, sizeof named, kw_translate(answers[i].what), what);
        kw_status s = *why ? kw_fail(e, KW_EDATA, "%s (%ld: %s)", named, r->status, why)
                           : kw_fail(e, KW_EDATA, "%s (%ld)", named, r->status);
        return advice ? kw_advise(e, s, "%s", kw_translate(advice)) : s;
    }
    return kw_fail(e, r->status >= 500 ? KW_ESTORAGE : KW_EDATA, *why ? N_("%s: the server answers %ld: %s")
                   : N_("%s: the server answers %ld%s"), what, r->status, why);
}

bool kw__passes(const kw__reply *r)
{
    return r->end != KW__WHOLE || r->status == 408 || r->status == 425 || r->status == 429
        || (r->status >= 500 && r->status != 501 && r->status != 505);
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static kw_status sleep_telling(kw_web *n, const char *name, double seconds, kw_err *e)
{
    const double piece = 0.2;
    for (double left = seconds; left > 0; left -= piece) {
        double now = KW_MIN(left, piece);
        struct timespec t = { (time_t)now, (long)(1e9 * (now - (double)(time_t)now)) };
        nanosleep(&t, NULL);
        kw_net_event v = { .name = name, .wait = left };
        if (n->tell)
            KW_TRY(n->tell(n->user, &v, e));
    }
    return KW_OK;
}

kw_status kw__wait(kw_web *n, const char *name, int attempt, const kw__reply *r, kw_err *e)
{
    enum { LONGEST = 300 };               /* a server may ask for this patience, no more */
    double wait = n->backoff;
    for (int i = 1; i < attempt && wait < 60; i++)
        wait *= 2;
    if (r->wait > LONGEST)
        return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: the server wants to be asked again in %.0f s only"), name,
                                    r->wait),
                         N_("run the same command then: it goes on from where it is"));
    wait = r->wait >= 0 ? KW_MAX(r->wait, n->backoff) : KW_MIN(wait, 60);
    if (r->end == KW__WHOLE)
        KW_TRY(kw__net_note(n, name, N_("%s: the server answers %ld; again in %.0f s"), name, r->status, wait));
    else
        KW_TRY(kw__net_note(n, name, N_("%s: %s; again in %.0f s"), name, r->why, wait));
    return sleep_telling(n, name, wait, e);
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

typedef struct { kw_web *n; const char *what; kw_str text; } answer;

static kw_status put(void *user, const void *p, size_t n, kw_err *e)
{
    enum { MOST = 16 << 20 };
    answer *a = user;
    if (a->text.n + n > MOST)
        return kw_fail(e, KW_EDATA, N_("%s: the answer is larger than %d MB"), a->what, MOST >> 20);
    kw_str_add_n(&a->text, p, n);
    return a->text.failed ? kw_fail(e, KW_ENOMEM, "out of memory") : KW_OK;
}

static kw_status tick(void *user, kw_err *e)
{
    answer *a = user;
    kw_net_event v = { .name = a->what };
    return a->n->tell ? a->n->tell(a->n->user, &v, e) : KW_OK;
}

/* A page where JSON was asked for: a proxy's or a login page. */
static kw_status parse(kw_arena *a, const char *what, const kw__reply *r, const kw_str *text, json_t **json, kw_err *e)
{
    const char *p = text->s ? text->s : "";
    p += strspn(p, " \t\r\n");
    if (*p == '<' || !strncasecmp(r->type, "text/html", 9))
        return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: a web page came instead of an answer"), what),
                         N_("a proxy or a login page of your network may stand between: open %.*s in a browser"),
                         (int)strcspn(r->url, "?"), r->url);
    char *copy = kw_strndup(a, p, strlen(p));
    return copy ? kw_json_parse(a, what, copy, strlen(copy), json, e) : kw_fail(e, KW_ENOMEM, "out of memory");
}

kw_status kw__ask_json(kw_web *n, kw_arena *a, kw__site site, const char *what, const char *url, json_t **json,
                       kw_err *e)
{
    answer got = { .n = n, .what = what };
    kw__request q = { .url = url, .token = kw__bearer(n, site), .decode = true, .limit = 120, .put = put, .tick = tick,
                      .user = &got, .named = site == KW__HUB ? n->named_hub : site == KW__CIVITAI && n->named_civitai };
    kw__reply *r = kw_alloc(a, sizeof *r);
    kw_status s = r ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
    for (int attempt = 1; !s; attempt++) {
        got.text.n = 0;
        s = kw__http(n, &q, r, e);
        bool success = !s && r->end == KW__WHOLE && r->status == 200;
        if (success)
            s = parse(a, what, r, &got.text, json, e);
        if (s || success)
            break;
        s = kw__passes(r) && attempt <= n->retries ? kw__wait(n, what, attempt, r, e)
                                                   : kw__explain(n, site, what, r, q.token != NULL, e);
    }
    kw_str_free(&got.text);
    return s;
}
