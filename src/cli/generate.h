/* generate.h - what the files of `kiwame generate` share: its options, and one job per picture. */
#ifndef KW_CLI_GENERATE_H
#define KW_CLI_GENERATE_H

#include "cli.h"
#include "diffusion/diffusion.h"
#include "generate_sampling.h"

enum { KW_MASK_ORIGINAL, KW_MASK_FILL, KW_MASK_NOISE, KW_MASK_NOTHING };       /* --mask-fill */
enum { KW_AREA_WHOLE, KW_AREA_MASKED };                                        /* --inpaint-area */
enum { KW_FILE_PNG, KW_FILE_JPEG, KW_FILE_WEBP };                              /* --format */

/* --hires-upscaler: the kinds of kw_latents_resize, then filters for pixels. */
#define KW_UPSCALE_LATENT_ROWS_ "latent|latent-antialiased|latent-bicubic|latent-bicubic-antialiased|latent-nearest|" \
    "latent-nearest-exact|"
#define KW_UPSCALE_ROWS KW_UPSCALE_LATENT_ROWS_ "lanczos|bicubic|bilinear|nearest"
enum { KW_UPSCALE_PIXELS = KW_N_LATENT_SCALES };

typedef struct { const char *name, *kind, *hash; } kw_wanted;      /* kind: "model", "vae", "lora" */

typedef struct {
    kw_texts words, prompt, lora, grid, embedding, hypernet;
    const char *embeddings_dir, *hypernet_dir;
    int grammar, emphasis;
    const char *prompts, *negative, *base, *vae, *lora_dir, *sampler, *schedule, *noise, *save_latents, *out;
    const char *original_size, *crop, *target_size;
    const char *from, *model_dir, *init, *mask, *hires_size;
    double cfg, eta, strength, mask_blur, hires, hires_strength;
    uint64_t seed, memory;
    int steps, width, height, count, batch, spacing, clip_skip, rng, dtype, base_dtype, vae_dtype, vae_tile, format;
    int columns, quality, resize_mode, img2img_steps, mask_fill, inpaint_area, mask_padding;
    int hires_steps, hires_upscaler, lora_apply;
    bool partial, sheet, mask_invert;
    bool from_masked;                     /* --from's picture was painted with a mask */
    const kw_wanted *wanted;  size_t n_wanted;           /* what --from names with a hash */
    kw_generate_sampling how;
} kw_generate_config;

typedef struct {
    double te, unet;
    const float *blocks;                  /* KW_LORA_BLOCKS factors, or NULL */
} kw_strengths;

typedef struct { const char *path, *name; double given; bool always; char hash[65]; } kw_job_hypernet;

typedef struct {                          /* one picture */
    const char *prompt, *negative;        /* prompt: with its tags */
    const char *base;                     /* of a grid over bases; NULL: --base */
    uint64_t seed, variation;
    int width, height, steps;             /* 0: the base's size */
    int clip_skip;
    double cfg, eta, change;              /* change: strength over another picture, or of the second pass */
    const kw_sampler *sampler;
    const kw_sigma_schedule *schedule;    /* NULL: the sampler's own */
    kw_strengths strength[KW_PIPELINE_LORAS];
    bool uses[KW_PIPELINE_LORAS];
    double hyper[KW_PIPELINE_HYPERNETS];  /* strengths; 0: not for this one */
    size_t windows[2];
    const char *file;                     /* written here */
    int place[3];                         /* in the grid: which value of each axis */
    int row;                              /* of the sheet, where there is a grid; from 0 */
} kw_job;

typedef struct {                          /* a LoRA file, from --lora or found for a tag */
    const char *path, *name;              /* name: as a tag spells it */
    kw_strengths given;
    bool always;                          /* from --lora: for every picture */
    const char *blocks;                   /* of --lora, as it was written; NULL: none */
    bool by_block;                        /* some picture weighs its blocks */
    char hash[65];
} kw_job_lora;

/* ---- grids (generate_grid.c) ---------------------------------------------------------------------------------- */

enum { KW_GRID_AXES = 3, KW_GRID_MOST = 200 };

typedef struct { const char *name; const struct kw_grid_kind *kind; const char *value[KW_GRID_MOST]; int n; } kw_axis;
typedef struct { kw_axis axis[KW_GRID_AXES]; int n; } kw_grid;   /* x, y, z */

/* --grid NAME=VALUES, in order. Values: a,b,c with quotes as in CSV; numbers also 1-5 and 0-1:0.25. */
KW_MUST kw_status kw_grid_read(kw_arena *a, const kw_texts *texts, kw_grid *out, kw_err *e);
int kw_grid_count(const kw_grid *g);                    /* of combinations; 1 without axes */
/* Combination i (x runs fastest) into a job: before its tags are read, and after. */
KW_MUST kw_status kw_grid_apply(kw_arena *a, const kw_grid *g, int i, kw_job *j, kw_err *e);
KW_MUST kw_status kw_grid_apply_lora(kw_arena *a, const kw_grid *g, kw_job *j, kw_err *e);
const char *kw_grid_label(kw_arena *a, const kw_grid *g, int axis, int value);         /* "cfg: 7" */
const kw_axis *kw_grid_axis(const kw_grid *g, const char *name);                       /* NULL: there is none */
/* A1111's keys of a grid's sheet: "Script", "X Type", "X Values" ...; at most KW_GRID_KEYS. */
enum { KW_GRID_KEYS = 1 + 2 * KW_GRID_AXES };
KW_MUST kw_status kw_grid_keys(kw_arena *a, const kw_grid *g, kw_meta *list, size_t *n, kw_err *e);

typedef struct {
    kw_job *job;  size_t n;
    kw_grid grid;  int rows;              /* rows of the sheet, where there is a grid */
    kw_job_lora lora[KW_PIPELINE_LORAS];  size_t n_lora;
    kw_job_hypernet hypernet[KW_PIPELINE_HYPERNETS];  size_t n_hypernet;
    kw_infotext_lora *inversion;  size_t n_inversion;      /* textual inversions, in the pipeline's order */
} kw_jobs;

/* All pictures that the options ask for, in order; LoRA tags resolved, sizes still 0 where the base decides. */
KW_MUST kw_status kw_jobs_read(kw_arena *a, const kw_generate_config *c, kw_jobs *out, kw_err *e);

/* By name, for options, prompts files and grids; refused with the names that are known. */
KW_MUST kw_status kw_job_sampler(const char *name, kw_job *j, kw_err *e);
KW_MUST kw_status kw_job_schedule(const char *name, kw_job *j, kw_err *e);

/* ---- LoRA files (generate_lora.c) ------------------------------------------------------------------------------- */

/* --lora, before the first job is read. */
KW_MUST kw_status kw_loras_given(kw_arena *a, const kw_generate_config *c, kw_jobs *jobs, kw_err *e);
/* A job's tags, of hypernetworks too; what options gave gets a tag in the text that is kept. */
KW_MUST kw_status kw_loras_apply(kw_arena *a, const kw_generate_config *c, kw_jobs *jobs, kw_job *j, kw_err *e);

/* ---- words (generate_words.c): --prompt-grammar, --emphasis, --embedding, --embeddings-dir ----------------------- */

kw_reading kw_words_reading(const kw_generate_config *c, const kw_job *j);
/* Textual inversions into the pipeline: those given, and those of the folder that a prompt names. */
KW_MUST kw_status kw_words_open(kw_cli *cli, const kw_generate_config *c, kw_pipeline *p, kw_jobs *jobs, kw_err *e);
/* --hypernet, before the first job is read; a tag <hypernet:NAME:X>; tags for those given by --hypernet into text. */
KW_MUST kw_status kw_hypernets_given(kw_arena *a, const kw_generate_config *c, kw_jobs *jobs, kw_err *e);
KW_MUST kw_status kw_hypernets_tag(kw_arena *a, const kw_generate_config *c, kw_jobs *jobs, kw_job *j,
                                   const kw_prompt_tag *tag, kw_err *e);
void kw_hypernets_complete(const kw_jobs *jobs, kw_job *j, kw_str *text);
/* What a job's infotext says of them; extra: room for two more keys. */
void kw_words_infotext(kw_arena *a, const kw_generate_config *c, const kw_pipeline *p, const kw_jobs *jobs,
                       const kw_job *j, kw_infotext *t, kw_meta *extra);

/* What looks like a slip in a prompt (prompt_note.c): a translated line, or NULL. */
const char *kw_prompt_note(kw_arena *a, const char *prompt);

/* Of SDXL (generate_sizes.c). KW_EUSAGE: another base, or not two numbers. And as they stand in the infotext. */
/* "512x768": two numbers of least to most; false: it is none. between: 'x', in either case, or ','. */
bool kw_read_pair(const char *text, char between, int least, int most, int *x, int *y);
KW_MUST kw_status kw_generate_sizes(const kw_generate_config *c, const kw_pipeline *p, kw_sizes *out, kw_err *e);
size_t kw_generate_sizes_text(const kw_generate_config *c, const kw_pipeline *p, kw_meta out[3]);

/* ---- writing (generate_write.c) ------------------------------------------------------------------------------- */

typedef struct kw_picture_writer kw_picture_writer;

struct kw_canvas;
struct kw_from;

/* Chooses names, makes the folder; reads the models' hashes for the infotext. canvas: NULL without --init. */
KW_MUST kw_status kw_picture_writer_new(kw_cli *cli, const kw_generate_config *c, kw_pipeline *p, kw_jobs *jobs,
                                        const struct kw_canvas *canvas, kw_picture_writer **out, kw_err *e);
/* Another base, for the pictures that follow; jobs: those drawn with it. */
KW_MUST kw_status kw_picture_writer_base(kw_picture_writer *w, const kw_generate_config *c, kw_pipeline *p,
                                         const kw_jobs *jobs, const struct kw_canvas *canvas, kw_err *e);
void kw_picture_writer_leave(const kw_picture_writer *w);         /* after an error: no empty folder stays behind */
/* Says where the files in use are not those that --from names. from: NULL is allowed. */
void kw_picture_writer_compare(const kw_picture_writer *w, const struct kw_from *from);
/* Writes picture i and keeps a copy for the sheet. */
KW_MUST kw_status kw_picture_writer_put(kw_picture_writer *w, size_t i, const kw_picture *p, kw_err *e);
/* The sheet, if there is more than one picture; *sheet is its path or NULL. */
KW_MUST kw_status kw_picture_writer_end(kw_picture_writer *w, const char **sheet, kw_err *e);

/* ---- one file (generate_file.c) --------------------------------------------------------------------------------- */

const char *kw_format_ending(int format);               /* ".png" */
/* The format a file's name asks for; -1: none of them. */
int kw_format_of(const char *path);
/* A picture with its text, whole or not at all. Refused: a text too long for the kind of file. */
KW_MUST kw_status kw_picture_file_write(const char *path, int format, int quality, const kw_picture *p,
                                        const char *text, kw_err *e);

/* ---- the second pass (generate_hires.c) -------------------------------------------------------------------------- */

/* Its size for a first one of w x h; false: there is none. cut: px that stick out of --hires-size, of the picture. */
typedef struct { int w, h, cut_x, cut_y; } kw_hires;
KW_MUST kw_status kw_hires_size(const kw_generate_config *c, int w, int h, int factor, kw_hires *out, bool *any,
                                kw_err *e);
/* Draws r, then once more, larger. Its steps are told to r->progress as going on from the first pass's. */
KW_MUST kw_status kw_hires_draw(kw_pipeline *p, kw_arena *a, const kw_generate_config *c, const kw_request *r,
                                double strength, kw_generated *out, kw_err *e);
int kw_hires_steps(const kw_generate_config *c, int steps);        /* 0 where there is no second pass */
enum { KW_HIRES_KEYS = 5 };
KW_MUST kw_status kw_hires_keys(kw_arena *a, const kw_generate_config *c, double strength, kw_meta *list, size_t *n,
                                kw_err *e);

/* ---- a picture's own settings (generate_from.c) ----------------------------------------------------------------- */

typedef struct kw_from {
    const char *path;
    kw_infotext_read text;
    kw_wanted *wanted;  size_t n;         /* files that it names with a hash */
} kw_from;

/* Reads --from and sets every option that the command line did not; says on stderr what it cannot use. NULL: none. */
KW_MUST kw_status kw_from_read(kw_cli *cli, kw_generate_config *c, kw_from **out, kw_err *e);
/* ComfyUI's text `prompt` as A1111 would write it (generate_comfy.c); KW_EDATA names what is not understood. */
KW_MUST kw_status kw_comfy_read(const char *path, const char *text, kw_str *out, kw_err *e);
/* generate_from_files.c: what the picture names with a hash, into f->wanted; its model as --base and its autoencoder as --vae,
   or the name of the one that is not there (NULL: none). */
KW_MUST kw_status kw_from_files(kw_cli *cli, kw_generate_config *c, kw_from *f, const char **missing_vae, kw_err *e);
/* Is what was used what the picture names? Says so if not. found: its hash, NULL: unknown; other: one more, or NULL. */
void kw_from_compare(const kw_cli *cli, const kw_from *f, const char *kind, const char *name, const char *found,
                     const char *other);

#endif
