/*
 * text.h - words to token ids: the CLIP tokenizer, prompts with weights, windows of 77 tokens, a vocabulary trainer.
 *
 *     kw_tokenizer *tok;
 *     KW_TRY(kw_tokenizer_clip(arena, &tok, e));                 // or kw_tokenizer_open(arena, "base/tokenizer", ...)
 *     kw_prompt prompt;
 *     KW_TRY(kw_prompt_parse(arena, "a (red:1.2) fox <lora:kiwa:0.8>", &prompt, e));
 *     kw_windows w;                                              // w.ids: (w.n, w.width), prompt.tags: the LoRAs
 *     KW_TRY(kw_prompt_windows(tok, arena, &prompt, KW_COMMA_REACH, &w, e));
 *
 * Texts are UTF-8. What is not valid UTF-8 counts as U+FFFD, one for each maximal part of a sequence that could have
 * become valid (Unicode 3.9 "substitution of maximal subparts", which is also Python's errors="replace").
 * Results live in the arena given; a tokenizer is never written after it is made, so threads may share it.
 */
#ifndef KW_TEXT_H
#define KW_TEXT_H

#include "base/base.h"

#include <jansson.h>

/* ---- the tokenizer --------------------------------------------------------------------------------- */

/*
 * Gives the ids of the fast CLIPTokenizer of transformers 5.23, tokenizers 0.23: NFC, every run of white space to one
 * space, lower case, CLIP's split into words, byte-level BPE with "</w>". The Unicode versions are those of that
 * release (unicode.c holds what utf8proc 2.8 lacks of them).
 *
 * Other front ends clean texts first, so ids can differ there. OpenAI's tokenizer (open_clip; SD 2.x in A1111) runs
 * ftfy.fix_text and twice html.unescape; the older slow CLIPTokenizer (SD 1.x in A1111, kohya's scripts) runs fix_text
 * where ftfy is installed, else BERT's BasicTokenizer, which drops control characters and makes each CJK ideograph a
 * word. Tried with ftfy 6.3.1, one pair of texts each:
 *   differ   HTML entities (&amp;), mojibake, curly quotes, full-width letters, digits and signs, half-width kana,
 *            ligatures, Ǆ and its like, control characters, ANSI colours, a byte order mark, U+0080..9F, ～ ￥
 *   same     English, Japanese with 、。「」・ and U+3000, emoji with joiners, dashes, … ½ ² Ⅷ ① Å, U+200B, U+00AD
 *
 * Special tokens spelled in a text ("<|endoftext|>") become their ids. As with SD 1.5's files, the start mark is looked
 * for after normalization (so "<|STARTOFTEXT|>" counts), the end mark before. Flags of added tokens that widen a match
 * (lstrip, rstrip, single_word) are not followed.
 */
typedef struct kw_tokenizer kw_tokenizer;

/* The vocabulary that comes with the program: CLIP ViT-L/14's, 49,408 tokens, 77 positions. */
KW_MUST kw_status kw_tokenizer_clip(kw_arena *a, kw_tokenizer **out, kw_err *e);

/*
 * A model's own tokenizer folder: vocab.json + merges.txt, else tokenizer.json; special tokens from
 * tokenizer_config.json, special_tokens_map.json, added_tokens.json as transformers reads them. Or a model file that
 * has these files' texts as metadata (io's KW_META_TOKENIZER); inside: those texts, file name -> text.
 */
KW_MUST kw_status kw_tokenizer_open(kw_arena *a, const char *dir, kw_tokenizer **out, kw_err *e);

KW_MUST kw_status kw_tokenizer_inside(kw_arena *a, const char *path, json_t **files, kw_err *e);

/* The tokenizer of a second text encoder that such a file holds, or *out = NULL: its texts are "tokenizer_2/NAME". */
#define KW_TOKENIZER_SECOND "tokenizer_2/"
KW_MUST kw_status kw_tokenizer_open_second(kw_arena *a, const char *path, kw_tokenizer **out, kw_err *e);
/* The same tokenizer with another padding token; both share the vocabulary. OpenCLIP's models have 0, "!". */
KW_MUST kw_status kw_tokenizer_padded(kw_arena *a, const kw_tokenizer *t, int pad, kw_tokenizer **out, kw_err *e);

int kw_tokenizer_size(const kw_tokenizer *t);       /* one more than the greatest id */
int kw_tokenizer_bos(const kw_tokenizer *t);
int kw_tokenizer_eos(const kw_tokenizer *t);
int kw_tokenizer_pad(const kw_tokenizer *t);        /* CLIP: the same as eos */
int kw_tokenizer_unk(const kw_tokenizer *t);
int kw_tokenizer_max_length(const kw_tokenizer *t); /* positions of a window, bos and eos included */

/* The id of a token as the vocabulary spells it ("cat</w>"), or -1. */
int kw_token_id(const kw_tokenizer *t, const char *name);
/* The spelling of an id in the vocabulary, or NULL. */
const char *kw_token_name(const kw_tokenizer *t, int id);
/* The text of an id: bytes (perhaps a part of a character), and whether a word ends there. NULL: no such id. */
const char *kw_token_text(const kw_tokenizer *t, kw_arena *a, int id, size_t *n, bool *ends_word);

typedef struct {
    int32_t *ids;                         /* (n) without bos, eos, padding */
    uint32_t *at;                         /* (n) the byte of the text at which each token begins */
    size_t n;
    size_t unknown;                       /* how many of them stand for bytes outside the vocabulary */
    size_t chars;                         /* characters of the text, white space apart ... */
    size_t broken;                        /* ... and those among them that no token holds whole */
} kw_tokens;

enum { KW_TEXT_MAX = 16 << 20 };          /* longer texts are refused (bytes) */

KW_MUST kw_status kw_tokenize(const kw_tokenizer *t, kw_arena *a, const char *text, size_t len, kw_tokens *out,
                              kw_err *e);

/* 0..1: the share of a text which the vocabulary can only spell byte by byte (Japanese on CLIP), for a warning. */
static inline double kw_broken_share(const kw_tokens *t) { return t->chars ? (double)t->broken / (double)t->chars : 0; }

/* ---- prompts --------------------------------------------------------------------------------------- */

/*
 * A1111's grammar: (x) is 1.1, (x:1.3) is 1.3, [x] is 1/1.1, nested factors multiply, \( \) \[ \] \\ are themselves,
 * a bracket never closed reaches to the end, one never opened is text; BREAK, a word of its own, ends the window.
 * Two differences: BREAK inside brackets breaks (A1111 then reads it as a word of negative weight), and a weight that
 * is no number, "(x:1.2.3)", is refused instead of ending the program.
 */
typedef struct {
    const char *text;
    double weight;
    bool is_break;                        /* a BREAK: text is "", weight 1 */
} kw_segment;

typedef struct {                          /* <kind:name:te:unet>, <lora:name:te=0.5:unet=1> */
    const char *kind;                     /* "lora", "lyco", "hypernet" ... whatever stood there */
    const char *name;
    double te, unet;                      /* strengths: text encoder 1 unless given, U-Net as te unless given */
    const char *blocks;                   /* factors of blocks, as lbw=... has them; NULL: none */
} kw_prompt_tag;

typedef struct {
    const char *text;                     /* the prompt without tags */
    kw_segment *segments;                 /* (n), at least one */
    size_t n;
    kw_prompt_tag *tags;                  /* (n_tags) */
    size_t n_tags;
} kw_prompt;

KW_MUST kw_status kw_prompt_parse(kw_arena *a, const char *prompt, kw_prompt *out, kw_err *e);

/*
 * Whose grammar. ComfyUI's: (x) is 1.1 and (x:1.3) is 1.3, where a number given replaces what the brackets around it
 * have said; \( and \) are themselves; there is no [x], BREAK, AND, editing or alternation.
 */
#define KW_GRAMMAR_MAP(X) \
    X(A1111, "a1111") \
    X(COMFYUI, "comfyui")

/* What weights do (A1111's "Emphasis mode", A1111's name last). */
#define KW_EMPHASIS_MAP(X) \
    X(ORIGINAL, "original", "Original")   /* hidden states times their weights, then the mean they had */ \
    X(NO_NORM, "no-norm", "No norm")      /* hidden states times their weights */ \
    X(IGNORE, "ignore", "Ignore")         /* the grammar is read, its weights are 1 */ \
    X(NONE, "none", "None")               /* brackets and BREAK are words */

typedef enum {
#define X(name, text) KW_GRAMMAR_##name,
    KW_GRAMMAR_MAP(X)
#undef X
    KW_N_GRAMMARS
} kw_grammar;

typedef enum {
#define X(name, text, label) KW_EMPHASIS_##name,
    KW_EMPHASIS_MAP(X)
#undef X
    KW_N_EMPHASES
} kw_emphasis;

const char *kw_emphasis_label(kw_emphasis m);      /* A1111's name */

/* The two halves of kw_prompt_parse: tags and the text without them; the segments of out->text. */
KW_MUST kw_status kw_prompt_tags(kw_arena *a, const char *prompt, kw_prompt *out, kw_err *e);
KW_MUST kw_status kw_prompt_weigh(kw_arena *a, kw_grammar g, kw_emphasis m, kw_prompt *out, kw_err *e);

/* ---- what changes from step to step ----------------------------------------------------------------- */

/*
 *   a AND b:0.5        parts, each with its weight in the guidance:  u + g Σ w_i (c_i - u)  (Liu, arXiv:2206.01714)
 *   [a:b:0.25] [a:b:10]     a, then b: after a share of the steps (a number with a point), or after so many
 *   [b:10] [a::10]          nothing, then b; a, then nothing
 *   [a|b|c]                 in turn
 * They may stand within each other and within brackets. What is not well-formed is text; where that leaves a bar or a
 * backslash at the end alone, nothing in this part of the prompt changes (A1111's parser gives up there).
 *
 * As in A1111 a stage holds for the network's runs 0 .. until, counted from 0: [a:b:3] draws a in the first four, and
 * [a|b] is a a b a b. `steps` are those of the sampler, twice as many where it asks the network twice in each
 * (A1111's "second order"). In a second pass (before > 0: the steps of the first) whole numbers count from the first
 * pass on, and the pass goes from 1.0 to 2.0.
 */
typedef struct { int until; const char *text; } kw_prompt_stage;
typedef struct {
    double weight;
    kw_prompt_stage *stage;  size_t n;    /* at least one */
} kw_prompt_part;
typedef struct { kw_prompt_part *part; size_t n; } kw_prompt_plan;     /* at least one */
typedef struct { int steps, before; } kw_prompt_steps;

/* text: without tags. composed: AND is looked for (not in negative prompts). */
KW_MUST kw_status kw_prompt_plan_make(kw_arena *a, const char *text, bool composed, kw_prompt_steps steps,
                                      kw_prompt_plan *out, kw_err *e);
size_t kw_prompt_stage_at(const kw_prompt_part *p, int run);       /* its index */

/* ---- windows of tokens ------------------------------------------------------------------------------ */

/* Each window is bos, up to width-2 tokens, eos, padding; what is not a token of the text has weight 1. */
typedef struct {
    int32_t *ids;                         /* (n, width) */
    float *weights;                       /* (n, width) */
    size_t n;
    size_t width;                         /* kw_tokenizer_max_length */
    size_t used;                          /* tokens of the text in them */
    int32_t *rows;                        /* (n, width) the vector that stands there, -1: none; or NULL: nowhere one */
    size_t cut;                           /* tokens of the text left out (captions only) ... */
    const char *cut_text;                 /* ... and what the text says there; NULL when nothing is left out */
} kw_windows;

enum { KW_COMMA_REACH = 20 };             /* A1111's default */

/*
 * A prompt, in as many windows as it takes (at least one). When a window is full and its last comma is at most
 * comma_reach tokens back, what follows the comma moves into the next window (A1111's "comma padding backtrack").
 */
KW_MUST kw_status kw_prompt_windows(const kw_tokenizer *t, kw_arena *a, const kw_prompt *p, int comma_reach,
                                    kw_windows *out, kw_err *e);

/*
 * Names that stand for vectors instead of tokens (textual inversion). In A1111's grammar a name is found where its
 * tokens are, the longest first; in ComfyUI's behind "embedding:". Its vectors are never parted by the end of a window.
 */
typedef struct {
    const char *name;
    int32_t *ids;  size_t n_ids;          /* of the name (kw_new_word_make) */
    int vectors;
    int32_t row;                          /* of the first one, counted over all words */
} kw_new_word;
typedef struct { kw_new_word *word; size_t n; } kw_new_words;

KW_MUST kw_status kw_new_word_make(const kw_tokenizer *t, kw_arena *a, const char *name, int vectors, int32_t row,
                                   kw_new_word *out, kw_err *e);

typedef struct {
    kw_grammar grammar;
    int comma_reach;                      /* A1111's */
    const kw_new_words *words;            /* may be NULL */
} kw_windows_options;

/*
 * The same in either grammar. ComfyUI's windows: what stands between changes of weight goes into the next window as a
 * whole if it has fewer than eight tokens and does not fit. An embedding that is not known there: KW_EDATA.
 */
KW_MUST kw_status kw_prompt_windows_as(const kw_tokenizer *t, kw_arena *a, const kw_prompt *p,
                                       const kw_windows_options *o, kw_windows *out, kw_err *e);

/*
 * A training caption in exactly `windows` windows (1, 2, 3 are kohya's 75, 150, 225 tokens); the rest is cut.
 * No emphasis: brackets are text.
 */
KW_MUST kw_status kw_caption_windows(const kw_tokenizer *t, kw_arena *a, const char *caption, size_t windows,
                                     kw_windows *out, kw_err *e);

/* Add empty windows until there are n (prompt and negative prompt need equal numbers). */
KW_MUST kw_status kw_windows_extend(const kw_tokenizer *t, kw_arena *a, kw_windows *w, size_t n, kw_err *e);

/* ---- training a vocabulary ---------------------------------------------------------------------------- */

typedef struct {
    const char *text;
    uint64_t count;                       /* how often this text counts; 0 is allowed */
} kw_bpe_text;

typedef struct {
    const char **names;                   /* (size) in CLIP's order: bytes, bytes</w>, merged tokens, start, end */
    size_t size;                          /* may be less than asked for when the texts give no more pairs */
    uint32_t (*merges)[2];                /* (n_merges) ids of the two halves, in order of rank */
    size_t n_merges;
} kw_bpe;

/*
 * Byte-pair encoding in CLIP's form (Sennrich et al. 2016): the most frequent pair first, among equals the one of the
 * lowest ids; pairs seen fewer than min_count times are not merged. The same texts give the same vocabulary.
 */
KW_MUST kw_status kw_bpe_train(kw_arena *a, const kw_bpe_text *texts, size_t n, size_t size, uint64_t min_count,
                               kw_bpe *out, kw_err *e);

/* vocab.json, merges.txt, tokenizer_config.json, special_tokens_map.json for transformers' CLIPTokenizer. */
KW_MUST kw_status kw_bpe_write(const kw_bpe *b, const char *dir, int max_length, kw_err *e);
/* The same files as texts, to be freed by the caller; pad: the padding token, NULL: <|endoftext|>. */
enum { KW_BPE_FILES = 4 };
extern const char *const kw_bpe_names[KW_BPE_FILES];
KW_MUST kw_status kw_bpe_texts(const kw_bpe *b, int max_length, const char *pad, kw_str out[KW_BPE_FILES], kw_err *e);
/* CLIP's own vocabulary, as it comes with the program. */
KW_MUST kw_status kw_bpe_clip(kw_arena *a, kw_bpe *out, kw_err *e);

#endif
