//! The wire to amoCRM: one request at a time through the budget, and what its status means.
//!
//! Knows nothing of cards. Codes and bodies after the vendor's pages api/recommendations and
//! developers.kommo.com/docs/http-codes; that a block shows as nginx's HTML, after
//! amocrm/amocrm-api-php issue 434.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, DATE};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use tokio::time::Instant;

use super::wire::Problem;
use crate::crm::budget::{Budget, Lane};
use crate::crm::{CrmError, read_body, send};
use crate::record::CrmName;

/// A block is tried again at most this often: more requests make it longer.
const BLOCK_PAUSE: Duration = Duration::from_mins(10);
/// The longest wait between two tries after repeated 429.
const LONGEST_BACK_OFF: Duration = Duration::from_mins(5);
/// The longest wait that is believed when a 429 names one.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);
/// A background request sits out a pause up to this long; a longer one is the caller's to plan.
const LONGEST_OWN_WAIT: Duration = Duration::from_secs(30);
/// How long a live request waits for its place in the budget.
const LIVE_PATIENCE: Duration = Duration::from_secs(1);
/// How long a live request may take: the dialplan gives up after five seconds.
const LIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest body that is read: 250 cards are 1 to 2 KB each, filled ones some ten times that.
const LARGEST_BODY_BYTES: usize = 32 << 20;
/// How often a background request is sent in all before its fault is the caller's.
const TRIES: u32 = 4;

/// How patient the link is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How long a background request may take.
    pub(super) timeout: Duration,
    /// The wait after the first fault; doubles with each further one.
    pub(super) first_retry: Duration,
}

/// An answer whose status is the asker's to judge.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Whether the body calls itself JSON.
    pub(super) is_json: bool,
    pub(super) body: Vec<u8>,
    /// The CRM's clock, from the header `Date`.
    pub(super) server_time: Option<Timestamp>,
}

/// The way to one account.
pub(super) struct Link {
    crm: CrmName,
    http: reqwest::Client,
    base: Url,
    budget: Budget,
    patience: Patience,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The CRM's clock and ours when it was told.
    clock: Option<(Timestamp, Instant)>,
    /// 429s in a row, those of one burst counted once.
    strikes: u32,
    paused_until: Option<Instant>,
    block: Option<Block>,
}

/// The vendor's gateway lets nothing through.
struct Block {
    since: Instant,
    /// When the next request may try.
    until: Instant,
}

impl Link {
    pub(super) fn new(
        crm: CrmName,
        http: reqwest::Client,
        base: Url,
        budget: Budget,
        patience: Patience,
    ) -> Self {
        Self {
            crm,
            http,
            base,
            budget,
            patience,
            state: Mutex::default(),
        }
    }

    /// The account's address.
    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    /// The CRM's clock now; `None` before its first answer.
    pub(super) fn server_now(&self) -> Option<Timestamp> {
        let (told, at) = self.lock().clock?;
        told.checked_add(at.elapsed()).ok()
    }

    /// A GET to this path of the account.
    pub(super) fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(self.address(path))
    }

    /// A POST to this path of the account.
    pub(super) fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(self.address(path))
    }

    fn address(&self, path: &str) -> Url {
        let mut address = self.base.clone();
        address.set_path(path);
        address
    }

    /// Waits for a place in the budget, which [`Link::send`] then uses.
    pub(super) async fn admit(&self, lane: Lane) -> Result<(), CrmError> {
        self.take(lane).await?;
        self.pass_block()
    }

    /// Sends one request that has been admitted. A 429 and a block are errors here already, so that
    /// whoever comes next is held back at once.
    pub(super) async fn send(
        &self,
        lane: Lane,
        method: &str,
        request: RequestBuilder,
    ) -> Result<Answer, CrmError> {
        let timeout = match lane {
            Lane::Live => self.patience.timeout.min(LIVE_TIMEOUT),
            _ => self.patience.timeout,
        };
        let sent_at = Instant::now();
        let response = send(&self.crm, request.timeout(timeout)).await;
        let response = response.map_err(|error| unreachable(method, error))?;
        let answer = self.read(method, response).await?;
        self.hold_back(&answer, sent_at)?;
        Ok(answer)
    }

    /// The tries that a request of this lane has.
    pub(super) fn tries(&self, lane: Lane) -> Tries {
        let left = match lane {
            Lane::Live => 0,
            _ => TRIES - 1,
        };
        Tries {
            left,
            delay: self.patience.first_retry,
        }
    }

    async fn take(&self, lane: Lane) -> Result<(), CrmError> {
        if lane == Lane::Live {
            return self.budget.take_live(LIVE_PATIENCE).await;
        }
        let wait = self.budget.wait(lane);
        if wait > LONGEST_OWN_WAIT {
            return Err(CrmError::RateLimited(wait));
        }
        self.budget.take(lane).await;
        Ok(())
    }

    /// Lets nobody through while the account is blocked, and one request each [`BLOCK_PAUSE`].
    fn pass_block(&self) -> Result<(), CrmError> {
        let now = Instant::now();
        let mut state = self.lock();
        match &mut state.block {
            Some(block) if now < block.until => Err(blocked(block.until - now)),
            Some(block) => {
                block.until = now + BLOCK_PAUSE;
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn read(&self, method: &str, mut response: Response) -> Result<Answer, CrmError> {
        let server_time = header(&response, &DATE).and_then(|date| {
            let zoned = jiff::fmt::rfc2822::parse(date).ok()?;
            Some(zoned.timestamp())
        });
        if let Some(told) = server_time {
            self.lock().clock = Some((told, Instant::now()));
        }
        let status = response.status();
        let is_json = header(&response, &CONTENT_TYPE).is_some_and(|kind| kind.contains("json"));
        let body = read_body(&mut response, LARGEST_BODY_BYTES).await;
        let body = body.map_err(|error| unreachable(method, error))?;
        let body = body.ok_or_else(|| CrmError::Shape {
            method: method.to_owned(),
            text: format!("a body of more than {LARGEST_BODY_BYTES} bytes"),
        })?;
        Ok(Answer {
            status,
            is_json,
            body,
            server_time,
        })
    }

    /// A good answer ends a block, unless it was under way when the block came.
    fn hold_back(&self, answer: &Answer, sent_at: Instant) -> Result<(), CrmError> {
        match answer.status {
            StatusCode::FORBIDDEN if !answer.is_json => {
                let since = Instant::now();
                let until = since + BLOCK_PAUSE;
                self.lock().block = Some(Block { since, until });
                Err(blocked(BLOCK_PAUSE))
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let wait = self.back_off(Problem::read(&answer.body).retry_after);
                self.budget.pause(wait);
                Err(CrmError::RateLimited(wait))
            }
            status => {
                if !status.is_server_error() {
                    let mut state = self.lock();
                    state.strikes = 0;
                    state.block = state.block.take().filter(|block| sent_at < block.since);
                }
                Ok(())
            }
        }
    }

    /// How long to keep still after a 429: as long as the CRM says, or twice the last time.
    fn back_off(&self, named_seconds: Option<u64>) -> Duration {
        let now = Instant::now();
        let mut state = self.lock();
        if let Some(seconds) = named_seconds {
            let named = Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER);
            return named.max(self.patience.first_retry);
        }
        // Requests that were under way together are refused together: that is one strike.
        if let Some(until) = state.paused_until.filter(|until| now < *until) {
            return until - now;
        }
        let doubled = 2_u32.saturating_pow(state.strikes.min(16));
        let wait = (self.patience.first_retry.saturating_mul(doubled)).min(LONGEST_BACK_OFF);
        state.strikes = state.strikes.saturating_add(1);
        state.paused_until = Some(now + wait);
        wait
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often a request may be sent again: a live one never, a background one while its fault looks
/// passing, with growing delays.
pub(super) struct Tries {
    left: u32,
    delay: Duration,
}

impl Tries {
    /// Waits for the next try, or gives the fault back if there is none.
    pub(super) async fn wait_after(&mut self, fault: CrmError) -> Result<(), CrmError> {
        if self.left == 0 {
            return Err(fault);
        }
        match &fault {
            // The budget itself waits this out.
            CrmError::RateLimited(wait) if *wait <= LONGEST_OWN_WAIT => {}
            CrmError::Unreachable { .. } => {
                tokio::time::sleep(self.delay).await;
                self.delay *= 2;
            }
            _ => return Err(fault),
        }
        self.left -= 1;
        tracing::debug!(fault = fault.label(), self.left, "amoCRM is asked again");
        Ok(())
    }
}

/// What a status means that nobody expected at this place.
pub(super) fn refusal(method: &str, answer: &Answer) -> CrmError {
    let method = method.to_owned();
    let status = answer.status;
    let words = Problem::read(&answer.body).words();
    if status == StatusCode::FORBIDDEN {
        return CrmError::Forbidden {
            method,
            text: words,
        };
    }
    if status.is_server_error() {
        return CrmError::Unreachable {
            method,
            cause: format!("HTTP {status}").into(),
        };
    }
    if status.is_success() {
        return CrmError::Shape {
            method,
            text: format!("HTTP {status} without JSON"),
        };
    }
    let text = match status.as_u16() {
        300..400 => "the account has moved; see `crm.url`".to_owned(),
        402 => "the account is unpaid; it answers again once its owner has paid".to_owned(),
        404 if words.is_empty() => "no such account; see `crm.url`".to_owned(),
        _ => words,
    };
    CrmError::Refused {
        method,
        code: status.as_u16().to_string(),
        text,
    }
}

/// The address goes: its query holds phone numbers.
fn unreachable(method: &str, error: reqwest::Error) -> CrmError {
    CrmError::Unreachable {
        method: method.to_owned(),
        cause: error.without_url().into(),
    }
}

fn blocked(for_now: Duration) -> CrmError {
    CrmError::Blocked(format!(
        "HTTP 403 from the vendor's gateway, tried again in {} s; only the vendor's support lifts \
         it, tell them this host's address and the subdomain in `crm.url`",
        for_now.as_secs()
    ))
}

fn header<'a>(response: &'a Response, name: &reqwest::header::HeaderName) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crm::budget::Limits;

    fn link() -> Link {
        let limits = Limits {
            per_second: 5.0,
            burst: 2.0,
            reserve: 1.0,
        };
        let patience = Patience {
            timeout: Duration::from_mins(1),
            first_retry: Duration::from_secs(1),
        };
        Link::new(
            CrmName::new("retail"),
            crate::crm::http_client(None).unwrap(),
            Url::parse("https://demo.amocrm.ru").unwrap(),
            Budget::new(limits, false),
            patience,
        )
    }

    fn answer(status: u16, is_json: bool, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            is_json,
            body: body.into(),
            server_time: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_429_double_the_wait_up_to_five_minutes() {
        let link = link();
        let mut waits = Vec::new();
        for _ in 0..11 {
            let Err(CrmError::RateLimited(wait)) =
                link.hold_back(&answer(429, false, "<html>"), Instant::now())
            else {
                panic!("a 429 passed");
            };
            // Its twin of the same burst adds nothing.
            assert!(matches!(
                link.hold_back(&answer(429, false, ""), Instant::now()),
                Err(CrmError::RateLimited(again)) if again == wait
            ));
            waits.push(wait.as_secs());
            tokio::time::advance(wait).await;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        link.hold_back(&answer(200, true, "{}"), Instant::now())
            .unwrap();
        assert_eq!(link.back_off(None).as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_that_a_429_names_is_kept() {
        let link = link();
        let limited = link.hold_back(
            &answer(429, true, r#"{"retry_after": 300}"#),
            Instant::now(),
        );
        assert!(matches!(limited, Err(CrmError::RateLimited(wait)) if wait.as_secs() == 300));
        let next = link.take(Lane::Walk).await;
        assert!(matches!(next, Err(CrmError::RateLimited(wait)) if wait.as_secs() >= 299));
        assert!(matches!(
            link.take(Lane::Live).await,
            Err(CrmError::OutOfBudget(_))
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_block_lets_one_request_through_each_ten_minutes() {
        let link = link();
        let under_way = Instant::now();
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(
            link.hold_back(&answer(403, false, "<html>"), Instant::now())
                .is_err()
        );
        assert!(matches!(link.pass_block(), Err(CrmError::Blocked(_))));
        link.hold_back(&answer(200, true, "{}"), under_way).unwrap();
        assert!(link.pass_block().is_err());
        tokio::time::advance(BLOCK_PAUSE).await;
        link.pass_block().unwrap();
        assert!(link.pass_block().is_err());
        link.hold_back(&answer(204, false, ""), Instant::now())
            .unwrap();
        link.pass_block().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_background_request_is_tried_four_times_and_a_live_one_once() {
        let link = link();
        for (lane, expected, seconds) in [(Lane::Walk, 4, 7), (Lane::Live, 1, 0)] {
            let start = Instant::now();
            let mut tries = link.tries(lane);
            let mut sent = 1;
            let fault = || refusal("GET /x", &answer(502, false, ""));
            while tries.wait_after(fault()).await.is_ok() {
                sent += 1;
            }
            assert_eq!((sent, start.elapsed().as_secs()), (expected, seconds));
        }
        let lasting = CrmError::Unauthorized(String::new());
        assert!(link.tries(Lane::Walk).wait_after(lasting).await.is_err());
    }

    #[test]
    fn every_status_has_its_meaning() {
        let cases = [
            (302, "refused", "the account has moved"),
            (400, "refused", "400: words"),
            (402, "refused", "unpaid"),
            (403, "forbidden", "words"),
            (404, "refused", "words"),
            (422, "refused", "422: words"),
            (202, "shape", "202"),
            (500, "unreachable", "no answer"),
            (503, "unreachable", "no answer"),
        ];
        for (status, label, part) in cases {
            let error = refusal("GET /x", &answer(status, true, r#"{"detail":"words"}"#));
            assert_eq!(error.label(), label, "{status}");
            assert!(error.to_string().contains(part), "{status}: {error}");
        }
    }
}
