//! What the portal sends by itself: a form with nested keys, from an outgoing webhook or to an
//! application.
//!
//! Anybody who learns the address can send here, so a body is read once from its start to its end,
//! only the handful of known keys is kept, and nothing is nested: neither a million fields nor a
//! thousand brackets cost more than the reading.

use percent_encoding::percent_decode;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use crate::crm::oauth::store::Pair;
use crate::record::{EntityId, EntityKind, Event, Notice};

/// The longest key that is looked at; ours are shorter, even with every bracket escaped.
const KEY_LIMIT_BYTES: usize = 64;
/// The longest value that is kept; tokens have some 100 bytes.
const VALUE_LIMIT_BYTES: usize = 4096;
/// The keys that are kept.
const KEYS: [&str; 10] = [
    "event",
    "data[FIELDS][ID]",
    "auth[access_token]",
    "auth[refresh_token]",
    "auth[application_token]",
    "auth[domain]",
    "auth[client_endpoint]",
    "auth[server_endpoint]",
    "auth[member_id]",
    "auth[expires]",
];

/// A form that the portal sent. It holds secrets, so it has no `Debug`.
pub(super) struct Form {
    /// The event's name in upper case.
    event: String,
    /// What was sent for each of [`KEYS`]; the first, if something was sent twice.
    values: [Option<String>; KEYS.len()],
}

/// What an installation or update of the application brings.
pub(super) struct Installation {
    access_token: Option<SecretString>,
    refresh_token: Option<SecretString>,
    ends: Option<i64>,
    pub(super) application_token: Option<SecretString>,
    pub(super) member_id: Option<String>,
    pub(super) server_endpoint: Option<String>,
}

impl Installation {
    /// The tokens; an update need not bring any.
    pub(super) fn pair(&self) -> Option<Pair> {
        let (access, refresh) = (self.access_token.as_ref()?, self.refresh_token.as_ref()?);
        Some(Pair {
            access: access.clone(),
            refresh: refresh.clone(),
            ends: self.ends,
        })
    }
}

impl Form {
    /// Reads a body; the error says why it is none that the portal sends.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let mut values: [Option<String>; KEYS.len()] = Default::default();
        for field in body.split(|byte| *byte == b'&') {
            let mut parts = field.splitn(2, |byte| *byte == b'=');
            let (key, value) = (parts.next(), parts.next());
            let (Some(key), Some(value)) = (key, value) else {
                continue;
            };
            if key.len() > KEY_LIMIT_BYTES || value.len() > VALUE_LIMIT_BYTES {
                continue;
            }
            let key = decoded(key);
            let known = KEYS
                .iter()
                .position(|known| known.eq_ignore_ascii_case(&key));
            if let Some(place) = known.and_then(|place| values.get_mut(place))
                && place.is_none()
            {
                *place = Some(decoded(value)).filter(|value| !value.is_empty());
            }
        }
        let event = values.first_mut().and_then(Option::take);
        let event = event.ok_or("it is no form with the field `event`")?;
        Ok(Self {
            event: event.to_ascii_uppercase(),
            values,
        })
    }

    /// Says whether the application was installed or updated.
    pub(super) fn is_installation(&self) -> bool {
        matches!(self.event.as_str(), "ONAPPINSTALL" | "ONAPPUPDATE")
    }

    /// What is said of a card, if it is said of one of these kinds.
    pub(super) fn notice(&self, kinds: &[EntityKind]) -> Result<Option<Notice>, String> {
        let Some((kind, event)) = event_of(&self.event) else {
            return Ok(None);
        };
        let id = self.value("data[FIELDS][ID]");
        let id = id.and_then(|id| id.trim().parse::<u64>().ok());
        let id = id.filter(|id| *id > 0);
        let id = id.ok_or("it names a card's event and no `data[FIELDS][ID]`")?;
        let notice = Notice {
            kind,
            id: EntityId::from(id),
            event,
        };
        Ok(kinds.contains(&kind).then_some(notice))
    }

    /// Says whether it carries one of these tokens. The comparison takes as long for a nearly right
    /// token as for a wrong one.
    pub(super) fn proves(&self, expected: &[SecretString]) -> bool {
        let token = self.value("auth[application_token]").unwrap_or_default();
        expected.iter().fold(false, |proven, expected| {
            let expected = expected.expose_secret().as_bytes();
            // An empty expectation proves nothing.
            let is_same = bool::from(expected.ct_eq(token.as_bytes())) && !token.is_empty();
            is_same | proven
        })
    }

    /// The host of the portal that it speaks of.
    pub(super) fn host(&self) -> Option<String> {
        let domain = self.value("auth[domain]");
        let address = match domain {
            Some(domain) => format!("https://{domain}/"),
            None => self.value("auth[client_endpoint]")?.to_owned(),
        };
        let url = reqwest::Url::parse(&address).ok()?;
        url.host_str().map(str::to_owned)
    }

    /// What it brings, if it is an installation.
    pub(super) fn installation(&self) -> Installation {
        let owned = |key| self.value(key).map(str::to_owned);
        let secret = |key| owned(key).map(SecretString::from);
        Installation {
            access_token: secret("auth[access_token]"),
            refresh_token: secret("auth[refresh_token]"),
            // `expires_in` has no meaning without the clock of the moment; a token whose end is not
            // known is used until the portal calls it expired.
            ends: self
                .value("auth[expires]")
                .and_then(|seconds| seconds.trim().parse().ok()),
            application_token: secret("auth[application_token]"),
            member_id: owned("auth[member_id]"),
            server_endpoint: owned("auth[server_endpoint]"),
        }
    }

    fn value(&self, key: &str) -> Option<&str> {
        let place = KEYS.iter().position(|known| *known == key)?;
        self.values.get(place)?.as_deref()
    }
}

/// The kind and event that a name stands for, in any case of its letters.
pub(super) fn event_of(name: &str) -> Option<(EntityKind, Event)> {
    let name = name.trim().to_ascii_uppercase();
    let rest = name.strip_prefix("ONCRM")?;
    EntityKind::ALL.into_iter().find_map(|kind| {
        let verb = rest.strip_prefix(&kind.as_str().to_ascii_uppercase())?;
        match verb {
            "ADD" | "UPDATE" => Some((kind, Event::Changed)),
            "DELETE" => Some((kind, Event::Gone)),
            _ => None,
        }
    })
}

/// The names of all events of these kinds.
pub(super) fn event_names(kinds: &[EntityKind]) -> Vec<String> {
    let names = kinds.iter().flat_map(|kind| {
        let kind = kind.as_str().to_ascii_uppercase();
        ["ADD", "UPDATE", "DELETE"].map(|verb| format!("ONCRM{kind}{verb}"))
    });
    names.collect()
}

fn decoded(part: &[u8]) -> String {
    let spaced: Vec<u8> = part
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    percent_decode(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crm::HOOK_BYTES;

    fn notice(body: &str) -> Result<Option<Notice>, String> {
        Form::read(body.as_bytes())?.notice(&[EntityKind::Contact, EntityKind::Deal])
    }

    #[test]
    fn every_event_of_a_mirrored_card_is_a_notice() {
        let table = [
            (
                "ONCRMCONTACTADD",
                Some((EntityKind::Contact, Event::Changed)),
            ),
            (
                "OnCrmContactUpdate",
                Some((EntityKind::Contact, Event::Changed)),
            ),
            ("oncrmdealdelete", Some((EntityKind::Deal, Event::Gone))),
            // Not mirrored here.
            ("ONCRMLEADADD", None),
            ("ONCRMCOMPANYDELETE", None),
            // Of no interest.
            ("ONCRMCONTACTUSERFIELDADD", None),
            ("ONCRMDEALMOVETOCATEGORY", None),
            ("ONCRMDYNAMICITEMADD", None),
            ("ONTASKADD", None),
        ];
        for (name, expected) in table {
            let body = format!("event={name}&data%5BFIELDS%5D%5BID%5D=156&ts=1");
            let notice = notice(&body).unwrap();
            let told = notice.map(|notice| (notice.kind, notice.event));
            assert_eq!(told, expected, "{name}");
        }
    }

    #[test]
    fn the_form_is_read_however_it_is_escaped() {
        for body in [
            "event=ONCRMCONTACTADD&data[FIELDS][ID]=156",
            "data%5bFIELDS%5d%5bID%5d=156&event=ONCRMCONTACTADD",
            "&&x&=&event=ONCRMCONTACTADD&data[fields][id]=+156+&data[FIELDS][ID]=157",
        ] {
            let notice = notice(body).unwrap().unwrap();
            assert_eq!(notice.id.as_str(), "156", "{body}");
        }
        for body in [
            "",
            "{\"event\":\"ONCRMCONTACTADD\"}",
            "event=&data[FIELDS][ID]=156",
            "event=ONCRMCONTACTADD",
            "event=ONCRMCONTACTADD&data[FIELDS][ID]=0",
            "event=ONCRMCONTACTADD&data[FIELDS][ID]=-1",
            "event=ONCRMCONTACTADD&data[FIELDS][ID]=156x",
            "event=ONCRMCONTACTADD&data[FIELDS][ID]=99999999999999999999",
            "event=ONCRMCONTACTADD&data[FIELDS][ID][]=156",
        ] {
            assert!(notice(body).is_err(), "{body}");
        }
    }

    #[test]
    fn only_the_whole_token_proves() {
        let form = Form::read(b"event=X&auth[application_token]=t0ken").unwrap();
        let proves = |tokens: &[&str]| {
            let tokens: Vec<SecretString> = tokens.iter().map(|token| (*token).into()).collect();
            form.proves(&tokens)
        };
        assert!(proves(&["t0ken"]) && proves(&["other", "t0ken"]));
        assert!(!proves(&["t0ke"]) && !proves(&["t0ken1"]) && !proves(&[]));
        assert!(!Form::read(b"event=X").unwrap().proves(&["t".into()]));
    }

    #[test]
    fn a_huge_body_is_read_once_and_in_no_time() {
        let started = std::time::Instant::now();
        let fields = "data[FIELDS][ID]=1&".repeat(HOOK_BYTES / 19);
        let deep = format!("data{}=1", "[x]".repeat(HOOK_BYTES / 3));
        let escaped = "%5B".repeat(HOOK_BYTES / 3);
        for body in [&fields, &deep, &escaped, &format!("event={escaped}")] {
            assert!(Form::read(body.as_bytes()).is_err());
        }
        let body = format!("event=ONCRMDEALADD&{fields}");
        assert!(notice(&body).unwrap().is_some());
        assert!(started.elapsed().as_secs() < 10);
    }

    proptest! {
        #[test]
        fn no_body_upsets_the_reader(body in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(form) = Form::read(&body) {
                let _ = (form.notice(&EntityKind::ALL), form.host(), form.installation().pair());
            }
        }

        #[test]
        fn no_form_upsets_the_reader(
            fields in prop::collection::vec((0..KEYS.len(), "\\PC{0,40}"), 0..20)
        ) {
            let mut body = String::new();
            for (key, value) in fields {
                body.extend([KEYS[key], "=", &value, "&"]);
            }
            if let Ok(form) = Form::read(body.as_bytes()) {
                let _ = (form.notice(&EntityKind::ALL), form.host(), form.installation().pair());
            }
        }
    }
}
