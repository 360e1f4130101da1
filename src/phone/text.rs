//! A written text becomes groups of digits, and what stands between them gets its meaning.
//!
//! Invisible signs, foreign digits, letters for zeros and addresses are dealt with here; a word in
//! front of digits may make them an extension, a date, a contract's number.

use super::runs::{read_labelled, runs};
use super::{E164, FEWEST_DIGITS, FOREIGN_DIGITS, PHONE_CONTEXT, Region, google};

/// Groups of digits that are looked at in one text.
const MOST_GROUPS: usize = 96;

/// Bytes of a text that are read; the rest of a longer one is left alone.
const LONGEST_TEXT_BYTES: usize = 1024;

/// Reads any text that is not plain digits.
pub(super) fn read(written: &str, region: Region) -> Vec<E164> {
    let mut numbers = find(written, region);
    numbers.retain(|number| number.is_itself(region));
    numbers
}

fn find(written: &str, region: Region) -> Vec<E164> {
    let written = cut(written);
    if written.contains(PHONE_CONTEXT) {
        return google(written, region).into_iter().collect();
    }
    let (text, had_letter_zeros) = clean(written);
    if spells_digits(&text)
        && let Some(number) = google(written, region)
    {
        return vec![number];
    }
    let groups = lex(&text);
    let mut numbers = Vec::new();
    let mut refused = had_letter_zeros;
    for run in runs(&groups, &mut refused) {
        for number in read_labelled(&run, region) {
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
    }
    // Letters as digits (`1-800-FLOWERS`) and the like are left to Google, on the text as it was
    // written.
    let digits = groups.iter().map(|group| group.digits.len()).sum::<usize>();
    if numbers.is_empty() && !refused && digits >= 3 && !is_prose(&text) {
        numbers.extend(
            google(written, region).filter(|_| digits >= FEWEST_DIGITS || has_latin(&text)),
        );
    }
    numbers
}

/// Cuts a text that is too long, and the number that the cut may have gone through.
pub(super) fn cut(written: &str) -> &str {
    if written.len() <= LONGEST_TEXT_BYTES {
        return written;
    }
    let head = written
        .get(..written.floor_char_boundary(LONGEST_TEXT_BYTES))
        .unwrap_or_default();
    head.trim_end_matches(|sign: char| sign.is_numeric() || is_soft(sign) || sign == '+')
}

/// Says whether there is a Latin letter.
fn has_latin(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// Says whether capital letters stand for digits, as in `1-800-FLOWERS`.
fn spells_digits(text: &str) -> bool {
    text.split('-').skip(1).any(|word| {
        word.len() >= 3
            && word
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
            && word.bytes().take(3).all(|byte| byte.is_ascii_uppercase())
    })
}

/// Says whether words stand behind digits ("916 Natasha"), which Google's rules would dial as
/// digits.
fn is_prose(text: &str) -> bool {
    let behind = text.trim_start_matches(|sign: char| !sign.is_ascii_digit());
    behind.split(' ').skip(1).any(|word| {
        word.starts_with(|sign: char| sign.is_ascii_alphabetic())
            && word.contains(|sign: char| sign.is_ascii_lowercase())
    })
}

/// Says whether a sign may stand inside one number.
fn is_soft(sign: char) -> bool {
    matches!(
        sign,
        ' ' | '-' | '.' | '(' | ')' | '[' | ']' | '/' | '\\' | '\'' | '~'
    )
}

/// Writes a text with plain signs: ASCII digits, blanks, dashes and pluses, nothing invisible.
///
/// Says also whether letters were taken for zeros. Addresses (`ivan80@...`, the host of a SIP URI)
/// go.
pub(super) fn clean(written: &str) -> (String, bool) {
    let decoded = if written.contains(['%', '&']) {
        written
            .replace("%2B", "+")
            .replace("%2b", "+")
            .replace("%20", " ")
            .replace("&nbsp;", " ")
    } else {
        written.to_owned()
    };
    let plain: Vec<char> = decoded.chars().filter_map(plain_sign).collect();
    let (plain, had_letter_zeros) = letters_to_zeros(&plain);
    (without_addresses(&plain), had_letter_zeros)
}

/// Gives the plain twin of a sign, `None` for an invisible one.
fn plain_sign(sign: char) -> Option<char> {
    if sign.is_ascii_graphic() {
        return Some(if sign == '`' { '\'' } else { sign });
    }
    match sign {
        '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => Some('\n'),
        // Soft hyphens, marks of direction, and those that turn a digit into an emoji key.
        '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fe0e}'
        | '\u{fe0f}'
        | '\u{20e3}' => None,
        '\u{2010}'..='\u{2015}'
        | '\u{2212}'
        | '\u{2043}'
        | '\u{fe58}'
        | '\u{fe63}'
        | '\u{30fc}' => Some('-'),
        '\u{207a}' | '\u{fe62}' | '\u{2795}' => Some('+'),
        '\u{2018}' | '\u{2019}' | '\u{201a}' | '\u{2bc}' | '\u{b4}' => Some('\''),
        '\u{2044}' | '\u{2215}' => Some('/'),
        '\u{2053}' | '\u{223c}' => Some('~'),
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(sign) - 0xfee0),
        _ if sign.is_whitespace() || sign.is_control() => Some(' '),
        _ => Some(digit_value(sign).unwrap_or(sign)),
    }
}

/// The zeros of Unicode's decimal digits; the nine others of each script follow its zero.
const ZEROS: [u32; 64] = [
    0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xDE6,
    0xE50, 0xED0, 0xF20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50,
    0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0x104A0,
    0x10D30, 0x11066, 0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450, 0x114D0, 0x11650, 0x116C0,
    0x11730, 0x118E0, 0x11950, 0x11C50, 0x11D50, 0x11DA0, 0x16A60, 0x16AC0, 0x16B50, 0x1D7CE,
    0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E950, 0x1FBF0,
];

/// Gives the ASCII digit for a decimal digit of any other script.
fn digit_value(sign: char) -> Option<char> {
    let code = u32::from(sign);
    let before = ZEROS.partition_point(|zero| *zero <= code).checked_sub(1)?;
    char::from_digit(code - ZEROS.get(before)?, 10)
}

/// Says whether a letter is written for a zero: Latin or Cyrillic O.
fn is_letter_zero(sign: char) -> bool {
    matches!(sign, 'O' | 'o' | 'О' | 'о')
}

/// Turns the letter O into a zero where it stands among digits, so that words survive.
///
/// That is a chunk of digits and O alone ("9О3"), or a chunk of O alone between dashes or brackets
/// behind a digit ("8-800-ООО-ОО-01"). The letters l and I are not read as 1: "49l-26" is too often
/// a typing error.
fn letters_to_zeros(signs: &[char]) -> (String, bool) {
    let mut text = String::with_capacity(signs.len());
    let mut changed = false;
    for chunk in signs.chunk_by(|left, right| left.is_alphanumeric() == right.is_alphanumeric()) {
        let zero_like = chunk
            .iter()
            .all(|sign| sign.is_ascii_digit() || is_letter_zero(*sign));
        let letters = chunk.iter().filter(|sign| is_letter_zero(**sign)).count();
        let joined = text
            .trim_end_matches(['-', '(', ')'])
            .ends_with(|sign: char| sign.is_ascii_digit())
            && text.ends_with(['-', '(', ')']);
        if zero_like && letters > 0 && (letters < chunk.len() || joined) {
            changed = true;
            text.extend(
                chunk
                    .iter()
                    .map(|sign| if is_letter_zero(*sign) { '0' } else { *sign }),
            );
        } else {
            text.extend(chunk);
        }
    }
    (text, changed)
}

/// Drops the host of every address, and its user too unless that is a number.
fn without_addresses(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('@') {
        let user_start = before
            .rfind(|sign: char| !(sign.is_alphanumeric() || matches!(sign, '.' | '-' | '_' | '+')))
            .and_then(|at| {
                before
                    .get(at..)
                    .and_then(|tail| tail.chars().next())
                    .map(|s| at + s.len_utf8())
            })
            .unwrap_or(0);
        let (lead, user) = before.split_at_checked(user_start).unwrap_or((before, ""));
        let digits = user.bytes().filter(u8::is_ascii_digit).count();
        let is_sip = ends_with_scheme(lead);
        kept.push_str(lead);
        if is_sip || (digits >= *FOREIGN_DIGITS.start() && !user.contains(char::is_alphabetic)) {
            kept.push_str(user);
        }
        let in_host = |sign: char| {
            if is_sip {
                !(sign.is_whitespace() || sign == '>')
            } else {
                sign.is_alphanumeric() || matches!(sign, '.' | '-' | ':' | '[' | ']' | '_')
            }
        };
        rest = behind.trim_start_matches(in_host);
        // Whatever stood around the address stays apart.
        kept.push_str(" | ");
    }
    kept.push_str(rest);
    kept
}

/// Says whether a text ends with the name of a URI scheme that carries a number before its `@`.
fn ends_with_scheme(text: &str) -> bool {
    let lower = text.to_lowercase();
    ["sip:", "sips:"]
        .iter()
        .any(|scheme| lower.ends_with(scheme))
}

/// What stands between two groups of digits, or before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// A dash, a dot, a bracket.
    Tight,
    /// One blank, perhaps with other signs.
    Blank,
    /// Two blanks, or a dash between blanks.
    Wide,
    /// A slash.
    Slash,
    /// A sign or a word that ends a number.
    Hard,
    /// A word or sign that announces an extension.
    Label,
    /// A word that announces a number of another kind: a tax number, a contract.
    Other,
    /// A sign that stands where a digit should: "933 l230", "26 _8", "+з 912".
    Smudge,
}

/// A group of digits and what stands before it.
#[derive(Debug)]
pub(super) struct Group<'text> {
    pub(super) digits: &'text str,
    pub(super) gap: Gap,
    /// The text between the last group and this one.
    pub(super) before: &'text str,
    /// The text up to the next group.
    pub(super) behind: &'text str,
}

impl Group<'_> {
    /// Says whether a plus stands right before the digits.
    pub(super) fn has_plus(&self) -> bool {
        self.before
            .trim_end_matches([' ', '(', '-', '\'', '['])
            .ends_with('+')
    }

    /// Says whether a bracket opens right before the digits.
    pub(super) fn is_opened(&self) -> bool {
        self.before.ends_with('(')
    }

    /// Says whether the digits stand alone in brackets.
    pub(super) fn is_bracketed(&self) -> bool {
        self.is_opened() && self.behind.starts_with(')')
    }

    /// Says whether one dot or dash, and nothing else, stands before the digits, as in a date.
    pub(super) fn is_dotted(&self) -> bool {
        matches!(self.before, "." | "-")
    }
}

/// Takes a plain text apart.
fn lex(text: &str) -> Vec<Group<'_>> {
    let is_digit = |sign: char| sign.is_ascii_digit();
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut rest = text;
    let mut digits_before = 0;
    while let Some(start) = rest.find(is_digit) {
        if groups.len() == MOST_GROUPS {
            // A number that goes on beyond the limit would be read short.
            groups.pop();
            break;
        }
        let (before, from) = rest.split_at_checked(start).unwrap_or((rest, ""));
        let end = from.find(|sign| !is_digit(sign)).unwrap_or(from.len());
        let (digits, behind) = from.split_at_checked(end).unwrap_or((from, ""));
        let next = behind.find(is_digit).unwrap_or(behind.len());
        let behind_only = behind.get(..next).unwrap_or_default();
        let mut gap = judge_gap(before, digits_before);
        let broken = groups.last().is_some_and(Group::has_plus) && digits_before < FEWEST_DIGITS;
        if broken && matches!(before, "," | ";" | ":") {
            // "+38,891551022": the sign took the place of a digit, or the number begins elsewhere.
            gap = Gap::Smudge;
        }
        let joined = matches!(gap, Gap::Tight | Gap::Blank | Gap::Wide | Gap::Slash);
        digits_before = digits.len() + if joined { digits_before } else { 0 };
        groups.push(Group {
            digits,
            gap,
            before,
            behind: behind_only,
        });
        rest = behind;
    }
    groups
}

/// Judges the text before a group of digits; `digits_before` of them stand right before that text.
pub(super) fn judge_gap(before: &str, digits_before: usize) -> Gap {
    if is_smudge(before, digits_before) {
        return Gap::Smudge;
    }
    if before.contains('+') {
        return Gap::Hard;
    }
    if before.contains(|sign: char| sign.is_alphabetic() || matches!(sign, '№' | '$' | '€' | '₽'))
    {
        return judge_words(before);
    }
    if digits_before == 0 {
        return Gap::Hard;
    }
    // A tilde announces an extension, but in `8~10` it waits for the tone.
    if before.contains(['#', '*']) || (before.contains('~') && digits_before >= FEWEST_DIGITS) {
        return Gap::Label;
    }
    if !before.chars().all(is_soft) {
        return Gap::Hard;
    }
    if before.contains(['/', '\\']) {
        return Gap::Slash;
    }
    if before.contains("  ") || before.contains(" - ") {
        return Gap::Wide;
    }
    if before.contains(' ') {
        Gap::Blank
    } else {
        Gap::Tight
    }
}

/// Says whether a gap holds a sign in a digit's place; then the number around it has lost a digit.
fn is_smudge(before: &str, digits_before: usize) -> bool {
    if let Some((_, behind)) = before.rsplit_once('+') {
        let behind = behind.trim_matches([' ', '(', '-', '\'', '[', ')']);
        return !behind.is_empty() && behind.chars().nth(1).is_none();
    }
    if digits_before == 0 {
        return false;
    }
    let mut signs = before.chars().filter(|sign| !is_soft(*sign));
    let (Some(sign), None) = (signs.next(), signs.next()) else {
        return false;
    };
    let glued = before.starts_with(sign) || before.ends_with(sign);
    glued
        && matches!(
            sign,
            'l' | 'I' | 'i' | 'S' | 's' | 'B' | 'b' | 'Z' | 'z' | 'З' | 'з' | 'б' | '?' | '_'
        )
}

/// Words that announce an extension.
pub(super) const LABELS: &str = "доб доба добав вн внут внутр доп дод тон x х ext extn extension xt xtn int \
    anexo isub dob vn";
/// Beginnings of words that announce an extension.
const LABEL_STEMS: &str = "добавоч внутрен внутрiш внутріш додатк";
/// Words between an announcement and its digits that change nothing.
pub(super) const NUMBER_NOUNS: &str = "номер номером ном no n nr number тел телефон от клиента";
/// Names of numbers that the state or a bank gives; a word may stand between them and the digits.
const STATE_NUMBERS: &str = "инн кпп огрн огрнип окпо оквэд октмо окато бик снилс";
/// Words that announce a number of another kind.
const OTHER_NUMBERS: &str = "сч дог иин бин унп пинфл едрпоу єдрпоу рнокпп арт птс стс индекс id \
    ид inn kpp ogrn snils bin iin vin vat iban order invoice passport contract account";
/// Beginnings of words that announce a number of another kind.
pub(super) const OTHER_NUMBER_STEMS: &str = "счет счёт договор паспорт заказ накладн артикул лицев полис \
    карт сери сумм цен стоимост рахун";
/// Beginnings of words that announce a phone, so that `№` behind them is no contract.
pub(super) const PHONE_STEMS: &str =
    "тел моб сот номер факс раб дом контакт phone tel mob whatsapp viber";

/// Says whether a word is in a list.
pub(super) fn is_among(word: &str, words: &str) -> bool {
    words.split(' ').any(|known| known == word)
}

/// Says whether a word begins as one of the stems does.
pub(super) fn begins_as(word: &str, stems: &str) -> bool {
    stems.split(' ').any(|stem| word.starts_with(stem))
}

/// Judges the words before a group of digits by the last of them.
fn judge_words(before: &str) -> Gap {
    let lower = before.to_lowercase();
    let head = lower.trim_end_matches([
        ' ', '.', ':', '=', '№', '#', '(', ')', '-', '\'', '"', ',', '*',
    ]);
    let signs = lower.get(head.len()..).unwrap_or_default();
    let mut words = head
        .split(|sign: char| !sign.is_alphabetic())
        .filter(|word| !word.is_empty())
        .rev();
    let (last, earlier) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let (said, before_said) = if is_among(last, NUMBER_NOUNS) {
        (earlier, words.next().unwrap_or_default())
    } else {
        (last, earlier)
    };
    if head.ends_with(['$', '€', '₽']) {
        return Gap::Other;
    }
    if !head.is_empty() && !head.ends_with(char::is_alphabetic) {
        return Gap::Hard;
    }
    if is_among(said, LABELS) || begins_as(said, LABEL_STEMS) {
        return Gap::Label;
    }
    let is_account = said == "с" && matches!(before_said, "р" | "к" | "л");
    let is_other = is_among(said, STATE_NUMBERS)
        || is_among(said, OTHER_NUMBERS)
        || begins_as(said, OTHER_NUMBER_STEMS)
        || is_account;
    // "ИНН организации 77..."; a phone's own word in between ("договор, моб.") makes it a phone
    // again.
    let was_other = is_among(before_said, STATE_NUMBERS)
        && !begins_as(said, PHONE_STEMS)
        && !head.contains([',', ';', '\n', '|']);
    let is_numbered = signs.contains('№') && !begins_as(last, PHONE_STEMS);
    if (is_other || was_other || is_numbered) && !is_phone_noun(last, said) {
        return Gap::Other;
    }
    Gap::Hard
}

/// Says whether the last word names a phone although the one before it names another number.
fn is_phone_noun(last: &str, said: &str) -> bool {
    last != said && (last == "тел" || last == "телефон")
}
