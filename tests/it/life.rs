//! The mirror is always right: a CRM lives through thousands of changes while notices are lost,
//! doubled, late and out of order, answers fail, access ends and the daemon is killed; once it
//! calms down, the mirror equals the CRM.
//!
//! Fixed seeds live long, and each run lives a shorter life of its own, whose seed it prints.
//! `PRYAMO_TEST_SEED` sets that one, as it was printed; `PRYAMO_TEST_CHANGES` makes the others longer.
#![expect(clippy::print_stdout, reason = "a life tells its seed and its figures")]

mod change;
mod compare;
mod crm;
mod lives;
mod post;
mod storm;

use std::hash::{BuildHasher as _, Hasher as _};

use self::crm::Kind;
use self::storm::{Case, Notices};

const SEED: u64 = 0x5eed_2026_1122;
/// Changes in the life of a fixed seed, and in that of a fresh one.
const CHANGES: usize = 10_000;
const FRESH_CHANGES: usize = 2_000;

#[expect(clippy::disallowed_methods, reason = "a knob of this test alone")]
fn changes() -> usize {
    let set = std::env::var("PRYAMO_TEST_CHANGES");
    set.map_or(CHANGES, |set| set.parse().expect("PRYAMO_TEST_CHANGES"))
}

const BITRIX24_WEBHOOK: Case = Case {
    name: "bitrix24 webhook",
    kind: Kind::Bitrix24,
    notices: Notices::None,
    walks: true,
    asks_live: true,
};
const BITRIX24_OUTGOING: Case = Case {
    name: "bitrix24 webhooks both ways",
    kind: Kind::Bitrix24,
    notices: Notices::Sent,
    walks: true,
    asks_live: false,
};
const BITRIX24_APPLICATION: Case = Case {
    name: "bitrix24 application",
    kind: Kind::Bitrix24Application,
    notices: Notices::Kept,
    walks: true,
    asks_live: true,
};
const BITRIX24_UNWALKED: Case = Case {
    name: "bitrix24 application without walks",
    walks: false,
    ..BITRIX24_APPLICATION
};
const AMOCRM_WEBHOOKS: Case = Case {
    name: "amocrm webhooks",
    kind: Kind::Amocrm,
    notices: Notices::Sent,
    walks: true,
    asks_live: true,
};
const AMOCRM_POLLING: Case = Case {
    name: "amocrm polling",
    kind: Kind::Amocrm,
    notices: Notices::None,
    walks: true,
    asks_live: true,
};
const AMOCRM_UNFILTERED: Case = Case {
    name: "amocrm without filters",
    kind: Kind::AmocrmUnfiltered,
    notices: Notices::None,
    walks: true,
    asks_live: false,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bitrix24_by_its_webhook_alone() {
    BITRIX24_WEBHOOK.live(SEED, changes()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bitrix24_by_webhooks_both_ways() {
    BITRIX24_OUTGOING.live(SEED + 3, changes()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bitrix24_as_an_application() {
    BITRIX24_APPLICATION.live(SEED + 4, changes()).await;
}

/// What the portal keeps for us is never lost: no walk is needed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bitrix24_as_an_application_without_walks() {
    BITRIX24_UNWALKED.live(SEED + 6, changes()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn amocrm_by_its_webhooks() {
    AMOCRM_WEBHOOKS.live(SEED + 5, changes()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn amocrm_by_polling_alone() {
    AMOCRM_POLLING.live(SEED + 1, changes()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn amocrm_with_its_filters_off() {
    AMOCRM_UNFILTERED.live(SEED + 2, changes()).await;
}

/// Other changes, moods and moments of death in each run.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lives_of_a_fresh_seed() {
    let set = std::env::var_os("PRYAMO_TEST_SEED").map(|seed| seed.into_string().unwrap());
    let seed = match set.as_deref().map(|seed| seed.trim_start_matches("0x")) {
        Some(seed) => u64::from_str_radix(seed, 16).expect("PRYAMO_TEST_SEED is hexadecimal"),
        None => std::hash::RandomState::new().build_hasher().finish(),
    };
    println!("PRYAMO_TEST_SEED={seed:#x}");
    let cases = [
        BITRIX24_WEBHOOK,
        BITRIX24_APPLICATION,
        AMOCRM_POLLING,
        AMOCRM_WEBHOOKS,
    ];
    for case in cases {
        case.live(seed, FRESH_CHANGES).await;
    }
}
