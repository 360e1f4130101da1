//! How phones stand, from Asterisk's hints and device states.
//!
//! A hint knows an extension with all its devices; a device is asked where there is no hint. FreePBX
//! keeps "do not disturb" as a device of its own, `Custom:DND101`, and puts it into the hint: such a
//! hint is free although the phone itself is off, so a free hint is held against the phone. Facts: `pbx.h` (the bits of an
//! extension's status), `devicestate.c`, FreePBX's donotdisturb module.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use super::message::Message;
use crate::presence::PhoneState;

/// More phones than any exchange has; further ones stay unknown.
const MOST_KEPT: usize = 100_000;
/// Kinds of channels whose devices are phones, in the order in which they are looked for.
const TECHNOLOGIES: [&str; 3] = ["PJSIP", "SIP", "IAX2"];

/// The states of all phones, as far as Asterisk tells.
#[derive(Debug, Default)]
pub(super) struct Phones {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// By context and extension.
    hints: HashMap<(String, String), PhoneState>,
    /// By the device's name, `PJSIP/101`.
    devices: HashMap<String, PhoneState>,
}

impl Phones {
    /// Takes what an event says; others are passed by.
    pub(super) fn take(&self, event: &Message) {
        match event.get("Event") {
            "ExtensionStatus" => {
                let Ok(status) = event.get("Status").parse::<i32>() else {
                    return;
                };
                let key = (
                    event.get("Context").to_owned(),
                    event.get("Exten").to_owned(),
                );
                self.set(|known| &mut known.hints, key, hint_state(status));
            }
            "DeviceStateChange" => {
                let device = event.get("Device").to_owned();
                let state = device_state(event.get("State"));
                self.set(|known| &mut known.devices, device, state);
            }
            _ => {}
        }
    }

    fn set<K: std::hash::Hash + Eq>(
        &self,
        of: impl Fn(&mut Known) -> &mut HashMap<K, PhoneState>,
        key: K,
        state: Option<PhoneState>,
    ) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let states = of(&mut known);
        match state {
            None => {
                states.remove(&key);
            }
            Some(state) if states.len() < MOST_KEPT || states.contains_key(&key) => {
                states.insert(key, state);
            }
            Some(_) => {}
        }
    }

    /// Forgets everything: what an exchange said that is gone tells nothing.
    pub(super) fn forget(&self) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known::default();
    }

    /// How the phone of this extension stands, its hint being looked for in these contexts.
    pub(super) fn state(&self, extension: &str, contexts: &[String]) -> PhoneState {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if known.hints.is_empty() && known.devices.is_empty() {
            return PhoneState::Unknown;
        }
        let do_not_disturb = known.devices.get(&format!("Custom:DND{extension}"));
        let is_set = |state: &PhoneState| !matches!(state, PhoneState::Free | PhoneState::Unknown);
        if do_not_disturb.is_some_and(is_set) {
            return PhoneState::DoNotDisturb;
        }
        let mut hints = contexts.iter().filter_map(|context| {
            let key = (context.clone(), extension.to_owned());
            known.hints.get(&key).copied()
        });
        let device = || {
            let mut names = TECHNOLOGIES
                .iter()
                .map(|technology| format!("{technology}/{extension}"));
            names.find_map(|name| known.devices.get(&name).copied())
        };
        let told = hints.find(|state| *state != PhoneState::Unknown);
        match (told, device()) {
            (Some(PhoneState::Free), Some(PhoneState::Unavailable)) => PhoneState::Unavailable,
            (told, device) => told.or(device).unwrap_or(PhoneState::Unknown),
        }
    }

    /// The extensions that have a hint in one of these contexts.
    pub(super) fn hinted(&self, contexts: &[String]) -> Vec<String> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let hints = known.hints.keys();
        let inside = hints.filter(|(context, _)| contexts.contains(context));
        inside.map(|(_, extension)| extension.clone()).collect()
    }
}

/// An extension's status, bits as in `pbx.h`; `None` for a hint that is gone.
fn hint_state(status: i32) -> Option<PhoneState> {
    const IN_USE: i32 = 1;
    const BUSY: i32 = 2;
    const UNAVAILABLE: i32 = 4;
    const RINGING: i32 = 8;
    const ON_HOLD: i32 = 16;
    let has = |bit: i32| status & bit != 0;
    match status {
        ..0 => None,
        0 => Some(PhoneState::Free),
        _ if has(BUSY) => Some(PhoneState::Busy),
        _ if has(UNAVAILABLE) => Some(PhoneState::Unavailable),
        _ if has(IN_USE | ON_HOLD) => Some(PhoneState::InUse),
        _ if has(RINGING) => Some(PhoneState::Ringing),
        _ => Some(PhoneState::Unknown),
    }
}

fn device_state(written: &str) -> Option<PhoneState> {
    Some(match written {
        "NOT_INUSE" => PhoneState::Free,
        "INUSE" | "ONHOLD" | "RINGINUSE" => PhoneState::InUse,
        "BUSY" => PhoneState::Busy,
        "RINGING" => PhoneState::Ringing,
        "UNAVAILABLE" => PhoneState::Unavailable,
        "UNKNOWN" | "INVALID" => PhoneState::Unknown,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(extension: &str, context: &str, status: &str) -> Message {
        Message::of(&format!(
            "Event: ExtensionStatus\nExten: {extension}\nContext: {context}\nStatus: {status}"
        ))
    }

    fn device(name: &str, state: &str) -> Message {
        Message::of(&format!(
            "Event: DeviceStateChange\nDevice: {name}\nState: {state}"
        ))
    }

    #[test]
    fn hints_come_before_devices_and_do_not_disturb_before_both() {
        let contexts = ["from-internal".to_owned(), "ext-local".to_owned()];
        let phones = Phones::default();
        let state = |extension: &str| phones.state(extension, &contexts);
        assert_eq!(state("101"), PhoneState::Unknown);
        for (event, expected) in [
            (device("PJSIP/101", "INUSE"), PhoneState::InUse),
            (hint("101", "elsewhere", "4"), PhoneState::InUse),
            (hint("101", "ext-local", "4"), PhoneState::Unavailable),
            (hint("101", "ext-local", "0"), PhoneState::Free),
            (device("PJSIP/101", "UNAVAILABLE"), PhoneState::Unavailable),
            (device("PJSIP/101", "INUSE"), PhoneState::Free),
            (hint("101", "ext-local", "8"), PhoneState::Ringing),
            (hint("101", "ext-local", "9"), PhoneState::InUse),
            (hint("101", "ext-local", "17"), PhoneState::InUse),
            (hint("101", "ext-local", "2"), PhoneState::Busy),
            (device("Custom:DND101", "BUSY"), PhoneState::DoNotDisturb),
            (device("Custom:DND101", "NOT_INUSE"), PhoneState::Busy),
            (hint("101", "ext-local", "-2"), PhoneState::InUse),
            (hint("101", "ext-local", "no number"), PhoneState::InUse),
            (device("PJSIP/101", "INVALID"), PhoneState::Unknown),
        ] {
            phones.take(&event);
            assert_eq!(state("101"), expected, "{event:?}");
        }
        phones.take(&hint("102", "from-internal", "0"));
        assert_eq!(phones.hinted(&contexts), ["102"]);
        phones.forget();
        assert_eq!(state("102"), PhoneState::Unknown);
    }
}
