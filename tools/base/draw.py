"""draw.py - pictures with Debian's cairo and pango through ctypes: surfaces, paths, emoji, PNG. Standard library only."""
import ctypes as C
import hashlib
import math
import os
import random
import struct
import tempfile
import zlib

EMOJI_FONT = '/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf'
P, D, I = C.c_void_p, C.c_double, C.c_int
ARGB32, RGB24 = 0, 1
FILTER_BEST = 2
PI = math.pi


def declare(lib, table):
    for name, (result, args) in table.items():
        f = getattr(lib, name)
        f.restype, f.argtypes = result, args


cairo = C.CDLL('libcairo.so.2')
declare(cairo, {
    'cairo_image_surface_create': (P, [I, I, I]), 'cairo_image_surface_create_from_png': (P, [C.c_char_p]),
    'cairo_image_surface_get_data': (P, [P]), 'cairo_image_surface_get_stride': (I, [P]),
    'cairo_image_surface_get_width': (I, [P]), 'cairo_image_surface_get_height': (I, [P]),
    'cairo_surface_write_to_png': (I, [P, C.c_char_p]), 'cairo_surface_flush': (None, [P]),
    'cairo_surface_mark_dirty': (None, [P]), 'cairo_surface_destroy': (None, [P]), 'cairo_surface_status': (I, [P]),
    'cairo_create': (P, [P]), 'cairo_destroy': (None, [P]), 'cairo_save': (None, [P]), 'cairo_restore': (None, [P]),
    'cairo_set_source_surface': (None, [P, P, D, D]),
    'cairo_get_source': (P, [P]), 'cairo_pattern_set_filter': (None, [P, I]),
    'cairo_set_source_rgb': (None, [P, D, D, D]), 'cairo_set_line_width': (None, [P, D]),
    'cairo_set_line_cap': (None, [P, I]), 'cairo_paint': (None, [P]), 'cairo_fill': (None, [P]),
    'cairo_stroke': (None, [P]), 'cairo_new_path': (None, [P]), 'cairo_close_path': (None, [P]),
    'cairo_move_to': (None, [P, D, D]), 'cairo_line_to': (None, [P, D, D]), 'cairo_curve_to': (None, [P] + [D] * 6),
    'cairo_arc': (None, [P] + [D] * 5), 'cairo_translate': (None, [P, D, D]), 'cairo_rotate': (None, [P, D]),
    'cairo_scale': (None, [P, D, D]),
})


class Rng:
    """The same draws everywhere: Mersenne twister seeded by a text, used through random() alone."""

    def __init__(self, *seed):
        self.random = random.Random(' '.join(map(str, seed))).random

    def below(self, n):
        return int(self.random() * n)

    def uniform(self, a, b):
        return a + (b - a) * self.random()

    def pick(self, items):
        return items[self.below(len(items))]

    def some(self, items, n):
        """n different items, in random order."""
        items = list(items)
        for i in range(min(n, len(items))):
            j = i + self.below(len(items) - i)
            items[i], items[j] = items[j], items[i]
        return items[:n]


class Picture:
    """A square or oblong picture and a pen on it. Colours are (r, g, b) in 0..1; transparent until painted if alpha."""

    def __init__(self, width, height=0, alpha=False, surface=None):
        self.surface = surface or cairo.cairo_image_surface_create(ARGB32 if alpha else RGB24, width, height or width)
        self.width = cairo.cairo_image_surface_get_width(self.surface)
        self.height = cairo.cairo_image_surface_get_height(self.surface)
        self.pen = cairo.cairo_create(self.surface)

    def __del__(self):
        cairo.cairo_destroy(self.pen)
        cairo.cairo_surface_destroy(self.surface)

    def __getattr__(self, name):                     # picture.move_to(x, y) is cairo_move_to(pen, x, y)
        f = getattr(cairo, 'cairo_' + name)
        return lambda *a: f(self.pen, *a)

    def background(self, colour):
        self.set_source_rgb(*colour)
        self.paint()

    def fill_with(self, colour):
        self.set_source_rgb(*colour)
        self.fill()

    def line_with(self, colour, width, round_ends=False):
        self.set_source_rgb(*colour)
        self.set_line_width(width)
        self.set_line_cap(1 if round_ends else 0)
        self.stroke()

    def ellipse(self, x, y, rx, ry, colour):
        self.save()
        self.translate(x, y)
        self.scale(rx, ry)
        self.new_path()
        self.arc(0, 0, 1, 0, 2 * PI)
        self.restore()
        self.fill_with(colour)

    def polygon(self, points, colour):
        self.new_path()
        for x, y in points:
            self.line_to(x, y)
        self.close_path()
        self.fill_with(colour)

    def place(self, other, x, y, scale=1.0):
        """Another picture over this one, its top left corner at x, y."""
        self.save()
        self.translate(x, y)
        self.scale(scale, scale)
        self.set_source_surface(other.surface, 0, 0)
        cairo.cairo_pattern_set_filter(cairo.cairo_get_source(self.pen), FILTER_BEST)
        self.paint()
        self.restore()

    def pixels(self):
        """Bytes B G R A (premultiplied; A means nothing without alpha), rows without padding."""
        cairo.cairo_surface_flush(self.surface)
        data, stride = cairo.cairo_image_surface_get_data(self.surface), cairo.cairo_image_surface_get_stride(self.surface)
        if stride == 4 * self.width:
            return C.string_at(data, stride * self.height)
        return b''.join(C.string_at(data + y * stride, 4 * self.width) for y in range(self.height))

    def set_pixels(self, bgra):
        assert cairo.cairo_image_surface_get_stride(self.surface) == 4 * self.width
        cairo.cairo_surface_flush(self.surface)
        C.memmove(cairo.cairo_image_surface_get_data(self.surface), bytes(bgra), len(bgra))
        cairo.cairo_surface_mark_dirty(self.surface)

    def rgb(self):
        """Bytes R G B."""
        d = self.pixels()
        out = bytearray(3 * self.width * self.height)
        out[0::3], out[1::3], out[2::3] = d[2::4], d[1::4], d[0::4]
        return bytes(out)

    def save_png(self, path):
        """RGB without filters: flat art packs better so than libpng's choice, in half the time."""
        rgb, row = self.rgb(), 3 * self.width
        raw = b''.join(b'\0' + rgb[y * row:(y + 1) * row] for y in range(self.height))

        def chunk(kind, data):
            return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

        with open(path, 'wb') as f:
            f.write(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', self.width, self.height, 8, 2, 0, 0, 0))
                    + chunk(b'IDAT', zlib.compress(raw, 6)) + chunk(b'IEND', b''))

    def save_rgba(self, path):
        """RGBA with straight alpha."""
        if cairo.cairo_surface_write_to_png(self.surface, os.fsencode(path)):
            raise OSError(f'cannot write {path}')


def read_png(path):
    surface = cairo.cairo_image_surface_create_from_png(os.fsencode(path))
    if cairo.cairo_surface_status(surface):
        raise OSError(f'cannot read {path} as PNG')
    return Picture(0, surface=surface)


class EmojiFont:
    """Noto Color Emoji alone, whatever else is installed and however fontconfig is set up."""

    def __init__(self):
        if not os.path.exists(EMOJI_FONT):
            raise SystemExit(f'{EMOJI_FONT} is missing: apt-get install fonts-noto-color-emoji')
        self.conf = tempfile.NamedTemporaryFile('w', suffix='.conf')
        self.conf.write(f'<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig><dir>'
                        f'{os.path.dirname(EMOJI_FONT)}</dir></fontconfig>')
        self.conf.flush()
        os.environ['FONTCONFIG_FILE'] = self.conf.name
        self.pango, self.pc, self.gobject = map(C.CDLL, ('libpango-1.0.so.0', 'libpangocairo-1.0.so.0', 'libgobject-2.0.so.0'))
        declare(self.pango, {
            'pango_font_description_from_string': (P, [C.c_char_p]),
            'pango_font_description_set_absolute_size': (None, [P, D]), 'pango_layout_set_font_description': (None, [P, P]),
            'pango_layout_set_text': (None, [P, C.c_char_p, I]), 'pango_layout_get_pixel_extents': (None, [P, P, P]),
            'pango_layout_get_unknown_glyphs_count': (I, [P]),
        })
        declare(self.pc, {'pango_cairo_create_layout': (P, [P]), 'pango_cairo_show_layout': (None, [P, P])})
        self.gobject.g_object_unref.argtypes = [P]
        self.font = self.pango.pango_font_description_from_string(b'Noto Color Emoji')
        self.pango.pango_font_description_set_absolute_size(self.font, 109.0 * 1024)   # the bitmaps' own size, 136 x 128

    def glyph(self, text, size, colour=None):
        """One emoji filling 92 % of a square picture; on a colour, or transparent. None if the font has no such glyph."""
        p = Picture(size, alpha=colour is None)
        if colour:
            p.background(colour)
        layout = self.pc.pango_cairo_create_layout(p.pen)
        self.pango.pango_layout_set_font_description(layout, self.font)
        utf8 = text.encode()
        self.pango.pango_layout_set_text(layout, utf8, len(utf8))
        box = (I * 4)()                              # x, y, width, height of the line
        self.pango.pango_layout_get_pixel_extents(layout, None, C.byref(box))
        known = box[2] == 136 and not self.pango.pango_layout_get_unknown_glyphs_count(layout)
        k = 0.92 * size / max(box[2], box[3], 1)
        p.translate(size / 2 - k * (box[0] + box[2] / 2), size / 2 - k * (box[1] + box[3] / 2))
        p.scale(k, k)
        self.pc.pango_cairo_show_layout(p.pen, layout)
        self.gobject.g_object_unref(layout)
        return p if known else None


def empty_folder(path):
    """A folder of pictures must hold nothing older: refuse one that is not empty."""
    if os.path.isdir(path) and os.listdir(path):
        raise SystemExit(f'{path} is not empty')
    return path


class Ledger:
    """Writes files under a folder, counts them and sums them up by pixels and text, so that zlib's version does not matter."""

    def __init__(self, root):
        self.root, self.rows = root, []

    def _path(self, name, content):
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.rows.append((name, hashlib.sha256(content).hexdigest()))
        return path

    def picture(self, name, picture, alpha=False):
        if alpha:
            picture.save_rgba(self._path(name, picture.pixels()))
        else:
            picture.save_png(self._path(name, picture.rgb()))

    def text(self, name, text):
        self.data(name, text.encode())

    def data(self, name, content):
        with open(self._path(name, content), 'wb') as f:
            f.write(content)

    def report(self):
        """One line per folder: files, SHA-256 over its names and contents."""
        folders = {}
        for name, digest in sorted(self.rows):
            folders.setdefault(os.path.dirname(name) or '.', []).append(f'{name} {digest}\n')
        for folder, rows in sorted(folders.items()):
            print(f'{len(rows):7d}  {folder:26s} {hashlib.sha256("".join(rows).encode()).hexdigest()}')
