//! Phone numbers: from what a caller id or a CRM field holds to E.164, or to a short internal
//! number.
//!
//! Both sides of the directory go through this file: the phones of every card when it is stored,
//! and the caller when he rings. That is why [`read_field`] and [`read_caller`] are one reading
//! with two ends. Each candidate is first read by Google's rules ([`google`]); what those rules do
//! not know and people write all the same is taken apart before, or tried after. `docs/phones.md`
//! tells the steps and the deliberate differences. When two readings are equally good, there is
//! none: nobody is better than a wrong person.
//!
//! It must not know what a CRM, a call or a directory is. Facts come from the metadata of
//! libphonenumber (crate `rlibphonenumber`), ITU-T E.164 (country codes), RFC 3966 (`tel:`), and
//! from fields of real CRMs. The file is long because the whole reading belongs together: a rule
//! moved away would be read alone.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumber, Region as Plan};
use serde::{Deserialize, Serialize, Serializer};

/// Bytes of a text that are read; the rest of a longer one is left alone.
const LONGEST_TEXT_BYTES: usize = 1024;
/// Characters that Google's library reads at most (`_MAX_INPUT_STRING_LENGTH`); longer text is no
/// number.
const LONGEST_FOR_GOOGLE_CHARS: usize = 250;
/// Groups of digits that are looked at in one text.
const MOST_GROUPS: usize = 96;
/// Digits of the shortest text that can be a subscriber's number; fewer are an extension, a flat, a
/// year.
const FEWEST_DIGITS: usize = 7;
/// Digits of the longest written form: a German number of 17 behind `810`.
const MOST_DIGITS: usize = 20;
/// Digits of the longest number that is kept. E.164 says 15, the German plan has numbers of 17.
const MOST_E164_DIGITS: u32 = 17;
/// Digits of a national number that is certainly no extension.
const LONG_NATIONAL: usize = 9;
/// Digits of a national number that is complete enough for an extension behind a mere blank.
const COMPLETE_NATIONAL: usize = 8;
/// Digits of a Russian city number without its code, the longest thing that may be left over.
const LOCAL_DIGITS: usize = 7;
/// Digits of a short internal number.
const SHORT_DIGITS: std::ops::RangeInclusive<usize> = 2..=6;
/// Digits of a bare number that may be international, its country code included.
const FOREIGN_DIGITS: std::ops::RangeInclusive<usize> = 10..=15;

/// A subscriber's number in the form of ITU-T E.164, country code included.
///
/// The digits are kept as one integer: no country code begins with a zero, so nothing is lost, and
/// the directory's key is eight bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct E164(NonZeroU64);

impl E164 {
    /// Takes the digits of a number, country code first; `None` for zero and for more than 17
    /// digits.
    ///
    /// It does not ask whether the number is in use: a directory gets back what it stored.
    pub fn from_digits(digits: u64) -> Option<Self> {
        if digits >= 10u64.pow(MOST_E164_DIGITS) {
            return None;
        }
        NonZeroU64::new(digits).map(Self)
    }

    /// Gives the digits, country code first, without the plus.
    pub fn digits(self) -> u64 {
        self.0.get()
    }

    /// Gives the national significant number, with the leading zeros of countries such as Italy.
    pub fn national(self) -> String {
        let digits = self.digits().to_string();
        digits
            .get(self.country_code_digits()..)
            .unwrap_or_default()
            .to_owned()
    }

    /// Gives the country calling code: 7 for Russia and Kazakhstan, 375 for Belarus.
    pub fn country_code(self) -> u16 {
        let digits = self.digits().to_string();
        digits
            .get(..self.country_code_digits())
            .and_then(|code| code.parse().ok())
            .unwrap_or(0)
    }

    /// Gives the number with its middle hidden, for logs: `+7916***4567`.
    pub fn masked(self) -> String {
        let national = self.national();
        let (head, tail) = if national.len() >= 10 { (3, 4) } else { (1, 2) };
        let head = national.get(..head).unwrap_or_default();
        let tail = national
            .get(national.len().saturating_sub(tail)..)
            .unwrap_or_default();
        format!("+{}{head}***{tail}", self.country_code())
    }

    /// Counts the digits of the country code: E.164 codes are free of common prefixes.
    fn country_code_digits(self) -> usize {
        let digits = self.digits().to_string();
        let first_two = digits
            .get(..2)
            .and_then(|two| two.parse().ok())
            .unwrap_or(0);
        let count = match first_two {
            10..=19 | 70..=79 => 1,
            21..=26
            | 28
            | 29
            | 35
            | 37
            | 38
            | 42
            | 50
            | 59
            | 67..=69
            | 80
            | 83
            | 85
            | 87..=89
            | 96
            | 97
            | 99 => 3,
            _ => 2,
        };
        count.min(digits.len())
    }

    /// Puts together what the library has read.
    fn from_parts(parsed: &PhoneNumber) -> Option<Self> {
        let zeros = if parsed.italian_leading_zero() {
            parsed.number_of_leading_zeros()
        } else {
            0
        };
        let width = parsed.national_number.checked_ilog10().unwrap_or(0) + 1;
        let shift = 10u64.checked_pow(width.checked_add(u32::try_from(zeros).ok()?)?)?;
        let code = u64::try_from(parsed.country_code).ok()?;
        Self::from_digits(
            code.checked_mul(shift)?
                .checked_add(parsed.national_number)?,
        )
    }
}

impl fmt::Display for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}", self.0)
    }
}

impl fmt::Debug for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for E164 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The country whose habits decide what a number without a country code means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Region(Plan);

/// A text that names no country with a numbering plan. The config's reader shows it next to the
/// key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no ISO 3166 country code with a numbering plan, such as RU or KZ")]
pub struct UnknownRegion(String);

impl Region {
    /// Says whether this country's own trunk prefix is `8`, as in Russia, Kazakhstan and Belarus.
    fn dials_eight(self) -> bool {
        matches!(self.0, Plan::RU | Plan::KZ | Plan::BY | Plan::TM)
    }

    /// Says whether `8` was the trunk prefix here and old numbers still show it, unknown to
    /// Google's rules.
    fn dialled_eight(self) -> bool {
        use Plan::{AM, AZ, EE, GE, KG, LT, LV, MD, TJ, UA, UZ};
        matches!(self.0, AM | AZ | EE | GE | KG | LT | LV | MD | TJ | UA | UZ)
    }
}

impl Default for Region {
    fn default() -> Self {
        Self(Plan::RU)
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Region {
    type Err = UnknownRegion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Plan::from_code(text)
            .ok()
            .filter(|plan| *plan != Plan::World)
            .filter(|plan| {
                PHONE_NUMBER_UTIL
                    .get_supported_regions()
                    .any(|known| known == *plan)
            })
            .map(Self)
            .ok_or_else(|| UnknownRegion(text.to_owned()))
    }
}

impl TryFrom<String> for Region {
    type Error = UnknownRegion;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Region> for String {
    fn from(region: Region) -> Self {
        region.to_string()
    }
}

/// What a caller id turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallerNumber {
    /// A subscriber's number; the directory can be asked.
    Number(E164),
    /// A short internal number of 2 to 6 ASCII digits: a colleague, not a client.
    Short(String),
    /// Withheld, empty, too short to be complete, or no number at all.
    Unreadable,
}

/// Reads what `CALLERID(num)` holds.
///
/// `region` is the country of the trunk. A leading blank is a plus which a form decoder took away.
/// If the text holds several numbers, the first counts. Costs about 1 us for plain digits and never
/// fails.
pub fn read_caller(written: &str, region: Region) -> CallerNumber {
    if let Some(number) = blank_as_plus(written, region) {
        return CallerNumber::Number(number);
    }
    if let Some((plus, digits)) = plain_digits(written) {
        return match resolve(digits, plus, None, &[], region) {
            Some(reading) => CallerNumber::Number(reading.number),
            None if !plus && SHORT_DIGITS.contains(&digits.len()) => {
                CallerNumber::Short(digits.to_owned())
            }
            None => CallerNumber::Unreadable,
        };
    }
    match (read(written, region).first(), short(written)) {
        (Some(number), _) => CallerNumber::Number(*number),
        (None, Some(digits)) => CallerNumber::Short(digits),
        (None, None) => CallerNumber::Unreadable,
    }
}

/// Reads every number in one phone field of a CRM, in the order written and without repeats.
///
/// `region` is the country whose habits the people follow who fill in the CRM. Extensions are cut
/// off. The result is empty if nothing can be read without guessing.
pub fn read_field(written: &str, region: Region) -> Vec<E164> {
    if let Some((plus, digits)) = plain_digits(written) {
        return resolve(digits, plus, None, &[], region)
            .map(|reading| reading.number)
            .into_iter()
            .collect();
    }
    read(written, region)
}

/// Reads one number by the rules of Google's library alone: parsed for the region, and valid.
///
/// This is the first step for every candidate; the corpus in `tests/phones` holds it to Google's
/// answers.
pub fn google(written: &str, region: Region) -> Option<E164> {
    if written.len() > LONGEST_FOR_GOOGLE_CHARS
        && written.chars().count() > LONGEST_FOR_GOOGLE_CHARS
    {
        return None;
    }
    // The library slices backwards and panics if `tel:` stands behind the phone context; to Google
    // such a text is no number.
    if let Some(context) = written.find(PHONE_CONTEXT)
        && written.find("tel:").is_some_and(|tel| tel > context)
    {
        return None;
    }
    let parsed = PHONE_NUMBER_UTIL.parse(written, Some(region.0)).ok()?;
    if !PHONE_NUMBER_UTIL.is_valid_number(&parsed) {
        return None;
    }
    E164::from_parts(&parsed)
}

/// The parameter of a `tel:` URI that completes a local number (RFC 3966); Google's rules read it.
const PHONE_CONTEXT: &str = ";phone-context=";

/// How a number came to be read; a weaker way loses against a stronger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// With a plus, an international prefix, the trunk prefix or the country code.
    Full,
    /// The national number alone.
    National,
    /// Another country's number without plus or prefix.
    Foreign,
}

/// One number and how it was read.
#[derive(Clone, Copy, Debug)]
struct Reading {
    number: E164,
    form: Form,
}

/// Splits off the plus of a text that is otherwise nothing but ASCII digits.
fn plain_digits(written: &str) -> Option<(bool, &str)> {
    let digits = written.strip_prefix('+');
    let (plus, digits) = (digits.is_some(), digits.unwrap_or(written));
    let plain = digits.len() <= MOST_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    (plain && !digits.is_empty()).then_some((plus, digits))
}

/// Reads ` 7916...` as `+7916...`: a form decoder turns a raw plus into a blank.
fn blank_as_plus(written: &str, region: Region) -> Option<E164> {
    let digits = written.strip_prefix(' ')?.trim();
    let (plus, digits) = plain_digits(digits)?;
    if plus || digits.len() < FEWEST_DIGITS {
        return None;
    }
    google(&format!("+{digits}"), region)
}

/// Reads the digits of one number, all separators gone.
///
/// `head` is the first group of digits if the number was written in several: grouping tells what a
/// person meant, and digits in one piece tell nothing. `ends` counts the digits up to the end of
/// every group but the last.
fn resolve(
    digits: &str,
    plus: bool,
    head: Option<&str>,
    ends: &[usize],
    region: Region,
) -> Option<Reading> {
    if !(FEWEST_DIGITS..=MOST_DIGITS).contains(&digits.len()) {
        return None;
    }
    if !plus {
        return ours(digits, region)
            .or_else(|| prefixed(digits, head, region))
            .or_else(|| foreign(digits, head, ends, region));
    }
    if let Some(number) = google(&format!("+{digits}"), region) {
        return Some(Reading {
            number,
            form: Form::Full,
        });
    }
    // `+8 916`, `+0 67`, `+00 49`, `+810 375`: the plus was put before a number that had its prefix
    // already.
    if !["0", "8"].iter().any(|prefix| digits.starts_with(prefix)) {
        return None;
    }
    ours(digits, region)
        .filter(|reading| reading.form == Form::Full)
        .or_else(|| prefixed(digits, head, region))
}

/// Reads digits by the region's own plan.
fn ours(digits: &str, region: Region) -> Option<Reading> {
    let number = google(digits, region)?;
    let form = if number.national() == digits {
        Form::National
    } else {
        Form::Full
    };
    Some(Reading { number, form })
}

/// Reads digits behind a prefix that is dialled by habit, whatever the region's plan says.
fn prefixed(digits: &str, head: Option<&str>, region: Region) -> Option<Reading> {
    ["810", "00", "011"]
        .iter()
        .filter_map(|prefix| digits.strip_prefix(prefix))
        .filter(|rest| rest.len() > FEWEST_DIGITS)
        .find_map(|rest| google(&format!("+{rest}"), region))
        .or_else(|| behind_old_eight(digits, head, region))
        .map(|number| Reading {
            number,
            form: Form::Full,
        })
}

/// Reads `8 067 ...` and `80 67 ...` in Ukraine, `8 90 ...` in Uzbekistan: the trunk prefix of old.
fn behind_old_eight(digits: &str, head: Option<&str>, region: Region) -> Option<E164> {
    let rest = digits
        .strip_prefix('8')
        .filter(|_| region.dialled_eight())?;
    let apart = head.is_some_and(|head| head == "8");
    let glued = head.is_none_or(|head| head == "80" || head.len() >= 4);
    let trunk_follows = rest.starts_with('0') || matches!(region.0, Plan::UZ | Plan::TJ);
    if apart || (glued && trunk_follows) {
        google(rest, region)
    } else {
        None
    }
}

/// Reads bare digits as another country's number, as trunks hand it over: `375291234567` in Russia.
fn foreign(digits: &str, head: Option<&str>, ends: &[usize], region: Region) -> Option<Reading> {
    if !FOREIGN_DIGITS.contains(&digits.len()) || digits.starts_with('0') {
        return None;
    }
    let number = google(&format!("+{digits}"), region)?;
    let code = number.country_code();
    // Satellites and other networks without a country are not worth the guess; nor is a reading
    // that has to drop digits.
    let is_country = !matches!(code, 800 | 808 | 870 | 878 | 881..=883 | 888 | 979);
    if !is_country || number.digits().to_string() != digits {
        return None;
    }
    let looks_ours = |believed: fn(Form) -> bool| {
        (FEWEST_DIGITS..digits.len())
            // Nobody means a number that ends inside a group: "49 (151) 20481909" is no Ryazan.
            .filter(|end| head.is_none() || ends.contains(end))
            .filter_map(|end| ours(digits.get(..end)?, region))
            .any(|shorter| believed(shorter.form))
    };
    // One of ours with a digit too few or too many looks like Vietnam, India or Taiwan.
    let doubtful = match head {
        None if region.dials_eight() && digits.starts_with('8') => {
            digits.len() == *FOREIGN_DIGITS.start() || looks_ours(|form| form == Form::Full)
        }
        None => false,
        Some(head) => {
            let is_code = head == code.to_string();
            let sure = code > 99 || (code < 10 && is_code);
            !(is_code || head.len() >= 5) || (!sure && looks_ours(|_| true))
        }
    };
    (!doubtful).then_some(Reading {
        number,
        form: Form::Foreign,
    })
}

/// Reads any text that is not plain digits.
fn read(written: &str, region: Region) -> Vec<E164> {
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
fn cut(written: &str) -> &str {
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
fn clean(written: &str) -> (String, bool) {
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
enum Gap {
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
struct Group<'text> {
    digits: &'text str,
    gap: Gap,
    /// The text between the last group and this one.
    before: &'text str,
    /// The text up to the next group.
    behind: &'text str,
}

impl Group<'_> {
    /// Says whether a plus stands right before the digits.
    fn has_plus(&self) -> bool {
        self.before
            .trim_end_matches([' ', '(', '-', '\'', '['])
            .ends_with('+')
    }

    /// Says whether a bracket opens right before the digits.
    fn is_opened(&self) -> bool {
        self.before.ends_with('(')
    }

    /// Says whether the digits stand alone in brackets.
    fn is_bracketed(&self) -> bool {
        self.is_opened() && self.behind.starts_with(')')
    }

    /// Says whether one dot or dash, and nothing else, stands before the digits, as in a date.
    fn is_dotted(&self) -> bool {
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
fn judge_gap(before: &str, digits_before: usize) -> Gap {
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
const LABELS: &str = "доб доба добав вн внут внутр доп дод тон x х ext extn extension xt xtn int \
    anexo isub dob vn";
/// Beginnings of words that announce an extension.
const LABEL_STEMS: &str = "добавоч внутрен внутрiш внутріш додатк";
/// Words between an announcement and its digits that change nothing.
const NUMBER_NOUNS: &str = "номер номером ном no n nr number тел телефон от клиента";
/// Names of numbers that the state or a bank gives; a word may stand between them and the digits.
const STATE_NUMBERS: &str = "инн кпп огрн огрнип окпо оквэд октмо окато бик снилс";
/// Words that announce a number of another kind.
const OTHER_NUMBERS: &str = "сч дог иин бин унп пинфл едрпоу єдрпоу рнокпп арт птс стс индекс id \
    ид inn kpp ogrn snils bin iin vin vat iban order invoice passport contract account";
/// Beginnings of words that announce a number of another kind.
const OTHER_NUMBER_STEMS: &str = "счет счёт договор паспорт заказ накладн артикул лицев полис \
    карт сери сумм цен стоимост рахун";
/// Beginnings of words that announce a phone, so that `№` behind them is no contract.
const PHONE_STEMS: &str = "тел моб сот номер факс раб дом контакт phone tel mob whatsapp viber";

/// Says whether a word is in a list.
fn is_among(word: &str, words: &str) -> bool {
    words.split(' ').any(|known| known == word)
}

/// Says whether a word begins as one of the stems does.
fn begins_as(word: &str, stems: &str) -> bool {
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

/// Groups that may be one number, or several with nothing but blanks or slashes between them.
struct Run<'run, 'text> {
    groups: &'run [Group<'text>],
    /// Part of another number may stand here, so that only a complete phone is believed.
    doubtful: bool,
}

/// Finds the runs of a text; dates, prices and numbers of another kind are left out and noted.
fn runs<'run, 'text>(groups: &'run [Group<'text>], refused: &mut bool) -> Vec<Run<'run, 'text>> {
    let mut runs = Vec::new();
    let joined = |right: &Group<'_>| !matches!(right.gap, Gap::Hard | Gap::Label | Gap::Other);
    for chunk in groups.chunk_by(|_, right| joined(right) && !right.has_plus()) {
        if chunk.iter().any(|group| group.gap == Gap::Smudge) {
            *refused = true;
            continue;
        }
        let (mut chunk, mut doubtful) = (chunk, false);
        if let Some((first, rest)) = chunk.split_first()
            && first.gap == Gap::Other
            && !first.has_plus()
        {
            *refused = true;
            // A long group is the whole other number, and a phone may follow it; short ones are its
            // parts.
            doubtful = first.digits.len() < LONG_NATIONAL;
            let apart = rest
                .first()
                .is_some_and(|next| matches!(next.gap, Gap::Blank | Gap::Wide));
            chunk = if apart || !doubtful { rest } else { &[] };
        }
        let priced = without_price(chunk);
        *refused |= priced.len() < chunk.len();
        chunk = priced;
        while let Some(date) =
            (0..chunk.len()).find(|at| is_date(chunk.get(*at..).unwrap_or_default()))
        {
            *refused = true;
            let (before, rest) = chunk.split_at_checked(date).unwrap_or((chunk, &[]));
            runs.push(Run {
                groups: before,
                doubtful,
            });
            chunk = rest.get(3..).unwrap_or_default();
        }
        runs.push(Run {
            groups: chunk,
            doubtful,
        });
    }
    runs.retain(|run| !run.groups.is_empty());
    runs
}

/// Drops the sum of money that a run may end with, thousands included.
fn without_price<'run, 'text>(groups: &'run [Group<'text>]) -> &'run [Group<'text>] {
    if !groups.last().is_some_and(|last| is_price(last.behind))
        || groups.iter().any(Group::has_plus)
    {
        return groups;
    }
    let goes_on = |right: &Group<'_>| match right.gap {
        Gap::Tight => true,
        Gap::Blank => right.digits.len() == 3,
        _ => false,
    };
    let part_of_sum = groups
        .iter()
        .rev()
        .take_while(|group| goes_on(group))
        .count();
    groups
        .get(..groups.len().saturating_sub(part_of_sum + 1))
        .unwrap_or_default()
}

/// Says whether three groups begin that are a date: `12.03.2020` or `2020-03-12`.
fn is_date(groups: &[Group<'_>]) -> bool {
    let [first, second, third, ..] = groups else {
        return false;
    };
    let follows = groups.get(3).is_some_and(|next| next.gap == Gap::Tight);
    if !second.is_dotted() || !third.is_dotted() || first.is_dotted() || first.has_plus() || follows
    {
        return false;
    }
    let within = |group: &Group<'_>, digits: usize, low: u16, high: u16| {
        group.digits.len() <= digits
            && group
                .digits
                .parse::<u16>()
                .is_ok_and(|value| (low..=high).contains(&value))
    };
    let is_month = within(second, 2, 1, 12);
    let day_first = within(first, 2, 1, 31) && within(third, 4, 1900, 2099);
    let year_first = within(first, 4, 1900, 2099) && within(third, 2, 1, 31);
    is_month && (day_first || year_first)
}

/// Says whether the text behind digits makes them a sum of money.
fn is_price(behind: &str) -> bool {
    let behind = behind.trim_start_matches([' ', '.', ',']).to_lowercase();
    let word = behind
        .split(|sign: char| !sign.is_alphabetic())
        .next()
        .unwrap_or_default();
    behind.starts_with(['₽', '$', '€'])
        || word.starts_with("руб")
        || matches!(
            word,
            "коп" | "тенге" | "сум" | "грн" | "usd" | "eur" | "rub"
        )
}

/// Reads a run, minding the word before it.
fn read_labelled(run: &Run<'_, '_>, region: Region) -> Vec<E164> {
    let Some((first, rest)) = run.groups.split_first() else {
        return Vec::new();
    };
    if run.doubtful {
        let reading = read_span(run.groups, region).filter(|reading| reading.form == Form::Full);
        return reading.map(|reading| reading.number).into_iter().collect();
    }
    if first.gap != Gap::Label || first.has_plus() {
        return read_run(run.groups, region);
    }
    // "доп. 8 916 ..." is another phone; an extension is shorter than any complete number.
    if let Some(reading) = read_span(run.groups, region)
        && (reading.form == Form::Full
            || (reading.form == Form::National && reading.number.national().len() >= LONG_NATIONAL))
    {
        return vec![reading.number];
    }
    read_run(rest, region)
}

/// The cheapest way to read a run from some group on.
#[derive(Clone, Copy)]
struct Step {
    cost: u32,
    /// Another way costs the same and gives other numbers.
    ambiguous: bool,
    reading: Reading,
    /// Where the reading goes on.
    next: usize,
}

/// What makes a way of reading a run worse. Only their order matters.
mod cost {
    pub(super) const NUMBER: u32 = 100;
    pub(super) const NATIONAL: u32 = 20;
    pub(super) const FOREIGN: u32 = 50;
    pub(super) const FOREIGN_IN_GROUPS: u32 = 200;
    pub(super) const WIDE_INSIDE: u32 = 30;
    pub(super) const TIGHT_BETWEEN: u32 = 60;
    pub(super) const SKIP: u32 = 150;
}

/// Reads a run that may hold several numbers and their extensions.
///
/// Every group must find its place: a way that leaves digits over, other than an extension, is a
/// guess.
fn read_run(groups: &[Group<'_>], region: Region) -> Vec<E164> {
    if let Some(reading) = read_span(groups, region)
        && reading.form != Form::Foreign
    {
        return vec![reading.number];
    }
    let mut best: Vec<Option<Step>> = vec![None; groups.len() + 1];
    for start in (0..groups.len()).rev() {
        let step = best_step(groups, start, &best, region);
        if let Some(slot) = best.get_mut(start) {
            *slot = step;
        }
    }
    let mut at =
        usize::from(best.first().is_some_and(Option::is_none) && may_skip_first(groups, &best));
    let mut numbers = Vec::new();
    while let Some(step) = best.get(at).copied().flatten() {
        if step.ambiguous {
            return Vec::new();
        }
        numbers.push(step.reading.number);
        at = step.next;
    }
    numbers
}

/// Finds the cheapest number that begins at a group, and what follows it.
fn best_step(
    groups: &[Group<'_>],
    start: usize,
    best: &[Option<Step>],
    region: Region,
) -> Option<Step> {
    let mut chosen: Option<Step> = None;
    for end in start + 1..=groups.len() {
        let span = groups.get(start..end)?;
        if span.iter().map(|group| group.digits.len()).sum::<usize>() > MOST_DIGITS {
            break;
        }
        let Some(reading) = read_span(span, region) else {
            continue;
        };
        let own = span_cost(span, reading.form);
        let skipped = skip_extension(groups, start, end, reading);
        for (next, skip) in [(Some(end), 0), (skipped, cost::SKIP)] {
            let Some(next) = next else { continue };
            let after = best.get(next).copied().flatten();
            if next < groups.len() && after.is_none() {
                continue;
            }
            let tight = groups
                .get(next)
                .is_some_and(|group| group.gap == Gap::Tight);
            let between = if tight { cost::TIGHT_BETWEEN } else { 0 };
            let total = own + skip + between + after.map_or(0, |step| step.cost);
            let ambiguous = after.is_some_and(|step| step.ambiguous);
            match &mut chosen {
                Some(rival) if rival.cost < total => {}
                Some(rival) if rival.cost == total => {
                    rival.ambiguous |= rival.reading.number != reading.number;
                }
                _ => {
                    chosen = Some(Step {
                        cost: total,
                        ambiguous,
                        reading,
                        next,
                    });
                }
            }
        }
    }
    chosen
}

/// Prices one number by its form and by what stands inside it.
fn span_cost(span: &[Group<'_>], form: Form) -> u32 {
    let inner = span.get(1..).unwrap_or_default();
    let wide = inner
        .iter()
        .any(|group| matches!(group.gap, Gap::Wide | Gap::Slash));
    let by_form = match form {
        Form::Full => 0,
        Form::National => cost::NATIONAL,
        Form::Foreign if inner.is_empty() => cost::FOREIGN,
        Form::Foreign => cost::FOREIGN_IN_GROUPS,
    };
    cost::NUMBER + by_form + if wide { cost::WIDE_INSIDE } else { 0 }
}

/// Finds the end of what stands behind the number `start..end` without any word and is no part of
/// it.
///
/// `(123)`, a blank and three to six digits, `/68`: an extension, or the last digits of a second
/// line; a blank and `123-45-67`: a second line without its city code.
fn skip_extension(
    groups: &[Group<'_>],
    start: usize,
    end: usize,
    reading: Reading,
) -> Option<usize> {
    let group = groups.get(end)?;
    if reading.form == Form::Foreign || group.digits.len() > LOCAL_DIGITS {
        return None;
    }
    let digits = |from: usize, to: usize| {
        groups.get(from..to).map_or(0, |groups| {
            groups.iter().map(|one| one.digits.len()).sum::<usize>()
        })
    };
    let tight = groups
        .iter()
        .skip(end + 1)
        .take_while(|one| one.gap == Gap::Tight)
        .count();
    let chunk = end + 1 + tight;
    if group.gap == Gap::Slash {
        let more =
            || skip_extension(groups, start, chunk, reading).filter(|_| is_slashed(groups, chunk));
        return (digits(end, chunk) <= LOCAL_DIGITS).then(|| more().unwrap_or(chunk));
    }
    let apart = matches!(group.gap, Gap::Blank | Gap::Wide);
    if tight > 0 {
        let is_local = digits(end, chunk) == LOCAL_DIGITS && reading.form == Form::Full;
        return (apart && is_local && !group.is_opened()).then_some(chunk);
    }
    let inner = groups.get(start + 1..end)?;
    let grouped_by_blanks = inner.last().is_some_and(|last| last.gap == Gap::Blank);
    let fewest = if grouped_by_blanks { 3 } else { 2 };
    // "... 2) 8 495": the number of a line in a list; "(2 линии)": a word about the number.
    let listed = group.behind.starts_with(')') || group.behind.starts_with(". ");
    let spoken = group.is_opened() && group.behind.trim_start().starts_with(char::is_alphabetic);
    let complete = reading.number.national().len() >= COMPLETE_NATIONAL;
    let counted = group.digits.len() >= fewest
        && (group.digits.len() < LOCAL_DIGITS || reading.form == Form::Full);
    ((apart && complete && (counted || listed || spoken)) || group.is_bracketed())
        .then_some(end + 1)
}

/// Says whether a slash stands before a group.
fn is_slashed(groups: &[Group<'_>], at: usize) -> bool {
    groups.get(at).is_some_and(|group| group.gap == Gap::Slash)
}

/// Says whether the first group is a list's number or a house's, and a complete number follows.
fn may_skip_first(groups: &[Group<'_>], best: &[Option<Step>]) -> bool {
    let [first, second, ..] = groups else {
        return false;
    };
    let follows = best
        .get(1)
        .copied()
        .flatten()
        .is_some_and(|step| step.reading.form == Form::Full);
    let apart = matches!(second.gap, Gap::Blank | Gap::Wide | Gap::Slash);
    let listed = first.behind.starts_with(')') || first.behind.starts_with(". ");
    let is_prefix = matches!(first.digits, "0" | "1" | "7" | "8");
    let counted = if first.before.contains(char::is_alphabetic) {
        first.digits.len() <= 4 && !is_prefix
    } else {
        false
    };
    let listed = listed && first.digits.len() <= 2;
    follows && apart && !first.has_plus() && (listed || counted)
}

/// Reads groups as one number.
fn read_span(span: &[Group<'_>], region: Region) -> Option<Reading> {
    let (first, rest) = span.split_first()?;
    let digits: String = span.iter().map(|group| group.digits).collect();
    if !(FEWEST_DIGITS..=MOST_DIGITS).contains(&digits.len()) {
        return None;
    }
    if first.has_plus() && first.digits == "8" && region.dials_eight() && !rest.is_empty() {
        // "+8 495 123-45-67" is Moscow; read as written it would be Vietnam.
        if let Some(number) = google(&digits, region) {
            return Some(Reading {
                number,
                form: Form::Full,
            });
        }
    }
    let head = (!rest.is_empty()).then_some(first.digits);
    let mut ends = Vec::with_capacity(rest.len());
    for group in span.get(..rest.len()).unwrap_or_default() {
        ends.push(ends.last().copied().unwrap_or(0) + group.digits.len());
    }
    resolve(&digits, first.has_plus(), head, &ends, region).or_else(|| {
        // "+998 (0) 90": the trunk prefix in brackets, where the plan knows none.
        let is_zero = |group: &&Group<'_>| group.is_bracketed() && group.digits == "0";
        rest.iter().find(is_zero)?;
        let kept = rest
            .iter()
            .filter(|group| !is_zero(group))
            .map(|group| group.digits);
        let digits: String = std::iter::once(first.digits).chain(kept).collect();
        resolve(&digits, first.has_plus(), head, &[], region)
    })
}

/// Reads a short internal number, as it stands or as the user of a SIP URI.
fn short(written: &str) -> Option<String> {
    let (text, _) = clean(cut(written));
    let lower = text.to_lowercase();
    let bare = lower.trim_start_matches([' ', '<', '"']);
    let bare = ["sip:", "sips:", "tel:"]
        .iter()
        .find_map(|scheme| bare.strip_prefix(scheme))
        .unwrap_or(bare);
    let bare = bare.trim_matches([' ', '<', '>', '"', '\'', '|', '.']);
    let digits: String = bare.chars().filter(char::is_ascii_digit).collect();
    let nothing_else = bare
        .chars()
        .all(|sign| sign.is_ascii_digit() || matches!(sign, ' ' | '-'));
    (nothing_else && SHORT_DIGITS.contains(&digits.len())).then_some(digits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn region(code: &str) -> Region {
        code.parse().unwrap()
    }

    fn texts(numbers: &[E164]) -> Vec<String> {
        numbers.iter().map(E164::to_string).collect()
    }

    /// Region, what a field holds, what is read, and why; one line each, which rustfmt would break.
    #[rustfmt::skip]
    const FIELDS: &[(&str, &str, &[&str], &str)] = &[
        ("RU", "8 (900) 000-00-01", &["+79000000001"], "as most cards have it"),
        ("RU", "+7 (916) 1234567", &["+79161234567"], "brackets and no dashes"),
        ("RU", "9161234567", &["+79161234567"], "no prefix at all"),
        ("RU", "'+79000000001", &["+79000000001"], "left over from a table import"),
        ("RU", "+ 7 916 123 45 67", &["+79161234567"], "a plus that stands apart"),
        ("RU", "+8 916 123-45-67", &["+79161234567"], "a plus before the trunk prefix"),
        ("RU", "+8 495 123-45-67", &["+74951234567"], "Moscow, although +84 is Vietnam"),
        ("RU", "+84912345678", &["+84912345678"], "Vietnam, when nothing says otherwise"),
        ("RU", "8 (812) 000-00-01 доб. 123", &["+78120000001"], "an extension in words"),
        ("RU", "8(812)000-00-01 123", &["+78120000001"], "an extension behind a blank"),
        ("RU", "8 (812) 000-00-01 (123)", &["+78120000001"], "an extension in brackets"),
        ("RU", "8 (812) 000-00-01,,123", &["+78120000001"], "an extension that is dialled"),
        ("RU", "8 (812) 000-00-01 добавочный номер 12", &["+78120000001"], "two words"),
        ("RU", "8 (812) 000-00-01 вн.тел. 12", &["+78120000001"], "abbreviated"),
        ("RU", "8 916 123 45 67 8", &[], "one digit too many is no extension"),
        ("RU", "8 916 123 45 67 89", &[], "nor are two, grouped like the number"),
        ("RU", "+7 916 123-45-67;89161234568", &["+79161234567", "+79161234568"], "both"),
        ("RU", "89161234567 84951234567", &["+79161234567", "+74951234567"], "a blank"),
        ("RU", "9161234567/4951234567", &["+79161234567", "+74951234567"], "a slash"),
        ("RU", "89161234567и84951234567", &["+79161234567", "+74951234567"], "a word"),
        ("RU", "+79161234567+79161234568", &["+79161234567", "+79161234568"], "glued"),
        ("RU", "89161234567, 8 (916) 123-45-67", &["+79161234567"], "one number twice"),
        ("RU", "8 (495) 123-45-67/68/69", &["+74951234567"], "the last digits of more lines"),
        ("RU", "8 (495) 123-45-67 765-43-21", &["+74951234567"], "a line without its code"),
        ("RU", "495 123 45 67 8 916 123 45 67", &["+74951234567", "+79161234567"], "no Germany"),
        ("RU", "1) 8 916 123-45-67 2) 8 495 123-45-67", &["+79161234567", "+74951234567"], "list"),
        ("RU", "доп. 8 916 123-45-67", &["+79161234567"], "another phone, no extension"),
        ("RU", "Иван 8 916 123-45-67 Анна", &["+79161234567"], "names"),
        ("RU", "8 9О3 123-45-О7", &["+79031234507"], "letters for zeros"),
        ("RU", "8 916 12З-45-67", &[], "another letter stands for any digit"),
        ("RU", "ООО Ромашка, 8 916 123-45-67", &["+79161234567"], "a word of letters O"),
        ("RU", "375291234567", &["+375291234567"], "bare digits from abroad"),
        ("RU", "998 90 123-45-67", &["+998901234567"], "the same in groups"),
        ("RU", "8-10-375-29-123-45-67", &["+375291234567"], "as dialled from Russia"),
        ("RU", "0049 (0)30 12345678", &["+493012345678"], "as dialled from Europe"),
        ("RU", "011 1 212 555 1234", &["+12125551234"], "as dialled from America"),
        ("RU", "8 707 123 45 67", &["+77071234567"], "Kazakhstan shares +7"),
        ("KZ", "8 707 123 45 67", &["+77071234567"], "and reads it as its own"),
        ("BY", "8 029 123-45-67", &["+375291234567"], "8 0"),
        ("UA", "8 (067) 123 45 67", &["+380671234567"], "the prefix of old"),
        ("UZ", "8 (90) 123-45-67", &["+998901234567"], "the prefix of old, no zero"),
        ("UZ", "+998 (0) 90 123 45 67", &["+998901234567"], "a zero that is not dialled"),
        ("IT", "06 6982 1234", &["+390669821234"], "a zero that is"),
        ("US", "1-800-FLOWERS", &["+18003569377"], "letters as digits"),
        ("DE", "030 123456 Anna", &["+4930123456"], "letters as a name"),
        ("RU", "123-45-67", &[], "no city code"),
        ("RU", "доб. 12", &[], "an extension alone"),
        ("RU", "ИНН 9102345678", &[], "a tax number that looks like a mobile"),
        ("RU", "ИНН 7707083893 тел 8 916 123-45-67", &["+79161234567"], "and a phone"),
        ("RU", "договор 89161234567 от 12.03.2020", &[], "a contract and a date"),
        ("RU", "договор +7 916 123-45-67", &["+79161234567"], "a plus is always a phone"),
        ("RU", "тел. № 8 916 123-45-67", &["+79161234567"], "a phone's number"),
        ("RU", "9 161 234 567 руб.", &[], "money"),
        ("RU", "89161234567 5000 руб", &["+79161234567"], "a phone and money"),
        ("DE", "12.03.2020", &[], "a date"),
        ("RU", "sip:79161234567@10.0.0.1:5060;user=phone", &["+79161234567"], "a SIP URI"),
        ("RU", "ivan1985@example.ru 8 916 123-45-67", &["+79161234567"], "a mail address"),
        ("RU", "tel:1234567;phone-context=+7495", &["+74951234567"], "RFC 3966"),
        ("RU", ";phone-context=+7;tel:1234567", &[], "the library would panic"),
        ("RU", "нет", &[], "no"),
        ("RU", "", &[], "empty"),
    ];

    #[test]
    fn fields_hold_what_people_write() {
        for (code, written, expected, why) in FIELDS {
            assert_eq!(
                texts(&read_field(written, region(code))),
                *expected,
                "{written:?}: {why}"
            );
        }
    }

    #[test]
    fn callers_are_read_as_asterisk_hands_them_over() {
        let number = |digits: u64| CallerNumber::Number(E164::from_digits(digits).unwrap());
        let short = |digits: &str| CallerNumber::Short(digits.to_owned());
        let table = [
            (
                "79161234567",
                number(79_161_234_567),
                "as most trunks send it",
            ),
            ("+79161234567", number(79_161_234_567), "with the plus"),
            (
                " 79161234567",
                number(79_161_234_567),
                "a form decoder took the plus away",
            ),
            (
                " 375291234567",
                number(375_291_234_567),
                "the same from abroad",
            ),
            (
                " 4951234567",
                number(4_951_234_567),
                "a plus was here: Germany, not Moscow",
            ),
            (
                "4951234567",
                number(74_951_234_567),
                "no plus was here: Moscow",
            ),
            ("89161234567", number(79_161_234_567), "the trunk prefix"),
            ("9161234567", number(79_161_234_567), "the national number"),
            ("0079161234567", number(79_161_234_567), "00"),
            ("81079161234567", number(79_161_234_567), "810"),
            (
                "375291234567",
                number(375_291_234_567),
                "bare international digits",
            ),
            (
                "8613812345678",
                number(8_613_812_345_678),
                "China, although it begins with 8",
            ),
            ("sip:+79161234567@10.0.0.1", number(79_161_234_567), "a URI"),
            ("٧٩١٦١٢٣٤٥٦٧", number(79_161_234_567), "Arabic digits"),
            ("101", short("101"), "a colleague"),
            (" 101", short("101"), "with a blank"),
            ("sip:101@10.0.0.1", short("101"), "in a URI"),
            ("１０１", short("101"), "full-width"),
            ("1", CallerNumber::Unreadable, "one digit"),
            ("1234567", CallerNumber::Unreadable, "no city code"),
            ("anonymous", CallerNumber::Unreadable, "withheld"),
            ("", CallerNumber::Unreadable, "empty"),
            ("${EXTEN}", CallerNumber::Unreadable, "hostile"),
            (
                "99999999999999999999999999",
                CallerNumber::Unreadable,
                "more digits than any number",
            ),
        ];
        for (written, expected, why) in table {
            assert_eq!(
                read_caller(written, Region::default()),
                expected,
                "{written:?}: {why}"
            );
        }
    }

    #[test]
    fn numbers_come_apart_into_country_and_national_number() {
        let table = [
            (79_161_234_567, 7, "9161234567", "+7916***4567"),
            (375_291_234_567, 375, "291234567", "+3752***67"),
            (12_125_551_234, 1, "2125551234", "+1212***1234"),
            (390_669_821_234, 39, "0669821234", "+39066***1234"),
            (376_312_345, 376, "312345", "+3763***45"),
        ];
        for (digits, code, national, masked) in table {
            let number = E164::from_digits(digits).unwrap();
            assert_eq!(number.digits(), digits);
            assert_eq!(number.country_code(), code, "{number}");
            assert_eq!(number.national(), national, "{number}");
            assert_eq!(number.masked(), masked, "{number}");
        }
        assert_eq!(E164::from_digits(0), None);
        assert_eq!(E164::from_digits(u64::MAX), None);
    }

    #[test]
    fn country_codes_agree_with_the_library() {
        for plan in PHONE_NUMBER_UTIL.get_supported_regions() {
            let code = PHONE_NUMBER_UTIL.get_country_code_for_region(plan).unwrap();
            let digits = format!("{code}123456789").parse().unwrap();
            let number = E164::from_digits(digits).unwrap();
            assert_eq!(i32::from(number.country_code()), code, "{plan}");
        }
    }

    #[test]
    fn numbers_are_shown_and_serialised_with_a_plus() {
        let number = E164::from_digits(79_161_234_567).unwrap();
        assert_eq!(number.to_string(), "+79161234567");
        assert_eq!(format!("{number:?}"), "+79161234567");
        assert_eq!(serde_json::to_string(&number).unwrap(), "\"+79161234567\"");
    }

    #[test]
    fn a_region_is_a_country_with_a_numbering_plan() {
        assert_eq!(Region::default().to_string(), "RU");
        assert_eq!(
            serde_json::from_str::<Region>("\"KZ\"").unwrap(),
            region("KZ")
        );
        assert_eq!(serde_json::to_string(&region("KZ")).unwrap(), "\"KZ\"");
        for unknown in ["", "R", "RUS", "ZZ", "001", "ру"] {
            let error = Region::try_from(unknown.to_owned()).unwrap_err();
            assert!(
                error.to_string().contains(&format!("`{unknown}`")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_long_text_is_cut_and_never_in_the_middle_of_a_number() {
        let number = "8 916 123-45-67, ";
        let full = number.repeat(100);
        assert_eq!(
            texts(&read_field(&full, Region::default())),
            ["+79161234567"]
        );
        for lead in 1000..1040 {
            let written = format!("{}+49301234567890", "a ".repeat(lead / 2));
            let numbers = texts(&read_field(&written, region("DE")));
            assert!(
                numbers.is_empty() || numbers == ["+49301234567890"],
                "{lead}: {numbers:?}"
            );
        }
    }

    /// Texts of the parts that real ones are made of, more apt to break something than random
    /// signs.
    fn composed() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            "[0-9]{1,12}",
            Just("+".to_owned()),
            Just("+7".to_owned()),
            Just("8".to_owned()),
            Just("89161234567".to_owned()),
            Just("tel:".to_owned()),
            Just("sip:".to_owned()),
            Just(PHONE_CONTEXT.to_owned()),
            Just(";ext=".to_owned()),
            Just(" доб. ".to_owned()),
            Just("ИНН ".to_owned()),
            Just("@".to_owned()),
            Just("О".to_owned()),
            Just("(0)".to_owned()),
            "[ ,;/()#*~x.+-]{1,2}",
            "\\PC{1,2}",
        ];
        proptest::collection::vec(part, 0..14).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(written in "\\PC*", code in "RU|UA|DE|US|UZ|IT") {
            let region = region(&code);
            google(&written, region);
            read_field(&written, region);
            read_caller(&written, region);
        }

        #[test]
        fn callers_and_fields_agree(written in composed(), code in "RU|BY|UA|DE|US|UZ|AM|IT") {
            // Only a caller's leading blank stands for a plus.
            let written = written.trim_start();
            let field = read_field(written, region(&code));
            let expected = field.first().copied();
            let caller = match read_caller(written, region(&code)) {
                CallerNumber::Number(number) => Some(number),
                CallerNumber::Short(digits) => {
                    prop_assert!(SHORT_DIGITS.contains(&digits.len()));
                    prop_assert!(digits.bytes().all(|digit| digit.is_ascii_digit()));
                    None
                }
                CallerNumber::Unreadable => None,
            };
            prop_assert_eq!(caller, expected);
        }

        #[test]
        fn normalising_twice_changes_nothing(
            written in composed(),
            code in "RU|BY|UA|DE|US|UZ|AM|IT",
        ) {
            let region = region(&code);
            for number in read_field(&written, region) {
                let shown = number.to_string();
                prop_assert_eq!(read_field(&shown, region), vec![number]);
                prop_assert_eq!(read_caller(&shown, region), CallerNumber::Number(number));
                prop_assert_eq!(E164::from_digits(number.digits()), Some(number));
            }
        }

        #[test]
        fn plain_digits_take_the_short_way_to_the_same_answer(
            digits in "[+]?[0-9]{1,20}",
            code in "RU|BY|UA|DE|US|UZ|AM|IT",
        ) {
            let region = region(&code);
            prop_assert_eq!(read_field(&digits, region), read(&digits, region));
        }
    }
}
