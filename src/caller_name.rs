//! The caller's name made safe to show: on a phone, in a SIP header, in a dialplan's `HASH()`.
//!
//! Asterisk splits the answer with its argument parser, which drops quotes, honours brackets and
//! keeps line breaks; FreePBX cuts the name after 40 bytes, in the middle of a letter if need be.
//! So what would do harm is taken out here. Sources: `func_strings.c` of Asterisk 16 and 22,
//! FreePBX's macro-user-callerid.

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_segmentation::UnicodeSegmentation;

/// Accents behind one letter that are shown.
const MOST_ACCENTS: u32 = 3;

/// How names are shown.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What to show; `{name}` and `{company}` are filled in. Default: `{name}`.
    pub template: String,
    /// Longest name in bytes of UTF-8 (a Cyrillic letter has two). Default: 40.
    pub bytes: usize,
    /// Whether Cyrillic and other letters are written in Latin ones. Default: false.
    pub transliterate: bool,
}

impl Settings {
    /// FreePBX cuts here.
    pub const BYTES: usize = 40;
    /// The entity's own name.
    pub const TEMPLATE: &'static str = "{name}";
    /// A longer name would not fit the answer, which stays below 1 KiB when percent-encoded.
    pub const MOST_BYTES: usize = 240;
    /// The options with their defaults, for the example configuration.
    pub const EXAMPLE: &'static str = "\
# [name]
# template = \"{name}\"            # {name} and {company} are filled in
# bytes = 40                     # FreePBX cuts names here; at most 240
# transliterate = false          # true: «Иванов» is shown as \"Ivanov\"
";
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            template: Self::TEMPLATE.to_owned(),
            bytes: Self::BYTES,
            transliterate: false,
        }
    }
}

/// Gives the name to show for an entity with this name and company; empty if nothing is left.
pub fn show(name: &str, company: Option<&str>, settings: &Settings) -> String {
    let is_as_written = settings.template == Settings::TEMPLATE && !settings.transliterate;
    if is_as_written && name.len() <= settings.bytes.min(Settings::MOST_BYTES) && is_plain(name) {
        return name.to_owned();
    }
    let filled = fill(&settings.template, name, company.unwrap_or_default());
    let filled = if filled.trim().is_empty() {
        company.unwrap_or_default().to_owned()
    } else {
        filled
    };
    let written = if settings.transliterate {
        deunicode::deunicode(&filled)
    } else {
        filled
    };
    let safe: String = written.chars().map(harmless).collect();
    // What is dropped here may leave accents behind that stood on it.
    let paired = pair_up(&quote(&safe));
    let tidy = squeeze(few_accents(paired.nfc()));
    let short = cut(&tidy, settings.bytes.min(Settings::MOST_BYTES));
    squeeze(few_accents(pair_up(short).chars()))
}

/// Says whether a name is words of Latin or Russian letters with single blanks between, as most
/// are: nothing below would change it.
fn is_plain(name: &str) -> bool {
    let is_word = |word: &str| {
        let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, 'А'..='я' | 'ё' | 'Ё');
        !word.is_empty()
            && word
                .chars()
                .all(|c| is_letter(c) || matches!(c, '-' | '.' | ','))
    };
    name.split(' ').all(is_word)
}

fn fill(template: &str, name: &str, company: &str) -> String {
    let mut filled = String::with_capacity(template.len() + name.len() + company.len());
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        let (before, tail) = rest.split_at(at);
        filled.push_str(before);
        let field = [("{name}", name), ("{company}", company)]
            .into_iter()
            .find_map(|(key, value)| tail.strip_prefix(key).map(|behind| (value, behind)));
        if let Some((value, behind)) = field {
            filled.push_str(value);
            rest = behind;
        } else {
            filled.push('{');
            rest = tail.get(1..).unwrap_or_default();
        }
    }
    filled.push_str(rest);
    filled
}

/// Control characters, line separators, direction marks, letters that show nothing or that each font
/// shows as it likes become blanks. The joiners U+200C and U+200D stay: Persian and emoji need them.
fn harmless(letter: char) -> char {
    let is_harmful = letter.is_control()
        // Soft hyphen, joiners that change nothing, fillers.
        || matches!(letter, '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}')
        || matches!(letter, '\u{180b}'..='\u{180f}' | '\u{2800}')
        // Directions, separators, invisible operators.
        || matches!(letter, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}')
        || matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        // Signs before Arabic and Syriac numbers, which no name has.
        || matches!(letter, '\u{600}'..='\u{605}' | '\u{6dd}' | '\u{70f}' | '\u{8e2}')
        // Private use, no letters at all, byte order marks, annotations, tags.
        || matches!(letter, '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}' | '\u{feff}')
        || matches!(letter, '\u{fff0}'..='\u{ffff}' | '\u{e0000}'..)
        || u32::from(letter) & 0xfffe == 0xfffe;
    if is_harmful { ' ' } else { letter }
}

/// Drops accents and joiners that stand behind no letter, and those beyond what any language puts on
/// one: a heap of them covers the lines above and below.
fn few_accents(letters: impl Iterator<Item = char>) -> impl Iterator<Item = char> {
    let mut room: u32 = 0;
    letters.filter(move |letter| {
        let is_accent = is_combining_mark(*letter) || matches!(letter, '\u{200c}' | '\u{200d}');
        if is_accent {
            let fits = room > 0;
            room = room.saturating_sub(1);
            return fits;
        }
        room = if letter.is_whitespace() {
            0
        } else {
            MOST_ACCENTS
        };
        true
    })
}

fn squeeze(letters: impl Iterator<Item = char>) -> String {
    let mut tidy = String::new();
    for letter in letters {
        let is_blank = letter.is_whitespace();
        if !is_blank {
            tidy.push(letter);
        } else if !tidy.is_empty() && !tidy.ends_with(' ') {
            tidy.push(' ');
        }
    }
    tidy.truncate(tidy.trim_end().len());
    tidy
}

/// Straight quotes become « and » by turns; one without a partner is dropped.
fn quote(text: &str) -> String {
    let mut left = text.matches('"').count() / 2 * 2;
    let mut opens = true;
    let mut quoted = String::with_capacity(text.len() + 2);
    for letter in text.chars() {
        match letter {
            '"' if left == 0 => {}
            '"' => {
                quoted.push(if opens { '«' } else { '»' });
                opens = !opens;
                left -= 1;
            }
            other => quoted.push(other),
        }
    }
    quoted
}

/// Brackets and « » without a partner become blanks.
fn pair_up(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut alone = vec![false; letters.len()];
    let mut open: Vec<(usize, char)> = Vec::new();
    for (at, letter) in letters.iter().enumerate() {
        if let Some(closing) = partner(*letter) {
            open.push((at, closing));
        } else if matches!(letter, ')' | ']' | '}' | '»') {
            // What was opened inside and never closed is alone.
            match open.iter().rposition(|(_, closing)| closing == letter) {
                Some(depth) => {
                    mark(&mut alone, open.drain(depth..).skip(1));
                }
                None => mark(&mut alone, std::iter::once((at, *letter))),
            }
        }
    }
    mark(&mut alone, open.into_iter());
    letters
        .into_iter()
        .zip(alone)
        .map(|(letter, alone)| if alone { ' ' } else { letter })
        .collect()
}

fn mark(alone: &mut [bool], which: impl Iterator<Item = (usize, char)>) {
    for (at, _) in which {
        if let Some(flag) = alone.get_mut(at) {
            *flag = true;
        }
    }
}

fn partner(opening: char) -> Option<char> {
    match opening {
        '(' => Some(')'),
        '[' => Some(']'),
        '{' => Some('}'),
        '«' => Some('»'),
        _ => None,
    }
}

/// The longest beginning of at most `bytes` bytes that ends behind a whole letter.
fn cut(text: &str, bytes: usize) -> &str {
    let end = text
        .grapheme_indices(true)
        .map(|(at, letter)| at + letter.len())
        .take_while(|end| *end <= bytes)
        .last()
        .unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_to_show() {
        for (name, expected, why) in [
            (
                "ООО \"Ромашка\"",
                "ООО «Ромашка»",
                "straight quotes become typographic ones",
            ),
            ("A\"B", "AB", "a single quote would swallow the number"),
            ("\"A\" B\"", "«A» B", "the third quote has no partner"),
            ("A (B", "A B", "an open bracket would swallow the number"),
            ("A)(B", "A B", "brackets the wrong way round"),
            ("A (B, C)", "A (B, C)", "balanced brackets stay"),
            ("A [B (C] D)", "A [B C] D", "crossed brackets"),
            ("Пётр Ёлкин", "Пётр Ёлкин", "ё stays"),
            ("Пе\u{308}тр", "Пётр", "ё in two pieces becomes one"),
            (
                "a\r\nX-Evil: 1",
                "a X-Evil: 1",
                "a line break would break a SIP header",
            ),
            (
                "a\0b\u{7f}c\u{85}d\u{2028}e",
                "a b c d e",
                "control characters",
            ),
            ("  a \u{a0} b  ", "a b", "blanks are squeezed"),
            ("\u{202e}evil\u{61c}", "evil", "direction marks"),
            ("A\u{ad}\u{2060}B", "A B", "letters that show nothing"),
            ("A\u{e0042}\u{1ffff}", "A", "tags and no letters at all"),
            ("👩‍👩‍👧", "👩‍👩‍👧", "an emoji keeps its joiners"),
            (
                "Z\u{333}\u{333}\u{333}\u{333}\u{333}o",
                "Z\u{333}\u{333}\u{333}o",
                "a heap of accents",
            ),
            ("\u{301}\u{200d} A \u{301}", "A", "accents of nothing"),
            ("\"\u{333} A (\u{301}", "A", "accents of what is dropped"),
            ("", "", "nothing"),
        ] {
            assert_eq!(
                show(name, None, &Settings::default()),
                expected,
                "{name:?}: {why}"
            );
        }
    }

    #[test]
    fn a_long_name_is_cut_behind_a_letter_and_stays_balanced() {
        let settings = Settings::default();
        let cyrillic = show(&"Ж".repeat(30), None, &settings);
        assert_eq!(cyrillic, "Ж".repeat(20));
        let odd = show(&format!("a{}", "Ж".repeat(30)), None, &settings);
        assert_eq!(odd.len(), 39);
        let family = "👨‍👩‍👧".repeat(5);
        assert_eq!(show(&family, None, &settings), "👨‍👩‍👧".repeat(2));
        let open = show("Общество с огр отв (Ромашка и партнёры)", None, &settings);
        assert_eq!(open, "Общество с огр отв Ро");
    }

    #[test]
    fn a_template_puts_the_company_beside_the_name() {
        let settings = Settings {
            template: "{name} ({company})".to_owned(),
            bytes: 100,
            ..Settings::default()
        };
        assert_eq!(show("Анна", Some("Ромашка"), &settings), "Анна (Ромашка)");
        assert_eq!(
            show("{company}", Some("Ромашка"), &settings),
            "{company} (Ромашка)"
        );
        let plain = Settings::default();
        assert_eq!(show("", Some("Ромашка"), &plain), "Ромашка");
    }

    #[test]
    fn transliteration_writes_latin_letters() {
        let settings = Settings {
            transliterate: true,
            ..Settings::default()
        };
        assert_eq!(show("Иванов", None, &settings), "Ivanov");
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_name_the_result_is_short_balanced_and_printable(name in ".{0,80}") {
            let shown = show(&name, None, &Settings::default());
            assert!(shown.len() <= 40);
            assert!(!shown.contains('"') && !shown.chars().any(char::is_control));
            for pair in ["()", "[]"] {
                let count = |at| shown.matches(pair.chars().nth(at).unwrap()).count();
                assert_eq!(count(0), count(1), "{shown}");
            }
            assert_eq!(show(&shown, None, &Settings::default()), shown);
        }

        #[test]
        fn a_plain_name_takes_the_short_way_to_the_same_answer(
            name in "[A-Za-zА-Яа-яЁё0-9., -]{1,18}",
        ) {
            // An empty company behind it forces the long way.
            let long_way =
                Settings { template: "{name}{company}".to_owned(), ..Settings::default() };
            assert_eq!(
                show(&name, None, &Settings::default()),
                show(&name, None, &long_way)
            );
        }
    }
}
