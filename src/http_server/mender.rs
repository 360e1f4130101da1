//! Request lines that Asterisk wrote raw, made legal.
//!
//! The page's dialplan puts the caller's number into the address as it is: Asterisk 16 sends spaces,
//! both versions send UTF-8 bytes, quotes and braces. An HTTP parser would answer 400; here such
//! bytes are percent-encoded before it sees them. A head that needs no mending is not copied.

use memchr::memmem;
use tokio::io::ReadBuf;

use super::LONGEST_HEAD;

/// Heads on their way from the wire to the reader.
#[derive(Default)]
pub(super) struct Mender {
    /// A head that has not arrived whole.
    partial: Vec<u8>,
    /// Mended bytes that the reader has not taken yet.
    ready: Vec<u8>,
    taken: usize,
    /// Behind a request with a body the heads cannot be told apart any more: nothing is mended.
    opaque: bool,
}

impl Mender {
    /// Says whether what has arrived may go to the reader as it is.
    pub(super) fn passes(&self, arrived: &[u8]) -> bool {
        self.opaque || (self.partial.is_empty() && is_legal(arrived))
    }

    /// Takes what has arrived; puts into `ready` what the reader may see.
    pub(super) fn mend(&mut self, arrived: &[u8]) {
        self.partial.extend_from_slice(arrived);
        while !self.opaque {
            let Some(end) = memmem::find(&self.partial, b"\r\n\r\n").map(|at| at + 4) else {
                break;
            };
            let head: Vec<u8> = self.partial.drain(..end).collect();
            self.opaque = has_body(&head);
            match mend_head(&head) {
                Some(mended) => self.ready.extend_from_slice(&mended),
                None => self.ready.extend_from_slice(&head),
            }
        }
        if self.opaque || self.partial.len() > LONGEST_HEAD {
            self.opaque = true;
            self.ready.append(&mut self.partial);
        }
    }

    /// Gives the reader as much as it has room for; says whether there was anything.
    pub(super) fn hand_out(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        if self.ready.is_empty() {
            return false;
        }
        let waiting = self.ready.get(self.taken..).unwrap_or_default();
        let count = waiting.len().min(buffer.remaining());
        buffer.put_slice(waiting.get(..count).unwrap_or_default());
        self.taken += count;
        if self.taken >= self.ready.len() {
            self.ready.clear();
            self.taken = 0;
        }
        true
    }
}

/// Says whether this is exactly one whole head without a body and with a legal request line.
fn is_legal(bytes: &[u8]) -> bool {
    memmem::find(bytes, b"\r\n\r\n") == Some(bytes.len().wrapping_sub(4))
        && bytes.starts_with(b"GET ")
        && mend_head(bytes).is_none()
        && !has_body(bytes)
}

fn has_body(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).any(|line_end| {
        let line = head.get(line_end + 1..).unwrap_or_default();
        let names: &[&[u8]] = match line.first() {
            Some(b'c' | b'C') => &[b"content-length:"],
            Some(b't' | b'T') => &[b"transfer-encoding:"],
            _ => &[],
        };
        names.iter().any(|name| {
            line.get(..name.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(name))
        })
    })
}

/// Percent-encodes what may not stand in a request's address; `None` if all of it may.
pub(super) fn mend_head(head: &[u8]) -> Option<Vec<u8>> {
    let line_end = memchr::memchr(b'\n', head)?;
    let line = head.get(..line_end)?;
    let target_start = memchr::memchr(b' ', line)? + 1;
    let target_end = version_begins(line).filter(|end| *end >= target_start)?;
    let target = head.get(target_start..target_end)?;
    if target.iter().all(|byte| may_stand_in_an_address(*byte)) {
        return None;
    }
    let mut mended = Vec::with_capacity(head.len() + 64);
    mended.extend_from_slice(head.get(..target_start)?);
    for byte in target {
        if may_stand_in_an_address(*byte) {
            mended.push(*byte);
        } else {
            mended.extend_from_slice(percent_encoding::percent_encode_byte(*byte).as_bytes());
        }
    }
    mended.extend_from_slice(head.get(target_end..)?);
    Some(mended)
}

/// Where the blank before the version stands in a request line: nine bytes before its end in all but
/// broken ones.
fn version_begins(line: &[u8]) -> Option<usize> {
    const VERSION: &[u8] = b" HTTP/1.";
    let usual = line.len().checked_sub(VERSION.len() + "1\r".len())?;
    match line.get(usual..usual + VERSION.len()) {
        Some(VERSION) if line.ends_with(b"\r") => Some(usual),
        _ => memmem::rfind(line, VERSION),
    }
}

fn may_stand_in_an_address(byte: u8) -> bool {
    // `-._~` and the delimiters of RFC 3986 but for `#`, `[` and `]`.
    matches!(byte,
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'
        | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' | b'/' | b'?' | b'%')
}

/// Sends bytes through the mender, whole and in two parts.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(bytes: &[u8], parted_at: usize) {
    if bytes.len() > LONGEST_HEAD {
        // Beyond it, where the parts end decides what counts as a head without an end.
        return;
    }
    let mend = |parts: &[&[u8]]| {
        let mut mender = Mender::default();
        for part in parts {
            mender.mend(part);
        }
        (mender.ready, mender.partial)
    };
    let (ready, rest) = mend(&[bytes]);
    let (before, behind) = bytes.split_at(parted_at.min(bytes.len()));
    assert_eq!(mend(&[before, behind]), (ready.clone(), rest.clone()));
    assert_eq!(mend(&[&ready]).0, ready, "what is mended needs no mending");
    let heads = |bytes| memmem::find_iter(bytes, b"\r\n\r\n").count();
    assert_eq!(
        heads(&ready) + heads(&rest),
        heads(bytes),
        "heads are none less and none more"
    );
    if Mender::default().passes(bytes) {
        assert_eq!((ready.as_slice(), rest.as_slice()), (bytes, &[][..]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_bytes_in_the_address_are_encoded_and_the_rest_stays() {
        for (line, expected) in [
            ("GET /forward?phone=+79161234567&trunk=s", None),
            (
                "GET /forward?phone=7916 sp&trunk=s",
                Some("GET /forward?phone=7916%20sp&trunk=s"),
            ),
            (
                "GET /forward?phone=\"{x}|^`<>\\#",
                Some("GET /forward?phone=%22%7Bx%7D%7C%5E%60%3C%3E%5C%23"),
            ),
            ("GET /forward?phone=Р", Some("GET /forward?phone=%D0%A0")),
            ("GET /forward?phone=7916%&trunk=s", None),
            (
                "GET /forward?phone= HTTP/1.1 x",
                Some("GET /forward?phone=%20HTTP/1.1%20x"),
            ),
        ] {
            let head = format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n");
            let mended = mend_head(head.as_bytes()).map(|head| String::from_utf8(head).unwrap());
            let expected = expected.map(|line| format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n"));
            assert_eq!(mended, expected, "{line}");
        }
    }

    #[test]
    fn a_body_is_noticed() {
        assert!(has_body(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n"));
        assert!(has_body(
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
        ));
        assert!(!has_body(
            b"GET /content-length: HTTP/1.1\r\nHost: x\r\n\r\n"
        ));
    }
}
