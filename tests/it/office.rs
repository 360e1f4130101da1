//! An office in this process: a directory with people and clients, the rules of a configuration, and
//! phones that stand as the test says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use pryamo::call::{DialStatus, Did, Extension, IncomingCall};
use pryamo::config::Config;
use pryamo::decision::Decision;
use pryamo::directory::{Change, Directory, Keep, Refresh, Refreshed};
use pryamo::phone::{CallerNumber, E164, Region, read_caller};
use pryamo::presence::{PhoneState, Presence, Talk};
use pryamo::record::{
    Card, CrmName, Department, Employee, EmployeeId, EntityId, EntityKind, Staff,
};
use pryamo::router::{Purpose, Router};
use pryamo::serve;

/// Phones and talks as a test sets them.
#[derive(Default)]
pub struct Phones {
    states: Mutex<HashMap<Extension, PhoneState>>,
    talks: Mutex<HashMap<E164, Talk>>,
}

impl Phones {
    pub fn set(&self, extension: &str, state: PhoneState) {
        self.states
            .lock()
            .unwrap()
            .insert(self::extension(extension), state);
    }

    pub fn talked(&self, caller: &str, talk: Talk) {
        self.talks.lock().unwrap().insert(number(caller), talk);
    }

    pub fn clear(&self) {
        self.states.lock().unwrap().clear();
    }
}

impl Presence for Phones {
    fn phone(&self, extension: &Extension) -> PhoneState {
        let states = self.states.lock().unwrap();
        states
            .get(extension)
            .copied()
            .unwrap_or(PhoneState::Unknown)
    }

    fn last_talk(&self, caller: E164) -> Option<Talk> {
        self.talks.lock().unwrap().get(&caller).cloned()
    }
}

struct Nobody;

#[async_trait]
impl Refresh for Nobody {
    async fn refresh(
        &self,
        _phone: E164,
        crms: &[CrmName],
        _deadline: Duration,
        _keep: Keep,
    ) -> Vec<(CrmName, Refreshed)> {
        let found_nothing = |crm: &CrmName| (crm.clone(), Refreshed::Nothing);
        crms.iter().map(found_nothing).collect()
    }
}

pub struct Office {
    pub router: Router,
    pub phones: Arc<Phones>,
    pub directory: Arc<dyn Directory>,
    folder: tempfile::TempDir,
}

pub fn crm() -> CrmName {
    CrmName::new("sales")
}

pub fn extension(digits: &str) -> Extension {
    Extension::read(digits, &pryamo::call::ExtensionPattern::any()).unwrap()
}

pub fn number(written: &str) -> E164 {
    match read_caller(written, Region::default()) {
        CallerNumber::Number(number) => number,
        other => panic!("{written} is {other:?}"),
    }
}

pub fn at(written: &str) -> Timestamp {
    written.parse().unwrap()
}

/// An employee of department 1 with this id, name and extension.
pub fn employee(id: u64, name: &str, extension: &str) -> Employee {
    Employee {
        extension: Some(extension.to_owned()),
        email: Some(format!("user{id}@example.com")),
        departments: vec!["1".to_owned()],
        ..Employee::new(EmployeeId::new(&id.to_string()), name)
    }
}

pub fn department(id: &str, name: &str, parent: Option<&str>, head: Option<u64>) -> Department {
    Department {
        id: id.to_owned(),
        name: name.to_owned(),
        parent: parent.map(str::to_owned),
        head: head.map(|head| EmployeeId::new(&head.to_string())),
    }
}

/// A client's card with one phone and its responsible.
pub fn card(
    kind: EntityKind,
    id: u64,
    name: &str,
    phone: &str,
    responsible: u64,
) -> (Card, Vec<E164>) {
    let mut card = Card::new(kind, EntityId::from(id));
    name.clone_into(&mut card.name);
    card.responsible = Some(EmployeeId::new(&responsible.to_string()));
    card.modified = Some(at("2026-11-01T00:00:00Z"));
    card.phones = vec![phone.to_owned()];
    (card, vec![number(phone)])
}

impl Office {
    /// Opens an office with this configuration; its one CRM is named `sales`. `files` lie beside the
    /// configuration.
    pub async fn open(
        config: &str,
        files: &[(&str, &str)],
        staff: Staff,
        cards: Vec<(Card, Vec<E164>)>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let crm_table = if config.contains("[[crm]]") {
            ""
        } else {
            "[[crm]]\nname = \"sales\"\nkind = \"csv\"\n"
        };
        let text = format!(
            "data_dir = '{}'\n{config}\n{crm_table}",
            folder.path().join("data").display()
        );
        let path = folder.path().join("pryamo.toml");
        let config =
            Config::parse(&text, Some(path), &[]).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let directory = serve::open_directory(&config).unwrap();
        directory
            .replace_employees(&crm(), staff, at("2026-11-23T00:00:00Z"))
            .await
            .unwrap();
        for kind in EntityKind::ALL {
            let cards = cards
                .iter()
                .filter(|(card, _)| card.kind == kind)
                .cloned()
                .collect();
            let change = Change {
                crm: crm(),
                kind,
                cards,
                walk: 1,
                unread: Vec::new(),
                keep_newer: None,
                state: None,
            };
            directory.apply(change).await.unwrap();
        }
        let phones = Arc::new(Phones::default());
        let presence = Arc::<Phones>::clone(&phones);
        let rules = config.open_rules().unwrap();
        let router = Router::new(
            config.router_settings(),
            Arc::clone(&directory),
            Arc::new(Nobody),
            presence,
            rules,
        );
        Self {
            router,
            phones,
            directory,
            folder,
        }
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub async fn route(&self, call: &IncomingCall, now: &str) -> Decision {
        self.router.route(call, at(now), Purpose::Explain).await
    }

    /// Asks again and again as the dialplan does when nobody answers, and gives whom it rang.
    pub async fn rung_in_vain(&self, caller: &str, now: &str, status: DialStatus) -> Vec<String> {
        let mut call = call(caller);
        loop {
            let decision = self.route(&call, now).await;
            let Some(target) = decision.ring else {
                return call.tried;
            };
            assert!(call.tried.len() < 40, "a circle: {:?}", call.tried);
            call.tried.push(target.to_string());
            call.status = Some(status);
        }
    }
}

/// A call to 7 495 123-45-67.
pub fn call(caller: &str) -> IncomingCall {
    IncomingCall {
        phone: caller.to_owned(),
        did: Did::new("74951234567"),
        call_id: Some("1795334400.7".to_owned()),
        ..IncomingCall::default()
    }
}
