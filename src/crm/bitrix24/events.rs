//! The queue of events that the portal keeps for an application ("offline events").
//!
//! It works behind any NAT: we fetch. The queue holds one record for each card, its last event.
//! `event.offline.get` with `clear=0` hands out records under a process id and hides them until
//! that process is cleared, for up to 30 days. So what was fetched and never stored must be looked
//! for: `event.offline.list` shows the whole queue without changing it, with each record's process
//! id (vendor's page of the same name), and is asked at the start and after every doubt.
//!
//! Reserving depends on the portal's plan. Without it records are deleted as they are read
//! (`clear=1`): a crash between reading and storing loses them, and only the check for changes and
//! the next walk repair that.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use super::application::Application;
use super::client::{AfterFault, Client, Command, shape};
use super::hook;
use super::wire;
use crate::crm::budget::Lane;
use crate::crm::{CrmError, Cursor, News, Receipt};
use crate::record::{EntityId, EntityKind, Notice};

const GET: &str = "event.offline.get";
const LIST: &str = "event.offline.list";
const CLEAR: &str = "event.offline.clear";
const BIND: &str = "event.bind";
const BOUND: &str = "event.get";
const FEATURE: &str = "feature.get";
/// Records that one request brings; the portal's own page.
const PAGE_RECORDS: usize = 50;
/// Pages of reserved records that are read: each crash leaves one page at most.
const RESERVED_PAGES: usize = 100;
/// What stands between process ids in a cursor or receipt.
const BETWEEN: char = ',';

/// The portal's queue for us.
pub(super) struct Queue {
    client: Arc<Client>,
    application: Arc<Application>,
    kinds: Vec<EntityKind>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The installation whose events are bound; another one has lost its bindings.
    bound: Option<u64>,
    /// Whether the plan lets us reserve records.
    reserves: bool,
    /// No record is reserved that is not in `open`.
    is_complete: bool,
    /// Processes whose notices were handed out and are not known as stored.
    open: Option<String>,
    /// The last processes that were cleared.
    cleared: Option<String>,
}

/// A record of the queue.
struct Record {
    process: Option<String>,
    notice: Option<Notice>,
}

impl Queue {
    pub(super) fn new(
        client: Arc<Client>,
        application: Arc<Application>,
        kinds: Vec<EntityKind>,
    ) -> Self {
        Self {
            client,
            application,
            kinds,
            state: Mutex::default(),
        }
    }

    /// The next notices. `from` names the processes whose notices were stored last.
    pub(super) async fn news(&self, from: Option<&Cursor>) -> Result<News, CrmError> {
        let mut state = self.state.lock().await;
        self.prepare(&mut state).await?;
        // A plan that no longer reserves would refuse this too.
        if let Some(Cursor(stored)) = from
            && state.reserves
            && state.cleared.as_ref() != Some(stored)
        {
            self.clear(&mut state, stored).await?;
        }
        // Handed out, and whoever asked has not stored it: it lies reserved still.
        if state.open.take().is_some() {
            state.is_complete = false;
        }
        if state.reserves && !state.is_complete {
            let left = self.reserved().await?;
            state.is_complete = true;
            if !left.is_empty() {
                tracing::info!(
                    records = left.len(),
                    "events of an earlier reading are taken up"
                );
                let mut news = hand_out(&mut state, left);
                news.more = true;
                return Ok(news);
            }
        }
        self.fetch(state).await
    }

    /// Lets the portal forget what was stored.
    pub(super) async fn confirm(&self, receipt: &Receipt) -> Result<(), CrmError> {
        let mut state = self.state.lock().await;
        self.clear(&mut state, &receipt.0).await
    }

    /// How many of the wanted events are bound, and how many are wanted.
    pub(super) async fn count_bound(&self) -> Result<(usize, usize), CrmError> {
        let wanted = hook::event_names(&self.kinds);
        let missing = self.missing().await?;
        Ok((wanted.len() - missing.len(), wanted.len()))
    }

    /// Sees to it, once for each installation, that events come into the queue at all.
    async fn prepare(&self, state: &mut State) -> Result<(), CrmError> {
        let installs = self.application.installs();
        if state.bound == Some(installs) {
            return Ok(());
        }
        self.bind().await?;
        state.reserves = self.may_reserve().await?;
        state.bound = Some(installs);
        Ok(())
    }

    async fn bind(&self) -> Result<(), CrmError> {
        let missing = self.missing().await?;
        if missing.is_empty() {
            return Ok(());
        }
        let commands = missing.iter().map(|name| Command {
            method: BIND,
            query: format!("event={name}&event_type=offline"),
        });
        let commands: Vec<Command> = commands.collect();
        let mut batch = self
            .client
            .batch(Lane::Notice, commands, AfterFault::GoOn)
            .await?;
        for (place, name) in missing.iter().enumerate() {
            match batch.take(place) {
                Ok(_) => {}
                // Somebody else has bound it meanwhile.
                Err(CrmError::Refused { text, .. }) if text.to_lowercase().contains("already") => {}
                // A portal without leads, or an old one: the others still work.
                Err(CrmError::Refused { code, .. }) if code == "ERROR_EVENT_NOT_FOUND" => {
                    tracing::warn!(event = name.as_str(), "the portal has no such event");
                }
                Err(error) => return Err(error),
            }
        }
        tracing::info!(events = missing.len(), "events of the portal are bound");
        Ok(())
    }

    /// The wanted events that are not bound.
    async fn missing(&self) -> Result<Vec<String>, CrmError> {
        let nothing = json!({});
        let ask = || self.client.call(Lane::Notice, BOUND, &nothing);
        let reply = self.client.patiently(ask).await?;
        let rows = wire::items(&reply.result).ok_or_else(|| shape(BOUND, "no list"))?;
        let bound: Vec<String> = rows
            .into_iter()
            .filter(|row| row.get("offline").and_then(wire::truth) == Some(true))
            .filter_map(|row| row.get("event").and_then(wire::text))
            .map(|name| name.to_ascii_uppercase())
            .collect();
        let mut names = hook::event_names(&self.kinds);
        names.retain(|name| !bound.contains(name));
        Ok(names)
    }

    async fn may_reserve(&self) -> Result<bool, CrmError> {
        let feature = json!({"CODE": "rest_offline_extended"});
        let ask = || self.client.call(Lane::Notice, FEATURE, &feature);
        match self.client.patiently(ask).await {
            Ok(reply) => Ok(reply.result.get("value").and_then(wire::truth) == Some(true)),
            // A portal of its owner's that does not know the method yet.
            Err(CrmError::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn fetch(&self, mut state: MutexGuard<'_, State>) -> Result<News, CrmError> {
        let body = json!({
            "clear": u8::from(!state.reserves),
            "limit": PAGE_RECORDS,
            "order": {"ID": "ASC"},
        });
        // Not repeated here: should the answer be lost, its records lie reserved, and the next
        // question looks for them.
        state.is_complete = false;
        let reply = self.client.call(Lane::Notice, GET, &body).await?;
        let rows = reply.result.get("events").and_then(wire::items);
        let rows = rows.ok_or_else(|| shape(GET, "no list `events`"))?;
        let process = reply.result.get("process_id").and_then(wire::text);
        state.is_complete = true;
        if state.reserves && process.is_none() && !rows.is_empty() {
            tracing::warn!("the portal reserves no events; they are deleted as they are read");
            state.reserves = false;
        }
        let process = process.filter(|_| state.reserves);
        let records = rows.into_iter().map(|row| Record {
            process: process.clone(),
            notice: self.notice(row),
        });
        let records: Vec<Record> = records.collect();
        let more = records.len() >= PAGE_RECORDS;
        let mut news = hand_out(&mut state, records);
        news.more = more;
        Ok(news)
    }

    /// What lies reserved, whoever reserved it.
    async fn reserved(&self) -> Result<Vec<Record>, CrmError> {
        let mut records = Vec::new();
        let mut after = 0;
        for _ in 0..RESERVED_PAGES {
            let body = json!({
                "filter": {">ID": after, ">PROCESS_ID": ""},
                "order": {"ID": "ASC"},
            });
            let ask = || self.client.call(Lane::Notice, LIST, &body);
            let reply = match self.client.patiently(ask).await {
                Ok(reply) => reply,
                Err(CrmError::Refused { code, .. }) => {
                    tracing::warn!(code, "the portal does not show its queue of events");
                    return Ok(records);
                }
                Err(error) => return Err(error),
            };
            let rows = wire::items(&reply.result).ok_or_else(|| shape(LIST, "no list"))?;
            for row in &rows {
                let id = row.get("ID").and_then(wire::positive);
                let id = id.filter(|id| *id > after);
                after = id.ok_or_else(|| shape(LIST, "its records do not rise"))?;
                let process = row.get("PROCESS_ID").and_then(wire::text);
                if process.is_some() {
                    let notice = self.notice(row);
                    records.push(Record { process, notice });
                }
            }
            if rows.len() < PAGE_RECORDS {
                return Ok(records);
            }
        }
        Err(shape(LIST, "its pages do not end"))
    }

    async fn clear(&self, state: &mut State, processes: &str) -> Result<(), CrmError> {
        for process in processes.split(BETWEEN).filter(|part| !part.is_empty()) {
            let body = json!({"process_id": process});
            let ask = || self.client.call(Lane::Notice, CLEAR, &body);
            match self.client.patiently(ask).await {
                Ok(_) => {}
                // It would be refused again: the records show up at the next start.
                Err(CrmError::Refused { code, .. }) => {
                    tracing::warn!(code, "the portal does not clear events that were read");
                }
                Err(error) => return Err(error),
            }
        }
        if state.open.as_deref() == Some(processes) {
            state.open = None;
        }
        state.cleared = Some(processes.to_owned());
        Ok(())
    }

    /// What a record says of a card that is mirrored.
    fn notice(&self, row: &Value) -> Option<Notice> {
        let name = row.get("EVENT_NAME").and_then(wire::text)?;
        let (kind, event) = hook::event_of(&name)?;
        let fields = row.get("EVENT_DATA").and_then(|data| data.get("FIELDS"));
        let Some(id) = fields
            .and_then(|fields| fields.get("ID"))
            .and_then(wire::positive)
        else {
            // Documented: `EVENT_DATA` may be `false`.
            tracing::debug!(event = name, "an event names no card");
            return None;
        };
        let id = EntityId::from(id);
        let is_mirrored = self.kinds.contains(&kind);
        is_mirrored.then_some(Notice { kind, id, event })
    }
}

/// Notices with the receipt for them. The cursor names the same processes: it is stored together
/// with the notices, so the next question knows whether it may clear them.
fn hand_out(state: &mut State, records: Vec<Record>) -> News {
    let mut processes: Vec<String> = Vec::new();
    let mut notices = Vec::with_capacity(records.len());
    for record in records {
        notices.extend(record.notice);
        let process = record.process.filter(|name| !processes.contains(name));
        processes.extend(process);
    }
    let receipt = (!processes.is_empty()).then(|| processes.join(&BETWEEN.to_string()));
    state.open.clone_from(&receipt);
    News {
        notices,
        cursor: receipt.clone().map(Cursor),
        more: false,
        receipt: receipt.map(Receipt),
    }
}
