//! Looks through all cards once a day, keeps how much was to be mended, and shows it to monitors.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;

use super::answering::Current;
use super::standing::Standing;
use crate::api;
use crate::directory::{Directory, Findings, Surveyor};
use crate::metrics;
use crate::sync::Clock;

/// How long after the start the cards are first looked through, and how often it is asked whether they
/// are to be. By then most first mirrors are whole.
const PAUSE: Duration = Duration::from_mins(10);

/// Follows the surveys of a daemon until it stops. The configuration may be read again meanwhile.
pub(super) fn run(
    standing: &Standing,
    current: &Current,
) -> impl Future<Output = ()> + Send + use<> {
    let surveys = Surveys {
        surveyor: Arc::clone(&standing.surveyor),
        directory: Arc::clone(&standing.directory),
        clock: Arc::clone(&standing.clock),
    };
    let (current, stop) = (Arc::clone(current), standing.stop.clone());
    async move {
        let is_whole = || api::is_whole(&current.load().api);
        surveys.run(is_whole, stop).await;
    }
}

struct Surveys {
    surveyor: Arc<Surveyor>,
    directory: Arc<dyn Directory>,
    clock: Clock,
}

impl Surveys {
    /// Begins a survey on every day that has none since the start, and keeps what each one found, also
    /// of those that somebody asked for. While a mirror is not whole, the figures tell how far its first
    /// walk is: they are shown and not kept, or everything would seem to get worse afterwards.
    async fn run(&self, is_whole: impl Fn() -> bool, stop: CancellationToken) {
        let mut known = None;
        let mut kept_for = None;
        let mut pauses = interval_at(Instant::now() + PAUSE, PAUSE);
        loop {
            tokio::select! {
                surveyed = self.surveyor.after(known.as_ref()) => {
                    let findings = Findings::of(&surveyed.survey, &self.directory.roster());
                    show(&findings);
                    let day = Findings::day_of(surveyed.at);
                    if is_whole() && self.keep(day, findings).await {
                        kept_for = Some(day);
                    }
                    known = Some(surveyed);
                }
                _ = pauses.tick() => {
                    let today = Findings::day_of((self.clock)());
                    if kept_for != Some(today) && is_whole() {
                        self.surveyor.refresh();
                    }
                }
                () = stop.cancelled() => return,
            }
        }
    }

    /// Says whether it is kept.
    async fn keep(&self, day: i64, findings: Findings) -> bool {
        let kept = self.directory.keep_findings(day, findings).await;
        if let Err(error) = &kept {
            let error: &dyn std::error::Error = error;
            tracing::warn!(
                error,
                "cannot keep today's figures of what is to be mended in the CRM; trying again"
            );
        }
        kept.is_ok()
    }
}

fn show(findings: &Findings) {
    for (list, count) in [
        ("shared", findings.shared),
        ("left", findings.left),
        ("unread", findings.unread),
        ("without_extension", findings.without_extension),
    ] {
        metrics::show_findings(list, count);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

    use jiff::Timestamp;
    use tokio::runtime::Handle;
    use tokio::time::sleep;

    use super::*;
    use crate::directory::{Change, KINDS, Opening, RosterRules};
    use crate::record::{Card, CrmName, Employee, EmployeeId, EntityId, EntityKind};

    const DAY: i64 = 20_779;

    /// An office where each contact belongs to somebody whom the CRM does not know.
    struct Office {
        directory: Arc<dyn Directory>,
        surveyor: Arc<Surveyor>,
        second: Arc<AtomicI64>,
        is_whole: Arc<AtomicBool>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
        _folder: tempfile::TempDir,
    }

    impl Office {
        async fn open() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let crm = CrmName::new("sales");
            let opening = Opening {
                data_dir: folder.path().to_owned(),
                rules: RosterRules {
                    crms: [(crm.clone(), crate::directory::CrmRules::default())].into(),
                    ..RosterRules::default()
                },
            };
            let directory = (KINDS[0].open)(toml::Table::new(), opening).unwrap();
            let anna = Employee::new(EmployeeId::new("1"), "Anna");
            let now = Timestamp::UNIX_EPOCH;
            directory
                .replace_employees(&crm, vec![anna].into(), now)
                .await
                .unwrap();
            let second = Arc::new(AtomicI64::new(DAY * 86_400));
            let told = Arc::clone(&second);
            let clock: Clock =
                Arc::new(move || Timestamp::from_second(told.load(Ordering::SeqCst)).unwrap());
            let surveyor = Surveyor::new(
                Arc::clone(&directory),
                Arc::clone(&clock),
                Handle::current(),
            );
            let surveyor = Arc::new(surveyor);
            let (is_whole, stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
            let surveys = Surveys {
                surveyor: Arc::clone(&surveyor),
                directory: Arc::clone(&directory),
                clock,
            };
            let (whole, until) = (Arc::clone(&is_whole), stop.clone());
            let task = tokio::spawn(async move {
                surveys.run(|| whole.load(Ordering::SeqCst), until).await;
            });
            Self {
                directory,
                surveyor,
                second,
                is_whole,
                stop,
                task,
                _folder: folder,
            }
        }

        /// Contacts up to this one belong to nobody.
        async fn lose(&self, contacts: u64) {
            let lost = (0..contacts).map(|id| {
                let mut card = Card::new(EntityKind::Contact, EntityId::from(id));
                card.responsible = Some(EmployeeId::new("99"));
                (card, Vec::new())
            });
            let change = Change {
                crm: CrmName::new("sales"),
                kind: EntityKind::Contact,
                cards: lost.collect(),
                walk: 1,
                unread: Vec::new(),
                keep_newer: None,
                state: None,
            };
            self.directory.apply(change).await.unwrap();
        }

        /// Waits until each of these days has so many lost contacts, and no other day any.
        async fn has(&self, expected: &[(i64, u64)]) {
            let began = std::time::Instant::now();
            while began.elapsed() < Duration::from_secs(30) {
                let kept = self.directory.findings(0).await.unwrap();
                let kept: Vec<_> = kept.iter().map(|(day, found)| (*day, found.left)).collect();
                if kept == expected {
                    return;
                }
                // The disk takes real time, this takes none.
                sleep(Duration::from_millis(1)).await;
            }
            panic!("{:?}", self.directory.findings(0).await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_day_has_its_figures_without_anybody_asking() {
        let office = Office::open().await;
        office.lose(1).await;
        // While the first walk goes on, what somebody asks for is not kept, and nothing else begins.
        office.surveyor.refresh();
        let asked = office.surveyor.after(None).await;
        sleep(Duration::from_hours(5)).await;
        let latest = office.surveyor.latest().unwrap();
        assert!(Arc::ptr_eq(&asked, &latest));
        office.has(&[]).await;

        office.lose(3).await;
        // Last: it may be the very moment at which it is asked whether to begin.
        office.is_whole.store(true, Ordering::SeqCst);
        let first = office.surveyor.after(Some(&asked)).await;
        office.has(&[(DAY, 3)]).await;
        // One a day is enough, but who asks gets another, and the last counts.
        sleep(Duration::from_hours(5)).await;
        assert!(Arc::ptr_eq(&first, &office.surveyor.latest().unwrap()));
        office.lose(4).await;
        office.surveyor.refresh();
        office.has(&[(DAY, 4)]).await;

        office.lose(5).await;
        office.second.fetch_add(86_400, Ordering::SeqCst);
        let before = office.surveyor.latest();
        office.surveyor.after(before.as_ref()).await;
        office.has(&[(DAY, 4), (DAY + 1, 5)]).await;
        let kept = office.directory.findings(DAY + 1).await.unwrap();
        assert_eq!(kept[0].1.without_extension, 1);

        office.stop.cancel();
        office.task.await.unwrap();
    }
}
