"""Translates the machine code of sm_90, as cuobjdump shows it, to C for machine.c.

NVIDIA publishes no semantics. What stands here is what was observed: the opcodes' names, the PTX that they come from, and answers
that are right. An opcode is known with all its modifiers or not at all.
"""

import re
import struct

# Opcode: its 32-bit result, of the operands a, b, … after the first. A uniform opcode (U…) does the same on uniform registers.
RESULTS = {
    "MOV": "a", "S2R": "a", "S2UR": "a", "LDC": "a", "IMAD.X": "a * b + c + d", "VIADD": "a + b", "SEL": "c ? a : b", "PRMT": "permute(a, c, b)",
    "POPC": "__builtin_popcount(a)", "SHF.L.W.U32.HI": "pair(a, c) << (b & 31) >> 32", "SHF.R.U64": "pair(a, c) >> b",
    "SHF.L.U64.HI": "pair(a, c) << b >> 32", "SHF.L.U32": "a << b", "SHF.L.U32.HI": "pair(a, c) << b >> 32", "SHF.R.U32.HI": "c >> b",
    "LEA.HI.X": "(u32)(pair(a, c) << d >> 32) + b + e",
    **dict.fromkeys(["IMAD", "IMAD.MOV.U32", "IMAD.U32", "IMAD.SHL.U32", "IMAD.IADD"], "a * b + c"),
}
# Opcode: what it does, of operands 0, 1, … Lanes that went different ways are together again behind the BSYNC of a barrier that they
# set together, and where all of them stop.
SUM = "u64 sum = {}; {{0.out}} = (u32)sum; "
STATEMENTS = {
    "NOP": "", "BREAK": "", "EXIT": "return;", "BSSY": "{0} = t->path;", "BSYNC": "t->path = {0};", "WARPSYNC.ALL": "t->path = {site};",
    "CS2R": "{0.out} = {0.high} = {1.word};", "LDC.64": "{0.out} = {1.word}; {0.high} = {1.high};",
    "LOP3.LUT": "{1.out} = logic({2.word}, {3.word}, {4.word}, {5.word}); {0.out} = {1.out} != 0;",
    "IADD3": SUM.format("{3.addend} + {4.addend} + {5.addend} + {6.word} + {7.word}") + "{1.out} = sum >> 32 > 0; {2.out} = sum >> 32 > 1;",
    "LEA": SUM.format("(u64)({2.word} << {4.word}) + {3.word}") + "{1.out} = sum >> 32 > 0;",
    "IMAD.WIDE.U32": SUM.format("(u64){1.word} * {2.word} + {3.pair}") + "{0.high} = (u32)(sum >> 32);",
    "SHFL.DOWN": "{1.out} = shuffle_down(t, {2.word}, {3.word}, {4.word}, ~0u, {site}); {0.out} = lane_down(t, {3.word}) < WARP;",
    # Goes where lanes that are apart meet; here they must be together, so that nothing ever gets there.
    "BRA.DIV": "shuffle_down(t, 0, 0, WARP - 1, {0.word}, {site});",
    "WARPSYNC.COLLECTIVE": "fail(t, \"shuffles apart\", {site});", "ENDCOLLECTIVE": "",
    "REDG.E.ADD.64.STRONG.GPU": "atomic_add(t, {0.at}, {1.pair});",
    "LDG.E.U8": "u64 v[1]; load(t, {1.at}, 1, 1, v); {0.out} = (u32)v[0];",
    "LDG.E": "u64 v[1]; load(t, {1.at}, 4, 1, v); {0.out} = (u32)v[0];",
}
STATEMENTS["IADD3.X"] = STATEMENTS["IADD3"]
for bits, words in ("64", 2), ("128", 4):
    into = "".join(f"{{0.words[{i}]}} = (u32)v[{i}]; " for i in range(words))
    STATEMENTS[f"LDG.E.{bits}"] = f"u64 v[{words}]; load(t, {{1.at}}, 4, {words}, v); {into}"
    given = ", ".join(f"{{1.words[{i}]}}" for i in range(words))
    STATEMENTS[f"STG.E.{bits}"] = f"u64 v[] = {{{{{given}}}}}; store(t, {{0.at}}, 4, {words}, v);"
COMPARE = {"EQ": "==", "NE": "!=", "LT": "<", "LE": "<=", "GT": ">", "GE": ">="}
SPECIAL = {"RZ": "zero", "URZ": "zero", "SRZ": "0u", "PT": "1u", "UPT": "1u", "SR_TID.X": "t->tid", "SR_CTAID.X": "t->ctaid"}
# Constants before the arguments: the shape; stack pointer and descriptor of global memory, whose values nothing uses.
CONSTANTS = {0x0: "t->ntid", 0xC: "t->nctaid", 0x28: "0u", 0x208: "0u", 0x20C: "0u"}
FIRST_ARGUMENT = 0x210
LINE = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\d)\s+)?([A-Z][\w.]*)\s*([^;]*);", re.M)


class Operand(str):
    """An operand as it is written."""

    def part(self, ahead):
        """Its 32 bits, or those of the register or constant so many ahead; a predicate is 0 or 1."""
        if self in SPECIAL:
            return SPECIAL[self]
        if self[0] in "-~!":
            return f"({self[0]}{Operand(self[1:]).part(ahead)})"
        if constant := re.fullmatch(r"c\[0x0\]\[(0x[0-9a-f]+)\]", self):
            at = int(constant[1], 16) + 4 * ahead
            return CONSTANTS.get(at) or f"argument(t, {at - FIRST_ARGUMENT})"
        kind, number = re.fullmatch(r"(U?R|U?P|0x)([0-9a-f]+)", self).groups()
        return f"{self}u" if kind == "0x" else self if "P" in kind else f"{kind}{int(number) + ahead}"

    word = property(lambda self: self.part(0))
    high = property(lambda self: self.part(1))
    words = property(lambda self: [self.part(i) for i in range(4)])
    pair = property(lambda self: f"pair({self.word}, {self.high})")
    out = property(lambda self: "nowhere" if self in SPECIAL else self.word)

    @property
    def addend(self):
        """With its carry: `-a` is `~a + 1`."""
        return f"(u64)~{self[1:]} + 1" if re.match("-U?R", self) else f"(u64){self.word}"

    @property
    def at(self):
        base, offset = re.fullmatch(r"desc\[UR\d+\]\[(R\d+|RZ)\.64(?:\+(-?0x[0-9a-f]+))?\]", self).groups()
        return f"{Operand(base).pair} + ({offset or 0})"


def split(dump):
    """The kernels of what `cuobjdump -sass` prints: name → body."""
    return dict(re.findall(r"Function : (\w+)\n(.*?)(?=\n\s+Function : |\Z)", dump, re.S))


def statement(op, given, site):
    if op == "BRA":
        return f"if (branch(t, {' && '.join(one.word for one in given[:-1]) or 1})) goto L{int(given[-1], 16)};"
    op = op[op[0] == "U" :]
    if compared := re.fullmatch(r"ISETP\.(..)(\.U32)?\.(AND|OR)(\.EX)?", op):
        kind, result = "u32" if compared[2] else "i32", f"a {COMPARE[compared[1]]} b"
        result = f"a != b ? {result} : {given[5].word}" if compared[4] else result  # .EX: of high words, after the low ones
        if given[1].out != "nowhere":
            raise ValueError(given[1])
        values = f"{kind} a = ({kind}){given[2].word}, b = ({kind}){given[3].word};"
        return f"{values} {given[0].out} = ({result}) {'&&' if compared[3] == 'AND' else '||'} {given[4].word};"
    if op == "HFMA2.MMA" and given[1:3] == ["-RZ", "RZ"]:  # two numbers of 16 bits: how a constant is written
        halves = struct.pack("<ee", float(given[4]), float(given[3]))
        return f"{given[0].out} = {int.from_bytes(halves, 'little'):#x}u;"
    if op == "LOP3.LUT":
        given = given if re.match("U?P", given[0]) else [Operand("PT"), *given]
        if given[6] not in ("!PT", "!UPT"):
            raise ValueError(given[6])
    if op in ("IADD3", "IADD3.X"):
        carries = sum(re.match("U?P", one) is not None for one in given[1:3])
        given[1 + carries : 1 + carries] = [Operand("PT")] * (2 - carries)
        given += [Operand("!PT")] * (8 - len(given))
    if op in STATEMENTS:
        return STATEMENTS[op].format(*given, site=site)
    operands = "".join(f"u32 {name} = {one.word}; " for name, one in zip("abcde", given[1:]))
    return f"{operands}{given[0].out} = (u32)({RESULTS[op]});"


def translate(name, body):
    body = body.replace(".reuse", "").replace("c[0x0][RZ]", "c[0x0][0x0]")
    code = [(int(at, 16), guard, op, re.findall(r"(?:\[[^\]]*\]|[^,\s])+", rest)) for at, guard, op, rest in LINE.findall(body)]
    if [line[0] for line in code] != list(range(0, 16 * len(code), 16)):
        raise SyntaxError("SASS not known: a line that is no instruction")
    lines = []
    for site, guard, op, written in code:
        given = list(map(Operand, [guard, *written] if guard and op == "BRA" else written))
        condition = f"if ({Operand(guard).word}) " if guard and op != "BRA" else ""
        try:
            lines.append(f"L{site}:; {condition}{{ {statement(op, given, site)} }}")
        except (AttributeError, IndexError, KeyError, ValueError) as error:
            raise SyntaxError(f"SASS not known: {op} {', '.join(written)}") from error
    text = "\n".join(lines)
    names = sorted(set(re.findall(r"\bU?[RP]\d+\b", text)))
    barriers = ", ".join(f"B{i} = 0" for i in range(16))
    return f"void {name}(lane *t)\n{{\nu64 {barriers};\nu32 {' = 0, '.join(names)} = 0, nowhere;\nconst u32 zero = 0;\n{text}\n}}\n"
