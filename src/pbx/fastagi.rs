//! FastAGI: the same question as `/forward`, answered as variables of the channel.
//!
//! Asterisk waits for a FastAGI server without a limit of its own, so a conversation here ends within
//! [`BUDGET`] whatever happens. Facts: Asterisk's `res_agi.c`.

mod request;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::request::{Asked, Head, LONGEST_LINE, MOST_LINES};
use crate::caller_name;
use crate::decision::Decision;
use crate::pbx::forward;
use crate::reception::Reception;

/// FreePBX itself sits on 4573.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4574);
/// How long a conversation may take; the dialplan by CURL waits 3 s.
pub const BUDGET: Duration = Duration::from_millis(2500);
/// Conversations at once. A call holds one for as long as its question takes.
pub const MOST_CONNECTIONS: usize = 1024;
/// How long to wait when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// More lines than Asterisk answers a command with.
const MOST_REPLY_LINES: usize = 16;

/// `[fastagi]`: where Asterisk asks by `AGI(agi://...)`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Address and port; empty for none. Default: 127.0.0.1:4574.
    pub listen: Listen,
    /// Whether it listens at all. Default: true.
    pub enabled: bool,
    /// Who may ask besides this machine: addresses or networks. Default: nobody.
    #[serde(deserialize_with = "super::networks")]
    pub allow: Vec<IpNet>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Listen::Usual,
            enabled: true,
            allow: Vec::new(),
        }
    }
}

impl Settings {
    /// The options with their defaults, for the example configuration.
    pub const EXAMPLE: &'static str = "\
# [fastagi]
# listen = \"127.0.0.1:4574\"      # for AGI(agi://127.0.0.1:4574/forward); \"\" switches it off
# enabled = true
# allow = [\"10.0.0.5\"]           # who may ask besides this machine
";

    /// Where to listen; `None` if switched off.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.listen {
            _ if !self.enabled => None,
            Listen::Usual => Some(USUAL),
            Listen::At(address) => Some(address),
            Listen::Nowhere => None,
        }
    }

    /// Says whether somebody wrote the address down: then the daemon must have it.
    pub fn is_wanted(&self) -> bool {
        matches!(self.listen, Listen::At(_))
    }

    /// Refuses what cannot be meant.
    pub fn check(&self) -> Result<(), String> {
        match self.address() {
            Some(address) if !address.ip().is_loopback() && self.allow.is_empty() => Err(format!(
                "`fastagi.listen = \"{address}\"` can be reached from other machines: say who may \
                 ask, `fastagi.allow = [\"10.0.0.5\"]`"
            )),
            _ => Ok(()),
        }
    }

    fn permits(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        peer.is_loopback() || self.allow.iter().any(|net| net.contains(&peer))
    }
}

/// `fastagi.listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Nothing is written: the usual address, if nobody else has it.
    Usual,
    /// This one.
    At(SocketAddr),
    /// It is written empty.
    Nowhere,
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = String::deserialize(deserializer)?;
        if written.trim().is_empty() {
            return Ok(Self::Nowhere);
        }
        written.trim().parse().map(Self::At).map_err(|_| {
            serde::de::Error::custom(format!(
                "`listen` is \"{written}\"; write an address and a port, \"{USUAL}\", or nothing"
            ))
        })
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Usual => serializer.serialize_str(&USUAL.to_string()),
            Self::At(address) => serializer.serialize_str(&address.to_string()),
            Self::Nowhere => serializer.serialize_str(""),
        }
    }
}

/// What conversations need.
pub struct FastAgi {
    /// Takes the questions.
    pub reception: Arc<Reception>,
    /// How names are shown.
    pub names: caller_name::Settings,
    /// `[fastagi]`.
    pub settings: Settings,
}

impl FastAgi {
    /// Holds conversations until `stop`, each with what `current` gives at its beginning; those under
    /// way end within [`BUDGET`].
    pub async fn serve(
        current: impl Fn() -> Arc<Self>,
        listener: TcpListener,
        stop: CancellationToken,
    ) {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let conversations = tokio_util::task::TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a FastAGI connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let agi = current();
            if !agi.settings.permits(peer.ip()) {
                tracing::warn!(%peer, "asked by FastAGI from where nobody may; see `fastagi.allow`");
                continue;
            }
            // Closed at once, the connection costs its caller nothing but the standard route.
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                tracing::warn!(%peer, "too many FastAGI connections; this one is closed");
                continue;
            };
            conversations.spawn(async move {
                let (reader, writer) = stream.into_split();
                let talk = Conversation {
                    reader: BufReader::new(reader),
                    writer,
                };
                match tokio::time::timeout(BUDGET, agi.hold(talk)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "FastAGI ended early"),
                    Err(_) => tracing::warn!(%peer, "a FastAGI conversation took too long and was ended; the call goes the standard route"),
                }
                drop(place);
            });
        }
        conversations.close();
        conversations.wait().await;
    }

    async fn hold<R, W>(&self, mut talk: Conversation<R, W>) -> std::io::Result<()>
    where
        R: AsyncBufRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let head = talk.head().await?;
        match head.asked() {
            Asked::Unknown(script) => {
                tracing::warn!(
                    script,
                    "FastAGI asks for an address that is not ours; write agi://HOST:PORT/forward"
                );
            }
            Asked::Ended(outcome) => {
                if let Some(outcome) = outcome {
                    self.reception.ended(&outcome);
                }
            }
            Asked::Forward(mut call) => {
                if call.call_id.is_none() {
                    call.call_id = talk.linked_id().await?.or_else(|| head.unique_id());
                }
                let decision = self.reception.decide(call).await;
                for (name, value) in variables(&decision, &self.names) {
                    talk.say(&set_variable(name, &value)).await?;
                }
            }
        }
        talk.writer.shutdown().await
    }
}

/// A FastAGI connection.
struct Conversation<R, W> {
    reader: R,
    writer: W,
}

impl<R: AsyncBufRead + Unpin, W: AsyncWrite + Unpin> Conversation<R, W> {
    /// Reads up to the blank line.
    async fn head(&mut self) -> std::io::Result<Head> {
        let mut head = Head::default();
        for _ in 0..MOST_LINES {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(head);
            }
            head.take(&line);
        }
        Err(std::io::Error::other("a head without an end"))
    }

    /// Sends a command and waits for its reply: Asterisk takes them one by one.
    async fn say(&mut self, command: &str) -> std::io::Result<String> {
        self.writer.write_all(command.as_bytes()).await?;
        for _ in 0..MOST_REPLY_LINES {
            let line = self.line().await?;
            // `HANGUP` may come in between, and a reply of several lines has a dash behind its code.
            let is_reply = line.len() >= 3
                && line.bytes().take(3).all(|byte| byte.is_ascii_digit())
                && line.as_bytes().get(3) != Some(&b'-');
            if is_reply {
                return Ok(line);
            }
        }
        Err(std::io::Error::other("a reply without an end"))
    }

    /// Asks for the id that all channels of the call share.
    async fn linked_id(&mut self) -> std::io::Result<Option<String>> {
        let reply = self
            .say("GET FULL VARIABLE \"${CHANNEL(linkedid)}\"\n")
            .await?;
        let value = reply
            .strip_prefix("200 result=1 (")
            .and_then(|rest| rest.strip_suffix(')'));
        Ok(value.filter(|id| !id.is_empty()).map(str::to_owned))
    }

    /// A line without its end; longer ones than any Asterisk sends are an error.
    async fn line(&mut self) -> std::io::Result<String> {
        let mut line = Vec::new();
        loop {
            let arrived = self.reader.fill_buf().await?;
            if arrived.is_empty() {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let end = memchr::memchr(b'\n', arrived);
            let taken = end.unwrap_or(arrived.len());
            line.extend_from_slice(arrived.get(..taken).unwrap_or_default());
            let consumed = taken + usize::from(end.is_some());
            self.reader.consume(consumed);
            if line.len() > LONGEST_LINE {
                return Err(std::io::Error::other("a line without an end"));
            }
            if end.is_some() {
                let line = String::from_utf8_lossy(&line);
                return Ok(line.trim_end_matches('\r').to_owned());
            }
        }
    }
}

/// What the dialplan is told, in this order; the number last, when all else is there.
fn variables(decision: &Decision, names: &caller_name::Settings) -> [(&'static str, String); 4] {
    let ring = decision.ring.as_ref();
    let name = forward::shown_name(decision, names);
    let is_known = name.is_some() || ring.is_some();
    let reason = if is_known {
        decision.reason.as_str()
    } else {
        ""
    };
    [
        ("PRYAMO_NAME", name.unwrap_or_default()),
        ("PRYAMO_REASON", reason.to_owned()),
        (
            "PRYAMO_RING",
            ring.map_or_else(String::new, |_| decision.ring_seconds.to_string()),
        ),
        (
            "PRYAMO_NUMBER",
            ring.map_or_else(String::new, |target| target.as_str().to_owned()),
        ),
    ]
}

/// A command that sets a variable to exactly this text. A line break would begin a command of its
/// own, so no sign that ends a line is ever sent.
fn set_variable(name: &str, value: &str) -> String {
    let mut command = format!("SET VARIABLE {name} \"");
    for letter in value.chars() {
        match letter {
            '"' | '\\' => command.extend(['\\', letter]),
            letter if letter.is_control() => command.push(' '),
            letter => command.push(letter),
        }
    }
    command.push_str("\"\n");
    command
}

/// Holds a conversation with whoever sends these bytes, up to the answer.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) {
    use futures::FutureExt as _;

    let mut talk = Conversation {
        reader: bytes,
        writer: tokio::io::sink(),
    };
    let Some(Ok(head)) = talk.head().now_or_never() else {
        return;
    };
    if let Asked::Forward(call) = head.asked() {
        crate::fuzz::call(&call);
        let told = talk.linked_id().now_or_never();
        assert!(told.is_some(), "what is there already is not waited for");
        let command = set_variable("PRYAMO_NAME", &call.phone);
        assert_eq!(
            command.find(|letter: char| letter.is_control()),
            Some(command.len() - 1)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_end_its_command() {
        for (value, expected) in [
            ("101", "SET VARIABLE X \"101\"\n"),
            ("", "SET VARIABLE X \"\"\n"),
            ("A\"B\\C", "SET VARIABLE X \"A\\\"B\\\\C\"\n"),
            ("A\nHANGUP\r\n", "SET VARIABLE X \"A HANGUP  \"\n"),
            ("A\u{85}\u{0}B", "SET VARIABLE X \"A  B\"\n"),
            ("${EXTEN}", "SET VARIABLE X \"${EXTEN}\"\n"),
        ] {
            assert_eq!(set_variable("X", value), expected);
        }
    }

    #[test]
    fn the_address_is_usual_wanted_or_none() {
        let read = |text: &str| toml::from_str::<Settings>(text).unwrap();
        let usual = read("");
        assert_eq!(usual.address(), Some(USUAL));
        assert!(!usual.is_wanted());
        let wanted = read("listen = \"127.0.0.1:5000\"");
        assert_eq!(wanted.address().unwrap().port(), 5000);
        assert!(wanted.is_wanted());
        for off in ["listen = \"\"", "enabled = false"] {
            assert_eq!(read(off).address(), None, "{off}");
        }
        assert!(read("listen = \"0.0.0.0:4574\"").check().is_err());
        let listed = "listen = \"0.0.0.0:4574\"\nallow = [\"10.0.0.5\"]";
        assert!(read(listed).check().is_ok());
        let wrong = toml::from_str::<Settings>("listen = \"4574\"").unwrap_err();
        assert!(wrong.message().contains("write an address and a port"));
    }

    proptest::proptest! {
        #[test]
        fn no_value_makes_two_lines(value in "\\PC*|[\\x00-\\x1f\"\\\\a]{0,40}") {
            let command = set_variable("X", &value);
            proptest::prop_assert_eq!(command.matches('\n').count(), 1);
            proptest::prop_assert!(!command.contains('\r'));
        }
    }
}
