#!/usr/bin/env python3
"""prompts.py - known answers for prompts that change from step to step, and for ComfyUI's brackets.

  prompts.py tests/golden/text      writes schedules.jsonl and comfy.jsonl

Both grammars are written down here a second time, by recursion, from their definitions in src/text/schedule.c and
src/text/prompt_comfy.c: slowly, and sharing nothing with the program. Random prompts are made of the grammars' own
characters. An Earley parser of A1111's ambiguous grammar differs from the first on 48 of 3,112 random prompts, all of them
with brackets that have no partner: there it leaves some well-formed groups as text, here they are always groups.
"""
import json
import random
import re
import sys

NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\Z", re.A)


class Literal(Exception):
    pass


class Schedule:
    """prompt := (group | text)*; parsed by recursion, rendered for one step."""

    def __init__(self, prompt, steps, before):
        self.s, self.steps, self.before, self.at, self.memo = prompt, steps, before, {steps}, {}
        self.tree = self.top()

    def plain(self, i):
        """Where the text at i ends."""
        while i < len(self.s) and self.s[i] not in "[]():|":
            if self.s[i] == "\\":
                if i + 1 >= len(self.s) or self.s[i + 1] == "\n":
                    raise Literal
                i += 1
            i += 1
        return min(i, len(self.s))

    def prompt(self, i):
        """The longest prompt at i: (pieces, end), or None where a bracket in it is no group."""
        out = []
        while i < len(self.s) and self.s[i] not in "]):|":
            if self.s[i] in "[(":
                group = self.group(i)
                if not group:
                    return None
                out.append(group[0])
                i = group[1]
            else:
                end = self.plain(i)
                out.append(self.s[i:end])
                i = end
        return out, i

    def group(self, i):
        if i not in self.memo:
            self.memo[i] = self.group_at(i)
        return self.memo[i]

    def group_at(self, i):
        fields, marks, start = [], "", i
        while True:
            inner = self.prompt(i + 1)
            if not inner:
                return None
            fields.append(inner[0])
            i = inner[1]
            c = self.s[i:i + 1]
            if c not in (":", "|") or (marks and c != marks[0]) or not c:
                break
            marks += c
        if self.s[start] == "(":
            if c != ")" or marks not in ("", ":"):
                return None
            return ("keep", "(", fields[0], ":" if marks else "", fields[1] if marks else [], ")"), i + 1
        if c != "]":
            return None
        if not marks:
            return ("keep", "[", fields[0], "", [], "]"), i + 1
        if marks[0] == "|":
            return ("turn", fields), i + 1
        if len(fields) > 3 or len(fields[-1]) != 1 or not isinstance(fields[-1][0], str):
            return None
        number = NUMBER.match(fields[-1][0])
        if not number:
            return None
        v = float(number[1])
        when = (v - (self.before > 0)) * self.steps if "." in number[1] else v - self.before
        return ("edit", fields[0] if len(fields) == 3 else [], fields[-2], min(self.steps, int(when))), i + 1

    def top(self):
        out, i = [], 0
        while i < len(self.s):
            c = self.s[i]
            group = self.group(i) if c in "[(" else None
            if group:
                out.append(group[0])
                i = group[1]
            elif c == "|":
                raise Literal
            elif c in "[]():":
                out.append(c)
                i += 1
            else:
                end = self.plain(i)
                out.append(self.s[i:end])
                i = end
        return out

    def collect(self, pieces):
        for p in pieces:
            if isinstance(p, str):
                continue
            if p[0] == "turn":
                self.at |= set(range(1, self.steps + 1))
                for f in p[1]:
                    self.collect(f)
            elif p[0] == "edit":
                self.at |= {p[3]} if p[3] >= 1 else set()
                self.collect(p[1] + p[2])
            else:
                self.collect(p[2] + p[4])

    def text(self, pieces, step):
        out = ""
        for p in pieces:
            if isinstance(p, str):
                out += p
            elif p[0] == "turn":
                out += self.text(p[1][(step - 1) % len(p[1])], step)
            elif p[0] == "edit":
                out += self.text(p[1] if step <= p[3] else p[2], step)
            else:
                out += p[1] + self.text(p[2], step) + p[3] + self.text(p[4], step) + p[5]
        return out


def schedule(prompt, steps, before=0):
    try:
        s = Schedule(prompt, steps, before)
    except Literal:
        return [[steps, prompt]]
    s.collect(s.tree)
    return [[t, s.text(s.tree, t)] for t in sorted(s.at)]


def parts(prompt):
    for one in re.split(r"\bAND\b", prompt):
        m = re.match(r"((?:\s|.)*?)(?:\s*:\s*([-+]?(?:\d+\.?|\d*\.\d+)))?\s*\Z", one)
        yield m[1], float(m[2]) if m[2] else 1.0


def plan(prompt, steps, before=0, composed=True):
    if not composed:
        return [[1.0, schedule(prompt, steps, before)]]
    return [[w, schedule(t, steps, before)] for t, w in parts(prompt)]


# ---- ComfyUI ------------------------------------------------------------------------------------------------------

def comfy(text, weight=1.0):
    """(x) and (x:1.3); text is with \\( and \\) as two private characters."""
    pieces, level, start = [], 0, 0
    for i, c in enumerate(text):
        if c == "(":
            if level == 0:
                pieces.append(text[start:i])
                start = i
            level += 1
        elif c == ")":
            level -= 1
            if level == 0:
                pieces.append(text[start:i + 1])
                start = i + 1
    pieces.append(text[start:])
    out = []
    for p in filter(None, pieces):
        if len(p) < 2 or p[0] != "(" or p[-1] != ")":
            out.append([p.replace("\ue000", "(").replace("\ue001", ")"), weight])
            continue
        inner, w = p[1:-1], weight * 1.1
        head, colon, tail = inner.rpartition(":")
        if head:
            try:
                w, inner = float(tail), head
            except ValueError:
                pass
        out += comfy(inner, w)
    return out


def comfy_segments(prompt):
    return comfy(prompt.replace("\\)", "\ue001").replace("\\(", "\ue000")) or [["", 1.0]]


# ---- writing ------------------------------------------------------------------------------------------------------

KNOWN = ["", "test", "a [b:3]", "a [b: 3 ]", "a [[[b]]:2]", "[(a:2):3]", "a [b : c : 1] d", "a[b:[c:d:2]:1]e",
         "a [unbalanced", "a [b:.5] c", "a [{b|d{:.5] c", "((a][:b:c [d:3]", "[a|(b:1.1)]", "[fe|]male", "[fe|||]male",
         "[a:b:0.25]", "[a:10]", "[a::5]", "[:b:3]", "[a:b:3] | c", "[a:b:3]\\", "[a:b:3]\\\n", "\\[a:b:3\\]", "[a:b:1e1]",
         "[a:b:-3]", "[a:b:+3]", "[a:b:3.]", "[a:b:1.0]", "[a:b:0]", "[a:b:99]", "[a:b:c]", "[a:b:c:1]", "[a:(b:3]", "([a:b:3]",
         "[a|b:c|d]", "[[a|b]|c:3]", "[[a|b]:c:3]", "[a|[b:c:3]]", "(a:[b:c:3])", "(a|b)", "[|]", "[a|b", "[:3]", "[3]", "[::3]",
         "a cat :1.2 AND a dog AND a penguin :2.2", "AND", "aAND b", "a AND b:-0.5 AND c : .25 ", "a (b:1.5)", "a:1.5",
         "a AND [b:c:3]:2", "a: 1.5.2", "x AND\ny:2\n", "狐 AND 犬:0.5", "狐AND犬"]


def random_prompt(rng, alphabet, most):
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(0, most)))


def main():
    rng = random.Random(20)
    out = sys.argv[1]
    alphabet = ["[", "]", "[", "]", "(", ")", ":", ":", "|", "a", "b ", " ", "2", "0.5", "\\", "[a:b:2]", "[a|b]", "(a:1.2)", ":3]",
                " AND ", "AND", ":0.5 AND ", "狐", "\n"]
    with open(f"{out}/schedules.jsonl", "w") as f:
        cases = [(p, 10, b) for p in KNOWN for b in (0, 10)]
        cases += [(random_prompt(rng, alphabet, rng.choice([6, 12, 30])), rng.choice([1, 4, 7]), rng.choice([0, 0, 5]))
                  for _ in range(600)]
        for p, n, b in cases:
            for composed in (True, False) if "AND" in p or ":" in p else (True,):
                f.write(json.dumps({"prompt": p, "steps": n, "before": b, "composed": composed,
                                    "parts": plan(p, n, b, composed)}, ensure_ascii=False) + "\n")
    known = ["", "x", "(x)", "((x:1.2) y)", "(a (b:1.5) c:0.5)", "\\(x\\)", "(x\\))", "a) (b)", "((a)", "(a:b:2)", "(:2)", "(a:)",
             "(a: 1e-1 )", "[x]", "(a:-1)", "a BREAK b AND c", "((a:1.2)", "a)) ((b))"]
    alphabet = ["(", ")", "(", ")", ":", "1.5", "2", "a", "b ", " ", "\\", ":1.2)", "(a", "狐"]
    with open(f"{out}/comfy.jsonl", "w") as f:
        for p in known + [random_prompt(rng, alphabet, rng.choice([6, 12, 30])) for _ in range(400)]:
            f.write(json.dumps({"prompt": p, "segments": comfy_segments(p)}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
