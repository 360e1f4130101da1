#!/usr/bin/env python3
"""Writes the two corpora of phone numbers beside this file; the same every time.

google.tsv: written forms with the answer of Google's rules (PyPI `phonenumbers`, the release of the
metadata that our library carries): parsed for the region and valid, or nothing.
beyond.tsv: forms that those rules do not read. The truth comes from how a form was put together out of
known numbers, never from our own code.

    pip install phonenumbers==9.0.42
    python3 tests/phones/generate.py            # writes both files
    python3 tests/phones/generate.py --check    # compares with the files, exit code 1 if they differ

Columns: region, class, written, expected. Backslash, tab and line breaks are escaped in `written`.
"""

import pathlib
import random
import sys

import phonenumbers as pn
from phonenumbers import PhoneNumberFormat as F
from phonenumbers import PhoneNumberType as T

VERSION = "9.0.42"
SEED = 20261122
HERE = pathlib.Path(__file__).parent

NEAR = ["RU", "KZ", "BY", "UA", "UZ", "AM", "GE", "KG"]
WEIGHTS = {"RU": 3600, "KZ": 1500, "BY": 1500, "UA": 1600, "UZ": 1500, "AM": 1100, "GE": 1100, "KG": 1100}
FAR = (
    "AZ TJ TM MD MN LT LV EE PL DE AT CH FR IT ES PT GB IE NL BE SE NO DK FI CZ SK HU RO BG RS GR TR IL "
    "AE SA IR IN CN JP KR VN TH ID SG HK AU NZ US CA MX BR AR CL ZA EG NG CY ME AD"
).split()
FAR_ROWS = 175
KINDS = [T.MOBILE, T.MOBILE, T.MOBILE, T.FIXED_LINE, T.FIXED_LINE, T.TOLL_FREE, T.VOIP, T.SHARED_COST]


class Numbers:
    """Valid numbers of a region, made by changing the last digits of the metadata's examples."""

    def __init__(self, rng):
        self.rng = rng

    def any(self, region, kinds=KINDS):
        while True:
            example = pn.example_number_for_type(region, self.rng.choice(kinds))
            if example is None:
                continue
            nsn = pn.national_significant_number(example)
            kept = self.rng.randint(min(2, len(nsn) - 1), max(2, len(nsn) - 5))
            for _ in range(30):
                tail = "".join(self.rng.choice("0123456789") for _ in nsn[kept:])
                number = oracle(f"+{example.country_code}{nsn[:kept]}{tail}", region)
                if number:
                    return pn.parse(number)

    def mobile(self, region):
        return self.any(region, [T.MOBILE])


def oracle(written, region):
    """Google's answer: E.164, or an empty text."""
    try:
        number = pn.parse(written, region)
    except pn.NumberParseException:
        return ""
    return e164(number) if pn.is_valid_number(number) else ""


def e164(number):
    return pn.format_number(number, F.E164)


def digits_of(text):
    return "".join(sign for sign in text if sign.isdigit())


def translate(text, zero):
    return "".join(chr(ord(zero) + int(s)) if s in "0123456789" else s for s in text)


def regroup(rng, digits, separators):
    """Cuts digits into groups of two to four with one of the separators."""
    groups, rest = [], digits
    while len(rest) > 4:
        size = rng.choice([2, 3, 3, 4])
        groups.append(rest[:size])
        rest = rest[size:]
    groups.append(rest)
    out = groups[0]
    for group in groups[1:]:
        out += rng.choice(separators) + group
    return out


# ---------------------------------------------------------------------------------------------- google

def national(number):
    return pn.format_number(number, F.NATIONAL)


def international(number):
    return pn.format_number(number, F.INTERNATIONAL)


def some_form(rng, number):
    return rng.choice([national, international, e164])(number)


def extension(rng):
    return "".join(rng.choice("0123456789") for _ in range(rng.choice([2, 3, 3, 3, 4, 4, 5])))


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NAMES = ["Иван", "Анна Петровна", "Ольга", "Сергей Иванович", "офис", "секретарь", "Мария", "склад", "бухгалтерия",
         "Гульнара", "Олександр", "Тигран", "Nino", "John Smith", "reception", "дир.", "Ёлкин", "Ы", "мама Пети"]
LABELS = ["тел.", "Тел:", "моб.", "моб.:", "сот.", "раб.", "WhatsApp", "whatsapp:", "Viber", "т.", "phone", "Phone:",
          "факс", "дом. тел.", "Контакт:", "мобильный -", "Telegram", "(моб.)", "p:"]


def google_forms():
    """The classes: name and how a form is written; each gets rng, a number, its region, and the pool."""

    def leading_plus_group(rng, n, r, pool):
        return "+" + regroup(rng, digits_of(e164(n)), [" "])

    def idd(rng, n, r, pool):
        other = pool.any(rng.choice(NEAR + FAR))
        prefix = {"RU": "8~10", "KZ": "810", "BY": "810", "US": "011", "CA": "011", "JP": "010"}.get(r, "00")
        return prefix + rng.choice(["", " "]) + digits_of(e164(other))

    def vanity(rng, n, r, pool):
        text = digits_of(national(n))
        word = "".join(rng.choice(LETTERS) for _ in range(rng.choice([4, 5, 6, 7])))
        return text[: -len(word)] + "-" + word if len(text) > len(word) + 2 else text

    def typo(rng, n, r, pool):
        text = list(some_form(rng, n))
        at = rng.choice([i for i, sign in enumerate(text) if sign.isdigit()])
        text[at] = rng.choice(["l", "I", "o", "?", "_", "S", "з", "-", ","])
        return "".join(text)

    def cut(rng, n, r, pool):
        text = some_form(rng, n)
        return text[: -rng.choice([1, 1, 2, 3])]

    def longer(rng, n, r, pool):
        return some_form(rng, n) + "".join(rng.choice("0123456789") for _ in range(rng.choice([1, 1, 2, 3])))

    def swapped(rng, n, r, pool):
        text = digits_of(some_form(rng, n))
        at = rng.randrange(len(text) - 1)
        return text[:at] + text[at + 1] + text[at] + text[at + 2:]

    def trailing(rng, n, r, pool):
        return some_form(rng, n) + rng.choice([".", ",", " .", ";", "!", " -", "...", " )", " (моб)", " Анна", " home",
                                               " (office)", "/", "\"", " ?", " —", " раб", "\n", "#", "*"])

    def context(rng, n, r, pool):
        nsn = pn.national_significant_number(n)
        return rng.choice([f"tel:{nsn};phone-context=+{n.country_code}", f"{nsn};phone-context=+{n.country_code}",
                           f"tel:{e164(n)};phone-context=example.com", f"tel:{nsn[3:]};phone-context=+{n.country_code}{nsn[:3]}",
                           f"tel:{nsn};phone-context=", f"tel:{nsn};phone-context=local;ext=12"])

    def wide(text):
        return translate(text, "０").replace("+", "＋").replace("-", "－").replace(" ", "\u3000")

    def invisible(rng, n, r, pool):
        return rng.choice(["\u202a", "\u200e", ""]) + some_form(rng, n).replace(" ", rng.choice(["\u00a0", "\u2009", "\u200b", "\u2060 ", "\u202f"])) + rng.choice(["\u202c", "", "\u200b"])

    def any_digits(rng, n, r, pool):
        return "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 15)))

    return [
        ("e164", lambda g, n, r, p: e164(n)),
        ("national", lambda g, n, r, p: national(n)),
        ("intl", lambda g, n, r, p: international(n)),
        ("digits", lambda g, n, r, p: digits_of(e164(n))),
        ("nsn", lambda g, n, r, p: pn.national_significant_number(n)),
        ("national_digits", lambda g, n, r, p: digits_of(national(n))),
        ("brackets", lambda g, n, r, p: (lambda t: f"+{n.country_code} ({t[:3]}) {regroup(g, t[3:], ['-', ' '])}")(pn.national_significant_number(n))),
        ("spaces", leading_plus_group),
        ("spaces_national", lambda g, n, r, p: regroup(g, digits_of(national(n)), [" "])),
        ("dashes", lambda g, n, r, p: regroup(g, digits_of(national(n)), ["-"])),
        ("dots", lambda g, n, r, p: regroup(g, digits_of(some_form(g, n)), ["."])),
        ("slashes", lambda g, n, r, p: national(n).replace(" ", "/", 1)),
        ("mixed_signs", lambda g, n, r, p: regroup(g, digits_of(national(n)), ["-", " ", ".", " - ", "/", "~"])),
        ("unicode_dashes", lambda g, n, r, p: regroup(g, digits_of(national(n)), ["–", "‑", "−", "—"])),
        ("ext_rfc", lambda g, n, r, p: pn.format_number(n, F.RFC3966) + ";ext=" + extension(g)),
        ("ext_word", lambda g, n, r, p: some_form(g, n) + g.choice([" ext. ", " ext ", " extension ", " Ext: ", " extn ", ", ext "]) + extension(g)),
        ("ext_x", lambda g, n, r, p: some_form(g, n) + g.choice([" x", "x", " X ", " #", "#"]) + extension(g)),
        ("ext_dob", lambda g, n, r, p: some_form(g, n) + g.choice([" доб. ", " доб ", ", доб. ", " ДОБ.", "доб"]) + extension(g)),
        ("ext_commas", lambda g, n, r, p: some_form(g, n) + g.choice([",,", ";", ",", " ,, "]) + extension(g)),
        ("full_width", lambda g, n, r, p: wide(some_form(g, n))),
        ("arabic", lambda g, n, r, p: translate(some_form(g, n), g.choice("٠۰"))),
        ("other_digits", lambda g, n, r, p: translate(some_form(g, n), g.choice("०০๐၀"))),
        ("tel_uri", lambda g, n, r, p: g.choice([pn.format_number(n, F.RFC3966), "tel:" + e164(n), "tel:" + digits_of(national(n)), "TEL:" + e164(n)]) + g.choice(["", "", ";isub=12345"])),
        ("tel_context", context),
        ("trailing_text", trailing),
        ("leading_text", lambda g, n, r, p: g.choice(LABELS + NAMES) + g.choice([" ", " ", ": "]) + some_form(g, n)),
        ("idd", idd),
        ("abroad", lambda g, n, r, p: some_form(g, p.any(g.choice(NEAR + FAR)))),
        ("abroad_digits", lambda g, n, r, p: digits_of(e164(p.any(g.choice(NEAR + FAR))))),
        ("zero_in_brackets", lambda g, n, r, p: f"+{n.country_code} (0) {regroup(g, pn.national_significant_number(n), [' ', '-'])}"),
        ("vanity", vanity),
        ("invisible", invisible),
        ("plus_eight", lambda g, n, r, p: "+8" + g.choice(["", " ", "-", " ("]) + pn.national_significant_number(n)),
        ("typo", typo),
        ("truncated", cut),
        ("too_long", longer),
        ("swapped", swapped),
        ("any_digits", any_digits),
        ("second_extension", lambda g, n, r, p: some_form(g, n) + f" x{extension(g)}/x{extension(g)}"),
    ]


def google_rows(rng):
    pool, forms, rows, seen = Numbers(rng), google_forms(), [], set()
    for region in NEAR + FAR:
        for at in range(WEIGHTS.get(region, FAR_ROWS)):
            name, write = forms[at % len(forms)]
            written = write(rng, pool.any(region), region, pool)
            if (region, written) not in seen:
                seen.add((region, written))
                rows.append((region, name, written, oracle(written, region)))
    return rows


# ---------------------------------------------------------------------------------------------- beyond

def russian(rng, number):
    """A Russian or Kazakh number as people type it."""
    n = pn.national_significant_number(number)
    a, b, c, d = n[:3], n[3:6], n[6:8], n[8:]
    lead = rng.choice(["8", "8", "+7", "7"])
    return rng.choice([
        f"{lead} {a} {b}-{c}-{d}", f"{lead} ({a}) {b}-{c}-{d}", f"{lead}({a}){b}-{c}-{d}", f"{lead}-{a}-{b}-{c}-{d}",
        f"{lead}{n}", f"{lead} {a} {b} {c} {d}", f"{lead} {a} {b}{c}{d}", f"{lead} ({a}) {b}{c}{d}", f"{lead}.{a}.{b}.{c}.{d}",
        f"{lead} {a} {b}–{c}–{d}", f"{lead}\u00a0({a})\u00a0{b}-{c}-{d}",
    ])


def typed(rng, number, region):
    """A number as typed in its own country: each form is complete, and Google's rules know its parts."""
    if region in ("RU", "KZ"):
        return russian(rng, number)
    return rng.choice([national, international, e164, e164, lambda n: digits_of(national(n)),
                       lambda n: international(n).replace(" ", "-")])(number)


def two_of(rng, pool, region):
    first, second = pool.any(region), pool.any(region)
    while e164(first) == e164(second):
        second = pool.any(region)
    return first, second


def pair(separators):
    def write(rng, pool, region):
        first, second = two_of(rng, pool, region)
        text = typed(rng, first, region) + rng.choice(separators) + typed(rng, second, region)
        return text, [first, second]
    return write


def behind(tails):
    """A number and something behind it that is no part of it; `{}` stands for a short number."""
    def write(rng, pool, region):
        number = pool.any(region)
        return typed(rng, number, region) + rng.choice(tails).format(extension(rng)), [number]
    return write


def before(heads):
    def write(rng, pool, region):
        number = pool.any(region)
        return rng.choice(heads) + typed(rng, number, region), [number]
    return write


def changed(change, only=None):
    def write(rng, pool, region):
        number = pool.any(only or region)
        return change(rng, typed(rng, number, only or region)), [number]
    return write


def from_number(make, kinds=KINDS):
    def write(rng, pool, region):
        number = pool.any(region, kinds)
        return make(rng, number), [number]
    return write


def from_abroad(make):
    """A number of another near country, made by `make(rng, its digits)`, read in this region."""
    def write(rng, pool, region):
        other = rng.choice([code for code in NEAR if code != region and {code, region} != {"RU", "KZ"}])
        number = pool.mobile(other)
        while oracle(make(rng, digits_of(e164(number))), region) not in ("", e164(number)):
            number = pool.mobile(other)
        return make(rng, digits_of(e164(number))), [number]
    return write


def letter_o(rng, number):
    text = russian(rng, number)
    zeros = [i for i, sign in enumerate(text) if sign == "0" and text[i - 1].isdigit() and text[i + 1:i + 2].isdigit()]
    for at in zeros:
        text = text[:at] + rng.choice("OОоo") + text[at + 1:]
    return text


def mixed_line(rng, pool, region):
    first, second = two_of(rng, pool, region)
    return (f"{rng.choice(LABELS)} {typed(rng, first, region)} доб. {extension(rng)}, {rng.choice(NAMES)} "
            f"{typed(rng, second, region)}"), [first, second]


def three(rng, pool, region):
    numbers, seen = [], set()
    while len(numbers) < 3:
        number = pool.any(region)
        if e164(number) not in seen:
            seen.add(e164(number))
            numbers.append(number)
    text = typed(rng, numbers[0], region)
    for number in numbers[1:]:
        text += rng.choice([", ", "; ", " / ", "\n", " | ", " и ", ", доб. 12; "]) + typed(rng, number, region)
    return text, numbers


def repeated(rng, pool, region):
    number = pool.any(region)
    return rng.choice([", ", "; ", "\n"]).join([typed(rng, number, region), typed(rng, number, region)]), [number]


def sip(rng, pool, region):
    number = pool.any(region)
    user = rng.choice([e164(number), digits_of(e164(number)), digits_of(national(number))])
    host = rng.choice(["10.0.0.1", "sip.example.com", "192.168.1.10:5060", "[2001:db8::1]:5061", "pbx.example.ru;user=phone"])
    return rng.choice([f"sip:{user}@{host}", f"<sip:{user}@{host}>", f"sips:{user}@{host}", f"\"Анна\" <sip:{user}@{host}>"]), [number]


def with_mail(rng, pool, region):
    number = pool.any(region)
    mail = rng.choice(["ivan1985@example.ru", "a.petrova@example.com", "79@example.ru", "info@example24.ru"])
    return rng.choice([f"{mail} {typed(rng, number, region)}", f"{typed(rng, number, region)}, {mail}"]), [number]


def old_eight(rng, pool):
    region = rng.choice(["UA", "UZ", "GE", "AM", "KG"])
    number = pool.mobile(region)
    nsn = pn.national_significant_number(number)
    zero = "" if region == "UZ" else "0"
    return region, rng.choice([f"8 {zero}{nsn}", f"8{zero}{nsn}", f"8-{zero}{nsn[:2]}-{nsn[2:]}", f"8 ({zero}{nsn[:2]}) {nsn[2:]}"]), [number]


RUSSIAN = ["RU", "RU", "RU", "KZ"]
ABROAD = ["RU", "RU", "KZ", "UZ", "KG", "UA"]
# name, rows, regions, form. Regions with fixed lengths where a blank alone would be ambiguous.
BEYOND = [
    ("two_comma", 80, NEAR + ["PL", "US", "GB", "DE", "TR"], pair([", ", ",", " , "])),
    ("two_semicolon", 80, NEAR + ["PL", "US", "GB", "DE", "TR"], pair(["; ", ";", " ; "])),
    ("two_slash", 70, NEAR + ["PL", "US"], pair([" / ", "/", " // "])),
    ("two_pipe", 40, NEAR + ["DE", "IT"], pair([" | ", "|"])),
    ("two_line", 60, NEAR + ["DE", "IT"], pair(["\n", "\r\n", "\n\n"])),
    ("two_words", 80, NEAR + ["DE", "IT"], pair([" и ", " или ", " либо ", " and ", " або ", ", а также "])),
    ("two_blank", 80, RUSSIAN, pair([" ", "  ", "   "])),
    ("two_plus", 50, ["RU", "BY", "UA", "UZ", "PL", "DE"], lambda g, p, r: (lambda n: (g.choice([" ", "", "  "]).join(e164(x) for x in n), list(n)))(two_of(g, p, r))),
    ("three", 70, NEAR, three),
    ("repeated", 40, NEAR, repeated),
    ("ext_vn", 60, NEAR + ["DE", "IT"], behind([" вн. {}", " вн {}", " вн.{}", ", вн. {}", " внутр. {}", " внутренний {}", " (вн. {})", " внут. {}"])),
    ("ext_dobavochny", 60, NEAR + ["DE", "IT"], behind([" добавочный {}", " добавочный: {}", " добав. {}", ", добавочный номер {}", " (добавочный {})", " Доб.№ {}"])),
    ("ext_dob", 60, NEAR + ["DE", "IT"], behind([" доб. {}", "доб{}", " доб{}", " (доб. {})", ", доб. {}", " ДОБ {}", " доб.: {}", "; доб. {}"])),
    ("ext_signs", 80, RUSSIAN, behind(["#{}", " # {}", "*{}", " * {}", ",,{}", ",{}", ";{}", " x{}", " x {}", " х{}", " ext {}", " ext. {}", ";ext={}"])),
    ("ext_brackets", 50, RUSSIAN, behind([" ({})", "({})"])),
    ("ext_blank", 40, RUSSIAN, lambda g, p, r: (lambda n: (russian(g, n) + " " + g.choice(["123", "4567", "205", "10123"]), [n]))(p.any(r))),
    ("name_before", 60, NEAR + ["DE", "IT"], before([name + end for name in NAMES for end in (" ", ": ", " - ", ", ")])),
    ("name_behind", 70, NEAR + ["DE", "IT"], behind([start + name + end for name in NAMES for start, end in ((" ", ""), (" (", ")"), (", ", ""), (" - ", ""))])),
    ("name_both", 40, NEAR, lambda g, p, r: (lambda n: (f"{g.choice(NAMES)} {typed(g, n, r)} {g.choice(NAMES)}", [n]))(p.any(r))),
    ("label", 60, NEAR + ["DE", "IT"], before([label + end for label in LABELS for end in (" ", "")])),
    ("label_glued", 30, RUSSIAN, before(["т.", "тел", "моб", "м", "Тел:", "сот."])),
    ("mixed_line", 70, NEAR, mixed_line),
    ("plus_eight", 60, RUSSIAN, from_number(lambda g, n: (lambda t: g.choice([f"+8{t}", f"+8 {t}", f"+8 ({t[:3]}) {t[3:]}", f"+8-{t[:3]}-{t[3:]}"]))(pn.national_significant_number(n)), [T.MOBILE])),
    ("plus_eight_city", 30, RUSSIAN, from_number(lambda g, n: (lambda t: g.choice([f"+8 {t[:3]} {t[3:6]}-{t[6:8]}-{t[8:]}", f"+8 ({t[:3]}) {t[3:]}", f"+8-{t[:3]}-{t[3:]}"]))(pn.national_significant_number(n)), [T.FIXED_LINE])),
    ("plus_trunk", 30, ["UA", "KG", "GE", "AM"], from_number(lambda g, n: (lambda t: g.choice([f"+0{t}", f"+0 {t[:2]} {t[2:]}", f"+(0{t[:2]}) {t[2:]}"]))(pn.national_significant_number(n)), [T.MOBILE])),
    ("caller_abroad", 120, ABROAD, from_abroad(lambda g, t: t)),
    ("caller_00", 50, ABROAD, from_abroad(lambda g, t: g.choice(["00", "00 "]) + t)),
    ("caller_810", 50, ABROAD, from_abroad(lambda g, t: g.choice(["810", "8 10 ", "8-10-", "8~10", "8 (10) "]) + t)),
    ("caller_011", 20, ABROAD, from_abroad(lambda g, t: g.choice(["011", "011 "]) + t)),
    ("letter_o", 60, RUSSIAN, lambda g, p, r: (lambda n: (letter_o(g, n), [n]))(p.any(r))),
    ("apostrophe", 30, NEAR, before(["'", "’", "`", "\"", "="])),
    ("blank_kinds", 40, NEAR, changed(lambda g, t: t.replace(" ", g.choice(["\u00a0", "\u2009", "\u202f", "\u3000", "\t"])))),
    ("zero_width", 40, NEAR, changed(lambda g, t: g.choice(["\u200b", "\ufeff", "\u202a", "\u200e"]) + t[:4] + g.choice(["\u200b", "\u200d", "\u2060", "\u200c"]) + t[4:] + g.choice(["\u202c", "", "\u200f"]))),
    ("other_digits", 40, NEAR, changed(lambda g, t: translate(t, g.choice("０٠۰०")).replace("+", g.choice("+＋")) + g.choice([" доб. 12", " Анна", ""]))),
    ("sip", 60, NEAR, sip),
    ("uri", 40, NEAR, from_number(lambda g, n: g.choice(["tel:", "callto:", "callto://", "tel://", "TEL: ", "https://wa.me/", "whatsapp://send?phone=", "viber://chat?number=%2B"]) + digits_of(e164(n)))),
    ("mail", 30, NEAR, with_mail),
    ("plus_blank", 30, NEAR, from_number(lambda g, n: g.choice(["+ ", "+  ", "+-", "+("]) + (lambda t: f"{t[:1]} {t[1:]}" if g.random() < 0.3 else t)(digits_of(e164(n))))),
    ("seven_and_eight", 30, RUSSIAN, from_number(lambda g, n: g.choice(["+7 8 ", "+7 (8", "+7-8-", "7 8 "]) + pn.national_significant_number(n), [T.MOBILE])),
    ("zero_in_brackets", 40, ["UA", "UZ", "BY", "KG", "GE", "AM", "DE", "GB", "TJ"], from_number(lambda g, n: f"{g.choice(['+', '00', '00 '])}{n.country_code} (0) {pn.national_significant_number(n)}", [T.MOBILE])),
    ("trailing_signs", 40, NEAR, behind([".", "...", " .", ",", ";", " -", "!", " ?", " ☎", " 📞", " +", "+"])),
    ("emoji", 20, NEAR, before(["📞 ", "☎", "📱", "☎️ ", "✆ "])),
    ("other_number_first", 40, RUSSIAN, lambda g, p, r: (lambda n: (f"{g.choice(['ИНН', 'ОГРН', 'КПП'])} {g.choice(['7707083893', '1027700132195', '770701001'])}, {g.choice(['тел. ', 'моб. ', ''])}{typed(g, n, r)}", [n]))(p.any(r))),
    ("date_beside", 40, RUSSIAN, lambda g, p, r: (lambda n: (g.choice(["{} от 12.03.2020", "{}, 01.12.2023", "12.03.2020 {}", "звонить после 10.01.2024: {}"]).format(typed(g, n, r)), [n]))(p.any(r))),
    ("list", 30, RUSSIAN, lambda g, p, r: (lambda n: (f"1) {typed(g, n[0], r)} 2) {typed(g, n[1], r)}", list(n)))(two_of(g, p, r))),
    ("additional_phone", 30, NEAR, lambda g, p, r: (lambda n: (f"{typed(g, n[0], r)} {g.choice(['доп.', 'доп. тел.', 'доп:'])} {typed(g, n[1], r)}", list(n)))(two_of(g, p, r))),
    ("second_line", 30, ["RU"], lambda g, p, r: (lambda n: (lambda t: (f"8 ({t[:3]}) {t[3:6]}-{t[6:8]}-{t[8:]}{g.choice(['/', ' / '])}{g.choice(['68', '45', '12-34', '5'])}", [n]))(pn.national_significant_number(n)))(p.any(r, [T.FIXED_LINE]))),
]

NOTHING = """нет|-|—|.|0|00|000|нет телефона|не указан|не звонить|уточнить|n/a|none|null|unknown|anonymous|Anonymous|
private|restricted|unavailable|asterisk|скрыт|Иван|Анна Петровна|ООО Ромашка|+|++|+7|8|7|+7 (|+7 (___) ___-__-__|тест|test|???|
email@example.com|ivan1985@example.ru|доб. 12|вн. 123|ext 12|101|1001|12345|кв. 12|офис 205|подъезд 3, этаж 7|s|h|i|t|dest-3|
12.03.2020|2020-03-12|01.01.2024|12.03.2020 12:30|10:00-18:00|с 9 до 18|пн-пт 9:00-18:00|5000 руб|
10 000 000 руб.|15 000 ₽|г. Москва, ул. Ленина 5|123456, г. Тверь, ул. Мира, д. 12, кв. 34|;;;|, ,|/|()|#|*|**|sip:@10.0.0.1|
sip:anonymous@anonymous.invalid|tel:|+++++++|${EXTEN}|<script>|' OR 1=1 --|%00|1=1|null, null|@|@@@|ООО|о|О""".replace("\n", "").split("|")


def fixed(rng, count):
    return "".join(rng.choice("0123456789") for _ in range(count))


def negatives(rng):
    """Texts that hold no subscriber's number, by construction."""
    rows = [("RU", "nothing", text) for text in NOTHING]
    rows += [(rng.choice(["RU", "KZ", "UZ", "UA"]), "nothing", text) for text in rng.sample(NOTHING, 30)]
    for _ in range(110):
        mobile = "9" + rng.choice("0123456") + fixed(rng, 8)
        rows.append(("RU", "other_number", rng.choice([
            f"ИНН {mobile}", f"ИНН: 7{fixed(rng, 9)}", f"ИНН/КПП {mobile}/{fixed(rng, 9)}", f"КПП {fixed(rng, 9)}", f"инн{mobile}",
            f"ОГРН 1{fixed(rng, 12)}", f"р/с 40702810{fixed(rng, 12)}", f"счет {mobile}", f"счёт № 8{mobile}", f"№ {mobile}",
            f"договор 8{mobile}", f"Договор № {mobile}", f"договор {mobile} от 12.03.2020", f"паспорт {fixed(rng, 4)} {fixed(rng, 6)}",
            f"паспорт {mobile}", f"СНИЛС {fixed(rng, 3)}-{fixed(rng, 3)}-{fixed(rng, 3)} {fixed(rng, 2)}", f"ИНН организации {mobile}",
            f"номер договора {mobile}", f"номер счета {mobile}", f"л/с {mobile}"])))
    for _ in range(50):
        city = f"{rng.choice('123456789')}{fixed(rng, 6)}"
        rows.append((rng.choice(["RU", "KZ"]), "no_city_code", rng.choice([
            city, f"{city[:3]}-{city[3:5]}-{city[5:]}", f"{city[:3]} {city[3:]}", f"тел. {city[:3]}-{city[3:5]}-{city[5:]}",
            f"{city} доб. 12", f"{city[:2]}-{city[2:4]}-{city[4:6]}"])))
    for _ in range(50):
        # A Russian mobile with a digit lost: no plan has a number 89xxxxxxxx of ten digits.
        short = "89" + rng.choice("0123456") + fixed(rng, 7)
        rows.append(("RU", "digit_lost", rng.choice([short, f"{short[0]} {short[1:4]} {short[4:7]}-{short[7:]}", f"{short} Анна", f"Иван {short}"])))
    for _ in range(40):
        price = f"{rng.choice('123456789')} {fixed(rng, 3)} {fixed(rng, 3)}"
        rows.append(("RU", "price", rng.choice([f"{price} руб.", f"9 {price} руб", f"$ 9 {price}", f"9 {price} ₽", f"{price}"])))
    for _ in range(30):
        rows.append((rng.choice(NEAR), "short", fixed(rng, rng.randint(1, 6))))
    return rows


def beyond_rows(rng):
    pool, rows, seen = Numbers(rng), [], set()

    def add(region, name, written, numbers):
        if (region, written) not in seen:
            seen.add((region, written))
            rows.append((region, name, written, " ".join(e164(number) for number in numbers)))

    for name, count, regions, write in BEYOND:
        for _ in range(count):
            region = rng.choice(regions)
            written, numbers = write(rng, pool, region)
            add(region, name, written, numbers)
    for _ in range(60):
        region, written, numbers = old_eight(rng, pool)
        add(region, "old_eight", written, numbers)
    for region, name, written in negatives(rng):
        add(region, name, written, [])
    return rows


# ---------------------------------------------------------------------------------------------- output

def escape(text):
    for sign, name in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(sign, name)
    return text


def render(rows):
    lines = ["\t".join((region, name, escape(written), expected)) for region, name, written, expected in rows]
    return "region\tclass\twritten\texpected\n" + "\n".join(lines) + "\n"


def main():
    if pn.__version__ != VERSION:
        sys.exit(f"phonenumbers {VERSION} is needed, this is {pn.__version__}")
    check, stale = "--check" in sys.argv[1:], []
    for name, make in (("google.tsv", google_rows), ("beyond.tsv", beyond_rows)):
        rows = make(random.Random(f"{SEED} {name}"))
        text, path = render(rows), HERE / name
        if not check:
            path.write_bytes(text.encode())
        elif not path.exists() or path.read_bytes() != text.encode():
            stale.append(name)
        classes = len({row[1] for row in rows})
        print(f"{name}: {len(rows)} forms, {classes} classes, {len({row[0] for row in rows})} regions")
    if stale:
        sys.exit(f"differs from what is committed: {', '.join(stale)}")


if __name__ == "__main__":
    main()
