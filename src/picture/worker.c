/*
 * worker.c - the decoder child: hello, then for each request an open file in, pixels into the shared memory, a reply.
 * It never learns a path and, once shielded, cannot open one.
 */
#include "internal.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CPU_SECONDS 30                          /* for one picture; the program's own clock is stricter */

static kw_status read_and_decode(int file, const kw_worker_request *r, kw_decode_fn decode, kw_picture *p, kw_err *e)
{
    if (file < 0 || r->size > KW_PICTURE_MAX_BYTES)
        return kw_fail(e, KW_EDATA, "no file to decode");
    uint8_t *data = kw_block_new((size_t)r->size + 1);
    if (!data)
        return kw_fail(e, KW_ENOMEM, "no memory for a file of %llu bytes", (unsigned long long)r->size);
    kw_status s = kw_read_fd(file, data, (size_t)r->size, e);
    if (!s)
        s = decode(data, (size_t)r->size, r->background, p, e);
    kw_block_free(data);
    return s;
}

static kw_status share(const kw_picture *p, int memory, kw_err *e)
{
    size_t n = (size_t)p->w * (size_t)p->h * 3, done = 0;
    if (ftruncate(memory, (off_t)n))
        return kw_fail(e, KW_ENOMEM, "no shared memory for a picture of %dx%d", p->w, p->h);
    while (done < n) {
        ssize_t wrote = pwrite(memory, p->rgb + done, n - done, (off_t)done);
        if (wrote <= 0)
            return kw_fail(e, KW_ENOMEM, "no shared memory for a picture of %dx%d", p->w, p->h);
        done += (size_t)wrote;
    }
    return KW_OK;
}

static void answer(int file, const kw_worker_request *r, kw_decode_fn decode, int memory, kw_worker_reply *reply)
{
    kw_picture p = { 0 };
    kw_err e = { 0 };
    memset(reply, 0, sizeof *reply);            /* no byte of this process goes out by padding */
    kw_sandbox_cpu(CPU_SECONDS);
    kw_status s = read_and_decode(file, r, decode, &p, &e);
    if (!s)
        s = share(&p, memory, &e);
    *reply = (kw_worker_reply){ .magic = KW_WORKER_MAGIC, .status = s, .w = p.w, .h = p.h, .info = p.info };
    if (s) {
        snprintf(reply->what, sizeof reply->what, "%s", e.what);
        snprintf(reply->advice, sizeof reply->advice, "%s", e.advice);
    }
    kw_picture_free(&p);
}

int kw_worker_serve(int fd, kw_decode_fn decode)
{
    static const int ignored[] = { SIGINT, SIGTERM, SIGHUP, SIGPIPE };  /* the program closes the socket instead */
    for (size_t i = 0; i < KW_LEN(ignored); i++)
        signal(ignored[i], SIG_IGN);
    int memory = memfd_create("kiwame picture", MFD_CLOEXEC);
    kw_err e = { 0 };
    if (memory < 0 || kw_vips_start(&e))
        return kw_status_exit_code(KW_EDEVICE);
    kw_translate("the file is empty");          /* a catalogue must be open before files are out of reach */
    kw_worker_hello hello = { KW_WORKER_MAGIC, kw_sandbox_enter() };
    if (!kw_packet_send(fd, &hello, sizeof hello, memory))
        return kw_status_exit_code(KW_EDEVICE);
    for (;;) {
        kw_worker_request request;
        kw_worker_reply reply;
        int file;
        if (kw_packet_receive(fd, &request, sizeof request, &file) != sizeof request
            || request.magic != KW_WORKER_MAGIC)
            return 0;
        answer(file, &request, decode, memory, &reply);
        if (file >= 0)
            close(file);
        if (!kw_packet_send(fd, &reply, sizeof reply, -1))
            return 0;
    }
}

int kw_picture_worker_main(int fd) { return kw_worker_serve(fd, kw_decode_bytes); }
