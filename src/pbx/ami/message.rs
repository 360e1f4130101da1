//! Messages of the Manager Interface: lines `Key: Value`, an empty line behind them.
//!
//! Facts: Asterisk's `manager.c`. What does not look so is left out; nothing in it makes reading fail
//! but too much of it.

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

/// The longest line; Asterisk's own channel variables are shorter.
const LONGEST_LINE: u64 = 16 * 1024;
/// The most lines of one message.
const MOST_LINES: usize = 512;

/// A response or an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Message(Vec<(String, String)>);

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The connection has ended or failed.
    #[error("the connection was lost")]
    Lost(#[source] std::io::Error),
    /// What comes is not from a Manager Interface.
    #[error("what answers is no Manager Interface: a line or message without end")]
    TooMuch,
}

impl Message {
    /// The value of a key, the first of several; empty where there is none.
    pub(super) fn get(&self, key: &str) -> &str {
        let mut lines = self.0.iter();
        let found = lines.find(|(known, _)| known.eq_ignore_ascii_case(key));
        found.map_or("", |(_, value)| value.as_str())
    }

    /// Says whether it answers an action.
    pub(super) fn is_response(&self) -> bool {
        !self.get("Response").is_empty()
    }

    fn add(&mut self, line: &str) {
        if let Some((key, value)) = line.split_once(':') {
            self.0
                .push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }

    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        let mut message = Self::default();
        text.lines().for_each(|line| message.add(line));
        message
    }
}

/// Reads the next message.
pub(super) async fn read<R: AsyncBufRead + Unpin>(source: &mut R) -> Result<Message, ReadError> {
    let mut message = Message::default();
    for _ in 0..MOST_LINES {
        let line = read_line(source).await?;
        match line.trim_end() {
            // Before the first line of a message an empty one is the end of something left out.
            "" if message.0.is_empty() => {}
            "" => return Ok(message),
            text => message.add(text),
        }
    }
    Err(ReadError::TooMuch)
}

/// Reads a line, such as the banner that Asterisk begins with.
pub(super) async fn read_line<R: AsyncBufRead + Unpin>(
    source: &mut R,
) -> Result<String, ReadError> {
    let mut line = Vec::new();
    let mut bounded = source.take(LONGEST_LINE);
    let count = bounded.read_until(b'\n', &mut line).await;
    let count = count.map_err(ReadError::Lost)?;
    if count == 0 {
        return Err(ReadError::Lost(std::io::ErrorKind::UnexpectedEof.into()));
    }
    if line.last() != Some(&b'\n') && count as u64 == LONGEST_LINE {
        return Err(ReadError::TooMuch);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// Writes an action. A value's line breaks would begin another line: they are taken out.
pub(super) fn action(name: &str, fields: &[(&str, &str)]) -> String {
    let mut text = format!("Action: {name}\r\n");
    for (key, value) in fields {
        let value: String = value
            .chars()
            .filter(|letter| !letter.is_control())
            .collect();
        text.extend([key, ": ", &value, "\r\n"]);
    }
    text + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(bytes: &[u8]) -> (Vec<Message>, ReadError) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut source = bytes;
            let mut messages = Vec::new();
            loop {
                match read(&mut source).await {
                    Ok(message) => messages.push(message),
                    Err(error) => return (messages, error),
                }
            }
        })
    }

    #[test]
    fn messages_are_parted_by_empty_lines() {
        let (messages, _) = read_all(
            b"Response: Success\r\nActionID: 1\r\n\r\n\r\nEvent: ExtensionStatus\r\nexten: 101\r\nno colon\r\nStatus:4\r\n\r\nEvent: cut",
        );
        assert_eq!(messages.len(), 2);
        assert!(messages[0].is_response() && !messages[1].is_response());
        assert_eq!(
            (messages[1].get("Exten"), messages[1].get("Status")),
            ("101", "4")
        );
        assert_eq!(messages[1].get("Missing"), "");
    }

    #[test]
    fn what_never_ends_is_refused() {
        let (_, error) = read_all(&vec![b'x'; 20_000]);
        assert!(matches!(error, ReadError::TooMuch));
        let (_, error) = read_all("a: b\r\n".repeat(1000).as_bytes());
        assert!(matches!(error, ReadError::TooMuch));
    }

    #[test]
    fn a_value_cannot_begin_another_line() {
        let text = action("Login", &[("Secret", "x\r\nAction: Originate\r\n\r\n")]);
        assert_eq!(text, "Action: Login\r\nSecret: xAction: Originate\r\n\r\n");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_fail_otherwise(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let _ = read_all(&bytes);
        }
    }
}
