//! Calls of the past under today's rules: how many would have reached their own person.
//!
//! Reads an Asterisk CDR file, puts the legs of each call together, has the router judge every call
//! from outside at its own time, and counts. Live lookups and the phones' states take no part: what
//! is told is what the rules and the mirror make of it.

mod chart;
mod count;
mod html;
mod legs;
mod words;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::count::{Counter, Line, Report};
pub use self::html::page;
pub use self::legs::{Call, Calls, Origin};
pub use self::words::Language;
use crate::call::{Did, IncomingCall};
pub use crate::cdr::{LayoutError, Read, Reader, Row};
use crate::directory::Roster;
use crate::record::{CrmName, EmployeeId};
use crate::router::{Purpose, Router};

/// Calls that are judged at once.
pub const MOST_QUESTIONS: usize = 500;

/// A call of the past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The caller's number as the CDR has it.
    pub phone: String,
    /// The number dialled.
    pub did: Option<String>,
    /// When it came.
    pub at: Timestamp,
}

/// What today's rules say of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether a card has the number.
    pub known: bool,
    /// The caller's own person.
    pub own: Option<Own>,
    /// Whom the first question would ring.
    pub rings: Option<String>,
    /// Whether that is their own person.
    pub rings_own: bool,
    /// Why, in one word.
    pub reason: String,
}

/// A caller's own person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// Their CRM.
    pub crm: CrmName,
    /// Their identifier there.
    pub id: EmployeeId,
    /// Their name.
    pub name: String,
    /// Their extension today.
    pub extension: Option<String>,
}

/// Asks the router about a call of the past; nothing is stored.
pub async fn judge(router: &Router, employees: &Roster, question: Question) -> Verdict {
    let call = IncomingCall {
        phone: question.phone,
        did: question.did.as_deref().and_then(Did::new),
        ..IncomingCall::default()
    };
    let decision = router.route(&call, question.at, Purpose::Explain).await;
    let own = decision.own_person(employees);
    let rung = decision.ring.as_ref().and(decision.employee.as_ref());
    let rings_own = own
        .zip(rung)
        .is_some_and(|(own, rung)| own.crm == rung.crm && own.id == rung.id);
    Verdict {
        known: decision.entity.is_some(),
        own: own.map(|own| Own {
            crm: own.crm.clone(),
            id: own.id.clone(),
            name: own.name.clone(),
            extension: own
                .extension
                .as_ref()
                .ok()
                .map(|extension| extension.as_str().to_owned()),
        }),
        rings: decision
            .ring
            .as_ref()
            .map(|target| target.as_str().to_owned()),
        rings_own,
        reason: decision.reason.as_str().to_owned(),
    }
}
