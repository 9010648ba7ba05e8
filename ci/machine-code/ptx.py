"""Translates PTX to C for machine.c, by the PTX ISA's chapter on instructions. Whatever these kernels do not use is an error."""

import re

# Opcode without its type: its result, of operands a, b, c, d of that type, of `bits` bits. Only those in SIGNED care for a sign.
RESULTS = {
    "add": "a + b", "sub": "a - b", "neg": "0 - a", "mul.lo": "a * b", "mad.lo": "a * b + c", "min": "a < b ? a : b",
    "max": "a > b ? a : b", "mul.wide": "(wide)a * (wide)b", "and": "a & b", "or": "a | b", "xor": "a ^ b",
    "shl": "b < bits ? a << b : 0", "shr": "b < bits ? a >> b : a < 0 ? -1 : 0", "shf.l.wrap": "pair(a, b) << (c & 31) >> 32",
    "mov": "a", "cvta.global": "a", "selp": "c ? a : b", "popc": "__builtin_popcountll(a)", "prmt": "permute(a, b, c)",
    "bfi": "(b & ~(ones(d) << c)) | ((a & ones(d)) << c)", "setp.eq": "a == b", "setp.ne": "a != b", "setp.lt": "a < b",
    "setp.le": "a <= b", "setp.gt": "a > b", "setp.ge": "a >= b",
}
SIGNED = ("setp", "min", "max", "shr", "mul.wide")
ACCESS = re.compile(r"(ld|st)\.(param|global)(?:\.v([24]))?\.[ub](8|16|32|64)")


def split(dump):
    """The kernels of a file of PTX: name → body."""
    return dict(re.findall(r"^\.visible \.entry (\w+)\(.*?^\{\n(.*?)^\}", re.sub(r"//.*", "", dump), re.S | re.M))


def operand(text):
    if re.fullmatch(r"%(r|rd|rs|p)\d+", text):
        return text[1:]
    if re.fullmatch(r"%(tid|ntid|ctaid|nctaid)\.x", text):
        return "t->" + text[1:-2]
    if re.fullmatch(r"-?\d+", text):
        return f"({text}ll)"
    if re.fullmatch(r"\w+_param_0", text):
        return "0"
    raise ValueError(f"operand {text}")


def operands(text):
    return [operand(one.strip()) for one in text.strip("{} ").split(",")]


def address(text):
    base, _, offset = text.strip("[]").partition("+")
    return f"{operand(base)} + ({offset or 0})"


def c_type(name, signed):
    kind, bits = re.fullmatch(r"([bus])(16|32|64)", name).groups() if name != "pred" else ("u", 8)
    return ("i" if kind == "s" and signed else "u") + str(bits), int(bits)


def statement(op, rest, site):
    parts = re.findall(r"\{[^}]*\}|[^,\s{}]+", rest)
    opcode, _, kind = op.rpartition(".")
    access = ACCESS.fullmatch(op)
    if op in ("bra", "bra.uni"):
        return f"branch(t, 1); goto {parts[0][1:]};"
    if op == "ret":
        return "return;"
    if access:
        size, count, space = int(access[4]) // 8, int(access[3] or 1), "ARGUMENTS + " * (access[2] == "param")
        if access[1] == "st":
            return f"u64 v[] = {{{', '.join(operands(parts[1]))}}}; store(t, {space}{address(parts[0])}, {size}, {count}, v);"
        into = "".join(f" {one} = v[{i}];" for i, one in enumerate(operands(parts[0])))
        return f"u64 v[{count}]; load(t, {space}{address(parts[1])}, {size}, {count}, v);{into}"
    if op == "atom.global.add.u64":
        return f"{operand(parts[0])} = atomic_add(t, {address(parts[1])}, {operand(parts[2])});"
    if op == "shfl.sync.down.b32":  # the lanes of its mask meet here
        into, inside = parts[0].split("|")
        value, by, clamp, mask = map(operand, parts[1:])
        shuffled = f"t->path = 0; {operand(into)} = shuffle_down(t, {value}, {by}, {clamp}, {mask}, {site});"
        return f"u32 by = {by}; {shuffled} {operand(inside)} = lane_down(t, by) < WARP;"
    if op == "mov.b64" and "{" in rest:
        if parts[0][0] == "{":
            low, high = operands(parts[0])
            return f"u64 a = {operand(parts[1])}; {low} = (u32)a; {high} = (u32)(a >> 32);"
        return "{} = pair({}, {});".format(operand(parts[0]), *operands(parts[1]))
    if opcode.startswith("cvt.u"):
        into, (source, _) = c_type(opcode[4:], False)[0], c_type(kind, True)
        return f"{operand(parts[0])} = ({into})({source}){operand(parts[1])};"
    result, (typed, bits) = RESULTS[opcode], c_type(kind, opcode.startswith(SIGNED))
    given = "".join(f"{typed} {name} = ({typed}){operand(one)}; " for name, one in zip("abcd", parts[1:]))
    return given + f"{operand(parts[0])} = {result};".replace("wide", typed[0] + str(2 * bits)).replace("bits", str(bits))


def translate(name, body):
    lines = []
    for kind, register, count in re.findall(r"\.reg \.(\w+)\s+%(\w+)<(\d+)>;", body):
        lines += [f"{c_type(kind, False)[0]} {', '.join(f'{register}{i} = 0' for i in range(1, int(count)))};"]
    body = re.sub(r"\.(reg|pragma) [^;]*;", "", body)
    for site, text in enumerate(re.findall(r"\$\w+:|[^\s;][^;]*(?=;)", body)):
        guard, op, rest = re.fullmatch(r"(?:@(!?%p\d+)\s+)?([\w.$:]+)\s*(.*)", text, re.S).groups()
        if op[0] == "$":
            lines.append(f"{op[1:]};")
            continue
        try:
            condition = f"if ({guard.replace('%', '')}) " if guard else ""
            lines.append(f"{condition}{{ {statement(op, rest, site)} }}")
        except (ValueError, KeyError, AttributeError) as error:
            raise SyntaxError(f"PTX not known: {text}") from error
    return f"void {name}(lane *t)\n{{\n" + "\n".join(lines) + "\n}\n"
