/* cmd_verify.c - kiwame verify: which programs will read a file, and what they will show. */
#include "verify.h"

#include "net_settings.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct { kw_texts paths, who; } config;

static const kw_option options[] = {
    KW_ROW_PATHS("file", config, paths, N_("LoRA, embedding, model or picture"),
                 .flags = KW_OPT_POSITIONAL | KW_OPT_REQUIRED),
    KW_ROW_LIST("for", config, who,
                N_("ask of this program alone: A1111, Forge, ComfyUI, diffusers, Civitai, kohya, InvokeAI"),
                .value = "PROGRAM"),
    KW_ROW_END
};

/* ---- which programs ---------------------------------------------------------------------------------------------- */

static kw_status programs(const config *g, unsigned *out, kw_err *e)
{
    *out = g->who.n ? 0 : (1u << KW_N_READERS) - 1;
    for (size_t i = 0; i < g->who.n; i++) {
        const char *word = g->who.item[i];
        kw_nearest near = { .word = word };
        unsigned found = 0;
        for (int p = 0; p < KW_N_READERS; p++) {
            const char *name = kw_reader_name((kw_reader)p);
            bool kohya = p == KW_READER_KOHYA && (!strcasecmp(word, "kohya") || !strcasecmp(word, "sd-scripts"));
            if (kohya || !strcasecmp(name, word))
                found |= 1u << p;
            kw_nearest_try(&near, name);
        }
        if (!found) {
            kw_status s = kw_fail(e, KW_EUSAGE, N_("--for: \"%s\" is none of the programs known here"), word);
            return near.best ? kw_advise(e, s, N_("did you mean '%s'?"), near.best) : s;
        }
        *out |= found;
    }
    return KW_OK;
}

static kw_verdict verdict_of(const kw_verify_facts *f, kw_reader p)
{
    kw_verdict worst = KW_VERIFY_TELL;
    for (const kw_verify_rule *r = kw_verify_rules; r->programs; r++)
        if (kw_verify_applies(r, f, p))
            worst = KW_MAX(worst, r->verdict);
    return worst;
}

/* ---- showing ----------------------------------------------------------------------------------------------------- */

static const char *kind_name(kw_verify_kind k)
{
    return k == KW_IS_LORA ? N_("LoRA") : k == KW_IS_EMBEDDING ? N_("embedding") : k == KW_IS_PICTURE ? N_("picture")
         : k == KW_IS_FOLDER ? N_("diffusers folder") : N_("model file");
}

static const char *family_name(kw_sd_family s)
{
    static const char *const names[] = { "", N_("Stable Diffusion 1.x"), N_("Stable Diffusion 2.x"), N_("SDXL"),
                                         N_("Stable Diffusion, another size") };
    return names[s];
}

static unsigned concerned(const kw_verify_facts *f, unsigned who)
{
    for (int p = 0; p < KW_N_READERS; p++)
        if (!kw_verify_concerns((kw_reader)p, f->kind))
            who &= ~(1u << p);
    return who;
}

/* What a rule says, once, and of whom. */
static void show_rule(const kw_cli *c, const kw_verify_rule *r, unsigned who)
{
    static const char *const marks[] = { "· ", "! ", "✗ " };
    static const kw_style styles[] = { KW_PLAIN, KW_YELLOW, KW_RED };
    bool colour = c->term.out_colour, some = false;
    int width = c->term.out_tty ? c->term.width : 4000;       /* grep reads lines, not columns */
    kw_str s = { 0 }, line = { 0 };
    for (int p = 0; p < KW_N_READERS; p++)
        if (r->programs & who & 1u << p) {
            kw_str_printf(&line, "%s%s", some ? ", " : "", kw_reader_name((kw_reader)p));
            some = true;
        }
    kw_str_printf(&line, ": %s", _(r->what));
    kw_str_printf(&s, "%s%s%s", kw_style_text(colour, styles[r->verdict]), marks[r->verdict],
                  kw_style_text(colour, KW_PLAIN));
    kw_wrap(&s, line.s && !line.failed ? line.s : "", 2, 2, width);
    if (r->advice) {
        kw_str_add(&s, "\n  → ");
        kw_wrap(&s, _(r->advice), 4, 4, width);
    }
    puts(s.s && !s.failed ? s.s : "");
    kw_str_free(&s);
    kw_str_free(&line);
}

static void show_program(const kw_cli *c, const kw_verify_facts *f, kw_reader p)
{
    kw_verdict worst = verdict_of(f, p);
    bool colour = c->term.out_colour, picture = f->kind == KW_IS_PICTURE;
    kw_style style = worst == KW_VERIFY_FAIL ? KW_RED : worst == KW_VERIFY_WARN ? KW_YELLOW : KW_GREEN;
    const char *text = worst == KW_VERIFY_FAIL ? picture ? N_("shows nothing of it") : N_("does not read it")
                     : worst == KW_VERIFY_WARN ? picture ? N_("shows it, but") : N_("reads it, but")
                     : picture ? N_("shows how it was made") : N_("reads it");
    kw_str name = { 0 };
    kw_pad(&name, kw_reader_name(p), 18, false);
    printf("  %s%s%s%s\n", name.s ? name.s : "", kw_style_text(colour, style), _(text), kw_style_text(colour,
                                                                                                      KW_PLAIN));
    kw_str_free(&name);
}

static void show(const kw_cli *c, const kw_verify_facts *f, unsigned who)
{
    kw_str safe = { 0 };
    kw_escape(&safe, f->path);
    printf("%s: %s%s%s\n", safe.s ? safe.s : "", _(kind_name(f->kind)), f->family ? ", " : "",
           f->family ? _(family_name(f->family)) : "");
    kw_str_free(&safe);
    who = concerned(f, who);
    for (int p = 0; p < KW_N_READERS; p++)
        if (who >> p & 1)
            show_program(c, f, (kw_reader)p);
    for (int level = KW_VERIFY_FAIL; level >= KW_VERIFY_TELL; level--)
        for (const kw_verify_rule *r = kw_verify_rules; r->programs; r++)
            if (r->verdict == (kw_verdict)level && r->programs & who && r->kinds & f->kind && (!r->when || r->when(f)))
                show_rule(c, r, who);
}

static json_t *as_json(const kw_verify_facts *f, unsigned who)
{
    static const char *const verdicts[] = { "note", "warning", "failure" };
    json_t *all = json_object();
    for (int p = 0; p < KW_N_READERS; p++) {
        json_t *list = json_array();
        if (!(who >> p & 1) || !kw_verify_concerns((kw_reader)p, f->kind)) {
            json_decref(list);
            continue;
        }
        for (const kw_verify_rule *r = kw_verify_rules; r->programs; r++)
            if (kw_verify_applies(r, f, (kw_reader)p))
                json_array_append_new(list, json_pack("{s:s, s:s, s:s?}", "level", verdicts[r->verdict], "what",
                                                      r->what, "advice", r->advice));
        json_object_set_new(all, kw_reader_name((kw_reader)p),
                            json_pack("{s:b, s:o}", "reads", verdict_of(f, (kw_reader)p) != KW_VERIFY_FAIL, "remarks",
                                      list));
    }
    return json_pack("{s:s, s:s, s:s, s:o}", "file", f->path, "kind", kind_name(f->kind), "family",
                     family_name(f->family), "programs", all);
}

static kw_status one(kw_cli *c, const char *path, unsigned who, size_t *refused, kw_err *e)
{
    kw_verify_facts f;
    struct stat st;
    if (kw_io_now->stat(path, &st))
        return kw_fail(e, KW_EDATA, N_("%s: no such file or folder"), path);
    KW_TRY(kw_verify_look(c, path, &f, e));
    for (int p = 0; p < KW_N_READERS; p++)
        *refused += concerned(&f, who) >> p & 1 && verdict_of(&f, (kw_reader)p) == KW_VERIFY_FAIL;
    if (!c->global.json) {
        show(c, &f, who);
        return KW_OK;
    }
    json_t *j = as_json(&f, who);
    char *text = json_dumps(j, JSON_COMPACT);
    json_decref(j);
    puts(text ? text : "{}");
    free(text);
    return KW_OK;
}

/* Exit code 0: every program asked of reads every file; 3: one does not. */
static kw_status run(kw_cli *c, void *arg, kw_err *e)
{
    config *g = arg;
    unsigned who;
    size_t refused = 0;
    KW_TRY(programs(g, &who, e));
    for (size_t i = 0; i < g->paths.n; i++) {
        KW_TRY(kw_model_named(c, &g->paths.item[i], e));
        KW_TRY(one(c, g->paths.item[i], who, &refused, e));
    }
    if (!refused)
        return KW_OK;
    return g->paths.n == 1 ? kw_fail(e, KW_EDATA, N_("%s: %zu of the programs do not read it"), g->paths.item[0],
                                     refused)
                           : kw_fail(e, KW_EDATA, N_("%zu times a program does not read a file"), refused);
}

const kw_command kw_command_verify = {
    .name = "verify", .help = N_("which programs will read a file, and what they will show"),
    .about = N_("LoRA, embedding, model or picture against the readers of A1111, Forge, ComfyUI, diffusers, Civitai, "
                "kohya's sd-scripts and InvokeAI. The exit code is 0 if all of them (or those "
                "named by --for) read it, else 3."),
    .examples = "kiwame verify kiwa.safetensors\nkiwame verify pictures/00000-1.png --for civitai", .options = options,
    .config_size = sizeof(config), .run = run,
};
