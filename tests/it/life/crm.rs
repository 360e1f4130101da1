//! The two made-up CRMs as one: what a life needs of them, and what may ail them for a moment.

use std::net::TcpListener;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::fake_amocrm::{self, FakeAmocrm};
use crate::fake_bitrix24::{self, FakeBitrix24};
use crate::messy::Dice;
use crate::wire::{self, Wire};
use crate::world::{Happened, List, SharedWorld};

/// How much faster than life the portal's limits are.
const BITRIX24_SPEED: f64 = 10.0;
/// The account counts in windows of a second by its speed: too fast, and a busy machine's hiccup
/// looks like a breach.
const AMOCRM_SPEED: f64 = 3.0;
/// Seconds of the account's clock in one of ours, so that the overlap of its changes does not
/// cover a whole life.
const AMOCRM_CLOCK: i64 = 20;

/// For so long after an exchange of tokens the new pair may not be on our disk yet.
const SAVING: Duration = Duration::from_millis(400);

/// A token lives at least this long. In life it is an hour, and no request waits that long between
/// taking a token and being sent; here some wait for seconds.
const SHORTEST_ACCESS: Duration = Duration::from_secs(8);

/// Which CRM, and how it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A portal with an incoming webhook.
    Bitrix24,
    /// A portal that we are an application of; it keeps its events for us.
    Bitrix24Application,
    /// An account with a pair of tokens that rotate.
    Amocrm,
    /// An account whose filters are switched off, with a long-lived token.
    AmocrmUnfiltered,
}

impl Kind {
    pub fn is_bitrix24(self) -> bool {
        matches!(self, Self::Bitrix24 | Self::Bitrix24Application)
    }

    /// Contacts and companies first, then those with stages.
    pub fn lists(self) -> &'static [List] {
        if self.is_bitrix24() {
            &[List::Contacts, List::Companies, List::Leads, List::Deals]
        } else {
            &[List::Contacts, List::Companies, List::Deals]
        }
    }

    /// Whether its users have a field for the extension.
    pub fn has_extensions(self) -> bool {
        self.is_bitrix24()
    }

    /// Whether its tokens are exchanged for others.
    fn rotates(self) -> bool {
        matches!(self, Self::Bitrix24Application | Self::Amocrm)
    }
}

/// A running CRM.
pub struct Crm {
    fake: Fake,
    kind: Kind,
    /// The first refresh token.
    refresh: String,
    renewal: Mutex<Renewal>,
    /// Between the daemon and it, where a lost answer loses no token.
    wire: Option<Wire>,
}

enum Fake {
    Bitrix24(FakeBitrix24),
    Amocrm(FakeAmocrm),
}

/// How an exchange of tokens stands, as far as one can tell from outside.
///
/// A daemon that dies between the exchange and its disk has lost its access for good: that is the
/// vendors' way of rotating tokens, and no mirror can be right without access.
struct Renewal {
    /// Access ended when there had been so many exchanges; it is over with the next.
    ended_after: Option<usize>,
    exchanges: usize,
    exchanged_at: Instant,
    /// Access does not end at present.
    is_held: bool,
}

impl Renewal {
    /// Takes note of how many exchanges there have been.
    fn look(&mut self, exchanges: usize) {
        if self.exchanges != exchanges {
            self.exchanges = exchanges;
            self.exchanged_at = Instant::now();
        }
    }
}

impl Crm {
    /// Starts it; its clock stands at `now`.
    pub async fn start(kind: Kind, world: SharedWorld, now: i64, dice: Dice) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let outside = listener.local_addr().unwrap().to_string();
        let (fake, refresh) = if kind.is_bitrix24() {
            let options = fake_bitrix24::Options {
                speed: BITRIX24_SPEED,
                page_ms: 30.0,
                clock_start: now,
                ..fake_bitrix24::Options::default()
            };
            let fake = FakeBitrix24::start(world, options).await;
            let refresh = fake.authorise();
            (Fake::Bitrix24(fake), refresh)
        } else {
            let options = fake_amocrm::Options {
                limit: Some(7),
                speed: AMOCRM_SPEED,
                page_latency: (Duration::from_millis(30), Duration::from_millis(200)),
                filters: kind != Kind::AmocrmUnfiltered,
                host: (!kind.rotates()).then_some(outside),
                now,
                ..fake_amocrm::Options::default()
            };
            let fake = FakeAmocrm::start(world, options);
            (Fake::Amocrm(fake), fake_amocrm::FIRST_REFRESH.to_owned())
        };
        let server = match &fake {
            Fake::Bitrix24(fake) => fake.server(),
            Fake::Amocrm(fake) => fake.address(),
        };
        let renewal = Renewal {
            ended_after: kind.rotates().then_some(0),
            exchanges: 0,
            exchanged_at: Instant::now(),
            is_held: false,
        };
        Self {
            fake,
            kind,
            refresh,
            renewal: Mutex::new(renewal),
            wire: (!kind.rotates()).then(|| Wire::lay(listener, server, dice)),
        }
    }

    /// The connector's part of the `[[crm]]` table.
    pub fn table(&self) -> String {
        let table = self.direct_table();
        let Some(wire) = &self.wire else {
            return table;
        };
        let server = match &self.fake {
            Fake::Bitrix24(fake) => fake.server(),
            Fake::Amocrm(fake) => fake.address(),
        };
        table.replace(&server.to_string(), &wire.address().to_string())
    }

    /// The same with no wire between.
    fn direct_table(&self) -> String {
        let refresh = &self.refresh;
        match (&self.fake, self.kind) {
            (Fake::Bitrix24(fake), kind) => {
                let limits = format!(
                    "kind = \"bitrix24\"\nlimits = {{ requests_per_second = {}, operating_seconds = {} }}\n",
                    2.0 * BITRIX24_SPEED,
                    480.0 / BITRIX24_SPEED
                );
                if kind == Kind::Bitrix24 {
                    return format!("{limits}url = \"{}\"\n", fake.url());
                }
                let options = fake_bitrix24::Options::default();
                format!(
                    "{limits}url = \"{0}\"\noauth_url = \"{0}\"\nclient_id = \"{1}\"\n\
                     client_secret = \"{2}\"\nrefresh_token = \"{refresh}\"\n",
                    fake.address(),
                    options.client_id,
                    options.client_secret,
                )
            }
            (Fake::Amocrm(fake), Kind::Amocrm) => format!(
                "kind = \"amocrm\"\nurl = \"{}\"\nlimits = {}\nclient_id = \"{}\"\n\
                 client_secret = \"{}\"\nredirect_uri = \"{}\"\nrefresh_token = \"{refresh}\"\n",
                fake.url(),
                fake.limits(),
                fake_amocrm::CLIENT_ID,
                fake_amocrm::CLIENT_SECRET,
                fake_amocrm::REDIRECT_URI,
            ),
            (Fake::Amocrm(fake), _) => format!("kind = \"amocrm\"\n{}", fake.table()),
        }
    }

    /// The CRM's clock, Unix seconds.
    pub fn now(&self) -> i64 {
        match &self.fake {
            Fake::Bitrix24(fake) => fake.clock(),
            Fake::Amocrm(fake) => fake.now(),
        }
    }

    /// Lets the CRM's clock run ahead for so many seconds of ours.
    pub fn pass_time(&self, seconds: i64) {
        if let Fake::Amocrm(fake) = &self.fake {
            fake.pass_time(seconds * (AMOCRM_CLOCK - 1));
        }
    }

    /// Enters into the CRM's own record what has happened in its world.
    pub fn happened(&self, happened: &Happened) {
        match &self.fake {
            Fake::Bitrix24(fake) => fake.happened(happened),
            Fake::Amocrm(fake) => fake.happened(happened),
        }
    }

    /// The notices that it sends of this: content type and body of each.
    pub fn hook_bodies(&self, happened: &Happened) -> Vec<(String, String)> {
        match &self.fake {
            Fake::Bitrix24(fake) => fake.hook_bodies(happened),
            Fake::Amocrm(fake) => fake.hook_bodies(happened),
        }
    }

    /// Ends every access token that can end, unless they are new.
    pub fn expire_access_tokens(&self) {
        let exchanges = self.exchanges();
        let mut renewal = self.renewal.lock().unwrap();
        renewal.look(exchanges);
        let is_new = renewal.exchanged_at.elapsed() < SHORTEST_ACCESS;
        let has_ended = renewal.ended_after == Some(exchanges);
        if !self.kind.rotates() || renewal.is_held || has_ended || is_new {
            return;
        }
        renewal.ended_after = Some(exchanges);
        match &self.fake {
            Fake::Bitrix24(fake) => fake.expire_access_tokens(),
            Fake::Amocrm(fake) => fake.expire_access_tokens(),
        }
    }

    /// From now on access does not end, or does again.
    pub fn hold_access(&self, is_held: bool) {
        self.renewal.lock().unwrap().is_held = is_held;
    }

    /// Whether tokens are being exchanged, or are not safely on our disk yet.
    pub fn is_renewing(&self) -> bool {
        let exchanges = self.exchanges();
        let mut renewal = self.renewal.lock().unwrap();
        renewal.look(exchanges);
        renewal.ended_after == Some(exchanges) || renewal.exchanged_at.elapsed() < SAVING
    }

    fn exchanges(&self) -> usize {
        match &self.fake {
            Fake::Bitrix24(fake) => fake.exchanges(),
            Fake::Amocrm(fake) => fake.rotations(),
        }
    }

    /// What was asked beyond the documented limits.
    pub fn violations(&self) -> Vec<String> {
        match &self.fake {
            Fake::Bitrix24(fake) => fake.violations(),
            Fake::Amocrm(fake) => fake.violations(),
        }
    }

    /// How many connections the wire has spoilt.
    pub fn spoilt(&self) -> usize {
        self.wire.as_ref().map_or(0, Wire::spoilt)
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        match &self.fake {
            Fake::Bitrix24(fake) => fake.requests().len(),
            Fake::Amocrm(fake) => fake.requests(),
        }
    }

    /// Makes it well.
    pub fn recover(&self) {
        if let Some(wire) = &self.wire {
            wire.set(wire::Mood::Well);
        }
        match &self.fake {
            Fake::Bitrix24(fake) => fake.set_mood(fake_bitrix24::Mood::Well),
            Fake::Amocrm(fake) => fake.set_mood(fake_amocrm::Mood::Fine),
        }
    }

    /// Lets something ail it that a daemon gets over by itself; tells what.
    pub fn upset(&self, dice: &mut Dice) -> String {
        if let Some(wire) = self.wire.as_ref().filter(|_| dice.below(3) == 0) {
            use wire::Mood;
            let mood = match dice.below(6) {
                0 => Mood::Slow(20 + dice.below(300)),
                1 => Mood::Refused,
                2 => Mood::Cut,
                3 => Mood::Half,
                4 => Mood::Corrupt,
                _ => Mood::Hang,
            };
            wire.set(mood);
            return format!("the wire: {mood:?}");
        }
        match &self.fake {
            Fake::Bitrix24(fake) => {
                use fake_bitrix24::Mood;
                let count = usize::try_from(1 + dice.below(4)).unwrap();
                let mood = match dice.below(10) {
                    0 => Mood::Down(count),
                    1 => Mood::Slow(50 + dice.below(700)),
                    2 => Mood::Html502(count),
                    3 => Mood::NotJson,
                    4 => Mood::QueryLimit(count),
                    5 => Mood::OperationLimit(300),
                    6 => Mood::Damaged(count),
                    7 => Mood::AllDamaged,
                    8 => Mood::FilterIgnored,
                    _ => Mood::ReferencesIgnored,
                };
                fake.set_mood(mood);
                format!("{mood:?}")
            }
            Fake::Amocrm(fake) => {
                use fake_amocrm::Mood;
                let mood = match dice.below(12) {
                    0 => Mood::Down,
                    1 => Mood::Slow(Duration::from_millis(50 + dice.below(700))),
                    2 => Mood::Html502,
                    3 => Mood::LimitedJson(1),
                    4 => Mood::LimitedHtml,
                    5 => Mood::HeavyAbove(50),
                    6 => Mood::MissingField,
                    7 => Mood::WrongType,
                    8 => Mood::HtmlPage,
                    9 => Mood::CutPage,
                    10 => Mood::FiltersIgnored,
                    _ => Mood::FiltersAndOrderIgnored,
                };
                fake.set_mood(mood);
                format!("{mood:?}")
            }
        }
    }

    /// Lets something ail it after which a daemon would wait for minutes: for a moment before a
    /// kill alone.
    pub fn upset_gravely(&self, dice: &mut Dice) {
        match &self.fake {
            Fake::Bitrix24(fake) => {
                use fake_bitrix24::Mood;
                let moods = [
                    Mood::Hang,
                    Mood::OverloadLimit,
                    Mood::Revoked,
                    Mood::Redirect,
                ];
                fake.set_mood(moods[usize::try_from(dice.below(4)).unwrap()]);
            }
            Fake::Amocrm(fake) => {
                use fake_amocrm::Mood;
                let moods = [Mood::Hang, Mood::Blocked, Mood::NextElsewhere];
                fake.set_mood(moods[usize::try_from(dice.below(3)).unwrap()]);
            }
        }
    }
}
