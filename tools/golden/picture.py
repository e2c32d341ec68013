#!/usr/bin/env python3
"""Golden pictures for tests/unit/picture: small files of every kind and the RGB that Pillow + littleCMS make of them.

    tools/golden/picture.py tests/golden/picture

Made with Pillow 13.0.0 (littleCMS 2.19, libjpeg-turbo 3.2, libwebp 1.6), numpy. `manifest.txt` has one line per file:
    name  width height  background  format  frames  orientation  notes        (expected pixels: name.rgb)
`bad.txt` has files that must be refused, with a word of the reason.
"""
import io, struct, sys, zlib
from pathlib import Path
import numpy as np
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
for old in out.iterdir():
    old.unlink()
manifest, bad = [], []
rng = np.random.default_rng(1)
SRGB = ImageCms.createProfile("sRGB")


# ---- the reference: what Pillow and littleCMS make of a file --------------------------------------------------------

def reference(data, background):
    im = Image.open(io.BytesIO(data))
    im.load()
    im = ImageOps.exif_transpose(im)
    icc = im.info.get("icc_profile")
    if im.mode.startswith("I;16"):                      # Pillow's own convert() would clip at 255
        im = Image.fromarray((np.asarray(im).astype(np.uint16) >> 8).astype(np.uint8))
    if im.mode == "P" or "transparency" in im.info:
        im = im.convert("RGBA" if "transparency" in im.info else "RGB")
    if im.mode == "1":
        im = im.convert("L")
    alpha = im.getchannel("A") if im.mode in ("LA", "RGBA") else None
    colour = {"LA": "L", "RGBA": "RGB"}.get(im.mode, im.mode)
    if alpha is not None:
        im = Image.merge(colour, im.split()[:-1])
    if icc:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            im = ImageCms.profileToProfile(im, profile, SRGB, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            pass
    im = im.convert("RGB")
    if alpha is not None:
        im.putalpha(alpha)
        im = Image.alpha_composite(Image.new("RGBA", im.size, background + (255,)), im).convert("RGB")
    return im


def good(name, data, fmt, notes="", frames=1, orientation=1, background=(255, 255, 255)):
    im = reference(data, background)
    (out / name).write_bytes(data)
    (out / (name + ".rgb")).write_bytes(np.asarray(im).tobytes())
    bg = "%02x%02x%02x" % background
    manifest.append(f"{name} {im.width} {im.height} {bg} {fmt} {frames} {orientation} {notes or '-'}")


def refuse(name, data, word):
    (out / name).write_bytes(data)
    bad.append(f"{name} {word}")


def save(im, fmt, **kw):
    b = io.BytesIO()
    im.save(b, fmt, **kw)
    return b.getvalue()


# ---- picture material -----------------------------------------------------------------------------------------------

def scene(w, h):
    y, x = np.mgrid[0:h, 0:w]
    a = np.stack([x * 255 / (w - 1), y * 255 / (h - 1), 255 - (x + y) * 255 / (w + h - 2)], -1)
    a[2:5, 2:6] = (255, 0, 0)
    a[2:5, 7:11] = (0, 255, 0)
    a[h - 4:h - 1, 1:4] = (0, 0, 255)
    return a.round().astype(np.uint8)


rgb = Image.fromarray(scene(24, 16))
ramp = Image.fromarray(np.linspace(0, 255, 24 * 16).reshape(16, 24).astype(np.uint8))
a8 = Image.fromarray((np.arange(24 * 16).reshape(16, 24) * 7 % 256).astype(np.uint8))
rgba = rgb.copy()
rgba.putalpha(a8)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(a, colour, bits, extra=b"", interlaced=False):
    """A PNG by hand, filter 0: a is (h, w, c) of ints below 2**bits."""
    a = np.asarray(a)
    h, w = a.shape[:2]
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    raw = b""
    for x0, y0, dx, dy in passes if interlaced else [(0, 0, 1, 1)]:
        part = a[y0::dy, x0::dx]
        if not part.size:
            continue
        for row in part:
            flat = row.reshape(-1)
            if bits == 16:
                body = flat.astype(">u2").tobytes()
            elif bits == 8:
                body = flat.astype(np.uint8).tobytes()
            else:
                ones = ((flat[:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8)
                body = np.packbits(ones.reshape(-1)).tobytes()
            raw += b"\0" + body
    head = struct.pack(">IIBBBBB", w, h, bits, colour, 0, 0, int(interlaced))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(raw, 9))
            + chunk(b"IEND", b""))


# ---- profiles: ICC v2, by hand --------------------------------------------------------------------------------------

def icc(space, pcs, kind, tags, name):
    def s15(v):
        return struct.pack(">i", round(v * 65536))
    body, table, offset = b"", b"", 128 + 4 + 12 * (len(tags) + 3)
    desc = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name.encode() + b"\0" + b"\0" * 78
    cprt = b"text\0\0\0\0none\0"
    wtpt = b"XYZ \0\0\0\0" + s15(0.9642) + s15(1.0) + s15(0.8249)
    for tag, data in [(b"desc", desc), (b"cprt", cprt), (b"wtpt", wtpt)] + tags:
        table += tag + struct.pack(">II", offset + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    size = offset + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, kind, space, pcs)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    head += s15(0.9642) + s15(1.0) + s15(0.8249) + b"\0" * 48
    return head + struct.pack(">I", len(tags) + 3) + table + body


def gamma(g):
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(g * 256)) + b"\0\0"


def matrix_profile(primaries, g, name):
    """Primaries and D65 as xy; adapted to D50 by Bradford."""
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    white = np.array([0.3127 / 0.329, 1, (1 - 0.3127 - 0.329) / 0.329])
    m = xyz * np.linalg.solve(xyz, white)
    b = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    d50 = np.array([0.9642, 1.0, 0.8249])
    m = np.linalg.inv(b) @ np.diag((b @ d50) / (b @ white)) @ b @ m
    tags = []
    for i, c in enumerate("rgb"):
        column = b"".join(struct.pack(">i", round(v * 65536)) for v in m[:, i])
        tags.append((c.encode() + b"XYZ", b"XYZ \0\0\0\0" + column))
        tags.append((c.encode() + b"TRC", gamma(g)))
    return icc(b"RGB ", b"XYZ ", b"mntr", tags, name)


def cmyk_profile():
    """A LUT of 5 points per ink: plain multiplication of inks to Lab; black is neutral."""
    grid = []
    for i in range(5 ** 4):
        c, m, y, k = [(i // 5 ** (3 - j)) % 5 / 4 for j in range(4)]
        light = 100 * (1 - 0.35 * c) * (1 - 0.5 * m) * (1 - 0.1 * y) * (1 - 0.9 * k)
        a = (-30 * c + 70 * m - 5 * y) * (1 - k)
        b = (-45 * c - 5 * m + 85 * y) * (1 - k)
        grid += [round(light * 2.55), round(a + 128), round(b + 128)]
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 5, 0])
    lut += b"".join(struct.pack(">i", v) for v in (65536, 0, 0, 0, 65536, 0, 0, 0, 65536))
    lut += bytes(range(256)) * 4 + bytes(np.clip(grid, 0, 255).tolist()) + bytes(range(256)) * 3
    return icc(b"CMYK", b"Lab ", b"prtr", [(b"A2B0", lut)], "test inks")


P3 = matrix_profile([(0.68, 0.32), (0.265, 0.69), (0.15, 0.06)], 2.2, "test P3")
ADOBE = matrix_profile([(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)], 2.19921875, "test wide RGB")
GREY = icc(b"GRAY", b"XYZ ", b"mntr", [(b"kTRC", gamma(1.8))], "test grey 1.8")
INKS = cmyk_profile()


# ---- good files -----------------------------------------------------------------------------------------------------

def exif(o):
    e = Image.Exif()
    e[0x0112] = o
    return e


for o in range(1, 9):
    good(f"exif{o}.jpg", save(rgb, "JPEG", quality=90, exif=exif(o)), "JPEG", "ORIENTED" if o > 1 else "", 1, o)
good("exif6.png", save(rgb, "PNG", exif=exif(6)), "PNG", "ORIENTED", 1, 6)
good("exif5.webp", save(rgb, "WEBP", lossless=True, exif=exif(5)), "WebP", "ORIENTED", 1, 5)
good("exif8.tif", save(rgb, "TIFF", tiffinfo={0x0112: 8}), "TIFF", "ORIENTED", 1, 8)
xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
good("xmp6.jpg", save(rgb, "JPEG", quality=90, xmp=xmp), "JPEG", "ORIENTED", 1, 6)

good("p3.png", save(rgb, "PNG", icc_profile=P3), "PNG", "ICC")
good("wide.jpg", save(rgb, "JPEG", quality=95, subsampling=0, icc_profile=ADOBE), "JPEG", "ICC")
good("wide.webp", save(rgb, "WEBP", lossless=True, icc_profile=ADOBE), "WebP", "ICC")
good("wide.tif", save(rgb, "TIFF", icc_profile=ADOBE), "TIFF", "ICC")
good("wide-alpha.png", save(rgba, "PNG", icc_profile=ADOBE), "PNG", "ALPHA,ICC", background=(10, 200, 90))
own = bytearray(ImageCms.ImageCmsProfile(SRGB).tobytes())
own[24:36] = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)        # its date
good("srgb.png", save(rgb, "PNG", icc_profile=bytes(own)), "PNG", "ICC")
good("grey18.png", save(ramp, "PNG", icc_profile=GREY), "PNG", "ICC,GREY")
good("icc-broken.jpg", save(rgb, "JPEG", icc_profile=b"\0\0\0\x10 not a profile at all" * 9), "JPEG", "ICC_IGNORED")
good("icc-broken.png", save(rgb, "PNG", icc_profile=b"\0\0\0\x10 not a profile at all" * 9), "PNG")    # libpng drops it
good("icc-other-space.jpg", save(ramp, "JPEG", quality=90, icc_profile=P3), "JPEG", "ICC_IGNORED,GREY")
good("exif6-wide.jpg", save(rgb, "JPEG", quality=95, icc_profile=ADOBE, exif=exif(6)), "JPEG", "ICC,ORIENTED", 1, 6)

palette = rgb.quantize(32)
good("palette.png", save(palette, "PNG"), "PNG")
good("palette-alpha.png", save(palette, "PNG", transparency=bytes(range(0, 256, 8))), "PNG", "ALPHA",
     background=(0, 0, 0))
good("palette-key.png", save(palette, "PNG", transparency=3), "PNG", "ALPHA")
good("palette-wide.png", save(palette, "PNG", icc_profile=ADOBE), "PNG", "ICC")
good("rgba.png", save(rgba, "PNG"), "PNG", "ALPHA")
good("rgba-colour.png", save(rgba, "PNG"), "PNG", "ALPHA", background=(12, 34, 210))
grey_alpha = Image.merge("LA", (ramp, a8))
good("grey-alpha.png", save(grey_alpha, "PNG"), "PNG", "ALPHA,GREY")
good("grey.png", save(ramp, "PNG"), "PNG", "GREY")
good("grey-key.png", save(ramp, "PNG", transparency=int(np.asarray(ramp)[3, 3])), "PNG", "ALPHA,GREY",
     background=(255, 0, 0))
good("rgb-key.png", save(rgb, "PNG", transparency=(255, 0, 0)), "PNG", "ALPHA", background=(0, 0, 255))
good("bilevel.png", save(ramp.convert("1"), "PNG"), "PNG", "GREY")
good("grey4.png", png(np.asarray(ramp)[..., None] >> 4, 0, 4), "PNG", "GREY")
good("palette2.png", png(np.arange(12 * 9).reshape(9, 12, 1) % 4, 3, 2,
                         chunk(b"PLTE", bytes([0, 0, 0, 200, 10, 10, 10, 220, 30, 40, 50, 250]))), "PNG")
good("adam7.png", png(scene(24, 16), 2, 8, interlaced=True), "PNG")
good("adam7-rgba.png", png(np.asarray(rgba), 6, 8, interlaced=True), "PNG", "ALPHA")

grey16 = rng.integers(0, 65536, (16, 24))
good("grey16.png", save(Image.fromarray(grey16.astype(np.uint16)), "PNG"), "PNG", "DEPTH16,GREY")
good("grey16.tif", save(Image.fromarray(grey16.astype(np.uint16)), "TIFF"), "TIFF", "DEPTH16,GREY")
good("rgb16.png", png(rng.integers(0, 65536, (16, 24, 3)), 2, 16), "PNG", "DEPTH16")
good("rgba16.png", png(rng.integers(0, 65536, (16, 24, 4)), 6, 16), "PNG", "ALPHA,DEPTH16")
good("rgb16-wide.png", png(rng.integers(0, 65536, (16, 24, 3)), 2, 16,
                           chunk(b"iCCP", b"wide\0\0" + zlib.compress(ADOBE))), "PNG", "ICC,DEPTH16")
good("adam7-16.png", png(rng.integers(0, 65536, (9, 11, 3)), 2, 16, interlaced=True), "PNG", "DEPTH16")

inks = Image.merge("CMYK", (*rgb.split(), ramp.point(lambda v: v // 2)))
adobe = save(inks, "JPEG", quality=95)
at = adobe.index(b"\xff\xee")
plain = adobe[:at] + adobe[at + 2 + struct.unpack(">H", adobe[at + 2:at + 4])[0]:]
good("cmyk-adobe.jpg", adobe, "JPEG", "CMYK")
good("cmyk-plain.jpg", plain, "JPEG", "CMYK")
good("cmyk-profile.jpg", save(inks, "JPEG", quality=95, icc_profile=INKS), "JPEG", "ICC,CMYK")
good("cmyk.tif", save(inks, "TIFF"), "TIFF", "CMYK")
good("cmyk-profile.tif", save(inks, "TIFF", icc_profile=INKS), "TIFF", "ICC,CMYK")

good("grey.jpg", save(ramp, "JPEG", quality=90), "JPEG", "GREY")
good("photo420.jpg", save(rgb.resize((61, 43), Image.BICUBIC), "JPEG", quality=80, subsampling=2), "JPEG")
good("photo422.jpg", save(rgb.resize((61, 43), Image.BICUBIC), "JPEG", quality=80, subsampling=1), "JPEG")
good("progressive.jpg", save(rgb.resize((40, 40)), "JPEG", quality=85, progressive=True), "JPEG")
good("photo.png", save(rgb, "JPEG", quality=90), "JPEG", "NAME")
good("webp-lossy.webp", save(rgb.resize((40, 40)), "WEBP", quality=80), "WebP")
good("webp-lossy-alpha.webp", save(rgba, "WEBP", quality=80), "WebP", "ALPHA")
good("webp-alpha.webp", save(rgba, "WEBP", lossless=True, exact=True), "WebP", "ALPHA", background=(90, 90, 0))
frames = [rgb.rotate(90 * i) for i in range(3)]
good("animated.webp", save(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:]),
     "WebP", "FRAMES", 3)
alpha_frames = [rgba.rotate(90 * i) for i in range(3)]
good("animated-alpha.webp", save(alpha_frames[0], "WEBP", lossless=True, save_all=True, append_images=alpha_frames[1:]),
     "WebP", "ALPHA,FRAMES", 3)
good("animated.gif", save(frames[0].quantize(16), "GIF", save_all=True,
                          append_images=[f.quantize(16) for f in frames[1:]]), "GIF", "FRAMES", 3)
good("still.gif", save(palette, "GIF"), "GIF")
good("transparent.gif", save(palette, "GIF", transparency=5), "GIF", "ALPHA", background=(0, 128, 255))
good("interlaced.gif", save(palette.resize((20, 37), Image.NEAREST), "GIF", interlace=1), "GIF")

good("rgb.tif", save(rgb, "TIFF", compression="tiff_lzw"), "TIFF")
good("rgba.tif", save(rgba, "TIFF", compression="tiff_adobe_deflate"), "TIFF", "ALPHA")
good("palette.tif", save(palette, "TIFF"), "TIFF")
good("bilevel.tif", save(ramp.convert("1"), "TIFF", compression="group4"), "TIFF", "GREY")
good("pages.tif", save(rgb, "TIFF", save_all=True, append_images=[ramp.convert("RGB")]), "TIFF", "FRAMES", 2)
good("jpeg.tif", save(rgb.resize((48, 32)), "TIFF", compression="jpeg", quality=85), "TIFF")

odd = rgb.resize((23, 17))
good("rgb.bmp", save(odd, "BMP"), "BMP")
good("grey.bmp", save(ramp, "BMP"), "BMP")
good("palette.bmp", save(palette.resize((23, 17), Image.NEAREST), "BMP"), "BMP")
good("bilevel.bmp", save(ramp.convert("1"), "BMP"), "BMP")
good("rgba.bmp", save(rgba, "BMP"), "BMP")        # 32 bits without masks: no alpha


def bmp(w, h, bits, compression, body, table=b"", head=40):
    offset = 14 + head + len(table)
    info = struct.pack("<IiiHHIIiiII", head, w, h, 1, bits, compression, len(body), 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + info + table + body


table = b"".join(bytes([(i * 37) % 256, (i * 91) % 256, (i * 13) % 256, 0]) for i in range(256))
rows8 = b"".join(bytes([5, i, 0, 4, i, i + 1, i + 2, i + 3, 1, 9, 0, 0]) for i in range(6)) + b"\0\1"
good("rle8.bmp", bmp(10, 6, 8, 1, rows8, table), "BMP")
rows4 = b"".join(bytes([5, 0x12, 0, 5, 0x34, 0x56, 0x70, 0, 0, 0]) for i in range(6)) + b"\0\1"
good("rle4.bmp", bmp(10, 6, 4, 2, rows4, table[:64]), "BMP")
five = rng.integers(0, 32768, (6, 10)).astype("<u2").tobytes()
good("rgb555.bmp", bmp(10, 6, 16, 0, five), "BMP")
six = rng.integers(0, 65536, (6, 10)).astype("<u2").tobytes()
good("rgb565.bmp", bmp(10, 6, 16, 3, six, struct.pack("<III", 0xf800, 0x7e0, 0x1f)), "BMP")
masks = struct.pack("<IIII", 0xff0000, 0xff00, 0xff, 0xff000000) + b"BGRs" + b"\0" * 48
good("bgra-masks.bmp", bmp(10, 6, 32, 3, rng.integers(0, 256, 240).astype(np.uint8).tobytes(), masks, 40)
     .replace(struct.pack("<IiiH", 40, 10, 6, 1), struct.pack("<IiiH", 108, 10, 6, 1), 1), "BMP", "ALPHA")
good("topdown.bmp", bmp(10, -6, 32, 0, rng.integers(0, 256, 240).astype(np.uint8).tobytes()), "BMP")

# ---- bad files ------------------------------------------------------------------------------------------------------

refuse("empty.png", b"", "empty")
refuse("text.jpg", b"this is a text\n", "known")
refuse("page.html", b"<html><body>404</body></html>", "HTML")
refuse("picture.avif", b"\0\0\0\x20ftypavif\0\0\0\0avifmif1", "AVIF")
noise = Image.fromarray(rng.integers(0, 256, (48, 48, 3)).astype(np.uint8))
for name, data in [("cut.jpg", save(noise, "JPEG")), ("cut.png", save(noise, "PNG")),
                   ("cut.webp", save(noise, "WEBP", lossless=True)), ("cut.gif", save(noise.quantize(64), "GIF")),
                   ("cut.tif", save(noise, "TIFF")), ("cut.bmp", save(noise, "BMP")),
                   ("cut-progressive.jpg", save(noise, "JPEG", progressive=True))]:
    refuse(name, data[:len(data) * 2 // 3], "-")
for name, data in [("head.jpg", save(rgb, "JPEG")), ("head.png", save(rgb, "PNG")), ("head.webp", save(rgb, "WEBP")),
                   ("head.gif", save(palette, "GIF")), ("head.tif", save(rgb, "TIFF")), ("head.bmp", save(rgb, "BMP"))]:
    refuse(name, data[:20], "-")
flipped = bytearray(save(noise, "PNG"))
flipped[len(flipped) // 2] ^= 0x55
refuse("crc.png", bytes(flipped), "-")


def big_png(w, h):
    body = zlib.compress(b"\0" * 100000, 9)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)) + chunk(b"IDAT", body)
            + chunk(b"IEND", b""))


refuse("bomb.png", big_png(60000, 60000), "limit")
refuse("bomb-bytes.png", big_png(16384, 6000), "MiB")
jpeg = bytearray(save(rgb, "JPEG"))
sof = jpeg.index(b"\xff\xc0")
jpeg[sof + 5:sof + 9] = struct.pack(">HH", 65500, 65500)
refuse("bomb.jpg", bytes(jpeg), "limit")
gif = bytearray(save(palette, "GIF"))
gif[6:10] = struct.pack("<HH", 65535, 65535)
frame = gif.index(b",\0\0\0\0\x18\0\x10\0")           # libnsgif grows the screen to what the frames need
gif[frame + 5:frame + 9] = struct.pack("<HH", 65535, 65535)
refuse("bomb.gif", bytes(gif), "limit")
webp = bytearray(save(rgba, "WEBP", lossless=True))
bits = struct.unpack("<I", webp[21:25])[0]
webp[21:25] = struct.pack("<I", (bits & ~0xfffffff) | 16382 | 16382 << 14)
refuse("bomb.webp", bytes(webp), "limit")
b = bytearray(save(rgb, "BMP"))
b[18:26] = struct.pack("<ii", 100000, 100000)
refuse("bomb.bmp", bytes(b), "limit")
tif = save(rgb, "TIFF")
ifd = struct.unpack("<I", tif[4:8])[0]
tif = bytearray(tif)
for i in range(struct.unpack("<H", tif[ifd:ifd + 2])[0]):
    p = ifd + 2 + 12 * i
    if struct.unpack("<H", tif[p:p + 2])[0] in (256, 257):
        tif[p + 2:p + 12] = struct.pack("<HII", 4, 1, 90000)
refuse("bomb.tif", bytes(tif), "-")
refuse("float.tif", save(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "float")
refuse("lab.tif", save(Image.new("LAB", (4, 4)), "TIFF"), "lab")

# ---- resizing -------------------------------------------------------------------------------------------------------

def area(a, w, h):
    """Exact coverage average in double: OpenCV's INTER_AREA for shrinking."""
    def weights(n, m):
        s = n / m
        k = np.zeros((m, n))
        for i in range(m):
            for j in range(n):
                k[i, j] = max(0.0, min((i + 1) * s, j + 1) - max(i * s, j))
        return k / k.sum(1, keepdims=True)
    x = np.einsum("ij,jkc->ikc", weights(a.shape[0], h), a.astype(np.float64))
    return np.einsum("ij,kjc->kic", weights(a.shape[1], w), x)


noisy = scene(47, 33).astype(int) + rng.integers(-40, 41, (33, 47, 3))
photo = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
(out / "resize-source.rgb").write_bytes(np.asarray(photo).tobytes())
for w, h in [(94, 66), (61, 70), (47, 50), (40, 50), (47, 20), (200, 33)]:
    (out / f"lanczos-{w}x{h}.rgb").write_bytes(np.asarray(photo.resize((w, h), Image.LANCZOS)).tobytes())
for w, h in [(20, 16), (23, 11), (46, 32), (1, 1), (7, 30)]:
    (out / f"area-{w}x{h}.f32").write_bytes(area(np.asarray(photo), w, h).astype(np.float32).tobytes())

# ---- PNG texts ------------------------------------------------------------------------------------------------------

texts = {"latin": "caf\u00e9, a cat\nNegative prompt: dog\nSteps: 20, Seed: 1",
         "japanese": "\u8d64\u3044\u72d0\u306e\u7d75 \U0001f98a\nSteps: 20, Sampler: Euler a"}
for name, text in texts.items():
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", text)
    (out / f"text-{name}.png").write_bytes(save(rgb, "PNG", pnginfo=info))
    (out / f"text-{name}.txt").write_bytes(text.encode())
info = PngImagePlugin.PngInfo()
info.add_text("parameters", texts["latin"] * 40, zip=True)
(out / "text-zip.png").write_bytes(save(rgb, "PNG", pnginfo=info))
(out / "text-zip.txt").write_bytes((texts["latin"] * 40).encode())
info = PngImagePlugin.PngInfo()
info.add_itxt("parameters", texts["japanese"] * 40, "ja", "", zip=True)
(out / "text-izip.png").write_bytes(save(rgb, "PNG", pnginfo=info))
(out / "text-izip.txt").write_bytes((texts["japanese"] * 40).encode())
end = save(rgb, "PNG")
(out / "text-late.png").write_bytes(end[:-12] + chunk(b"tEXt", b"parameters\0after the pixels") + end[-12:])
(out / "text-late.txt").write_bytes(b"after the pixels")
for fmt, tail in ("JPEG", "jpg"), ("WEBP", "webp"):
    e = Image.Exif()
    e.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + texts["japanese"].encode("utf-16-be")
    (out / f"text-exif.{tail}").write_bytes(save(rgb, fmt, exif=e))
    (out / f"text-exif.txt").write_bytes(texts["japanese"].encode())
e = Image.Exif()
e.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + b"plain words, Steps: 4"
(out / "text-ascii.jpg").write_bytes(save(rgb, "JPEG", exif=e))
(out / "text-ascii.txt").write_bytes(b"plain words, Steps: 4")

(out / "no-fonts.conf").write_text("""<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>/nonexistent</dir><cachedir>/nonexistent</cachedir></fontconfig>
""")
(out / "manifest.txt").write_text("\n".join(manifest) + "\n")
(out / "bad.txt").write_text("\n".join(bad) + "\n")
print(len(manifest), "good,", len(bad), "bad,", sum(f.stat().st_size for f in out.iterdir()), "bytes")
