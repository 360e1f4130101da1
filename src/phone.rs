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

mod runs;
mod text;

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use self::text::{clean, cut, read};
use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumber, Region as Plan};
use serde::{Deserialize, Serialize, Serializer};

/// Characters that Google's library reads at most (`_MAX_INPUT_STRING_LENGTH`); longer text is no
/// number.
const LONGEST_FOR_GOOGLE_CHARS: usize = 250;
/// Digits of the shortest text that can be a subscriber's number; fewer are an extension, a flat, a
/// year.
const FEWEST_DIGITS: usize = 7;
/// Digits of the longest written form: a German number of 17 behind `810`.
const MOST_DIGITS: usize = 20;
/// Digits of the longest number that is kept. E.164 says 15, the German plan has numbers of 17.
const MOST_E164_DIGITS: u32 = 17;
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
            .get(self.country_code_digits() as usize..)
            .unwrap_or_default()
            .to_owned()
    }

    /// Gives the country calling code: 7 for Russia and Kazakhstan, 375 for Belarus.
    pub fn country_code(self) -> u16 {
        let national = self.count() - self.country_code_digits();
        u16::try_from(self.digits() / 10u64.pow(national)).unwrap_or(0)
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

    /// Says whether these digits are the national significant number.
    fn is_national(self, digits: &str) -> bool {
        let count = self.count() - self.country_code_digits();
        digits.len() == count as usize && digits.parse() == Ok(self.digits() % 10u64.pow(count))
    }

    /// Says whether the number is still itself when it is read as it is shown.
    ///
    /// Google's plans know some that are not: behind 375 an 8 is taken for the trunk prefix of Belarus,
    /// so its numbers for which the caller pays, 810, cannot be written with a plus. Nobody calls from
    /// there, and what goes back to a CRM would name somebody else or nobody.
    fn is_itself(self, region: Region) -> bool {
        google(&self.to_string(), region) == Some(self)
    }

    /// Counts the digits.
    fn count(self) -> u32 {
        self.0.ilog10() + 1
    }

    /// Counts the digits of the country code: E.164 codes are free of common prefixes.
    fn country_code_digits(self) -> u32 {
        let first_two = match self.count() {
            1 => 0,
            count => self.digits() / 10u64.pow(count - 2),
        };
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
        count.min(self.count())
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
        return match read_plain(digits, plus, region) {
            Some(number) => CallerNumber::Number(number),
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
        return read_plain(digits, plus, region).into_iter().collect();
    }
    read(written, region)
}

/// Reads one number by the rules of Google's library alone: parsed for the region, and valid.
///
/// This is the first step for every candidate; the corpus in `tests/phones` holds it to Google's
/// answers.
pub fn google(written: &str, region: Region) -> Option<E164> {
    let digits = written.strip_prefix('+');
    russian_mobile(digits.is_some(), digits.unwrap_or(written), region)
        .or_else(|| ask_google(written, region))
}

/// The same of digits behind a plus.
fn google_international(digits: &str, region: Region) -> Option<E164> {
    russian_mobile(true, digits, region).or_else(|| ask_google(&format!("+{digits}"), region))
}

/// Reads the commonest callers without asking the library, which takes a fifth of a whole answer:
/// behind +7 a number of ten digits that begins with a 9 is a Russian mobile one.
///
/// All of 9 is in use but for parts of 930, which are left to the library. A test holds it to what the
/// library says.
fn russian_mobile(plus: bool, digits: &str, region: Region) -> Option<E164> {
    let national = match digits.len() {
        11 if plus => digits.strip_prefix('7')?,
        11 if region.0 == Plan::RU => digits.strip_prefix(['7', '8'])?,
        10 if !plus && region.0 == Plan::RU => digits,
        _ => return None,
    };
    let is_mobile = national.len() == 10
        && national.starts_with('9')
        && !national.starts_with("930")
        && national.bytes().all(|byte| byte.is_ascii_digit());
    let national: u64 = national.parse().ok().filter(|_| is_mobile)?;
    E164::from_digits(70_000_000_000 + national)
}

fn ask_google(written: &str, region: Region) -> Option<E164> {
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

/// Reads what [`plain_digits`] gives.
fn read_plain(digits: &str, plus: bool, region: Region) -> Option<E164> {
    let number = resolve(digits, plus, None, &[], region)?.number;
    // Behind a plus stands mostly the number itself; to read it a second time tells nothing.
    let is_read = plus && digits.parse() == Ok(number.digits());
    (is_read || number.is_itself(region)).then_some(number)
}

/// Reads ` 7916...` as `+7916...`: a form decoder turns a raw plus into a blank.
fn blank_as_plus(written: &str, region: Region) -> Option<E164> {
    let digits = written.strip_prefix(' ')?.trim();
    let (plus, digits) = plain_digits(digits)?;
    if plus || digits.len() < FEWEST_DIGITS {
        return None;
    }
    google_international(digits, region).filter(|number| number.is_itself(region))
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
    if let Some(number) = google_international(digits, region) {
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
    let form = if number.is_national(digits) {
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
        .find_map(|rest| google_international(rest, region))
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
    let number = google_international(digits, region)?;
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

/// Reads a text as a caller's number and as a field's, and one of them again as it is written out.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(text: &str, region: Region) {
    assert_eq!(
        google(text, region),
        ask_google(text, region),
        "the short way"
    );
    let field = read_field(text, region);
    for (place, number) in field.iter().enumerate() {
        assert!(!field.iter().take(place).any(|before| before == number));
    }
    match read_caller(text, region) {
        CallerNumber::Number(number) => {
            assert_eq!(E164::from_digits(number.digits()), Some(number));
            let again = read_caller(&number.to_string(), region);
            assert_eq!(again, CallerNumber::Number(number), "written out");
        }
        CallerNumber::Short(digits) => {
            assert!(SHORT_DIGITS.contains(&digits.len()), "{digits}");
            assert!(digits.bytes().all(|byte| byte.is_ascii_digit()), "{digits}");
        }
        CallerNumber::Unreadable => {}
    }
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

    #[test]
    fn russian_mobile_numbers_are_read_as_the_library_reads_them() {
        for head in 900_000..=999_999_u64 {
            let national = format!("{head}{:04}", head * 7919 % 10_000);
            let forms = [("+7", "US"), ("7", "RU"), ("8", "RU"), ("", "RU")];
            // The library finds the country code first: one form of each is enough, all of some.
            let count = if head.is_multiple_of(10) {
                forms.len()
            } else {
                1
            };
            for (prefix, code) in &forms[..count] {
                let written = format!("{prefix}{national}");
                let digits = written.trim_start_matches('+');
                let read = russian_mobile(digits != written, digits, region(code));
                assert_eq!(read.is_some(), !national.starts_with("930"), "{written}");
                if read.is_some() {
                    assert_eq!(read, ask_google(&written, region(code)), "{written}");
                }
            }
        }
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
        ("BY", "8 810 765-43-21", &[], "+375810 would be read as nobody's"),
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
        fn what_looks_like_a_russian_mobile_number_is_read_as_the_library_reads_it(
            written in "[+ ]{0,1}[78]{0,2}9?[0-9]{8,11}",
            code in prop::sample::select(vec!["RU", "KZ", "BY", "UA", "DE", "US"]),
        ) {
            prop_assert_eq!(google(&written, region(code)), ask_google(&written, region(code)));
        }

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
