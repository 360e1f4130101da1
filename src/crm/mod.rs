//! The CRM side: what every connector promises, and what it needs.
//!
//! A connector reads; it knows neither the directory nor any call. It hands out cards as the CRM
//! wrote them, keeps the vendor's limits by itself (see [`budget`]), and says in [`CrmError`] why it
//! could not. A new CRM is one file and one row in [`KINDS`].

pub mod amocrm;
pub mod bitrix24;
pub mod budget;
pub mod csv_file;
mod oauth;
mod optional;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::fault;
use crate::http_client;
use crate::metrics;
use crate::phone::E164;
use crate::record::{Card, CrmName, EmployeeId, EntityId, EntityKind, Notice, Staff};

/// A CRM that can be mirrored and asked.
#[async_trait]
pub trait Crm: Send + Sync {
    /// The kinds of cards that this CRM has and that are wanted, in the order to mirror them.
    fn kinds(&self) -> &[EntityKind];

    /// Reads all employees, dismissed ones included where the CRM tells them, and the departments.
    ///
    /// A part that may be missing for want of a right (departments, absences) is left out and told by
    /// [`Crm::check`]; employees never are.
    async fn employees(&self) -> Result<Staff, CrmError>;

    /// Walks all cards of one kind, beginning behind `from` (a cursor that an earlier page carried).
    ///
    /// Pages come in order and may be fetched ahead. The last page has no cursor. After an error the
    /// stream ends; the caller starts again from the last cursor that it has committed.
    fn walk(&self, kind: EntityKind, from: Option<Cursor>)
    -> BoxStream<'_, Result<Page, CrmError>>;

    /// Reads the cards of one kind that were added or changed since `since`, with an overlap of the
    /// connector's choice: repeats are harmless. Pages need no cursor; a stream that ends early is
    /// started anew from `since`.
    fn changes(&self, kind: EntityKind, since: Since) -> BoxStream<'_, Result<Page, CrmError>>;

    /// Reads cards again, at most [`READ_AT_ONCE`] of one kind, before all changes and walks.
    ///
    /// A card that the answer lacks is deleted or not ours to read: the caller wants another witness
    /// before it believes in a deletion.
    async fn read(&self, kind: EntityKind, ids: &[EntityId]) -> Result<Page, CrmError>;

    /// Reads what came to `POST /hooks/{crm}/{secret}`; the secret was right.
    ///
    /// Must answer at once: the CRM waits two seconds at most, and asks nothing of the CRM.
    async fn receive(&self, _hook: Hook<'_>) -> Result<Vec<Notice>, HookError> {
        Err(HookError::Unreadable(
            "this CRM sends no notices".to_owned(),
        ))
    }

    /// Says whether the CRM keeps notices for us that [`Crm::news`] fetches.
    fn has_news(&self) -> bool {
        false
    }

    /// Fetches the notices that the CRM keeps for us behind `from` (the [`News::cursor`] that was
    /// stored last). Notices that were fetched and not confirmed come again.
    async fn news(&self, _from: Option<Cursor>) -> Result<News, CrmError> {
        Ok(News::default())
    }

    /// Tells the CRM that the notices with this receipt are stored.
    async fn confirm(&self, _receipt: &Receipt) -> Result<(), CrmError> {
        Ok(())
    }

    /// Asks live for the cards that have this number, outside the background's share of the budget.
    ///
    /// What comes back is a claim: the CRM's search may match other fields, so the caller checks
    /// the phone fields. Cards carry everything that a walked card carries.
    async fn find(&self, phone: E164) -> Result<Vec<Card>, CrmError>;

    /// Says whether [`Crm::find`] can find anything: a file cannot be asked.
    fn is_askable(&self) -> bool {
        true
    }

    /// Says whether a walk may miss a card that is there: where pages are counted by offsets, a card
    /// deleted meanwhile shifts another one across their border. Then two walks must agree before a
    /// card counts as deleted.
    fn walks_may_miss(&self) -> bool {
        false
    }

    /// Something that changes whenever all must be read anew (a file's time and size); `None` for a
    /// CRM that tells its changes.
    fn fingerprint(&self) -> Option<String> {
        None
    }

    /// Where a card is looked at in the CRM's own interface; `None` where it has none, or the
    /// identifier names no card. Never holds a secret.
    fn card_address(&self, _kind: EntityKind, _id: &EntityId) -> Option<String> {
        None
    }

    /// The same for an employee.
    fn employee_address(&self, _id: &EmployeeId) -> Option<String> {
        None
    }

    /// Asks harmless questions and tells what is wrong and how to mend it.
    async fn check(&self) -> Vec<Finding>;
}

/// A part of a CRM's cards.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The cards, in the CRM's order.
    pub cards: Vec<Card>,
    /// Where the next page begins; `None` on the last one.
    pub cursor: Option<Cursor>,
    /// The CRM's own clock when it answered, where it tells.
    pub server_time: Option<Timestamp>,
    /// The part of the walk that is done with this page, 0 to 1, where the connector can tell.
    pub done: Option<f64>,
}

/// Since when cards have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// By the CRM's clock, as an earlier page's [`Page::server_time`] told it.
    pub time: Timestamp,
    /// The highest identifier that the mirror has met, where identifiers are numbers: a card that was
    /// imported with an old date lies above it.
    pub highest_id: Option<u64>,
}

/// The most cards that [`Crm::read`] is asked for at once.
pub const READ_AT_ONCE: usize = 50;

/// A request that a CRM sent to us.
#[derive(Debug, Clone, Copy)]
pub struct Hook<'a> {
    /// The header `Content-Type`; empty where there is none.
    pub content_type: &'a str,
    /// At most [`HOOK_BYTES`].
    pub body: &'a [u8],
}

/// The largest body of a hook that is read: amoCRM sends whole cards, several in one request.
pub const HOOK_BYTES: usize = 4 << 20;

/// Why a hook's body is not taken.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The sender does not prove to be our CRM: answered as if the address did not exist.
    #[error("it is not from this CRM: {0}")]
    Stranger(String),
    /// The body is none that this CRM sends.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// It could not be kept; the CRM may send it again.
    #[error("it could not be kept")]
    NotKept(#[source] CrmError),
}

/// What [`Crm::news`] brought.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct News {
    /// In the CRM's order.
    pub notices: Vec<Notice>,
    /// Where to go on the next time; `None` leaves the stored one.
    pub cursor: Option<Cursor>,
    /// True if more wait than were fetched: ask again at once.
    pub more: bool,
    /// To be confirmed once the notices are stored.
    pub receipt: Option<Receipt>,
}

/// What names fetched notices towards their CRM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt(pub String);

/// Where a walk stands, in the connector's own words. Stored with the page that carried it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(pub String);

/// Why a CRM did not answer as asked. Which CRM it was, the caller knows and logs.
#[derive(Debug, thiserror::Error)]
pub enum CrmError {
    /// The credentials are wrong, expired or revoked. Sync stops until the configuration changes.
    #[error("the credentials were refused: {0}")]
    Unauthorized(String),
    /// A right, scope or plan is missing. Sync leaves this method out and goes on.
    #[error("`{method}` is not allowed: {text}")]
    Forbidden {
        /// The method or address that was asked.
        method: String,
        /// The CRM's own words.
        text: String,
    },
    /// The CRM asked us to wait this long. Sync sleeps, then repeats the page.
    #[error("the CRM asks to wait {} s", .0.as_secs())]
    RateLimited(Duration),
    /// Nothing is left of the budget for this lane. A live lookup gives up at once.
    #[error("the budget of requests is spent for {} ms", .0.as_millis())]
    OutOfBudget(Duration),
    /// The vendor has blocked the account or address. Background work stops for long.
    #[error("the CRM has blocked us: {0}")]
    Blocked(String),
    /// No answer, or none in time, or a gateway's error page. Sync repeats with growing delays.
    #[error("no answer from `{method}`")]
    Unreachable {
        /// The method or address that was asked.
        method: String,
        /// What the transport said, without the secret parts of the address.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The method answered outside its documented shape. Sync keeps its cursor and raises an alarm.
    #[error("unexpected answer to `{method}`: {text}")]
    Shape {
        /// The method or address that was asked.
        method: String,
        /// What was wrong with it.
        text: String,
    },
    /// The CRM refused the request as wrong. Not repeated.
    #[error("`{method}` was refused: {code}: {text}")]
    Refused {
        /// The method or address that was asked.
        method: String,
        /// The CRM's code, or the HTTP status.
        code: String,
        /// The CRM's own words.
        text: String,
    },
    /// The CRM ignored a filter and sent everything. Sync keeps its cursor; the full walk remains.
    #[error("`{method}` ignored its filter")]
    FilterIgnored {
        /// The method or address that was asked.
        method: String,
    },
    /// A file that stands for a CRM could not be read.
    #[error("{0}")]
    File(String, #[source] std::io::Error),
}

impl CrmError {
    /// The variant's name, a closed set for metric labels.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unauthorized(_) => "unauthorized",
            Self::Forbidden { .. } => "forbidden",
            Self::RateLimited(_) => "rate_limited",
            Self::OutOfBudget(_) => "out_of_budget",
            Self::Blocked(_) => "blocked",
            Self::Unreachable { .. } if self.mends_certificate().is_some() => "certificate",
            Self::Unreachable { .. } => "unreachable",
            Self::Shape { .. } => "shape",
            Self::Refused { .. } => "refused",
            Self::FilterIgnored { .. } => "filter_ignored",
            Self::File(..) => "file",
        }
    }

    /// What to do where there is no answer because the CRM's certificate is not believed.
    fn mends_certificate(&self) -> Option<&'static str> {
        let Self::Unreachable { cause, .. } = self else {
            return None;
        };
        http_client::mends_certificate(cause.as_ref())
    }
}

/// One line of `pryamo check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was found, one line.
    pub text: String,
    /// What to do about it; empty when there is nothing to do.
    pub mend: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Good,
    /// Works worse than it could.
    Warning,
    /// Does not work.
    Fault,
}

impl Finding {
    /// All is well.
    pub fn good(text: impl Into<String>) -> Self {
        Self {
            level: Level::Good,
            text: text.into(),
            mend: String::new(),
        }
    }

    /// Works, but worse than it could.
    pub fn warning(text: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            text: text.into(),
            mend: mend.into(),
        }
    }

    /// Does not work.
    pub fn fault(text: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            level: Level::Fault,
            text: text.into(),
            mend: mend.into(),
        }
    }
}

/// What every connector is given besides its own settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Common {
    /// The `name` of the `[[crm]]` table.
    pub name: CrmName,
    /// The kinds that `match.order` wants.
    pub wanted: Vec<EntityKind>,
    /// More fields of the cards to mirror (`crm.fields`).
    pub fields: Vec<String>,
    /// The share of the vendor's documented limits that pryamo may use, above 0 up to 1.
    pub share: f64,
    /// Whether another life of this daemon may have asked the CRM a moment ago: then its share of the
    /// vendor's bucket counts as used up.
    pub asked_lately: bool,
    /// A folder of the connector's own for what must survive (rotating tokens); made when needed.
    pub state_dir: PathBuf,
    /// Where relative file names in the settings are looked for: the configuration's folder.
    pub config_dir: PathBuf,
}

/// A kind of CRM: a row of [`KINDS`].
pub struct Kind {
    /// The word in `kind = "..."`.
    pub name: &'static str,
    /// A commented TOML example, every option with its default.
    pub example: &'static str,
    /// Reads the kind's own part of the `[[crm]]` table.
    pub open: fn(toml::Table, Common) -> Result<Arc<dyn Crm>, SettingsError>,
}

/// Why a `[[crm]]` table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A key is missing, unknown or has a wrong value; the text names the key.
    #[error("{0}")]
    Wrong(String),
    /// A file that the settings name cannot be read.
    #[error("cannot read {path} (`{key}`)")]
    File {
        /// The setting that names the file.
        key: &'static str,
        /// The file.
        path: String,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
}

/// Every kind of CRM. A new one adds its row here and its `mod` line above.
pub const KINDS: &[Kind] = &[bitrix24::KIND, amocrm::KIND, csv_file::KIND];

/// What is to be said of an address without encryption; nothing for https.
///
/// On this machine (a tunnel, a proxy) it is told, but there is nothing to mend.
pub fn judge_encryption(url: &reqwest::Url) -> Option<Finding> {
    if url.scheme() != "http" {
        return None;
    }
    let is_here = match url.host_str() {
        Some("localhost") => true,
        host => host
            .and_then(|host| host.parse::<std::net::IpAddr>().ok())
            .is_some_and(|ip| ip.is_loopback()),
    };
    let text =
        "`crm.url` begins with http://: the secret and the clients' numbers travel unencrypted";
    Some(if is_here {
        Finding::warning(format!("{text}, though only within this machine"), "")
    } else {
        Finding::warning(
            text,
            "begin it with https:// (`ca_file` names an authority of your own)",
        )
    })
}

/// Sends a request to a CRM, and counts it by what came of it.
async fn send(
    crm: &CrmName,
    request: reqwest::RequestBuilder,
) -> reqwest::Result<reqwest::Response> {
    let sent = request.send().await;
    let outcome = match &sent {
        Ok(response) if response.status().is_success() => "answered",
        Ok(_) => "refused",
        Err(_) => "unreachable",
    };
    metrics::count_crm_request(crm, outcome);
    sent
}

/// A CRM's own words, fit to be told: one line without control characters, cut.
fn one_line(words: &str, most_chars: usize) -> String {
    let shown = |letter: char| {
        if letter.is_control() { ' ' } else { letter }
    };
    words.chars().map(shown).take(most_chars).collect()
}

/// An identifier as a part of an address's path.
fn in_path(id: &str) -> String {
    percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// How long a connection to a CRM may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a whole background request may take: Bitrix24 answers within 60 s or not at all.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(65);

/// The HTTP client of all connectors: time limits, gzip, our name, and no redirect followed (a
/// redirected POST would lose its body, a redirected token would reach a stranger).
///
/// `ca_file` is a PEM file of an own certificate authority, trusted besides the system's.
pub fn http_client(ca_file: Option<&std::path::Path>) -> Result<reqwest::Client, SettingsError> {
    let own = ca_file.map(own_authorities).transpose()?;
    let client = http_client::build(own.unwrap_or_default(), |builder| {
        builder
            .user_agent(concat!("pryamo/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
    });
    client.map_err(|error| {
        SettingsError::Wrong(format!("cannot set up HTTPS: {}", fault::told(&error)))
    })
}

fn own_authorities(path: &std::path::Path) -> Result<Vec<reqwest::Certificate>, SettingsError> {
    let wrong = |why: &str| {
        SettingsError::Wrong(format!(
            "`ca_file` {} is no PEM file of an authority: {why}",
            path.display()
        ))
    };
    let pem = std::fs::read(path).map_err(|cause| SettingsError::File {
        key: "ca_file",
        path: path.display().to_string(),
        cause,
    })?;
    let own =
        reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| wrong(&fault::told(&error)))?;
    if own.is_empty() {
        return Err(wrong("it holds no certificate"));
    }
    Ok(own)
}

/// An answer's body, at most so many bytes of it; `None` if it has more.
async fn read_body(
    response: &mut reqwest::Response,
    most_bytes: usize,
) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > most_bytes {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}
