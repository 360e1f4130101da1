//! The lists of hostile texts beside this file: their escapes, and which of a text's bytes are safe
//! to show.

use unicode_segmentation::UnicodeSegmentation as _;

/// The client whose number `\k` stands for.
pub const KNOWN: &str = "79161230001";
/// FreePBX cuts names here, so pryamo does before.
const LONGEST_NAME: usize = 40;
/// Accents that a letter may carry in any language written with them, in one grapheme.
const MOST_MARKS: usize = 3;

/// A line of a list.
#[derive(Debug, Clone)]
pub struct Hostile {
    /// As it stands in the list, for whoever reads of a failure.
    pub line: &'static str,
    pub bytes: Vec<u8>,
}

impl Hostile {
    /// What a CRM can hold of it: bytes that are no UTF-8 become the letters of Latin-1, control
    /// characters among them.
    pub fn text(&self) -> String {
        let text = String::from_utf8(self.bytes.clone());
        text.unwrap_or_else(|error| error.into_bytes().into_iter().map(char::from).collect())
    }

    /// Every byte but letters and digits percent-encoded: it arrives as it is, by whatever takes an
    /// address, SIP's as well as HTTP's.
    pub fn encoded(&self) -> String {
        percent_encoding::percent_encode(&self.bytes, percent_encoding::NON_ALPHANUMERIC)
            .to_string()
    }

    /// Says whether it is a number with something around it, and so may well be read as one.
    pub fn holds_the_known_number(&self) -> bool {
        self.line.contains("\\k")
    }
}

/// All texts.
pub fn texts() -> Vec<Hostile> {
    let lines = include_str!("texts.txt").lines();
    lines.filter(is_entry).map(read).collect()
}

/// What stands in the employees' field for the extension, and which extension it may be.
pub fn extensions() -> Vec<(Hostile, Option<&'static str>)> {
    let lines = include_str!("extensions.txt").lines();
    let entries = lines.filter(is_entry);
    entries
        .map(|line| match line.split_once(" => ") {
            Some((written, allowed)) => (read(written), Some(allowed)),
            None => (read(line), None),
        })
        .collect()
}

fn is_entry(line: &&str) -> bool {
    !line.is_empty() && !line.starts_with("## ")
}

fn read(line: &'static str) -> Hostile {
    let mut bytes = Vec::new();
    unescape(line, &mut bytes);
    Hostile { line, bytes }
}

fn unescape(written: &str, bytes: &mut Vec<u8>) {
    let mut rest = written;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let sign = escape.chars().next().unwrap();
        rest = &escape[sign.len_utf8()..];
        match sign {
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(0x0b),
            'f' => bytes.push(0x0c),
            '0' => bytes.push(0),
            '\\' => bytes.push(b'\\'),
            'k' => bytes.extend_from_slice(KNOWN.as_bytes()),
            'x' => {
                bytes.push(u8::from_str_radix(&rest[..2], 16).unwrap());
                rest = &rest[2..];
            }
            'u' => {
                let (code, behind) = rest[1..].split_once('}').unwrap();
                let letter = char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap();
                bytes.extend_from_slice(letter.to_string().as_bytes());
                rest = behind;
            }
            '{' => {
                let end = closing(rest);
                let (count, repeated) = rest[..end].split_once('*').unwrap();
                for _ in 0..count.parse().unwrap() {
                    unescape(repeated, bytes);
                }
                rest = &rest[end + 1..];
            }
            other => panic!("\\{other} is no escape: {written}"),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
}

/// Where the brace is that ends a repetition: what is repeated may have braces of its own.
fn closing(text: &str) -> usize {
    let mut depth = 1;
    let ends = |(at, sign)| {
        depth += match sign {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        (depth == 0).then_some(at)
    };
    text.char_indices().find_map(ends).unwrap()
}

/// What is wrong with a name that is shown on a phone and stands in a SIP header.
///
/// Written anew here and not taken from the code under test: categories of Unicode by their ranges.
pub fn fault_of_name(name: &str) -> Option<String> {
    if name.len() > LONGEST_NAME {
        return Some(format!("{} bytes", name.len()));
    }
    if let Some(letter) = name.chars().find(|letter| is_unfit(*letter)) {
        return Some(format!("U+{:04X}", u32::from(letter)));
    }
    if name.contains('"') {
        return Some("a quote".to_owned());
    }
    if name.trim() != name || name.contains("  ") {
        return Some("needless blanks".to_owned());
    }
    for grapheme in name.graphemes(true) {
        let is_mark = |letter: &char| unicode_normalization::char::is_combining_mark(*letter);
        if grapheme.chars().filter(is_mark).count() > MOST_MARKS {
            return Some(format!("{grapheme:?} has too many accents"));
        }
    }
    let mut open = Vec::new();
    for letter in name.chars() {
        let is_right = match letter {
            '(' | '[' | '{' => {
                open.push(letter);
                true
            }
            ')' => open.pop() == Some('('),
            ']' => open.pop() == Some('['),
            '}' => open.pop() == Some('{'),
            _ => true,
        };
        if !is_right {
            return Some("brackets that do not pair".to_owned());
        }
    }
    (!open.is_empty()).then(|| "an open bracket".to_owned())
}

/// Control characters (Cc), most of format (Cf: all but the joiners that emoji and Persian need),
/// separators (Zl, Zp), what is for private use (Co) or no letter at all, and letters that look like
/// nothing.
fn is_unfit(letter: char) -> bool {
    let code = u32::from(letter);
    letter.is_control()
        || matches!(
            code,
            0xad | 0x34f
                | 0x600..=0x605
                | 0x61c
                | 0x6dd
                | 0x70f
                | 0x8e2
                | 0x115f..=0x1160
                | 0x180b..=0x180f
                | 0x200b
                | 0x200e..=0x200f
                | 0x2028..=0x202e
                | 0x2060..=0x206f
                | 0x2800
                | 0x3164
                | 0xd800..=0xf8ff
                | 0xfdd0..=0xfdef
                | 0xfeff
                | 0xffa0
                | 0xfff0..=0xffff
                | 0xe0000..
        )
        || code & 0xfffe == 0xfffe
}

#[test]
fn the_list_is_long_and_read_as_written() {
    let texts = texts();
    assert!(texts.len() >= 400, "{} texts", texts.len());
    assert!(extensions().len() >= 100);
    let mut seen = std::collections::BTreeSet::new();
    for text in &texts {
        assert!(seen.insert(text.bytes.clone()), "twice: {}", text.line);
    }
    for (written, expected) in [
        ("A\\0\\x1b\\r\\n", b"A\0\x1b\r\n".to_vec()),
        ("\\k,\\u{202e}", b"79161230001,\xe2\x80\xae".to_vec()),
        ("\\\\n", b"\\n".to_vec()),
        ("\\{3*a\\{2*\\x41}}b", b"aAAaAAaAAb".to_vec()),
        ("{x}", b"{x}".to_vec()),
    ] {
        let mut bytes = Vec::new();
        unescape(written, &mut bytes);
        assert_eq!(bytes, expected, "{written}");
    }
}

#[test]
fn what_is_unfit_for_a_phone_is_told() {
    for name in [
        "",
        "Иван Петров",
        "ООО «Ромашка» (Самара)",
        "A😀",
        "Né",
        "👩‍👩‍👧‍👦",
    ] {
        assert_eq!(fault_of_name(name), None, "{name}");
    }
    for name in [
        "A\nB",
        "A\u{9b}B",
        "\u{202e}A",
        "A(",
        "A)(",
        "A\"",
        " A",
        "A\u{301}\u{301}\u{301}\u{301}\u{301}",
        "\u{e0041}",
        "\u{1ffff}",
        "ЖЖЖЖЖЖЖЖЖЖЖЖЖЖЖЖЖЖЖЖЖ",
    ] {
        assert!(fault_of_name(name).is_some(), "{name:?}");
    }
}
