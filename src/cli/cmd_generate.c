/* cmd_generate.c - kiwame generate: pictures from words. */
#include "generate_session.h"
#include "net_settings.h"


#define C kw_generate_config
#define INF __builtin_inf()

static const kw_option options[] = {
    KW_ROW_LIST("text", C, words, N_("what to draw; several texts give several pictures"), .value = "PROMPT",
                .flags = KW_OPT_POSITIONAL),
    KW_ROW_GROUP(N_("What")),
    KW_ROW_LIST("prompt", C, prompt,
                N_("what to draw: (word:1.2) weighs, [a:b:0.5] changes, <lora:NAME:0.8> adds a LoRA"), .letter = 'p'),
    KW_ROW_TEXT("negative", C, negative, NULL, N_("what not to draw"), .alias = "negative-prompt", .letter = 'n'),
    KW_ROW_PATH("prompts", C, prompts, NULL,
                N_("file of prompts: TEXT --n NEGATIVE --w W --h H --d SEED --l CFG --s STEPS --ss SAMPLER")),
    KW_ROW_PATH("from", C, from, NULL,
                N_("repeat a picture by the settings kept in it; what is given here comes first"), .value = "PICTURE"),
    KW_ROW_INT("count", C, count, 1, 1, 10000, N_("pictures of each prompt, with rising seeds")),
    KW_ROW_INT("width", C, width, 0, 1, 16384, N_("width of the picture"), .unit = "px", .word = "base", .word_is = 0),
    KW_ROW_INT("height", C, height, 0, 1, 16384, N_("height of the picture"), .unit = "px", .word = "base",
               .word_is = 0),
    KW_ROW_CHOICE("prompt-grammar", C, grammar, KW_GRAMMAR_A1111, "a1111|comfyui",
                  N_("whose prompts: A1111's with [a:b:0.5], [a|b], AND, BREAK; or ComfyUI's weights alone")),
    KW_ROW_CHOICE("emphasis", C, emphasis, KW_EMPHASIS_ORIGINAL, "original|no-norm|ignore|none",
                  N_("what weights of words do in A1111's grammar: \"No norm\" suits SDXL; none: brackets are words")),
    KW_ROW_GROUP(N_("Model")),
    KW_ROW_PATH("base", C, base, NULL, N_("model: folder or file; default: the small one that comes along"),
                .value = "DIR", .alias = "model|ckpt"),
    KW_ROW_PATH("model-dir", C, model_dir, NULL, N_("folder in which --from looks for the picture's model"),
                .value = "DIR"),
    KW_ROW_PATH("vae", C, vae, NULL, N_("autoencoder to use instead of the base's own")),
    KW_ROW_INT("clip-skip", C, clip_skip, 1, 1, 24,
               N_("text encoder layer used, counted from the end; of SDXL 1 and 2 are the same"),
               .alias = "clip_skip"),
    KW_ROW_GROUP(N_("LoRA and other additions")),
    KW_ROW_LIST("lora", C, lora,
                N_("LoRA or LyCORIS file, or PEFT's folder, with its strength: FILE:0.8, FILE:TEXT:UNET; and of "
                   "blocks: FILE:1:lbw=OUT=0.5"),
                .value = "FILE[:X[:X]][:lbw=X,...]"),
    KW_ROW_PATH("lora-dir", C, lora_dir, ".", N_("folder in which <lora:NAME:X> is looked for"), .value = "DIR"),
    KW_ROW_CHOICE("lora-apply", C, lora_apply, 0, "run|merge",
                  N_("LoRAs beside the layers, or added to their weights: faster steps, more memory")),
    KW_ROW_BOOL("allow-partial", C, partial, false,
                N_("use a LoRA although some of its keys fit no layer of this base")),
    KW_ROW_LIST("embedding", C, embedding, N_("textual inversion; prompts name it by its file's name"),
                .value = "FILE"),
    KW_ROW_PATH("embeddings-dir", C, embeddings_dir, NULL,
                N_("folder of textual inversions, with the folders in it; those that a prompt names are read"),
                .value = "DIR"),
    KW_ROW_LIST("hypernet", C, hypernet, N_("hypernetwork, with its strength: FILE:0.8"), .value = "FILE[:X]"),
    KW_ROW_PATH("hypernet-dir", C, hypernet_dir, ".", N_("folder in which <hypernet:NAME:X> is looked for"),
                .value = "DIR"),
    KW_ROW_GROUP(N_("Sampling")),
    KW_ROW_INT("steps", C, steps, 20, 1, 1000, N_("sampling steps")),
    KW_ROW_DOUBLE("cfg", C, cfg, 7, -INF, INF, N_("how strongly the prompt is followed; 1 ignores the negative prompt"),
                  .alias = "cfg-scale|scale"),
    KW_ROW_SEED("seed", C, seed, 0, N_("seed of the first picture"), .letter = 's',
                .text = "random"),
    KW_ROW_TEXT("sampler", C, sampler, "Euler a",
                N_("A1111's or ComfyUI's name, \"DPM++ 2M Karras\" too; help lists all")),
    KW_ROW_TEXT("schedule", C, schedule, NULL,
                N_("spread of noise levels, help lists all; the sampler's own unless given"), .alias = "scheduler"),
    KW_ROW_CHOICE("spacing", C, spacing, KW_SPACING_AUTO, "auto|a1111|diffusers|leading|trailing|linspace",
                  N_("which of the model's timesteps the steps fall on")),
    KW_ROW_DOUBLE("eta", C, eta, -1, 0, 1, N_("noise put back at each step"), .word = "sampler", .word_is = -1),
    KW_GENERATE_SAMPLING_ROWS(C, how),
    KW_ROW_GROUP(N_("Noise")),
    KW_ROW_CHOICE("rng", C, rng, KW_SEEDS_GPU, "gpu|cpu|kiwame",
                  N_("numbers behind a seed: torch's on CUDA (A1111's default), torch's on the CPU, or Kiwame's")),
    KW_GENERATE_NOISE_ROWS(C, how),
    KW_ROW_PATH("noise", C, noise, NULL,
                N_("file with the noise itself instead of seeds: tensor noise (N, C, h, w), and noise.I for what the "
                   "sampler puts in at its I-th draw")),
    KW_ROW_GROUP(N_("Painting over a picture")),
    KW_ROW_PATH("init", C, init, NULL, N_("picture to start from; where it is transparent it is painted anew"),
                .alias = "init-img|image"),
    KW_ROW_DOUBLE("strength", C, strength, 0.75, 0, 1, N_("how much of the picture may change: 0 little, 1 all of it"),
                  .alias = "denoising-strength"),
    KW_ROW_CHOICE("img2img-steps", C, img2img_steps, 0, "share|exact",
                  N_("do the strength's share of the steps, or exactly so many")),
    KW_ROW_CHOICE("resize-mode", C, resize_mode, KW_SIZED_CROP, "stretch|crop|fill",
                  N_("where the picture's shape is another: stretch it, cut it, or continue its borders")),
    KW_ROW_PATH("mask", C, mask, NULL, N_("picture that is white where it is painted anew, black where it stays")),
    KW_ROW_BOOL("mask-invert", C, mask_invert, false, N_("black is painted anew, white stays")),
    KW_ROW_DOUBLE("mask-blur", C, mask_blur, 4, 0, 64, N_("softens the mask's edge"), .unit = "px"),
    KW_ROW_CHOICE("mask-fill", C, mask_fill, KW_MASK_ORIGINAL, "original|fill|noise|nothing",
                  N_("what lies below the mask at first: the picture, its colours around, noise, or nothing")),
    KW_ROW_CHOICE("inpaint-area", C, inpaint_area, KW_AREA_WHOLE, "whole|masked",
                  N_("draw the whole picture, or the masked part alone at full size")),
    KW_ROW_INT("mask-padding", C, mask_padding, 32, 0, 1024,
               N_("margin around the masked part, with --inpaint-area masked"),
               .unit = "px"),
    KW_ROW_GROUP(N_("Second pass")),
    KW_ROW_DOUBLE("hires", C, hires, 0, 1, 8, N_("draw small, then once more so many times larger"),
                  .value = "X", .word = "off", .word_is = 0),
    KW_ROW_TEXT("hires-size", C, hires_size, NULL,
                N_("size of the second pass instead: WIDTHxHEIGHT; a 0 follows from the other"), .value = "WxH"),
    KW_ROW_INT("hires-steps", C, hires_steps, 0, 1, 1000, N_("steps of the second pass"), .word = "same", .word_is = 0),
    KW_ROW_DOUBLE("hires-strength", C, hires_strength, 0.7, 0, 1, N_("how much the second pass may change")),
    KW_ROW_CHOICE("hires-upscaler", C, hires_upscaler, 0, KW_UPSCALE_ROWS,
                  N_("what makes the first pass larger: its latents, or its pixels")),
    KW_ROW_GROUP(N_("What SDXL is told")),
    KW_ROW_TEXT("original-size", C, original_size, NULL,
                N_("SDXL: size that the picture should look to have had; default: its own"), .value = "WxH"),
    KW_ROW_TEXT("crop", C, crop, NULL, N_("SDXL: what should look cut off at the left and the top; default: 0,0"),
                .value = "X,Y"),
    KW_ROW_TEXT("target-size", C, target_size, NULL, N_("SDXL: size that it is told to make; default: the picture's"),
                .value = "WxH"),
    KW_ROW_GROUP(N_("Output")),
    KW_ROW_PATH("out", C, out, "pictures",
                N_("folder, or a file that ends in .png, .jpg or .webp, which is replaced"), .letter = 'o'),
    KW_ROW_CHOICE("format", C, format, KW_FILE_PNG, "png|jpeg|webp",
                  N_("kind of file; settings are kept in it as A1111 does")),
    KW_ROW_INT("quality", C, quality, 90, 1, 100, N_("quality of JPEG and WebP files"), .word = "lossless",
               .word_is = 101),
    KW_ROW_LIST("grid", C, grid,
                N_("draw all combinations, on one sheet: cfg=5,7 steps=10-30:10 prompt=fox,cat base=A,B ..."),
                .value = "NAME=VALUES"),
    KW_ROW_BOOL("sheet", C, sheet, true, N_("also one sheet of all pictures, when there are several")),
    KW_ROW_INT("columns", C, columns, 0, 1, 1000, N_("pictures in a row of the sheet"), .word = "square", .word_is = 0),
    KW_ROW_PATH("save-latents", C, save_latents, NULL, N_("also write the latents (N, C, h, w) as safetensors")),
    KW_ROW_GROUP(N_("Computation")),
    KW_ROW_INT("batch", C, batch, 1, 1, 64, N_("pictures drawn at once"), .alias = "batch-size"),
    KW_ROW_CHOICE("dtype", C, dtype, 0, "f32|bf16", N_("type of the computation")),
    KW_ROW_CHOICE("base-dtype", C, base_dtype, 0, "file|int8",
                  N_("weights of the U-Net as in the file, or in one byte a number: less memory, less exact")),
    KW_ROW_CHOICE("vae-dtype", C, vae_dtype, 0, "f32|bf16", N_("type of the autoencoder's computation")),
    KW_ROW_INT("vae-tile", C, vae_tile, KW_VAE_AUTO, KW_VAE_WHOLE, KW_VAE_MOST,
               N_("decode in stripes of at most so many pixels squared: the same picture, less memory; 0: whole"),
               .unit = "px", .word = "auto", .word_is = KW_VAE_AUTO),
    KW_ROW_SIZE("memory", C, memory, 7500000000.0, 0, 1e15,
                N_("memory to keep to, as far as speed can be traded for it"), .word = "off", .word_is = 0),
    KW_ROW_END
};

/* What nobody gave: the picture's own settings, the base that comes along, what the base wishes for, random seeds. */
static kw_status settle(kw_cli *cli, kw_generate_config *given, kw_from **from, kw_err *e)
{
    static const char *const wishes[] = { "sampler", "steps", "cfg" };
    static const char *const seeds[] = { "--seed", "--variation-seed" };
    KW_TRY(kw_bases_settle(cli, given, e));
    KW_TRY(kw_from_read(cli, given, from, e));
    KW_TRY(kw_model_named(cli, &given->base, e));
    KW_TRY(kw_model_named(cli, &given->vae, e));
    if (!given->base)
        given->base = kw_embedded_base(cli->arena);
    for (size_t i = 0; given->base && i < KW_LEN(wishes); i++)
        KW_TRY(kw_base_wishes(cli, given->base, wishes[i], wishes[i], e));
    for (size_t i = 0; i < KW_LEN(seeds); i++)
        if (kw_options_from(cli->options, seeds[i] + 2) == KW_FROM_DEFAULT)
            KW_TRY(kw_options_set(cli->options, seeds[i] + 2, "random", KW_FROM_PRESET, seeds[i], e));
    return KW_OK;
}

static kw_status draw(kw_session *s, kw_err *e)
{
    kw_say(s->cli, _(N_("opening the model")));
    kw_status opened = kw_session_open(s, e);
    kw_hush(s->cli);
    KW_TRY(opened);
    kw_picture_writer_compare(s->writer, s->from);
    KW_TRY(kw_session_draw(s, e));
    return kw_session_save_latents(s, e);
}

static kw_status run(kw_cli *cli, void *config, kw_err *e)
{
    kw_session s = { .cli = cli, .c = config };
    kw_generate_config *given = config;
    const char *sheet;
    if (kw_asks_for_list(given->sampler) || kw_asks_for_list(given->schedule)) {
        (kw_asks_for_list(given->sampler) ? kw_list_samplers : kw_list_schedules)(cli);
        return KW_OK;
    }
    KW_TRY(settle(cli, given, &s.from, e));
    KW_TRY(kw_jobs_read(cli->arena, s.c, &s.jobs, e));
    kw_session_tell_prompts(&s);
    KW_TRY(kw_grid_axis(&s.jobs.grid, "base") ? kw_bases_draw(&s, e) : draw(&s, e));
    KW_TRY(kw_picture_writer_end(s.writer, &sheet, e));
    if (cli->global.json)
        kw_session_print_json(&s, sheet);
    else if (sheet)
        puts(sheet);
    return KW_OK;
}

const kw_command kw_command_generate = {
    .name = "generate", .help = N_("draw pictures from words, with a base and LoRA files"),
    .about = N_("Settings are kept in each picture as A1111 writes them. Prints the files it wrote."),
    .examples = "kiwame generate \"a red fox\" --base sd15 --seed 1\n"
                "kiwame generate \"(kiwa:1.2) in snow <lora:kiwa:0.8>\" --base sd15 --lora-dir loras --count 4\n"
                "kiwame generate \"a red hat\" --base sd15 --init fox.png --mask head.png --strength 0.8\n"
                "kiwame generate --from fox.png --base sd15 --grid cfg=5,7,9 --grid seed=1-4",
    .options = options, .config_size = sizeof(C), .flags = KW_COMMAND_THREADS, .run = run,
};
