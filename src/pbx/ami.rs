//! The line to Asterisk's Manager Interface: how phones stand, and who speaks with whom.
//!
//! It only listens: the rights to read calls and to list states are enough. While Asterisk is away
//! nothing is known, and calls are decided as without this; it is called again with growing pauses.
//! Facts: Asterisk's `manager.c`; the smallest rights were found by trying Asterisk 16 and 22.

mod legs;
mod message;
mod phones;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::legs::Legs;
pub(crate) use self::legs::extension_of;
use self::message::{Message, ReadError};
use self::phones::Phones;
use super::talks::Talks;
use crate::call::{Extension, ExtensionPattern, Outcome};
use crate::phone::{E164, Region};
use crate::presence::{PhoneState, Presence, Talk};

/// How long Asterisk may take to be reached, and for each answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A line that was silent for so long is asked whether it still stands.
const SILENCE: Duration = Duration::from_secs(30);
/// The first pause before Asterisk is called again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// A line that stood so long was good: the pause begins anew.
const STOOD_LONG: Duration = Duration::from_mins(1);

/// `[ami]`: the Manager Interface of the PBX.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where it listens. Default: none, the states of phones are then unknown.
    pub address: Option<SocketAddr>,
    /// The user in `manager.conf`.
    pub user: String,
    /// The user's secret.
    #[serde(skip_serializing)]
    pub secret: Option<SecretString>,
    /// The contexts in which the extensions have their hints. Default: from-internal, ext-local.
    pub contexts: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: None,
            user: "pryamo".to_owned(),
            secret: None,
            contexts: vec!["from-internal".to_owned(), "ext-local".to_owned()],
        }
    }
}

impl Settings {
    /// The options with their defaults, for the example configuration.
    pub const EXAMPLE: &'static str = "\
# [ami]                          # Asterisk's Manager Interface: which phones can take a call
# address = \"127.0.0.1:5038\"     # not asked when left out; `pryamo check` prints the lines for manager.conf
# user = \"pryamo\"
# secret = \"...\"                 # or secret_file
# contexts = [\"from-internal\", \"ext-local\"]   # where the extensions have their hints
";

    /// What to add to `manager.conf` (FreePBX: `manager_custom.conf`): the smallest rights.
    pub fn manager_lines(&self) -> String {
        format!(
            "[{}]\nsecret = (the `secret` of [ami])\ndeny = 0.0.0.0/0.0.0.0\npermit = 127.0.0.1/255.255.255.255\nread = call\nwrite = reporting\n",
            self.user
        )
    }
}

/// What Asterisk tells, and the line by which it does.
pub struct Ami {
    settings: Settings,
    phones: Phones,
    talks: Arc<Talks>,
    pattern: ExtensionPattern,
    region: Region,
}

/// Why there is no line to Asterisk. Its text goes into the log and into `pryamo check`.
#[derive(Debug, thiserror::Error)]
pub enum AmiError {
    /// Nothing listens there, or nothing answers.
    #[error("the Manager Interface at {0} (`ami.address`) does not answer")]
    Unreachable(SocketAddr, #[source] std::io::Error),
    /// The user is unknown, the secret wrong, or this machine not permitted.
    #[error("Asterisk refuses the user `{user}` of [ami]: {text}")]
    Refused {
        /// `ami.user`.
        user: String,
        /// Asterisk's words.
        text: String,
    },
    /// A right is missing.
    #[error("the user `{user}` of [ami] may not ask for {action}: {text}")]
    NoRight {
        /// `ami.user`.
        user: String,
        /// What was asked.
        action: &'static str,
        /// Asterisk's words.
        text: String,
    },
    /// The line broke, or something else than Asterisk is at its other end.
    #[error("the line to Asterisk's Manager Interface")]
    Line(#[from] ReadErrorTold),
}

/// What became of the line, for [`AmiError`].
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ReadErrorTold(ReadError);

impl From<ReadError> for AmiError {
    fn from(error: ReadError) -> Self {
        Self::Line(ReadErrorTold(error))
    }
}

/// A line on which the user is logged in.
struct Line {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Ami {
    /// Knows nothing yet; `talks` learns from it.
    pub fn new(
        settings: Settings,
        talks: Arc<Talks>,
        pattern: ExtensionPattern,
        region: Region,
    ) -> Self {
        Self {
            settings,
            phones: Phones::default(),
            talks,
            pattern,
            region,
        }
    }

    /// Listens until `stop`, also through restarts of Asterisk; tells `heard` what became of phones
    /// that were rung. Ends at once where no address is set.
    pub async fn run(
        &self,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
        heard: impl Fn(&Outcome) + Send + Sync,
        stop: CancellationToken,
    ) {
        let Some(address) = self.settings.address else {
            return;
        };
        let mut pause = PAUSES.0;
        crate::metrics::show_ami(false);
        loop {
            let began = tokio::time::Instant::now();
            let ended = tokio::select! {
                ended = self.listen(address, &clock, &heard) => ended,
                () = stop.cancelled() => return,
            };
            self.phones.forget();
            crate::metrics::show_ami(false);
            if let Err(error) = ended {
                let error = crate::fault::told(&error);
                tracing::warn!(
                    error,
                    "the states of phones are unknown until Asterisk answers again"
                );
            }
            if began.elapsed() > STOOD_LONG {
                pause = PAUSES.0;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Listens until the line breaks.
    async fn listen(
        &self,
        address: SocketAddr,
        clock: &Arc<dyn Fn() -> Timestamp + Send + Sync>,
        heard: &(impl Fn(&Outcome) + Send + Sync),
    ) -> Result<(), AmiError> {
        let mut line = Line::open(address, &self.settings).await?;
        let mut legs = Legs::new(self.pattern.clone(), self.region);
        for action in LISTS {
            line.send(action, &[("ActionID", action)]).await?;
        }
        crate::metrics::show_ami(true);
        tracing::info!(%address, "Asterisk tells how its phones stand");
        let mut is_asked = false;
        loop {
            let Ok(message) = timeout(SILENCE, message::read(&mut line.reader)).await else {
                if is_asked {
                    let error = std::io::ErrorKind::TimedOut.into();
                    return Err(AmiError::Unreachable(address, error));
                }
                line.send("Ping", &[]).await?;
                is_asked = true;
                continue;
            };
            let message = message?;
            is_asked = false;
            if message.is_response() {
                judge(&message, &self.settings.user)?;
                continue;
            }
            self.phones.take(&message);
            let learned = legs.take(&message, clock());
            if let Some((caller, talk)) = learned.talk {
                self.talks.learn(caller, talk);
            }
            if let Some(outcome) = learned.outcome {
                heard(&outcome);
            }
        }
    }
}

impl Presence for Ami {
    fn phone(&self, extension: &Extension) -> PhoneState {
        self.phones
            .state(extension.as_str(), &self.settings.contexts)
    }

    fn last_talk(&self, caller: E164) -> Option<Talk> {
        self.talks.last(caller)
    }
}

/// What is asked for when the line stands: all states at once.
const LISTS: [&str; 2] = ["ExtensionStateList", "DeviceStateList"];

impl Line {
    async fn open(address: SocketAddr, settings: &Settings) -> Result<Self, AmiError> {
        let unreachable = |error| AmiError::Unreachable(address, error);
        let late = |_| unreachable(std::io::ErrorKind::TimedOut.into());
        let stream = timeout(PATIENCE, TcpStream::connect(address))
            .await
            .map_err(late)?
            .map_err(unreachable)?;
        let (reader, writer) = stream.into_split();
        let mut line = Self {
            reader: BufReader::new(reader),
            writer,
        };
        // Asterisk names itself first; a server that waits to be spoken to is none.
        timeout(PATIENCE, message::read_line(&mut line.reader))
            .await
            .map_err(late)??;
        let secret = settings
            .secret
            .as_ref()
            .map_or("", |secret| secret.expose_secret());
        let login = [
            ("Username", settings.user.as_str()),
            ("Secret", secret),
            ("Events", "call"),
        ];
        line.send("Login", &login).await?;
        loop {
            let message = timeout(PATIENCE, message::read(&mut line.reader))
                .await
                .map_err(late)??;
            match message.get("Response") {
                "" => {}
                "Success" => return Ok(line),
                _ => {
                    return Err(AmiError::Refused {
                        user: settings.user.clone(),
                        text: without(message.get("Message"), settings.secret.as_ref()),
                    });
                }
            }
        }
    }

    async fn send(&mut self, action: &str, fields: &[(&str, &str)]) -> Result<(), AmiError> {
        let text = message::action(action, fields);
        let sent = self.writer.write_all(text.as_bytes()).await;
        sent.map_err(|error| ReadError::Lost(error).into())
    }
}

/// What the other side says, without our secret should it repeat it.
fn without(text: &str, secret: Option<&SecretString>) -> String {
    match secret.map(ExposeSecret::expose_secret) {
        Some(secret) if !secret.is_empty() => text.replace(secret, "***"),
        _ => text.to_owned(),
    }
}

/// Looks whether an answer refuses one of the lists for want of a right.
///
/// An Asterisk without the module for device states (`res_manager_devicestate`) does not know that
/// list: hints tell enough.
fn judge(response: &Message, user: &str) -> Result<(), AmiError> {
    let action = LISTS
        .into_iter()
        .find(|action| *action == response.get("ActionID"));
    match action {
        Some(action) if response.get("Message").contains("ermission") => Err(AmiError::NoRight {
            user: user.to_owned(),
            action,
            text: response.get("Message").to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Logs in, lists all states and gives the extensions that have a hint; for `pryamo check`.
pub async fn probe(settings: &Settings) -> Result<Vec<String>, AmiError> {
    let Some(address) = settings.address else {
        return Ok(Vec::new());
    };
    let mut line = Line::open(address, settings).await?;
    let phones = Phones::default();
    for action in LISTS {
        line.send(action, &[("ActionID", action)]).await?;
        let done = format!("{action}Complete");
        loop {
            let late = |_| AmiError::Unreachable(address, std::io::ErrorKind::TimedOut.into());
            let message = timeout(PATIENCE, message::read(&mut line.reader))
                .await
                .map_err(late)??;
            judge(&message, &settings.user)?;
            phones.take(&message);
            let is_unknown = message.get("Response") == "Error";
            if is_unknown || message.get("Event") == done {
                break;
            }
        }
    }
    Ok(phones.hinted(&settings.contexts))
}
/// Takes what an exchange says, as if it had just been connected to.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(mut bytes: &[u8], now: jiff::Timestamp, region: crate::phone::Region) {
    use futures::FutureExt as _;

    let phones = phones::Phones::default();
    let mut legs = legs::Legs::new(crate::call::ExtensionPattern::default(), region);
    while let Some(Ok(message)) = message::read(&mut bytes).now_or_never() {
        phones.take(&message);
        let learned = legs.take(&message, now);
        if let Some(outcome) = learned.outcome {
            assert!(
                outcome.number.bytes().all(|byte| byte.is_ascii_digit()),
                "{outcome:?}"
            );
        }
        let _ = phones.state(message.get("Exten"), &[message.get("Context").to_owned()]);
    }
}
