//! The application of the made-up portal: the server of its tokens, its events and their queue.
//! After the vendor's pages on OAuth 2.0, `event.bind` and offline events. Pure: the clock is given.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};

use super::methods::{Answer, Fault};
use super::{Options, Rotation, php};
use crate::world::{Happened, List, What};

const PAGE: usize = 50;

/// What the portal knows of its application.
#[derive(Default)]
pub struct Application {
    serial: u64,
    /// Access tokens and when they end, Unix seconds.
    access: HashMap<String, f64>,
    /// Refresh tokens that still work.
    refresh: BTreeSet<String>,
    /// Events bound as offline ones.
    bound: BTreeSet<String>,
    queue: Vec<Record>,
    /// Exchanges that gave a new pair.
    pub exchanges: usize,
}

/// A record of the queue.
#[derive(Clone)]
struct Record {
    id: u64,
    at: f64,
    event: String,
    /// The card; `None` where the record says nothing of one.
    card: Option<u64>,
    object: (List, u64),
    process: String,
    is_error: bool,
}

/// An access token and a refresh token.
pub struct Pair {
    pub access: String,
    pub refresh: String,
    /// Unix seconds.
    pub ends: f64,
}

impl Application {
    /// A new pair, from an installation or a consent in the browser.
    pub fn issue(&mut self, options: &Options, now: f64) -> Pair {
        self.serial += 1;
        let pair = Pair {
            access: format!("access-{}", self.serial),
            refresh: format!("refresh-{}", self.serial),
            ends: now + options.access_life_seconds,
        };
        self.access.insert(pair.access.clone(), pair.ends);
        self.refresh.insert(pair.refresh.clone());
        pair
    }

    pub fn expire_access_tokens(&mut self, now: f64) {
        for ends in self.access.values_mut() {
            *ends = ends.min(now);
        }
    }

    /// All tokens die: the application was removed.
    pub fn forget_tokens(&mut self) {
        self.access.clear();
        self.refresh.clear();
    }

    pub fn drop_bindings(&mut self) {
        self.bound.clear();
    }

    pub fn bound(&self) -> Vec<String> {
        self.bound.iter().cloned().collect()
    }

    /// Names of the events in the queue, reserved ones too.
    pub fn queue(&self) -> Vec<String> {
        let name = |record: &Record| format!("{} {}", record.event, record.object.1);
        self.queue.iter().map(name).collect()
    }

    /// The token server's answer.
    pub fn exchange(&mut self, params: &Value, options: &Options, now: f64) -> Result<Pair, Fault> {
        let text = |key: &str| php::get(params, key).map(php::text).unwrap_or_default();
        if text("grant_type") != "refresh_token" {
            return Err(Fault::new(400, "invalid_request", "unknown grant type"));
        }
        if text("client_id") != options.client_id {
            return Err(Fault::new(401, "invalid_client", "unknown client"));
        }
        if text("client_secret") != options.client_secret {
            let text = "client_id or client_secret is wrong";
            return Err(Fault::new(400, "wrong_client", text));
        }
        let refresh = text("refresh_token");
        if !self.refresh.contains(&refresh) {
            return Err(Fault::new(400, "invalid_grant", "Invalid grant"));
        }
        if options.rotation == Rotation::Strict {
            self.refresh.remove(&refresh);
        }
        self.exchanges += 1;
        Ok(self.issue(options, now))
    }

    /// Whether a request with this token may be answered.
    pub fn admit(&self, token: &str, now: f64) -> Result<(), Fault> {
        match self.access.get(token) {
            None => Err(Fault::new(401, "NO_AUTH_FOUND", "Wrong authorization data")),
            Some(ends) if *ends <= now => {
                let text = "The access token provided has expired.";
                Err(Fault::new(401, "expired_token", text))
            }
            Some(_) => Ok(()),
        }
    }

    /// Puts what happened into the queue, if its event is bound: one record for each card.
    pub fn happened(&mut self, happened: &Happened, now: f64) {
        let event = event_name(happened);
        if !self.bound.contains(&event) {
            return;
        }
        let object = (happened.list, happened.id);
        self.queue
            .retain(|record| record.object != object || !record.process.is_empty());
        self.enqueue(event, object, Some(happened.id), now);
    }

    /// Puts a record without data into the queue, as the documentation shows them.
    pub fn empty_record(&mut self, now: f64) {
        let object = (List::Contacts, 0);
        self.enqueue("ONCRMCONTACTADD".to_owned(), object, None, now);
    }

    fn enqueue(&mut self, event: String, object: (List, u64), card: Option<u64>, now: f64) {
        self.serial += 1;
        self.queue.push(Record {
            id: self.serial,
            at: now,
            event,
            card,
            object,
            process: String::new(),
            is_error: false,
        });
    }

    /// Answers `event.*`; its name is in lower case.
    pub fn run(
        &mut self,
        method: &str,
        params: &Value,
        options: &Options,
    ) -> Result<Answer, Fault> {
        let plain = |result: Value| {
            Ok(Answer {
                result,
                ..Answer::default()
            })
        };
        match method {
            "event.bind" => plain(self.bind(params, options)?),
            "event.unbind" => {
                let was_there = self.bound.remove(&event_of(params));
                plain(json!({"count": u8::from(was_there)}))
            }
            "event.get" => {
                let row = |event| json!({"event": event, "connector_id": "", "offline": 1});
                plain(self.bound.iter().map(row).collect())
            }
            "event.offline.get" => plain(self.get(params, options)?),
            "event.offline.list" => Ok(self.list(params)),
            "event.offline.clear" => {
                let (process, ids) = (text_of(params, "process_id"), texts_of(params, "id"));
                self.of_process(&process)?;
                self.queue.retain(|record| {
                    record.process != process
                        || !(ids.is_empty() || ids.contains(&record.id.to_string()))
                });
                plain(json!(true))
            }
            "event.offline.error" => {
                let process = text_of(params, "process_id");
                let messages = texts_of(params, "message_id");
                for record in self.of_process(&process)? {
                    if messages.contains(&record.message()) {
                        record.is_error = true;
                        record.process.clear();
                    }
                }
                plain(json!(true))
            }
            _ => Err(Fault::new(
                404,
                "ERROR_METHOD_NOT_FOUND",
                "Method not found!",
            )),
        }
    }

    fn bind(&mut self, params: &Value, options: &Options) -> Result<Value, Fault> {
        let event = event_of(params);
        let is_known = ["CONTACT", "COMPANY", "LEAD", "DEAL"].iter().any(|kind| {
            ["ADD", "UPDATE", "DELETE"]
                .iter()
                .any(|verb| event == format!("ONCRM{kind}{verb}"))
        });
        if !is_known {
            return Err(Fault::new(400, "ERROR_EVENT_NOT_FOUND", "Event not found"));
        }
        if text_of(params, "event_type") != "offline" {
            return Err(Fault::new(
                400,
                "ERROR_ARGUMENT",
                "Handler URL is not defined",
            ));
        }
        if !options.is_admin {
            let text = "Offline events are available to administrators only";
            return Err(Fault::new(403, "ACCESS_DENIED", text));
        }
        if !self.bound.insert(event) {
            let text = "Unable to set event handler: Handler already binded";
            return Err(Fault::new(400, "ERROR_CORE", text));
        }
        Ok(json!(true))
    }

    fn get(&mut self, params: &Value, options: &Options) -> Result<Value, Fault> {
        let clears = text_of(params, "clear") != "0";
        if !clears && !options.has_reservation {
            let text = "Extended offline events handling is not available on your plan";
            return Err(Fault::new(403, "ACCESS_DENIED", text));
        }
        let limit = text_of(params, "limit").parse().unwrap_or(PAGE);
        let wants_errors = text_of(params, "error") == "1";
        let again = text_of(params, "process_id");
        let chosen: Vec<u64> = self
            .queue
            .iter()
            .filter(|record| record.process == again && record.is_error == wants_errors)
            .take(limit)
            .map(|record| record.id)
            .collect();
        let mut process = Value::Null;
        if !clears {
            self.serial += 1;
            let name = match again.as_str() {
                "" => format!("process{}", self.serial),
                again => again.to_owned(),
            };
            for record in &mut self.queue {
                if chosen.contains(&record.id) {
                    record.process.clone_from(&name);
                }
            }
            process = json!(name);
        }
        let events: Vec<Value> = self
            .queue
            .iter()
            .filter(|record| chosen.contains(&record.id))
            .map(Record::row)
            .collect();
        if clears {
            self.queue.retain(|record| !chosen.contains(&record.id));
        }
        Ok(json!({"process_id": process, "events": events}))
    }

    fn list(&self, params: &Value) -> Answer {
        let filter = php::get(params, "filter").and_then(Value::as_object);
        let passes = |record: &Record| {
            filter.is_none_or(|filter| {
                filter.iter().all(|(key, value)| {
                    let bound = php::text(value);
                    match key.as_str() {
                        ">ID" => record.id > bound.parse().unwrap_or(0),
                        ">PROCESS_ID" => record.process > bound,
                        "=PROCESS_ID" | "PROCESS_ID" => record.process == bound,
                        "=ERROR" | "ERROR" => record.is_error == (bound == "1"),
                        other => panic!("a filter by {other}"),
                    }
                })
            })
        };
        let all: Vec<&Record> = self.queue.iter().filter(|record| passes(record)).collect();
        let skip = text_of(params, "start").parse().unwrap_or(0);
        let rows = all.iter().skip(skip).take(PAGE).map(|record| {
            let mut row = record.row();
            row["PROCESS_ID"] = json!(record.process);
            row["ERROR"] = json!(if record.is_error { "1" } else { "0" });
            row
        });
        Answer {
            result: rows.collect(),
            total: Some(all.len()),
            next: (skip + PAGE < all.len()).then_some(skip + PAGE),
            is_page: false,
        }
    }

    fn of_process(&mut self, process: &str) -> Result<Vec<&mut Record>, Fault> {
        if process.is_empty() {
            let text = "Argument 'PROCESS_ID' is null or empty";
            return Err(Fault::new(400, "ERROR_ARGUMENT", text));
        }
        let records = self.queue.iter_mut();
        Ok(records.filter(|record| record.process == process).collect())
    }
}

impl Record {
    fn message(&self) -> String {
        format!("message{}", self.id)
    }

    fn row(&self) -> Value {
        let data = match self.card {
            Some(id) => json!({"FIELDS": {"ID": id.to_string()}}),
            None => json!(false),
        };
        #[expect(clippy::cast_possible_truncation, reason = "seconds of this century")]
        let at = jiff::Timestamp::from_second(self.at as i64).unwrap();
        json!({"ID": self.id.to_string(), "TIMESTAMP_X": at.to_string(),
            "EVENT_NAME": self.event, "EVENT_DATA": data, "EVENT_ADDITIONAL": false,
            "MESSAGE_ID": self.message()})
    }
}

/// The portal's name of what happened.
pub fn event_name(happened: &Happened) -> String {
    let kind = match happened.list {
        List::Contacts => "CONTACT",
        List::Companies => "COMPANY",
        List::Leads => "LEAD",
        List::Deals => "DEAL",
    };
    let verb = match happened.what {
        What::Added => "ADD",
        What::Changed | What::Reassigned(_) => "UPDATE",
        What::Deleted | What::MergedInto(_) => "DELETE",
    };
    format!("ONCRM{kind}{verb}")
}

fn event_of(params: &Value) -> String {
    text_of(params, "event").to_uppercase()
}

fn text_of(params: &Value, key: &str) -> String {
    php::get(params, key).map(php::text).unwrap_or_default()
}

fn texts_of(params: &Value, key: &str) -> Vec<String> {
    php::get(params, key).map(php::texts).unwrap_or_default()
}
