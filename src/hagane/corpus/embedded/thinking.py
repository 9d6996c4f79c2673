"""experimental"""

from __future__ import annotations

import os

from hagane.corpus.embedded.numbers import parts

STYLE = os.environ.get("STYLE", "label")


def aligned(a: int, width: int) -> str:
    x = f"{a:0{width}}"
    names = "wvkhtu"[-width:]
    if STYLE in ("fixed", "adaptive"):
        return x
    if STYLE == "sparse":
        x = str(a)
        return "".join(n + p for n, p in zip("wvkhtu"[-len(x):], x))
    if STYLE == "rev":
        return "".join(n + p for n, p in zip(names[::-1], x[::-1]))
    return "".join(n + p for n, p in zip(names, x))


def column(a: int, b: int, sign: str) -> tuple[str, str]:
    width = max(len(str(a)), len(str(b))) if STYLE in ("sparse", "adaptive") else 4
    x, y = f"{a:0{width}}", f"{b:0{width}}"
    carry, digits, lines = 0, [], [aligned(a, width) + sign + aligned(b, width)]
    for place in range(width - 1, -1, -1):
        p, q = int(x[place]), int(y[place])
        value = p + q + carry if sign == "+" else p - q - carry
        out = value % 10
        new = value // 10 if sign == "+" else int(value < 0)
        label = "" if STYLE in ("fixed", "adaptive") else "khtu"[4 - width + place]
        lines.append(f"{label}{p}{sign}{q}{sign}{carry}={new}{out}")
        digits.append(str(out))
        carry = new
    return "\n".join(lines), str(carry) + "".join(reversed(digits))


def times(a: int, d: int) -> tuple[str, str]:
    width = len(str(a)) if STYLE in ("sparse", "adaptive") else 4
    x = f"{a:0{width}}"
    carry, digits, lines = 0, [], [f"{aligned(a, width)}*{d}"]
    for place in range(width - 1, -1, -1):
        value = int(x[place]) * d + carry
        label = "" if STYLE in ("fixed", "adaptive") else "khtu"[4 - width + place]
        lines.append(f"{label}{x[place]}*{d}={int(x[place]) * d:02}+{carry}={value:02}" if os.environ.get("MUL", "1") == "1" else f"{label}{x[place]}*{d}+{carry}={value:02}")
        digits.append(str(value % 10))
        carry = value // 10
    return "\n".join(lines), str(carry) + "".join(reversed(digits))


def compare(a: int, b: int) -> str:
    x, y = str(a), str(b)
    steps = [f"{x}:{len(x)}", f"{y}:{len(y)}"]
    for p, q in ((len(x), len(y)), *zip(map(int, x), map(int, y))):
        steps.append(f"{p}{'=' if p == q else '<' if p < q else '>'}{q}")
        if p != q:
            break
    return "\n".join(steps)


def month_days(year: int, month: int) -> int:
    """Days of a month of the Gregorian calendar."""
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def think(task, language) -> tuple[str, str]:
    """(thinking, numeric answer)"""
    n = task.numbers
    f = task.family
    if f == "number_words":
        if os.environ.get("NW") == "old":
            return " ".join(parts(n[0], language)), str(n[0])
        return spoken(n[0], language, task.variant == "to_words"), str(n[0])
    if f == "dates":
        return f"y{n[0]}m{n[1]:02}d{n[2]:02}", f"{n[0]}-{n[1]:02}-{n[2]:02}"
    if f == "comparison":
        return compare(*n), str(max(n))
    if f == "addition_subtraction":
        lines, result = column(n[0], n[1], "-" if task.variant == "minus" else "+")
        return lines + "\n" + result, str(int(result))
    if f == "multiplication":
        lines, result = times(*n)
        return lines + "\n" + result, str(int(result))
    if f == "two_step":
        a, b, c = n
        if task.variant.startswith("boxes"):
            l1, r1 = times(a, b)
        else:
            l1, r1 = column(a, b, "+" if task.variant == "gain_loss" else "-")
        l2, r2 = column(int(r1), c, "-" if task.variant in ("gain_loss", "boxes_loss") else "+")
        return f"{l1}\n{r1}\n{l2}\n{r2}", str(int(r2))
    if f == "units":
        from hagane.corpus.embedded.tasks import DIVISORS, FACTORS
        if task.variant in DIVISORS:
            d = DIVISORS[task.variant]
            return f"{n[0]}/{d}", str(n[0] // d)
        k = FACTORS[task.variant]
        if k in (60, 7):
            lines, result = times(n[0], 6 if k == 60 else 7)
            return f"{n[0]}*{k}\n{lines}\n{result}" + ("*10" if k == 60 else ""), str(n[0] * k)
        return f"{n[0]}*{k}", str(n[0] * k)
    if f == "days_between":
        y, m, d, m2, d2 = n
        head = f"{m:02}-{d:02} {m2:02}-{d2:02}\n"
        if m == m2:
            return head + f"{d2:02}-{d:02}={d2 - d:02}", str(d2 - d)
        ml = month_days(y, m)
        total = ml - d
        if os.environ.get("DB", "1") == "1":
            l, r = column(ml, d, "-")
            out = [l, r]
            for k in range(m + 1, m2):
                l, r = column(int(r), month_days(y, k), "+"); out += [l, r]
            l, r = column(int(r), d2, "+"); out += [l, r]
            return head + "\n".join(out), str(int(r))
        steps = [f"{ml}-{d:02}={total:02}"]
        for k in range(m + 1, m2):
            steps.append(f"{total:02}+{month_days(y, k)}={total + month_days(y, k):02}")
            total += month_days(y, k)
        steps.append(f"{total:02}+{d2:02}={total + d2:02}")
        return head + "\n".join(steps), str(total + d2)
    raise KeyError(f)


def spoken(number: int, language: str, to_words: bool) -> str:
    codes, lines = "", []
    for part in parts(number, language):
        code, piece = part[:2], part[2:]
        if not piece and (code[1] == "0" or not code.startswith("t")):
            continue
        codes += code
        if piece:
            lines.append(codes + piece if to_words else f"{piece} {codes}")
            codes = ""
    return "\n".join(lines)
