"""names.py - which emoji there are and what they are called: emoji-test.txt and CLDR's annotations, English and Japanese."""
import os
import re
import xml.etree.ElementTree as ET

HERE = os.path.dirname(os.path.abspath(__file__))
EMOJI_TEST = '/usr/share/unicode/emoji/emoji-test.txt'            # Debian: unicode-data
ANNOTATIONS = '/usr/share/unicode/cldr/common/{}/{}.xml'          # Debian: unicode-cldr-core
TONES = '\U0001F3FB\U0001F3FC\U0001F3FD\U0001F3FE\U0001F3FF'

# name, name as a Japanese attribute, colour: backgrounds that captions name
COLOURS = [
    ('red', '赤い', (.86, .20, .20)), ('orange', 'オレンジ色の', (.96, .60, .20)), ('yellow', '黄色い', (.97, .86, .30)),
    ('green', '緑の', (.35, .70, .35)), ('light blue', '水色の', (.60, .85, .97)), ('blue', '青い', (.25, .45, .85)),
    ('purple', '紫の', (.55, .35, .75)), ('pink', 'ピンクの', (.97, .68, .78)), ('brown', '茶色い', (.52, .34, .22)),
    ('cream', 'クリーム色の', (.99, .94, .80)), ('gray', '灰色の', (.60, .60, .62)), ('black', '黒い', (.08, .08, .10)),
]
WHITE = (1, 1, 1)


def on_colour(colour):
    """What a caption says about a flat background: English, Japanese."""
    return f', {colour[0]} background', f'、{colour[1]}背景'


class Emoji:
    """text; name, keywords, kind as {'en': .., 'ja': ..}; kinds are the subgroup's word and the group's."""

    def __init__(self, text, name, keywords, kind, group):
        self.text, self.name, self.keywords, self.kind, self.group = text, name, keywords, kind, group

    def code(self):
        return '-'.join(f'{ord(c):x}' for c in self.text)


def need(path, package):
    if not os.path.exists(path):
        raise SystemExit(f'{path} is missing: apt-get install {package}')
    return path


def annotations(language):
    """{emoji without variation selectors: (short name, keywords)}"""
    names, keywords = {}, {}
    for folder in ('annotations', 'annotationsDerived'):
        root = ET.parse(need(ANNOTATIONS.format(folder, language), 'unicode-cldr-core')).getroot()
        for a in root.iter('annotation'):
            if a.get('type') == 'tts':
                names[a.get('cp')] = a.text.strip()
            else:
                keywords[a.get('cp')] = [k.strip() for k in a.text.split('|')]
    return {cp: (name, [k for k in keywords.get(cp, []) if k.lower() != name.lower()]) for cp, name in names.items()}


def kinds():
    with open(os.path.join(HERE, 'groups.tsv'), encoding='utf-8') as f:
        rows = [line.rstrip('\n').split('\t') for line in f if line.strip() and not line.startswith('#')]
    return {key: {'en': en, 'ja': ja} for key, en, ja in rows}


def load():
    """Emoji in the order of emoji-test.txt: fully qualified, no skin tones, no flags, named in both languages."""
    en, ja, words, found = annotations('en'), annotations('ja'), kinds(), []
    group = subgroup = None
    with open(need(EMOJI_TEST, 'unicode-data'), encoding='utf-8') as f:
        for line in f:
            if m := re.match(r'# (sub)?group: (.*)', line):
                group, subgroup = (group, m[2].strip()) if m[1] else (m[2].strip(), None)
            elif m := re.match(r'([0-9A-F ]+?) *; fully-qualified', line):
                text = ''.join(chr(int(c, 16)) for c in m[1].split())
                key = text.replace('\ufe0f', '')
                if group == 'Flags' or any(t in text for t in TONES) or key not in en or key not in ja:
                    continue
                found.append(Emoji(text, {'en': en[key][0], 'ja': ja[key][0]}, {'en': en[key][1], 'ja': ja[key][1]},
                                   (words[subgroup], words[group]), group))
    return found


def held_out():
    """Code points of the glyphs that no part of the base ever sees."""
    with open(os.path.join(HERE, 'heldout.txt'), encoding='utf-8') as f:
        return {line.split('\t')[0] for line in f if line.strip() and not line.startswith('#')}
